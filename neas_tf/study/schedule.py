"""Which unit comes next: what others need first, shared out among processes and machines."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence

from tqdm import tqdm

from neas_tf.common.errors import NeasError, check_int, fail
from neas_tf.study.store import PAUSE, Store
from neas_tf.study.units import Result, Unit, in_order

Run = Callable[[Unit], Result]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which part of the units a process takes: all whose first ancestor falls on its number.

    What belongs together stays together, so that shards need not see each other's folders.

    Attributes:
      index: 0-based.
      count: of shards.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads 'i/n' with 1 ≤ i ≤ n; '' is everything."""
        if not text:
            return cls()
        first, slash, last = text.partition("/")
        if not slash or not first.isdecimal() or not last.isdecimal():
            fail("shard", text, "i/n such as 1/4, the first of four parts")
        count = check_int("shard: parts", int(last), 1)
        return cls(check_int("shard: number", int(first), 1, count) - 1, count)

    def has(self, unit: Unit) -> bool:
        """Whether a unit is this shard's."""
        return zlib.crc32(unit.root.encode()) % self.count == self.index


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


def work(
    units: Sequence[Unit],
    store: Store,
    run: Run,
    *,
    shard: Shard | None = None,
    seconds_limit: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    bar: tqdm | None = None,
    on_begin: Callable[[Unit], None] = lambda unit: None,
) -> Progress:
    """Runs what is not done, the first that is ready first; each is stored as it finishes.

    Where nothing is ready because other processes are at work on it, it waits for them.

    Args:
      units: that are wanted; what they need is done as well.
      run: does a resolved unit.
      shard: the part of this process.
      seconds_limit: no unit begins when so much time has passed; 0 is no limit.
      bar: moves with every unit that is done, here or by another process.
      on_begin: called with each resolved unit before it runs.
    """
    shard, begin, now = shard or Shard(), clock(), progress(units, store)
    while True:
        seen, now = len(now.done), _look_again(now, store)
        if bar is not None and len(now.done) > seen:
            bar.update(len(now.done) - seen)
        if seconds_limit and clock() - begin >= seconds_limit:
            return now
        resolved = (unit.resolve(store.get) for unit in now.left if shard.has(unit))
        ready = [unit for unit in resolved if unit is not None]
        if not ready:
            return now
        if not any(_run_one(unit, store, run, clock, on_begin) for unit in ready):
            sleep(PAUSE)


def _run_one(
    unit: Unit,
    store: Store,
    run: Run,
    clock: Callable[[], float],
    on_begin: Callable[[Unit], None],
) -> bool:
    """Does a unit unless another process is at it; whether it is done now."""
    with store.claim(unit) as free:
        if free:
            on_begin(unit)
            started = clock()
            result = run(unit)
            store.put(unit, result, clock() - started)
    return store.get(unit) is not None


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
