"""All benchmarks of speed, and the table of what the project wants of them.

    python -m benchmarks.run_all --quick [--data_dir=<TFDS folder>] [--output=FILE] [--markdown=FILE]
    python -m benchmarks.run_all --only=supernet_k2,racing

Each program runs by itself, one after the other; what fails or is missing becomes a row that says
why. The table is printed as Markdown. With --quick it takes up to 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import input_pipeline, racing, retraining_step, supernet_step, timing
from benchmarks.supernet_cases import CASES
from benchmarks.targets import markdown
from neas_tf.common.console import say
from neas_tf.common.errors import NeasError, check, check_int, unknown_name
from neas_tf.common.files import read_json, write_json_atomic, write_text_atomic
from neas_tf.common.paths import project_file, resolve_user_path

FORMAT = "neas-benchmarks/1"
_LINE_EVERY = 30.0  # seconds between signs of life
_TAIL = 200  # characters of a failed program's words


@dataclasses.dataclass(frozen=True)
class Program:
    """One benchmark.

    Attributes:
      name: for `--only`.
      module: prints a report as JSON.
      expected: the rows without values, for when there is no report.
      quick, full: its arguments; `{data_dir}` and `{supernet}` are the user's.
    """

    name: str
    module: str
    expected: tuple[dict[str, Any], ...]
    quick: tuple[str, ...] = ()
    full: tuple[str, ...] = ()


_DATA = ("--data_dir={data_dir}",)
PROGRAMS = (
    Program(
        "supernet_k2",
        "benchmarks.supernet_step",
        tuple(supernet_step.targets(CASES["k2"], {})),
        ("--cases=k2", "--quick", *_DATA),
        ("--cases=k2", "--first_steps=3", *_DATA),
    ),
    Program(
        "supernet_k1",
        "benchmarks.supernet_step",
        tuple(supernet_step.targets(CASES["k1"], {})),
        ("--cases=k1", "--quick", "--no_bfloat16"),
        ("--cases=k1",),
    ),
    Program(
        "racing", "benchmarks.racing", tuple(racing.targets()), ("--quick",), ("--run={supernet}",)
    ),
    Program(
        "retraining", "benchmarks.retraining_step", tuple(retraining_step.targets()), ("--quick",)
    ),
    Program(
        "input_pipeline",
        "benchmarks.input_pipeline",
        tuple(input_pipeline.targets({})),
        ("--feed", "--quick", "--seconds=1", *_DATA),
        ("--feed", *_DATA),
    ),
)


def main(arguments: Sequence[str] | None = None, programs: Sequence[Program] = PROGRAMS) -> int:
    """Runs the benchmarks; returns the exit code, 2 after bad input."""
    names = [program.name for program in programs]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to 15 minutes on two cores")
    parser.add_argument("--only", default="", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--data_dir", default="", help="TFDS folder with cifar10; random without")
    parser.add_argument(
        "--supernet", default="", help="model_dir with a trained supernet, to race candidates on"
    )
    parser.add_argument("--reuse", default="", help="an --output, for what --only leaves out")
    parser.add_argument("--timeout", type=int, default=0, help="seconds a program may take")
    parser.add_argument("--output", default="", help="JSON file with all reports")
    parser.add_argument("--markdown", default="", help="file for the table")
    args = parser.parse_args(arguments)
    try:
        only = [name for name in args.only.split(",") if name] or names
        for name in only:
            if name not in names:
                unknown_name("--only", name, names)
        check_int("--timeout", args.timeout, 0)
        timeout = args.timeout or (900 if args.quick else 7200)
        given = {name: resolve_user_path(getattr(args, name)) for name in ("data_dir", "supernet")}
        earlier = _earlier(args.reuse) if args.reuse else {}
        chosen = [p for p in programs if p.name in only or p.name in earlier]
        earlier = {name: report for name, report in earlier.items() if name not in only}
        result = run(chosen, args.quick, given, timeout, earlier)
        result["command"] = " ".join(
            ["python -m benchmarks.run_all", *(sys.argv[1:] if arguments is None else arguments)]
        )
        table = markdown(result["targets"])
        if args.output:
            write_json_atomic(Path(resolve_user_path(args.output)), result)
        if args.markdown:
            write_text_atomic(Path(resolve_user_path(args.markdown)), table + "\n")
        print(table)
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename!r} cannot be written ({error.strerror}).", file=sys.stderr)
        return 2
    return 0


def _earlier(path: str) -> dict[str, Any]:
    found = read_json(Path(resolve_user_path(path)), "--reuse")
    ours = isinstance(found, dict) and found.get("format") == FORMAT
    check(ours, "--reuse", path, "a file that --output of this command wrote")
    return found["reports"]


def run(
    programs: Sequence[Program],
    quick: bool,
    given: Mapping[str, str],
    timeout: float,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs programs one after the other.

    Args:
      programs: what to run.
      quick: which of their arguments.
      given: what stands for the names in braces in them.
      timeout: seconds for each.
      earlier: reports by program, in place of a run.

    Returns:
      `targets`, all rows; `reports` by program, or `failures`; `seconds` each took.
    """
    started = time.monotonic()
    result: dict[str, Any] = {"format": FORMAT, "quick": quick, "machine": timing.machine()}
    result |= {"targets": [], "reports": {}, "failures": {}, "seconds": {}}
    for number, program in enumerate(programs, 1):
        title = f"[{number}/{len(programs)}] {program.name}"
        say(f"{title} ({_minutes(time.monotonic() - started)} gone)")
        words = [word.format(**given) for word in (program.quick if quick else program.full)]
        begin = time.monotonic()
        try:
            report = (earlier or {}).get(program.name) or _report(
                program, words, timeout, lambda s, t=title: say(f"{t}: {_minutes(s)}")
            )
            result["reports"][program.name] = report
            rows, reason = report.get("targets", []), "its report has no such row"
        except (NeasError, KeyError, TypeError, AttributeError) as error:
            rows, reason = [], str(error) or type(error).__name__
            result["failures"][program.name] = reason
            say(f"{title}: {reason}")
        result["seconds"][program.name] = round(time.monotonic() - begin, 1)
        result["targets"] += merged(program.expected, rows, reason)
    say(f"All benchmarks: {_minutes(time.monotonic() - started)}")
    return result


