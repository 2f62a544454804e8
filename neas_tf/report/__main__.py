"""Command line: `python -m neas_tf.report --model_dir=…` writes pictures and summary of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from neas_tf.errors import NeasError


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report, prints the summary; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m neas_tf.report",
        description="Draws the pictures and writes the summary of a run, whole or partial.",
    )
    parser.add_argument("--model_dir", required=True, help="folder of the run")
    parser.add_argument("--output_dir", help="where to write (default: MODEL_DIR/report)")
    options = parser.parse_args(arguments)
    from neas_tf.report.summary import format_summary
    from neas_tf.report.writing import write_report

    try:
        report = write_report(options.model_dir, output_dir=options.output_dir)
    except NeasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = options.output_dir or f"{options.model_dir}/report"
        reason = error.strerror or type(error).__name__
        print(f"Error: the report cannot be written to {place!r} ({reason}).", file=sys.stderr)
        return 2
    print(format_summary(report.summary))
    for path in report.written:
        print(f"written: {path}")
    for name, reason in report.missing.items():
        print(f"not drawn: {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
