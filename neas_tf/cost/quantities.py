"""Amounts as people write them: `60M` MACs, `2ms`, `500kB`, `2h`."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import fail

_NUMBER = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?|\.[0-9]+)(e[0-9]{1,2})?\s*([a-zµ]*)\s*", re.I)
# Factor of each unit, in lower case but where case tells units apart; "" is a number without one.
COUNT = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
BYTES |= {"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
AMOUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9} | {k: float(v) for k, v in BYTES.items() if k}
MILLISECONDS = {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_EXAMPLES = {
    id(COUNT): "a count such as 60M, 1.2G or 60000000",
    id(BYTES): "a size such as 500kB, 4MB or 500000",
    id(AMOUNT): "a number such as 0.5, 60M, 500kB or 4MB",
    id(MILLISECONDS): "a duration such as 2ms, 0.5ms or 2 (milliseconds)",
    id(SECONDS): "a duration such as 2h, 20min, 90s or 300 (seconds)",
}
# The settings that hold such amounts.
SETTINGS: dict[str, Mapping[str, float]] = {
    "search.max_macs": COUNT,
    "search.min_macs": COUNT,
    "search.max_params": COUNT,
    "search.max_latency_ms": MILLISECONDS,
}


def quantity(value: Any, field: str, units: Mapping[str, float]) -> float:
    """A number, or a string with a unit, in the unit that stands for 1 in `units`.

    Counts and bytes come back as integers, rounded down: a bound is never widened.

    Raises:
      NeasError: names the field, what was received and what is expected.
    """
    whole = units is COUNT or units is BYTES
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        factor = units.get(match[3].lower()) if match else None
        if match is None or factor is None:
            fail(field, value, _EXAMPLES[id(units)])
        # A unit multiplies the digits as they stand: 1.2G are 1,200,000,000 and not one less.
        digits = match[1].replace(",", "").replace("_", "") + (match[2] or "")
        exact = decimal.Decimal(digits) * decimal.Decimal(str(factor))
        value = math.floor(exact) if whole else float(exact)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        fail(field, value, _EXAMPLES[id(units)])
    if whole and value != int(value):
        fail(field, value, _EXAMPLES[id(units)])
    return int(value) if whole else float(value)


def with_quantities(override: Mapping[str, Any]) -> dict[str, Any]:
    """The same nested settings, with numbers where bounds were written with a unit."""
    result = dict(override)
    for setting, units in SETTINGS.items():
        section, _, field = setting.partition(".")
        inner = result.get(section)
        if isinstance(inner, Mapping) and isinstance(inner.get(field), str):
            result[section] = {**inner, field: quantity(inner[field], setting, units)}
    return result
