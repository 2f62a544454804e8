"""The one error class for bad input, and helpers that phrase it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


class NeasError(ValueError):
    """Bad input. The message is one sentence that a command prints as it is.

    Attributes:
      exit_code: of the command.
    """

    exit_code = 2


class WorkerLost(NeasError):
    """Another process of the same run is gone; nothing is wrong with this one's input."""

    exit_code = 3


def fail(field: str, received: object, allowed: str) -> NoReturn:
    """Raises a `NeasError` that names the field, what was received and what is allowed."""
    raise NeasError(f"{field}: received {received!r}, allowed is {allowed}.")


def check(condition: bool, field: str, received: object, allowed: str) -> None:
    """Calls `fail` unless the condition holds."""
    if not condition:
        fail(field, received, allowed)


def unknown_name(field: str, received: object, known: Iterable[str]) -> NoReturn:
    """Raises for a name that is not in `known`, with the nearest known one as a hint."""
    known = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(received), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise NeasError(f"{field}: unknown name {received!r}; known are {', '.join(known)}.{hint}")


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
    ok = isinstance(received, int) and not isinstance(received, bool)
    ok = ok and (low is None or received >= low) and (high is None or received <= high)
    check(ok, field, received, bounds)
    return int(received)  # type: ignore[call-overload]


def check_share(field: str, value: float) -> None:
    """Raises `NeasError` unless a value is a share above 0 and below 1."""
    check(0.0 < value < 1.0, field, value, "a share above 0 and below 1")
