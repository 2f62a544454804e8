"""Which unit comes next: what others need first; and what does it, this process or a cluster."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from tqdm import tqdm

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.study.store import Store
from neas_tf.study.units import Result, Unit, in_order

Run = Callable[[Unit], Result]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the units are.

    Attributes:
      done: units, in order.
      left: units, in order.
    """

    done: tuple[Unit, ...]
    left: tuple[Unit, ...]


def progress(units: Sequence[Unit], store: Store) -> Progress:
    """Which of the units, and of all that they need, are done."""
    return _look_again(Progress((), tuple(in_order(units))), store)


def _look_again(before: Progress, store: Store) -> Progress:
    """What is done stays done; only what was left is looked at."""
    now = [store.find(unit) is not None for unit in before.left]
    done = tuple(unit for unit, is_done in zip(before.left, now, strict=True) if is_done)
    left = tuple(unit for unit, is_done in zip(before.left, now, strict=True) if not is_done)
    return Progress((*before.done, *done), left)


class Engine(Protocol):
    """What does units: this process (`Local`) or a cluster (`run.ray_engine.RayTasks`)."""

    def has_room(self, at_work: int) -> bool:
        """Whether one unit more can begin beside so many."""

    def start(self, key: Any, unit: Unit, /) -> None:
        """Begins a resolved unit."""

    def finished(self) -> Iterable[tuple[Any, Any]]:
        """(key, (result, seconds)), or an error in place of the pair, of one unit or more."""


class Local:
    """One unit at a time, in this process; errors come as they are.

    Args:
      run: does a resolved unit.
      clock: seconds.
    """

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self._run, self._clock, self._next = run, clock, list[tuple[Any, Unit]]()

    def has_room(self, at_work: int) -> bool:
        """See `Engine`."""
        return not at_work

    def start(self, key: Any, unit: Unit, /) -> None:
        """See `Engine`."""
        self._next.append((key, unit))

    def finished(self) -> Iterable[tuple[Any, Any]]:
        """See `Engine`."""
        key, unit = self._next.pop()
        began = self._clock()
        yield key, (self._run(unit), self._clock() - began)


def work(
    units: Sequence[Unit],
    store: Store,
    engine: Engine,
    *,
    seconds_limit: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    bar: tqdm | None = None,
    on_begin: Callable[[Unit], None] = lambda unit: None,
    lost: Callable[[Unit], Unit | None] = lambda unit: None,
) -> Progress:
    """Does what is not done, the first that is ready first; each is stored as it finishes.

    A unit that fails on a cluster holds up only what needs it.

    Args:
      units: that are wanted; what they need is done as well.
      engine: does the units.
      seconds_limit: no unit begins when so much time has passed; 0 is no limit.
      bar: moves with every unit that is done.
      on_begin: called with each resolved unit before it runs.
      lost: the unit that a resolved one needs to be done again, since its weights are not there.

    Raises:
      NeasError: when all that could be done is, and a unit failed.
    """
    begin, now = clock(), progress(units, store)
    at_work: dict[str, Unit] = {}
    failed: dict[str, tuple[Unit, NeasError]] = {}
    while True:
        seen, now = len(now.done), _look_again(now, store)
        if bar is not None:
            bar.update(len(now.done) - seen)
        for unit in _ready(now.left, store, lost):
            if not engine.has_room(len(at_work)) or 0 < seconds_limit <= clock() - begin:
                break
            if unit.key not in at_work and unit.key not in failed:
                on_begin(unit)
                at_work[unit.key] = unit
                engine.start(unit.key, unit)
        if not at_work:
            break
        for key, found in engine.finished():
            unit = at_work.pop(key)
            if isinstance(found, NeasError):
                failed[key] = unit, found
                console.say(f"{unit.title}: {found}")
            elif store.get(unit) is None:
                store.put(unit, *found)
            else:
                _compare(unit, store, found[0])
    for unit, error in failed.values():
        more = f" ({len(failed)} units failed)" if len(failed) > 1 else ""
        raise type(error)(f"unit {unit.title}{more}: {error}")
    return now


def _ready(
    left: Iterable[Unit], store: Store, lost: Callable[[Unit], Unit | None]
) -> Iterator[Unit]:
    """Resolved units that can begin; in place of one whose weights are lost, what leaves these."""
    for unit in left:
        resolved = unit.resolve(store.get)
        if resolved is not None:
            yield lost(resolved) or resolved


def _compare(unit: Unit, store: Store, again: Result) -> None:
    """Of a unit that was done again for its weights: its first result stays."""
    if json.loads(json.dumps(again)) != store.get(unit):
        console.say(
            f"{unit.title}: came out otherwise than in {unit.key}.json, which is kept "
            "(another machine, other versions or other code)."
        )


def describe(found: Progress) -> str:
    """One line: '12 of 80 units done: 3 supernet, 9 training'."""
    counts: dict[str, int] = {}
    for unit in found.done:
        counts[unit.kind] = counts.get(unit.kind, 0) + 1
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    total = len(found.done) + len(found.left)
    return f"{len(found.done)} of {total} units done" + (f": {kinds}" if kinds else "")


def check_time_limit(minutes: float) -> float:
    """Minutes to seconds; raises `NeasError` for a negative number."""
    if not minutes >= 0 or minutes == float("inf"):
        raise NeasError(f"time_limit: received {minutes!r}, expected minutes ≥ 0 (0: no limit).")
    return 60.0 * minutes
