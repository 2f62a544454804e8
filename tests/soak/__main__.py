"""The command: see the package's docstring."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import pathlib
import platform
import sys
from typing import Any

from . import PARTS
from .tables import merge_table


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Long trials.")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; with commas"
    )
    parser.add_argument("--work", default="runs/soak", help="folder; a trial goes on from there")
    parser.add_argument("--minutes", type=float, help="of each part, in the place of its own")
    parser.add_argument("--output", help="JSON file for the result")
    parser.add_argument("--markdown", help="file for the table")
    parser.add_argument("--list", action="store_true", help="lists the parts and ends")
    options = parser.parse_args(arguments)
    options.parts = [name for name in options.parts.split(",") if name]
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown or not options.parts:
        parser.error(f"--parts: received {unknown or 'nothing'}, expected {', '.join(PARTS)}")
    return options


def machine() -> str:
    """The processor and how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        name = text.split("model name")[1].splitlines()[0].split(":")[1].strip()
    except (OSError, IndexError):
        pass
    return f"{cores} cores, {name}"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    parts = {name: importlib.import_module(f".{name}", __package__) for name in options.parts}
    if options.list:
        for name, module in parts.items():
            print(f"{name}: {module.TITLE}")
        return 0
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "parts": {},
    }
    for name, module in parts.items():
        work = pathlib.Path(options.work).absolute() / name
        work.mkdir(parents=True, exist_ok=True)
        minutes = PARTS[name] if options.minutes is None else options.minutes
        result["parts"][name] = module.run_part(work, minutes)
    table = merge_table(result)
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if options.markdown:
        pathlib.Path(options.markdown).write_text(table, "utf-8")
    print(table)
    rows = [row for part in result["parts"].values() for row in part["rows"]]
    return int(any(row["survived"] < row["tried"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
