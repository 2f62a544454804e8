"""What the project wants of a figure, in the reports of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def target(
    key: str,
    what: str,
    value: float | None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
    reason: str = "",
) -> dict[str, Any]:
    """One row of the table of targets.

    Args:
      key: for programs.
      what: for people.
      value: measured; None where it was not.
      at_least, at_most: the bound, one of them.
      unit: of value and bound.
      reason: why there is no value.
    """
    assert (at_least is None) != (at_most is None)
    row: dict[str, Any] = {"key": key, "what": what, "unit": unit}
    row |= {"at_most": at_most} if at_least is None else {"at_least": at_least}
    if value is None:
        return row | {"value": None, "met": None, "reason": reason or "was not asked for"}
    met = value <= at_most if at_least is None else value >= at_least
    return row | {"value": round(float(value), 4), "met": bool(met)}


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """The table of targets."""
    lines = ["| what | wanted | measured | |", "|---|---|---|---|"]
    for row in rows:
        sign, bound = ("≤", row["at_most"]) if "at_most" in row else ("≥", row["at_least"])
        unit = f" {row['unit']}" if row["unit"] else ""
        if row["value"] is None:
            measured, verdict = "–", f"not measured: {row['reason']}"
        else:
            measured = f"{row['value']:,.4g}{unit}"
            verdict = "met" if row["met"] else "**not met**"
        lines.append(f"| {row['what']} | {sign} {bound:,g}{unit} | {measured} | {verdict} |")
    return "\n".join(lines)
