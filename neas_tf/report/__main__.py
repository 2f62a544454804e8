"""Command line: `python -m neas_tf.report --model_dir=…` writes the report of a run.

Given several folders, it writes one page that compares their runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import check_local_path, resolve_user_path


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
        help="rewrite report.html while the run goes on; ends with the run, or with Ctrl-C",
    )
    parser.add_argument(
        "--interval", type=float, default=10.0, help="with --watch: seconds between two looks"
    )
    command_line.complete(parser)
    options = parser.parse_args(arguments)
    folders = [resolve_user_path(folder) for folder in options.model_dir]
    try:
        place = _place(folders, options.output_dir)
        return _watch(folders, place, options.interval) if options.watch else _write(folders, place)
    except NeasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or type(error).__name__
        print(f"Error: the report cannot be written to {place!r} ({reason}).", file=sys.stderr)
        return 2


def _place(folders: Sequence[str], output_dir: str | None) -> str:
    if output_dir is not None:
        check_local_path("output_dir", output_dir)
        return resolve_user_path(output_dir)
    allowed = "a folder when there are several --model_dir"
    check(len(folders) == 1, "output_dir", output_dir, allowed)
    return f"{folders[0]}/report"


def _write(folders: Sequence[str], place: str) -> int:
    if len(folders) > 1:
        from neas_tf.report.page import PAGE_FILE, write_page
        from neas_tf.report.reading import read_run

        path = f"{place}/{PAGE_FILE}"
        write_page(path, [read_run(folder) for folder in folders])
        console.show(f"written: {path}")
        return 0
    from neas_tf.report.summary import format_summary
    from neas_tf.report.writing import write_report

    report = write_report(folders[0], output_dir=place)
    console.show(format_summary(report.summary))
    for path in report.written:
        console.show(f"written: {path}")
    for name, reason in report.missing.items():
        console.show(f"not drawn: {name}: {reason}")
    return 0


def _watch(folders: Sequence[str], place: str, interval: float) -> int:
    from neas_tf.report.page import PAGE_FILE
    from neas_tf.report.watching import watch

    check(1 <= interval <= 3600, "interval", interval, "a number of seconds from 1 to 3600")
    if not watch(folders, f"{place}/{PAGE_FILE}", interval):
        return 0
    # The run is finished: the pictures and the summary too.
    return _write(folders, place)


if __name__ == "__main__":
    command_line.start(main)
