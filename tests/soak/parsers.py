"""The long form of the fuzzing: every parser with a million inputs, each in a process of its own.

    python -m tests.soak.parsers --inputs=1000000 --seconds=1500 --output=report.json

A parser gets its share of the inputs and of the time. Its process may hold so much memory; should
it die or hang, the last input is in the report. libFuzzer draws the inputs through atheris, guided
by the coverage of our code and of the libraries' Python code.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import importlib.util
import json
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
# Run as a module, this file finds the tests' own.
sys.path[:0] = [str(TESTS), str(TESTS / "support"), str(TESTS.parent)]

TITLE = "inputs made by machine for every parser"
PARTS = ("pure", "tensorflow")
MISSING = "Skipped: atheris is not installed, which draws the inputs (pip install atheris)."
INPUTS = 1_300_000  # of the long form
CORPUS = TESTS / "corpus"
_MEMORY = 2 << 30  # bytes above what a process holds when it begins
_RUNNING = 16  # bytes before the input in the file that survives a process
_START = 240.0  # seconds that a process may take besides its inputs


def run(
    limit_s: float = 1500.0,
    seed: int = 0,
    inputs: int = 1_000_000,
    targets: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Fuzzes all parsers.

    Args:
      limit_s: seconds in all; a parser that reaches its share stops there.
      seed: draws the inputs, which depend on the time as well.
      inputs: how many in all.
      targets: names of the parsers; () for all.
      say: called with a line for each parser.

    Returns:
      A report: `part`, `seed`, and `rows` of `fault`, `stage` (the parser), `tried`,
      `survived`, `seconds` and `details`.
    """
    chosen = [(n, part, share) for n, part, share in _names() if not targets or n in targets]
    rows, begin = [], time.monotonic()
    # What a parser leaves of its time goes to those after it; the slow ones come last.
    left, weight = inputs, sum(share for _, _, share in chosen)
    for name, part, share in chosen:
        seconds = max(1.0, (limit_s - (time.monotonic() - begin)) * share / weight)
        row = _row(name, part, round(left * share / weight), seconds, seed)
        rows.append(row)
        left, weight = max(0, left - row["tried"]), weight - share
        faults = row["tried"] - row["survived"]
        say(f"{name:22} {row['tried']:8,} tried, {faults} faults, {row['seconds']:.0f} s")
    return {
        "part": "parsers",
        "seed": seed,
        "tried": sum(row["tried"] for row in rows),
        "survived": sum(row["survived"] for row in rows),
        "seconds": round(time.monotonic() - begin, 1),
        "rows": rows,
    }


def run_part(work: Path, minutes: float) -> dict[str, Any]:
    """This trial as a part of `python -m tests.soak`; one that was finished is not done again."""
    if not have_atheris():
        return {"rows": [], "notes": [MISSING]}
    path = work / "report.json"
    if path.exists():
        report = json.loads(path.read_text("utf-8"))
    else:
        report = run(60.0 * minutes, 1, INPUTS, say=lambda line: print(line, flush=True))
        path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    rows = [
        {**row, "details": [f"{text} {data}" for text, data in row["details"]["faults"].items()]}
        for row in report["rows"]
    ]
    return {"rows": rows, "notes": [f"{report['tried']:,} inputs drawn by libFuzzer."]}


def have_atheris() -> bool:
    """Whether libFuzzer can be called."""
    return importlib.util.find_spec("atheris") is not None


@dataclasses.dataclass
class Tally:
    """What came of the inputs of one parser.

    Attributes:
      tried, accepted, refused, failed: counts; refused are those that ended with a `NeasError`,
        failed those with a fault.
      slowest: seconds of the slowest input.
      faults: kind of each fault, and the (shortest) input that showed it.
    """

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    slowest: float = 0.0
    faults: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def add(self, data: bytes, kind: str, seconds: float) -> None:
        """Counts one input; `kind` is 'accepted', 'refused' or a fault."""
        self.tried += 1
        self.slowest = max(self.slowest, seconds)
        if kind in ("accepted", "refused"):
            setattr(self, kind, getattr(self, kind) + 1)
            return
        self.failed += 1
        if kind not in self.faults or len(data) < len(self.faults[kind]):
            self.faults[kind] = data


def _names() -> list[tuple[str, str, float]]:
    """(name, part, share) of every parser; those with TensorFlow are listed without importing it."""
    from fuzz_targets import TENSORFLOW_TARGETS, pure_targets

    pure = [(target.name, "pure", target.share) for target in pure_targets()]
    return pure + [(name, "tensorflow", share) for name, share in TENSORFLOW_TARGETS.items()]


def _row(name: str, part: str, count: int, seconds: float, seed: int) -> dict:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="neas_soak_") as folder:
        report, last = Path(folder) / "report.json", Path(folder) / "last"
        empty = Path(folder) / "empty"
        empty.mkdir()
        command = [sys.executable, "-m", "tests.soak.parsers", "--child", name, "--part", part,
                   "--inputs", str(count), "--seconds", f"{seconds:.1f}",
                   "--seed", str(seed), "--output", str(report), "--last", str(last)]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(TESTS.parent), *sys.path]))
        environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        ending = ""
        try:
            done = subprocess.run(command, cwd=empty, env=environment, capture_output=True,
                                  timeout=seconds + _START, check=False)  # fmt: skip
            if done.returncode:
                ending = f"the process ended with {done.returncode}: {done.stderr[-300:]!r}"
        except subprocess.TimeoutExpired:
            ending = "the process hung"
        found = json.loads(report.read_text()) if report.exists() else {}
        if not found:
            ending = ending or "the process left no report"
        left = sorted(p.name for p in empty.iterdir())
        faults = dict(found.get("faults", {}))
        if ending:
            faults[ending] = _last(last)
        if left:
            faults[f"files were written: {left[:5]}"] = ""
    tried = found.get("tried", 0) + bool(ending)
    failed = found.get("failed", 0) + bool(ending) + bool(left)
    details = {key: found.get(key) for key in ("accepted", "refused", "slowest_s", "memory_mib")}
    return {
        "fault": "input of libFuzzer",
        "stage": name,
        "tried": tried,
        "survived": tried - failed,
        "seconds": round(time.monotonic() - begin, 1),
        "details": {**details, "faults": faults},
    }