def merged(
    expected: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]], reason: str
) -> list[dict[str, Any]]:
    """The rows of a report, and those that it lacks, with the reason."""
    found = {row["key"]: row for row in rows}
    result = [found.pop(row["key"], row | {"reason": reason}) for row in expected]
    return result + list(found.values())


def _report(
    program: Program, words: Sequence[str], timeout: float, alive: Callable[[float], Any]
) -> dict[str, Any]:
    """What the program prints.

    Raises:
      NeasError: why there is none.
    """
    if importlib.util.find_spec(program.module) is None:
        raise NeasError(f"{program.module} is not there")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", program.module, *words],
            stdout=out,
            stderr=err,
            cwd=project_file(),
            # So that the end of what it says is its own.
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        begin = time.monotonic()
        try:
            while True:
                gone = time.monotonic() - begin
                try:
                    process.wait(timeout=min(_LINE_EVERY, max(0.01, timeout - gone)))
                    break
                except subprocess.TimeoutExpired:
                    gone = time.monotonic() - begin
                    if gone >= timeout:
                        raise NeasError(f"took more than {timeout:g} s") from None
                    alive(gone)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        err.seek(0)
        if process.returncode:
            said = " ".join(err.read().decode(errors="replace").split())[-_TAIL:]
            raise NeasError(f"ended with {process.returncode}: {said or 'it said nothing'}")
        out.seek(0)
        text = out.read().decode(errors="replace")
    try:
        report = json.loads(text)
    except ValueError:
        raise NeasError("printed no JSON") from None
    if not isinstance(report, dict):
        raise NeasError("printed no JSON object")
    return report


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main())
