"""The one error class for bad input, and helpers that phrase it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import NoReturn

# What a terminal would obey, or no encoding takes: control characters and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_MESSAGE, _LONGEST_VALUE = 3000, 1000
_LONGEST_NAME = 200  # of which a similar one is looked for


class NeasError(ValueError):
    """Bad input. The message is one sentence that a command prints as it is (exit code 2).

    It may quote what a file holds, so it is made printable, and cut where it is very long.

    Attributes:
      exit_code: of the command.
    """

    exit_code = 2

    def __init__(self, message: object = ""):
        text = _UNPRINTABLE.sub(lambda m: ascii(m[0])[1:-1], str(message))
        super().__init__(_cut(text, _LONGEST_MESSAGE))


class WorkerLost(NeasError):
    """Another process of the same run is gone; nothing is wrong with this one's input."""

    exit_code = 3


def shown(value: object) -> str:
    """`repr` for messages: cut where it is long, and made of values that have none."""
    try:
        return _cut(repr(value), _LONGEST_VALUE)
    except (ValueError, RecursionError):  # an integer of thousands of digits; endless nesting
        return f"a {type(value).__name__} that is too large to show"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 3 // 4]} … {text[-most // 5 :]}"


def fail(field: str, received: object, expected: str) -> NoReturn:
    """Raises a `NeasError` that names the field, what was received and what is expected."""
    raise NeasError(
        f"{_cut(field, _LONGEST_VALUE)}: received {shown(received)}, expected {expected}."
    )


def check(condition: bool, field: str, received: object, expected: str) -> None:
    """Calls `fail` unless the condition holds."""
    if not condition:
        fail(field, received, expected)


def unknown_name(field: str, received: object, known: Iterable[str]) -> NoReturn:
    """Raises for a name that is not in `known`, with the nearest known one as a hint."""
    known = sorted(str(k) for k in known)
    text = str(received)[:_LONGEST_NAME]
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    field = _cut(field, _LONGEST_VALUE)
    raise NeasError(f"{field}: unknown name {shown(received)}; known are {', '.join(known)}.{hint}")


def check_keys(field: str, received: Iterable[str], known: Iterable[str]) -> None:
    """Raises when a mapping has a key that is not known."""
    known = list(known)
    for key in received:
        if key not in known:
            unknown_name(f"{field}.{key}" if field else str(key), key, known)


def check_int(field: str, received: object, low: int | None = None, high: int | None = None) -> int:
    """Returns `received` when it is an integer in [low, high], raises otherwise."""
    if low is not None and high is not None:
        bounds = f"an integer from {low} to {high}"
    else:
        bounds = (
            f"an integer{'' if low is None else f' ≥ {low}'}{'' if high is None else f' ≤ {high}'}"
        )
    if not isinstance(received, int) or isinstance(received, bool):
        fail(field, received, bounds)
    inside = (low is None or received >= low) and (high is None or received <= high)
    check(inside, field, received, bounds)
    return int(received)


def is_number(value: object) -> bool:
    """Whether a value is a finite int or float (no bool, and no int too large for a float)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def check_rate(field: str, value: object) -> None:
    """Raises `NeasError` unless a value is a rate from 0 to below 1."""
    inside = is_number(value) and 0.0 <= value < 1.0  # type: ignore[operator]
    check(inside, field, value, "a rate in [0, 1)")


def check_share(field: str, value: float) -> None:
    """Raises `NeasError` unless a value is a share above 0 and below 1."""
    check(0.0 < value < 1.0, field, value, "a share above 0 and below 1")
