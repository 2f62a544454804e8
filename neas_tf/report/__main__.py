"""Command line: `python -m neas_tf.report --model_dir=…` writes the report of a run.

Given several folders, it writes one page that compares their runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from neas_tf.common import command_line, console
from neas_tf.common.errors import check
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.report.page import PAGE_FILE, write_page
from neas_tf.report.reading import read_run
from neas_tf.report.summary import format_summary
from neas_tf.report.writing import watch, write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report, prints the summary; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=command_line.program(),
        description="Draws pictures, summary and report.html of a run, whole or partial; with "
        "several --model_dir, one report.html that compares the runs.",
    )
    parser.add_argument(
        "--model_dir",
        required=True,
        action="append",
        help="folder of a run, or a published one such as docs/results/cifar10_cpu; may be repeated",
    )
    parser.add_argument(
        "--output_dir",
        help="where to write (default: MODEL_DIR/report; needed with several runs)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="rewrite report.html while the run is going on; ends with it, or with Ctrl-C",
    )
    parser.add_argument(
        "--interval", type=float, default=10.0, help="with --watch: seconds between two looks"
    )
    command_line.complete(parser)
    options = parser.parse_args(arguments)
    folders = [resolve_user_path(folder) for folder in options.model_dir]

    def work() -> None:
        place = _place(folders, options.output_dir)
        if not options.watch or _watch(folders, place, options.interval):
            _write(folders, place)

    return command_line.exit_code("neas_tf.report", options.output_dir or folders[0], work)


def _place(folders: Sequence[str], output_dir: str | None) -> str:
    if output_dir is not None:
        check_local_path("output_dir", output_dir)
        return resolve_user_path(output_dir)
    expected = "a folder when there are several --model_dir"
    check(len(folders) == 1, "output_dir", output_dir, expected)
    return f"{folders[0]}/report"


def _write(folders: Sequence[str], place: str) -> None:
    if len(folders) > 1:
        path = f"{place}/{PAGE_FILE}"
        write_page(path, [read_run(folder) for folder in folders])
        console.show(f"written: {path}")
        return
    report = write_report(folders[0], output_dir=place)
    console.show(format_summary(report.summary))
    for file in report.written:
        console.show(f"written: {file}")
    for name, reason in report.missing.items():
        console.show(f"not drawn: {name}: {reason}")


def _watch(folders: Sequence[str], place: str, interval: float) -> bool:
    """Whether the runs are finished, so that pictures and summary can be written too."""
    check(1 <= interval <= 3600, "interval", interval, "a number of seconds from 1 to 3600")
    return watch(folders, f"{place}/{PAGE_FILE}", interval)


if __name__ == "__main__":
    command_line.start(main)
