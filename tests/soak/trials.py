"""One run that is disturbed again and again, and must end as an undisturbed one."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import signal
import time
from typing import Any

from tiny_run import TINY

from .sittings import Nursery, Sitting, unlike

SENTENCE = re.compile(r"^neas_tf\.train: .+\.$", re.MULTILINE)
_UNWRITABLE = ("cannot be written", "not writable", "is a file", "cannot be made")


class Trial:
    """A run in a folder of its own.

    Attributes:
      folder: the model_dir.
      events: {fault, stage, survived, seconds, where, why}, one a disturbance. `survived` and `why`
        are settled at the end.
    """

    def __init__(self, work: pathlib.Path, folder: pathlib.Path, nursery: Nursery):
        self.folder, self.nursery = folder, nursery
        self.events: list[dict[str, Any]] = []
        self.last: Sitting | None = None
        config = work / "tiny.yaml"
        config.write_text(json.dumps(TINY))
        self._flags = [f"--config_file={config}", f"--model_dir={folder}"]

    def sit(
        self, after: float | None = None, number: int = signal.SIGKILL, **order: Any
    ) -> Sitting:
        """One sitting; a signal after so many seconds; see `nursery.sit` for the rest."""
        self.last = self.nursery.start(self._flags, **order).finish(after, number)
        return self.last

    def kill(self, name: str, number: int = signal.SIGKILL, **order: Any) -> bool:
        """A sitting that must be ended by a signal. False when the run ended by itself first."""
        sitting = self.sit(number=number, **order)
        if sitting.code == 0:
            return False
        expected = [-signal.SIGKILL] if number == signal.SIGKILL else [143, -signal.SIGTERM]
        why = "" if sitting.code in expected else self.told(sitting)
        if sitting.code == 143 and "received SIGTERM" not in sitting.log:
            why = f"no message: {sitting.log[-300:]}"
        self.note(name, sitting, why)
        return not why

    def refuse(self, name: str, stage: str = "", **order: Any) -> bool:
        """A sitting that must say in one sentence what cannot be written, with exit code 2."""
        sitting = self.sit(**order)
        good = sitting.code == 2 and "Traceback" not in sitting.log
        said = " ".join(SENTENCE.findall(sitting.log))
        good = good and any(words in said for words in _UNWRITABLE)
        self.note(name, sitting, "" if good else self.told(sitting), stage)
        return good

    def note(self, name: str, sitting: Sitting, why: str = "", stage: str = "") -> None:
        """Adds an event."""
        self.events.append(
            {
                "fault": name,
                "stage": stage or sitting.stage,
                "survived": not why,
                "seconds": sitting.seconds,
                "where": sitting.fired.removeprefix("fired "),
                "said": "; ".join(SENTENCE.findall(sitting.log))[:300],
                "why": why,
            }
        )

    def finish(self, reference: pathlib.Path) -> str:
        """The sitting that nothing disturbs; returns what is wrong with its results."""
        sitting = self.sit()
        if sitting.code:
            fault = self.told(sitting)
        else:
            fault = "; ".join(unlike(reference, self.folder))
        for event in self.events:
            if fault and event["survived"]:
                event |= {"survived": False, "why": f"in the end {fault}"}
        return fault

    @staticmethod
    def told(sitting: Sitting) -> str:
        """How a sitting ended, for a report."""
        return f"exit code {sitting.code}: {' '.join(sitting.log[-500:].split())}"


def reference_run(work: pathlib.Path) -> pathlib.Path:
    """The undisturbed run, made once a folder; leaves the events of its files in trace.txt."""
    folder, done = work / "reference", work / "reference.json"
    if done.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    with Nursery(work / "logs") as nursery:
        trial = Trial(work, folder, nursery)
        begin = time.monotonic()
        sitting = trial.sit()
        assert sitting.code == 0, sitting.log[-3000:]
    done.write_text(json.dumps({"seconds": round(time.monotonic() - begin, 1)}))
    return folder
