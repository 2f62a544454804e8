"""Rows of a trial as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def count_rows(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Adds up single faults ({fault, stage, survived: bool, seconds, why}) to rows."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        key = event["fault"], event["stage"]
        empty = {"fault": key[0], "stage": key[1], "tried": 0, "survived": 0, "seconds": 0.0}
        row = rows.setdefault(key, {**empty, "details": []})
        row["tried"] += 1
        row["survived"] += bool(event["survived"])
        row["seconds"] = round(row["seconds"] + event["seconds"], 1)
        if not event["survived"]:
            row["details"].append(str(event.get("why", "")))
    return list(rows.values())


def merge_table(result: Mapping[str, Any]) -> str:
    """The Markdown table of all parts, with their notes."""
    lines = [f"Measured {result['date']} on {result['machine']}.", ""]
    lines += ["| part | fault | stage | tried | survived |", "|---|---|---|---|---|"]
    notes = []
    for name, part in result["parts"].items():
        for row in part["rows"]:
            cells = (name, row["fault"], row["stage"], row["tried"], row["survived"])
            lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
            failed = f"{name}: {row['fault']}, {row['stage']}: "
            notes += [f"- **not survived** {failed}{why}" for why in row["details"]]
        notes += [f"- {name}: {note}" for note in part.get("notes", ())]
    return "\n".join([*lines, "", *notes]).rstrip() + "\n"
