"""Whole runs under time limits: whether they end in time, and what accuracy the time buys.

    python -m benchmarks.time_limits --work=FOLDER --data_dir=<TFDS folder> [--limits=5min,10min,20min,60min]
        [--output=runs.json] [--plot=accuracy.png]
    python -m benchmarks.time_limits --work=FOLDER --quick

One run of `neas train` a limit, in a folder of its own below `--work`, one after the other, on the images and the space
of configs/studies/cifar10_cpu.yaml; what is done is not done again. The report has a row a limit: what the run took,
epochs of both trainings, generations of the search, accuracy of the ensemble and of its best path, and the machine's
load before and after. `--quick`: the digits, half a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.command import exit_code, parser, small_cifar10, write_plot, write_report
from benchmarks.parts.timing import machine
from neas_tf.common import console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import resolve_user_path
from neas_tf.run.parts.time_limit import FILE, parse_limit, told

FORMAT = "neas-time-limits/1"
WITHIN = 0.1  # of its limit, by which a run may miss it
_LOAD = "load.json"


def settings_of(data_dir: str, quick: bool) -> dict[str, Any]:
    """The experiment, and what a run sets over it."""
    if quick:
        return {"experiment": "neas_quickstart", "override": {}}
    return {"experiment": "neas_cifar10", "override": small_cifar10(data_dir)}


def train(folder: Path, limit: str, settings: Mapping[str, Any]) -> None:
    """One run in a process of its own; nothing where it has ended."""
    if (folder / "report" / "summary.json").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    override = folder.parent / "override.yaml"
    write_json_atomic(override, settings["override"])  # JSON is YAML
    load = folder.parent / f"{folder.name}_{_LOAD}"
    before = read_json(load, "load")["before"] if load.exists() else os.getloadavg()[0]
    write_json_atomic(load, {"before": before})
    words = [f"--experiment={settings['experiment']}", f"--params_override={override}"]
    words += [f"--time_limit={limit}", f"--model_dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "neas_tf.train", *words], stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise NeasError(f"limits: the run of {limit} ended with exit code {done.returncode}.")
    write_json_atomic(load, {"before": before, "after": os.getloadavg()[0]})


def row_of(folder: Path, limit: str) -> dict[str, Any]:
    """What a run that has ended says of itself."""
    from neas_tf.config.parse import load_file

    plan = read_json(folder / FILE, "time plan")
    summary = read_json(folder / "report" / "summary.json", "summary")
    images = read_json(folder / "run.json", "record")["run"]["images"]
    stages = load_file(str(folder / "params.yaml"))
    epochs = {
        name: plan["stages"][name]["segments"][-1][1] * stages[name]["batch_size"] / images[part]
        for name, part in (("supernet", "supernet"), ("retrain", "train"))
    }
    seconds, wanted = plan["used"], parse_limit(limit)
    return {
        "limit": limit,
        "limit_seconds": wanted,
        "seconds": seconds,
        "kept": abs(seconds / wanted - 1) <= WITHIN,
        "accuracy": round(summary["accuracy"]["ensemble"], 5),
        "best_path": round(summary["accuracy"]["best_path"], 5),
        "architecture": summary["architecture"]["key"],
        "macs": summary["cost"]["macs"],
        "candidates": summary["search"]["candidates"],
        "generations": summary["search"]["generations"],
        "shrinks": summary.get("shrinking", {}).get("shrinks", 0),
        "epochs": {name: round(value, 2) for name, value in epochs.items()},
        "retrain_init": plan["stages"]["retrain"]["init"],
        "stages": summary["wall_time"]["stages"],
        "load": read_json(folder.parent / f"{folder.name}_{_LOAD}", "load"),
        "plan": plan,
    }


def draw(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """A PNG: accuracy against the time a run took, ensemble and its best path."""
    from neas_tf.report import style

    names = {"accuracy": "ensemble", "best_path": "its best path"}
    points = [
        {"x": row["seconds"] / 60, "y": row[field], "s": name}
        for row in rows
        for field, name in names.items()
    ]
    axes = ("minutes of the whole run", "test accuracy")
    chart = style.series(points, list(names.values()), axes, (460, 260), lines=True)
    kept = sum(row["kept"] for row in rows)
    limits = ", ".join(told(row["limit_seconds"]) for row in rows)
    note = f"limits of {limits}; {kept} of {len(rows)} kept within {WITHIN:.0%}"
    return style.to_png(chart, title, note)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the report."""
    flags = parser(__doc__)
    flags.add_argument("--work", required=True, help="folder that keeps the runs")
    flags.add_argument("--data_dir", default="", help="TFDS folder with cifar10")
    flags.add_argument("--limits", default="", help="with commas; 5min,10min,20min,60min")
    flags.add_argument("--plot", default="", help="PNG of accuracy against time")
    flags.add_argument("--quick", action="store_true", help="digits, half a minute")
    args = flags.parse_args(argv)

    def work() -> None:
        console.quiet_libraries()
        limits = (args.limits or ("30s" if args.quick else "5min,10min,20min,60min")).split(",")
        for limit in limits:
            check(parse_limit(limit) > 0, "--limits", args.limits, "durations, with commas")
        folder = Path(resolve_user_path(args.work)).absolute()
        data_dir = resolve_user_path(args.data_dir) if args.data_dir else ""
        settings = settings_of(data_dir, args.quick)
        for limit in limits:
            train(folder / limit, limit, settings)
        rows = [row_of(folder / limit, limit) for limit in limits]
        if args.plot:
            data = "the digits" if args.quick else "10,000 images of CIFAR-10, 16×16"
            write_plot(draw(rows, f"Accuracy against time, {data}"), args.plot)
        report = {"format": FORMAT, "quick": args.quick, "machine": machine(), "runs": rows}
        write_report(report, args.output, "time_limits", argv)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
