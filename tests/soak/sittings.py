"""Sittings of a run from outside: started, killed, waited for, and their results compared."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from neas_tf.common import paths

LIMIT = 300.0  # seconds of a sitting; behind them it hangs
STAGES = ("supernet", "shrink", "search", "retrain", "export", "report")
EQUAL_BYTES = (
    "shrink/shrink_01.json",
    "shrink/shrink_02.json",
    "shrink/alive.json",
    "search/history.jsonl",
    "search/state.json",
    "search/best.json",
    "supernet/metrics.jsonl",
    "retrain/metrics.jsonl",
    "retrain/results.json",
    "retrain/pictures.json",
    "retrain/uncertainty.json",
    "retrain/model/architecture.json",
    "export/model.tflite",
)
TOLERANCE = 1e-6  # of a weight


@dataclasses.dataclass(frozen=True)
class Sitting:
    """How one ended.

    Attributes:
      code: exit code; −9 when it was killed.
      log: what it said.
      fired: the event at which a fault acted, '' for none.
      seconds: wall time.
    """

    code: int
    log: str
    fired: str
    seconds: float

    @property
    def stage(self) -> str:
        """Where it was: the stage of the file at which a fault acted, or that it told of last."""
        match = re.search(rf" ({'|'.join(STAGES)})/", self.fired)
        if match:
            return match[1]
        told = re.findall(r"^━━ (\w+)", self.log, re.MULTILINE)
        name = told[-1].lower() if told else "start"
        return name if name in STAGES else "start"


class Nursery:
    """Starts sittings by forking, so that libraries load once; see `soak.nursery`.

    Args:
      folder: for their logs.
      order: what every order holds; see `nursery.sit`.
    """

    def __init__(self, folder: pathlib.Path, **order: Any):
        self._folder, self._order = folder, order
        folder.mkdir(parents=True, exist_ok=True)
        self._errors = (folder / "nursery.txt").open("a")
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=paths.project_file(),
        )
        self._number = 0
        self._answer()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def start(self, arguments: list[str], **order: Any) -> Running:
        """Starts one; see `nursery.sit` for what an order may hold."""
        self._number += 1
        base = self._folder / f"sitting_{time.time_ns()}_{self._number}"
        journal, log = f"{base}.events", f"{base}.log"
        order = self._order | order | {"argv": arguments, "journal": journal, "log": log}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Running(self, self._answer()["pid"], pathlib.Path(log), pathlib.Path(journal))

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            text = (self._folder / "nursery.txt").read_text()
            raise RuntimeError(f"The nursery ended: {text[-2000:]}")
        return json.loads(line)


@dataclasses.dataclass
class Running:
    """A sitting that goes on."""

    nursery: Nursery
    pid: int
    log: pathlib.Path
    journal: pathlib.Path
    began: float = dataclasses.field(default_factory=time.monotonic)

    def finish(self, after: float | None = None, number: int = signal.SIGKILL) -> Sitting:
        """Waits for the end; sends a signal after so many seconds, if it has not ended before."""
        timers = [threading.Timer(LIMIT, self.send, (signal.SIGKILL,))]
        if after is not None:
            timers.append(threading.Timer(after, self.send, (number,)))
        for timer in timers:
            timer.start()
        code = self.nursery._answer()["status"]
        for timer in timers:
            timer.cancel()
        events = self.journal.read_text().splitlines() if self.journal.exists() else []
        fired = [line for line in events if line.startswith("fired ")]
        seconds = time.monotonic() - self.began
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Sitting(code, log, fired[-1] if fired else "", round(seconds, 1))

    def send(self, number: int) -> None:
        """Sends a signal to the sitting."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def unlike(reference: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """What of a run's results differs from another's, '' entries for none."""
    faults = []
    for name in EQUAL_BYTES:
        path = folder / name
        if not path.exists():
            faults.append(f"{name} is missing")
        elif path.read_bytes() != (reference / name).read_bytes():
            faults.append(f"{name} differs")
    if not faults:
        first, second = (
            _weights(f / "retrain/model/weights.weights.h5") for f in (reference, folder)
        )
        if first.keys() != second.keys():
            return ["the weights have other names"]
        largest = max(float(np.max(np.abs(first[k] - second[k]))) for k in first)
        if not largest <= TOLERANCE:
            faults.append(f"a weight differs by {largest:.3g}")
    return faults


def _weights(path: pathlib.Path) -> dict[str, np.ndarray]:
    import h5py

    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.size and item.dtype.kind == "f":
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found
