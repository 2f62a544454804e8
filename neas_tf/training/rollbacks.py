"""What a stage does when its loss explodes, and the record of where it went back.

`rollbacks.json` in a stage's folder is all there is to know: the learning rate of a step follows
from the step and this list, so that a run killed after a rollback continues as if it had not been.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError, check, check_int, check_share, unknown_name
from neas_tf.common.files import read_json, write_json_atomic

FORMAT = "neas-rollbacks/1"
FILE = "rollbacks.json"
CHOICES = ("stop", "rollback")
# A loss so many times that of guessing has exploded, whatever the task.
_TIMES_GUESSING = 100.0


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One time that a stage went back.

    Attributes:
      step: the first step whose loss or weights were bad, 1-based.
      to: the step of the checkpoint that it went back to; 0 is the beginning.
      factor: on the learning rate of all steps after `to`.
      reason: what was bad.
    """

    step: int
    to: int
    factor: float
    reason: str


@dataclasses.dataclass(frozen=True)
class OnDivergence:
    """The settings of a stage that say what is bad and what happens then.

    Attributes:
      roll_back: goes back to the last checkpoint instead of stopping.
      factor: on the learning rate, each time.
      most: rollbacks of a stage.
      max_loss: of a step, mean over the paths; above it the loss has exploded.
    """

    roll_back: bool = False
    factor: float = 0.5
    most: int = 3
    max_loss: float = math.inf

    @classmethod
    def of(cls, stage: Any, num_classes: int, field: str) -> OnDivergence:
        """From a stage's config, which is checked.

        Args:
          stage: `config.StageConfig`.
          num_classes: guessing among so many has a loss of ln(num_classes).
          field: the stage's name, for messages.
        """
        if stage.on_divergence not in CHOICES:
            unknown_name(f"{field}.on_divergence", stage.on_divergence, CHOICES)
        check_share(f"{field}.rollback_rate_factor", stage.rollback_rate_factor)
        check_int(f"{field}.max_rollbacks", stage.max_rollbacks, 1)
        limit = stage.max_loss
        check(0 <= limit < math.inf, f"{field}.max_loss", limit, "0 (the default) or a loss")
        limit = float(limit) or _TIMES_GUESSING * math.log(max(num_classes, 2))
        rolls = stage.on_divergence == "rollback"
        return cls(rolls, stage.rollback_rate_factor, stage.max_rollbacks, limit)


def read_rollbacks(folder: str | os.PathLike[str]) -> tuple[Rollback, ...]:
    """The rollbacks of a stage so far, in their order; none where the file is missing.

    Raises:
      NeasError: for a file that is not the one that `add_rollback` wrote.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return ()
    value = read_json(path, "rollbacks")
    where = f"rollbacks {str(path)!r}"
    found = value.get("format") if isinstance(value, Mapping) else value
    check(found == FORMAT, f"{where}: format", found, FORMAT)
    try:
        return tuple(Rollback(**entry) for entry in value["rollbacks"])
    except (KeyError, TypeError) as error:
        raise NeasError(f"{where}: is not complete ({error}).") from None


def add_rollback(folder: str | os.PathLike[str], rollback: Rollback) -> None:
    """Adds one to a stage's record."""
    entries = [*read_rollbacks(folder), rollback]
    value = {"format": FORMAT, "rollbacks": [dataclasses.asdict(entry) for entry in entries]}
    write_json_atomic(Path(folder) / FILE, value)


def rate_factor(rollbacks: Sequence[Rollback], step: int) -> float:
    """On the learning rate of a step (0-based: so many were done before)."""
    return math.prod(entry.factor for entry in rollbacks if entry.to <= step)