def _last(path: Path) -> str:
    """The input that was being read when a process ended, in base64."""
    content = path.read_bytes() if path.exists() else b""
    size = int.from_bytes(content[:8], "little")
    return base64.b64encode(content[_RUNNING : _RUNNING + size]).decode()


@contextlib.contextmanager
def _kept(path: str) -> Iterator[Callable[[bytes], None]]:
    """A function that puts an input into a file of memory pages, which survives the process."""
    from fuzz_engine import LONGEST

    with open(path, "w+b") as stream:
        stream.truncate(_RUNNING + LONGEST)
        with mmap.mmap(stream.fileno(), 0) as pages:

            def keep(data: bytes) -> None:
                data = data[:LONGEST]
                pages[:8] = len(data).to_bytes(8, "little")
                pages[_RUNNING : _RUNNING + len(data)] = data

            yield keep


def _child(arguments: argparse.Namespace) -> None:
    """Fuzzes one parser and writes what came of it."""
    import atheris

    with atheris.instrument_imports(include=["neas_tf", "yaml", "json"]):
        target = _target(arguments.child, arguments.part)
    from fuzz_engine import HANG_SECONDS, observe

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY, held + _MEMORY))
    before = _peak_memory()

    def write(tally: Tally) -> None:
        value = {
            "tried": tally.tried,
            "accepted": tally.accepted,
            "refused": tally.refused,
            "failed": tally.failed,
            "slowest_s": round(tally.slowest, 3),
            "memory_mib": (_peak_memory() - before) >> 20,
            "faults": {k: base64.b64encode(v).decode() for k, v in tally.faults.items()},
        }
        temporary = Path(f"{arguments.output}.part")
        temporary.write_text(json.dumps(value))
        temporary.replace(arguments.output)

    with _kept(arguments.last) as keep:
        tally, saved = Tally(), [time.monotonic()]

        def one(data: bytes) -> None:
            if tally.tried >= arguments.inputs:  # libFuzzer reads its seeds beyond the count
                return
            keep(data)
            tally.add(data, *observe(target, data, 5 * HANG_SECONDS))  # counting coverage is slow
            if tally.tried == arguments.inputs or time.monotonic() - saved[0] > 0.5:
                saved[0] = time.monotonic()
                write(tally)

        with tempfile.TemporaryDirectory(prefix="neas_seeds_") as folder:
            atheris.Setup(_libfuzzer(target, arguments, Path(folder)), one)
            atheris.Fuzz()  # ends the process


def _peak_memory() -> int:
    """Bytes, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _libfuzzer(target: Any, arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The command line of libFuzzer, with the seeds and the dictionary in a folder."""
    from fuzz_engine import LONGEST, TOKENS

    seeds = folder / "seeds"
    seeds.mkdir()
    own = CORPUS / target.name.replace(" ", "_").replace(":", "")
    files = [path.read_bytes() for path in sorted(own.iterdir())] if own.is_dir() else []
    for number, data in enumerate([*target.seeds, *files]):
        (seeds / str(number)).write_bytes(data[:LONGEST])
    words = [token for token in (*target.tokens, *TOKENS) if 0 < len(token) <= 60]
    text = "".join('"' + "".join(f"\\x{c:02x}" for c in word) + '"\n' for word in words)
    (folder / "words").write_text(text)
    return [sys.argv[0], f"-runs={arguments.inputs}", f"-max_total_time={int(arguments.seconds)}",
            f"-seed={arguments.seed + 1}", f"-max_len={LONGEST}", f"-dict={folder / 'words'}",
            "-timeout=0", "-rss_limit_mb=0", "-verbosity=0", f"-artifact_prefix={folder}/",
            str(seeds)]  # fmt: skip


def _target(name: str, part: str) -> Any:
    from fuzz_targets import pure_targets, tensorflow_targets

    targets = pure_targets() if part == "pure" else tensorflow_targets()
    return next(target for target in targets if target.name == name)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 where an input was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many in all")
    parser.add_argument("--seconds", type=float, default=1500.0, help="how long in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", default=[], help="one parser; several times")
    parser.add_argument("--output", default="", help="JSON file of the report")
    for hidden in ("--child", "--part", "--last"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        _child(arguments)
        return 0
    if not have_atheris():
        parser.error(MISSING)
    report = run(arguments.seconds, arguments.seed, arguments.inputs, arguments.target,
                 lambda line: print(line, flush=True))  # fmt: skip
    print(f"{report['tried']:,} inputs, {report['survived']:,} survived, {report['seconds']:.0f} s")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["survived"] == report["tried"] else 1


if __name__ == "__main__":
    sys.exit(main())
