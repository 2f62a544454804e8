"""How the time of a run is dealt out to its stages: `time_plan.json` in its folder.

All times are seconds of the run's working time, over all sessions. When a stage begins, what is left
of it, less a reserve for test, export and report and the building of graphs, is divided: 40 % for the
supernet, then a third of the rest for the search, the rest for the retraining. What a stage leaves over
is the next one's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.cost.quantities import SECONDS, quantity
from neas_tf.training.time_plan import Course, Segment

FORMAT = "neas-time-plan/1"
FILE = "time_plan.json"
# Of the time left when a stage begins, once what is fixed is off.
SHARES = {"supernet": 0.4, "search": 1 / 3, "retrain": 1.0}
# Of that time, what is worked with at least, whatever is fixed: the estimates may be too high.
_LEAST_WORK = 0.2
# Below, not even the libraries are loaded on many machines.
LEAST, MOST = 30.0, 100 * 86_400.0
# Of the supernet's epochs: a retraining that has fewer is better begun with the supernet's weights. On CIFAR-10 in a
# small space, after 96 epochs of the supernet, they gained 8 points over 6 epochs of retraining and lost 1 over 24; after
# 24 epochs they gained 2 over 3 and lost 0.4 over 6 (docs/method.md, Starting from weights).
WARM_SHARE = 0.2
_SAVE_EVERY = 5.0  # seconds of work that a killed session may not count


def parse_limit(value: Any) -> float:
    """`time_limit` in seconds; 0 is none.

    Raises:
      NeasError: for anything that is no duration, or one below 30 s.
    """
    if value in ("", None):
        return 0.0
    seconds = quantity(value, "time_limit", SECONDS)
    expected = f"{LEAST:.0f}s to {MOST / 86_400:.0f}d, such as 20min, or '' for none"
    check(LEAST <= seconds <= MOST, "time_limit", value, expected)
    return seconds


def told(seconds: float) -> str:
    """A duration for people: `45 s`, `4:30 min`, `1 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclasses.dataclass
class TimePlan:
    """The plan of one run, in one session.

    Attributes:
      path: of the file.
      limit: seconds that the whole run may work.
      stages: by name, what is planned and measured of each that has begun, as JSON.
      before: seconds of the sessions before.
      began: when this session began, by `clock`.
      clock: seconds.
      writes: whether this process writes the file.
    """

    path: Path
    limit: float
    stages: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    before: float = 0.0
    began: float = 0.0
    clock: Callable[[], float] = time.monotonic
    writes: bool = True
    _saved: float = dataclasses.field(default=-1e9, repr=False)

    def used(self) -> float:
        """Seconds that the run has worked so far."""
        return self.before + self.clock() - self.began

    def left(self) -> float:
        """Seconds until the limit; negative after it."""
        return self.limit - self.used()

    def stage(self, name: str) -> dict[str, Any]:
        """What is known of a stage, which begins now if it has not before."""
        return self.stages.setdefault(name, {"begin": round(self.used(), 1)})

    def deadline(self, name: str, reserve: float, own: float = 0.0, later: float = 0.0) -> float:
        """When a stage is to end, in seconds of work.

        Args:
          name: of the stage, which begins now if it has not before.
          reserve: seconds that test, export and report will take.
          own, later: seconds that graphs take in this stage, and in those that follow.
        """
        begin = self.stage(name)["begin"]
        left = self.limit - begin
        work = max(left - reserve - own - later, _LEAST_WORK * left)
        return begin + own + SHARES[name] * max(0.0, work)

    def course(self, name: str, recipe: int) -> Course:
        """The course of a training stage, as far as it is planned."""
        segments = self.stages.get(name, {}).get("segments", ())
        return Course(recipe, tuple(Segment(*pair) for pair in segments))

    def keep_course(self, name: str, course: Course) -> None:
        """Records a course; on disk at once where it changed."""
        pairs = [[segment.step, segment.total] for segment in course.segments]
        entry = self.stage(name)
        if entry.get("segments", []) != pairs:
            entry["segments"] = pairs
            self.save()
        elif self.used() - self._saved >= _SAVE_EVERY:
            self.save()

    def put(self, name: str, **values: Any) -> None:
        """Records values of a stage, on disk at once."""
        self.stage(name).update(values)
        self.save()

    def save(self) -> None:
        """Writes the file, with the time that was used up to now."""
        self._saved = self.used()
        if self.writes:
            value = {"format": FORMAT, "limit": self.limit, "used": round(self._saved, 1)}
            write_json_atomic(self.path, value | {"stages": self.stages})

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Counts the time of a block, however it ends."""
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a disk that is full for the run is full for this
                self.save()

    def announced(self) -> list[str]:
        """What is said at the beginning of a session."""
        before = f", {told(self.before)} of them used before" if self.before else ""
        return [
            f"at most {told(self.limit)}{before}: 40 % for the supernet, 20 % for the search, 40 % for "
            "the retraining, after a reserve for test, export and report; lengths are planned once "
            "steps are measured"
        ]

    def note(self) -> str:
        """The whole run, for a progress bar."""
        used = self.used()
        return (
            f"; run {used / self.limit:.0%} of {told(self.limit)}, {told(self.limit - used)} left"
        )


def open_plan(
    time_limit: Any,
    folder: Path,
    began: float,
    writes: bool = True,
    continues: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> TimePlan | None:
    """The plan of a run, continued where its folder has one; None without a limit.

    Args:
      time_limit: the setting.
      folder: of the run.
      began: when this session began, by `clock`.
      writes: whether this process writes the run's files.
      continues: whether the stage that is asked for continues an earlier one.
      clock: seconds.

    Raises:
      NeasError: for a limit that cannot be understood, for a folder that was begun with a limit and
        shall go on without, or the other way round, and for a later stage of a folder without a plan.
    """
    limit, path = parse_limit(time_limit), folder / FILE
    if not limit:
        if path.exists():
            found = _read(path)
            raise NeasError(
                f"time_limit: received nothing, but {str(folder)!r} was begun with "
                f"{told(found['limit'])} and its trainings have lengths to match ({FILE}); expected "
                "a limit, or another model_dir."
            )
        return None
    if not path.exists():
        begun = [s for s in ("supernet", "retrain") if (folder / s / "identity.json").exists()]
        if begun:
            raise NeasError(
                f"time_limit: received {time_limit!r}, but {str(folder)!r} was begun without a limit "
                f"({begun[0]} is there and no {FILE}); expected none, or another model_dir."
            )
        if continues:
            raise NeasError(
                f"time_limit: received {time_limit!r}, but {str(folder)!r} has no plan ({FILE}) that "
                "this stage could keep to; expected --stage=all, or --stage=supernet first."
            )
        return TimePlan(path, limit, began=began, clock=clock, writes=writes)
    found = _read(path)
    stages = {str(name): dict(entry) for name, entry in found["stages"].items()}
    return TimePlan(path, limit, stages, float(found["used"]), began, clock, writes)


def _read(path: Path) -> Mapping[str, Any]:
    value = read_json(path, "time plan")
    where = f"time plan {str(path)!r}"
    found = value.get("format") if isinstance(value, Mapping) else value
    check(found == FORMAT, f"{where}: format", found, FORMAT)
    ok = isinstance(value.get("stages"), Mapping) and all(
        isinstance(value.get(name), int | float) for name in ("limit", "used")
    )
    check(ok, where, sorted(value), "limit, used and stages")
    return value
