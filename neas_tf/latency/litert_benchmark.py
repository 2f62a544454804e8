"""Times TFLite files with LiteRT's own `litert-benchmark`, which knows GPUs and NPUs.

It comes with ai-edge-litert and runs a file with LiteRT's compiled models, in a process of its own
(about a second a visit). Its report has times in steps of 10 µs; the mean is read more exactly from
the throughput, which is bytes of the inputs over the mean.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, fail, is_number
from neas_tf.latency.timing import WARM_UP, TimingSettings

PROGRAM = "litert-benchmark"
_OWN = ("--model", "--num_runs", "--warmup_runs", "--num_threads", "--result_json", "--signature")
_SECONDS = 600  # of one visit, after which something hangs
_STEP = 0.01  # ms, of the report


@dataclasses.dataclass(frozen=True)
class Result:
    """What the program reports of one file.

    Attributes:
      nanoseconds: mean of a run.
      accelerators: that were asked for, such as CPU and GPU.
      whole: whether they run all operations.
    """

    nanoseconds: int
    accelerators: tuple[str, ...]
    whole: bool


def find_program() -> str:
    """Path of the program: on PATH, or beside Python.

    Raises:
      NeasError: when it is missing.
    """
    beside = os.path.dirname(sys.executable)
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=beside)
    if found is None:
        raise NeasError(
            f"backend: {PROGRAM} is neither on PATH nor beside Python; it comes with newer versions "
            "of ai-edge-litert (2.3.0 has it): pip install -U ai-edge-litert, or --backend=python."
        )
    return found


def split_flags(text: str) -> tuple[str, ...]:
    """`--backend_flags` as arguments of the program.

    Raises:
      NeasError: for quotes that do not close, and flags that the measurement sets itself.
    """
    try:
        flags = tuple(shlex.split(text))
    except ValueError as error:
        raise NeasError(f"backend_flags: received {text!r} ({error}).") from None
    for flag in flags:
        name = flag.partition("=")[0]
        # The program takes the beginning of a flag for the flag.
        if len(name) > 2 and any(own.startswith(name) for own in _OWN):
            expected = "flags of accelerators, such as --use_gpu; the others follow from ours"
            fail("backend_flags", flag, expected)
    return flags


class LiteRtBenchmark:
    """A way to visit files, for `timing.time_files`.

    Attributes:
      program: path of the program.
      flags: passed on to it.
      partial: names of the files that the accelerators did not run as a whole.
      accelerators: as the last report names them.
    """

    def __init__(self, flags: Sequence[str] = (), program: str = ""):
        self.program, self.flags = program or find_program(), tuple(flags)
        self.partial: set[str] = set()
        self.accelerators: tuple[str, ...] = ()

    def visit(self, path: str | os.PathLike[str], settings: TimingSettings, rng: Any) -> int:
        """One visit of a file: the mean of its repetitions, in ns; `rng` is not needed.

        Raises:
          NeasError: when the program fails, or reports something else.
        """
        del rng  # The program draws its own inputs.
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "result.json"
            command = [
                self.program,
                f"--model={os.fspath(path)}",
                f"--num_runs={settings.repetitions}",
                f"--warmup_runs={WARM_UP}",
                f"--num_threads={settings.threads}",
                f"--result_json={report}",
                *self.flags,
            ]
            where = f"{PROGRAM}: {os.fspath(path)!r}"
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    timeout=_SECONDS,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired:
                raise NeasError(f"{where} took more than {_SECONDS} seconds.") from None
            except OSError as error:
                raise NeasError(f"{PROGRAM}: {self.program!r} does not run ({error}).") from None
            if done.returncode or not report.is_file():
                said = _last_words(done.stderr.decode("utf-8", "replace"))
                raise NeasError(f"{where} ended with {done.returncode} and no report ({said}).")
            result = parse_report(report.read_text("utf-8", "replace"), input_bytes(path), where)
        self.accelerators = result.accelerators
        if not result.whole:
            self.partial.add(Path(path).name)
        return result.nanoseconds


def _last_words(text: str) -> str:
    """The last line that names a fault, or the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [line for line in lines if "ERROR" in line or "Error" in line or "error:" in line]
    return (faults or lines or ["it said nothing"])[-1][:300]


def parse_report(text: str, size: int, where: str = PROGRAM) -> Result:
    """What a report of `--result_json` says.

    Args:
      text: of the file.
      size: bytes of the model's inputs.
      where: begins a message.

    Raises:
      NeasError: names what is missing.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    check(isinstance(value, Mapping), f"{where}: report", text[:200], "a JSON object")
    latency = value.get("latency")
    found = latency.get("avg_ms") if isinstance(latency, Mapping) else None
    if not is_number(found):
        fail(f"{where}: latency.avg_ms of the report", found, "milliseconds")
    mean, throughput = float(found), value.get("throughput_mb_s")  # type: ignore[arg-type]
    if isinstance(throughput, int | float) and is_number(throughput) and throughput > 0:
        exact = 1e3 * size / (1 << 20) / throughput
        if abs(exact - mean) <= _STEP:  # else it is of something else
            mean = exact
    check(mean > 0, f"{where}: latency.avg_ms of the report", mean, "more than 0 (steps of 10 µs)")
    names = value.get("accelerators")
    accelerators = tuple(map(str, names)) if isinstance(names, list) else ()
    return Result(round(1e6 * mean), accelerators, bool(value.get("fully_accelerated", True)))


def input_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes of the inputs of a TFLite file.

    Raises:
      NeasError: when LiteRT cannot read it.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        details = Interpreter(os.fspath(path)).get_input_details()
    except (ValueError, RuntimeError) as error:
        raise NeasError(f"{os.fspath(path)!r}: LiteRT cannot read it ({error}).") from None
    return sum(int(np.prod(d["shape"])) * np.dtype(d["dtype"]).itemsize for d in details)
