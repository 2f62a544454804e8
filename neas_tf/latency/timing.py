"""Times TFLite files with LiteRT, as the devices run them. No TensorFlow here.

All files are visited in every round, in random order, so that drift (heat, other programs) hits
all alike. At a visit a file is loaded, runs twice to warm up, and then `repetitions` times.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int, unknown_name

CLOCKS = ("cpu", "wall")
WARM_UP = 2
_TAG = 0x1A7E  # keeps the orders of visits apart from what else derives from the seed


@dataclasses.dataclass(frozen=True)
class TimingSettings:
    """How files are timed.

    Attributes:
      threads: of LiteRT.
      clock: 'cpu', time that the calling thread computes (1 thread only; on a shared machine far
        steadier), or 'wall'; '' takes cpu for 1 thread and wall for several.
      rounds: visits of each file.
      repetitions: runs that are timed at a visit.
      seed: of the order of visits and of the inputs.
    """

    threads: int = 1
    clock: str = ""
    rounds: int = 20
    repetitions: int = 10
    seed: int = 0

    def __post_init__(self):
        check_int("threads", self.threads, 1, 256)
        check_int("rounds", self.rounds, 1)
        check_int("repetitions", self.repetitions, 1)
        check_int("seed", self.seed, 0)
        if not self.clock:
            object.__setattr__(self, "clock", "cpu" if self.threads == 1 else "wall")
        if self.clock not in CLOCKS:
            unknown_name("clock", self.clock, CLOCKS)
        if self.threads > 1 and self.clock == "cpu":
            raise NeasError(
                f"clock: received 'cpu' with {self.threads} threads, expected 'wall' (CPU time "
                "adds up over threads and is no latency)."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return dataclasses.asdict(self)


def visit(path: str | os.PathLike[str], settings: TimingSettings, rng: np.random.Generator) -> int:
    """One visit of a file: the median of its repetitions, in ns.

    Raises:
      NeasError: when LiteRT cannot run the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(path), num_threads=settings.threads)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], _input(detail, rng))
        for _ in range(WARM_UP):
            interpreter.invoke()
        clock = time.thread_time_ns if settings.clock == "cpu" else time.perf_counter_ns
        times = []
        for _ in range(settings.repetitions):
            begin = clock()
            interpreter.invoke()
            times.append(clock() - begin)
    except (ValueError, RuntimeError) as error:
        raise NeasError(f"{str(path)!r}: LiteRT cannot run it ({error}).") from None
    return int(np.median(times))


def _input(detail: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Pixels for an image, a normal map for anything else; integers over their whole range."""
    kind, shape = np.dtype(detail["dtype"]), detail["shape"]
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    if "image" in detail["name"]:
        return (255.0 * rng.random(shape)).astype(kind)
    return rng.normal(size=shape).astype(kind)


def time_files(
    files: Mapping[str, Path],
    settings: TimingSettings,
    samples: Mapping[str, Sequence[int]],
    *,
    on_visit: Callable[[], Any] = lambda: None,
    on_round: Callable[[dict[str, list[int]]], Any] = lambda samples: None,
    visit_file: Callable[[Path, TimingSettings, np.random.Generator], int] = visit,
) -> dict[str, list[int]]:
    """Visits every file until each has `settings.rounds` samples.

    Args:
      files: path by name.
      settings: see there.
      samples: ns by name, of an earlier session.
      on_visit: called after every visit.
      on_round: called after every round with all samples, for saving them.
      visit_file: gives the ns of one visit.

    Returns:
      The samples (ns) by name.
    """
    result = {name: list(samples.get(name, ())) for name in files}
    for number in range(settings.rounds):
        waiting = [name for name in files if len(result[name]) <= number]
        rng = np.random.default_rng([settings.seed, _TAG, number])
        for i in rng.permutation(len(waiting)):
            name = waiting[i]
            result[name].append(visit_file(files[name], settings, rng))
            on_visit()
        if waiting:
            on_round(result)
    return result


def typical(samples: Sequence[int]) -> int:
    """The latency that samples stand for: their lower quartile.

    Disturbances only ever add time, so the lower half is the trustworthy one; a minimum would
    favour short runs, which now and then go undisturbed, over long ones, which never do.
    """
    check(len(samples) > 0, "samples", samples, "at least one")
    return int(np.quantile(np.asarray(samples, np.int64), 0.25))


def describe_machine(cpuinfo: str | os.PathLike[str] = "/proc/cpuinfo") -> str:
    """The machine in words: number of cores and name of the processor."""
    name = platform.processor() or platform.machine() or "unknown processor"
    try:
        for line in Path(cpuinfo).read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Hardware") and value.strip():
                name = value.strip()
                break
    except OSError:
        pass
    cores = os.cpu_count() or 1
    return f"{cores} core{'s' * (cores > 1)} of {name}"


def versions() -> dict[str, str]:
    """Versions of LiteRT, of the converter (TensorFlow) and of Python."""
    result = {"python": platform.python_version()}
    for package in ("ai-edge-litert", "tensorflow"):
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result
