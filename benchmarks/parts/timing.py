"""How the benchmarks time things: candidates in turns, the processor's time, medians over rounds.

On a machine that others use too, a candidate that is timed alone gets whatever minute it met. Here
all candidates take a turn in every round, so that a busy minute disturbs them alike, and ratios
are taken within a round before the median is.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    runs: int,
    *,
    clock: str = "cpu",
    tick: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds that each call takes, per round, by name.

    In every round each call is made once unmeasured, for its weights to be in the caches as they are on
    a device that runs one network, and then `runs` times, whose mean is taken. One round more comes
    first. `clock` is 'cpu', the processor time of this process, all threads together, or 'wall'.
    """
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            call()
            begin = now()
            for _ in range(runs):
                call()
            times[name].append((now() - begin) / runs * 1e3)
            tick()
    return {name: values[1:] for name, values in times.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(times: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile in ms, as a JSON form."""
    low, high = np.percentile(times, (10, 90))
    values = {"ms": statistics.median(times), "ms_p10": low, "ms_p90": high}
    return {name: round(float(value), 4) for name, value in values.items()}


def machine() -> dict[str, Any]:
    """What the measurement ran on: processor, its vector instructions, cores, load."""
    found = {"processor": platform.processor() or platform.machine(), "vectors": []}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            lines = dict(map(str.strip, line.split(":", 1)) for line in stream if ":" in line)
        found["processor"] = lines.get("model name", found["processor"])
        flags = lines.get("flags", lines.get("Features", "")).split()
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni")
        wanted += ("asimd", "asimddp", "i8mm", "sve")
        found["vectors"] = [name for name in wanted if name in flags]
    except OSError:
        pass  # not Linux: the name that Python knows must do
    found |= {"system": platform.system(), "architecture": platform.machine()}
    found["cores"] = os.cpu_count()
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    return found
