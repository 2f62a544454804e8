"""Several worker processes as one job: they start together, agree, and end together.

TensorFlow's coordination service watches the processes by their heartbeats and lets the collective
operations of all others fail when one is gone. What it says then is pages long; here it becomes one
sentence (`WorkerLost`), which names who is gone; why is in that one's own log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import functools
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import NeasError, WorkerLost
from neas_tf.run.parts.ports import answers, listening
from neas_tf.search.replicas import Replicas

# How TensorFlow says that a collective operation cannot be finished.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_ABORTED = ("Collective ops is aborted", "stopped sending heartbeats", "coordination service")
_AGAIN = "Start the same command on every machine again; the run resumes from its last checkpoint."
_LOOK = 1.0  # seconds
_SHOWN = 300  # characters of TensorFlow's own words
_TASK = r"/job:(?:worker|chief)/(?:replica:\d+/)?task:(\d+)"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes and devices that share a run, behind a strategy of distribution."""

    strategy: tf.distribute.Strategy

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return bool(self.strategy.extended.should_checkpoint)

    @property
    def worker(self) -> tuple[int, int]:
        """(number of worker processes, 0-based index of this one)."""
        return worker_of(self.strategy)

    @property
    def local_devices(self) -> tuple[str | None, ...]:
        """This process' devices, for work that needs no strategy; None is TensorFlow's choice."""
        mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
        if not isinstance(self.strategy, mirrored):  # a TPU's cores are `replicas`
            return (None,)
        names = tuple(self.strategy.extended.worker_devices)
        return names if len(names) > 1 else (None,)

    @functools.cached_property
    def replicas(self) -> Replicas | None:
        """What runs work on devices that only the strategy's `run` reaches: the cores of a TPU.

        One process drives those of all hosts of a slice. None where `local_devices` are all there is.
        """
        if isinstance(self.strategy, tf.distribute.TPUStrategy):
            return Replicas(self.strategy)
        return None

    def placing(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which what `replicas` read is made."""
        return self.strategy.scope() if self.replicas else contextlib.nullcontext()

    def barrier(self) -> None:
        """Waits until all worker processes are here, so that what the chief wrote is on disk."""
        barrier(self.strategy)

    def any_worker(self, values: np.ndarray) -> np.ndarray:
        """Where a bool array is true in at least one worker; all of them must call this."""
        bits = np.packbits(values)
        words = np.pad(bits, (0, -len(bits) % 4)).view(np.uint32)  # 32 to a number
        brought = exchange(self.strategy, words.tolist()).astype(np.uint32)
        merged = np.bitwise_or.reduce(brought, 0).view(np.uint8)
        return np.unpackbits(merged, count=values.size).reshape(values.shape).astype(bool)


def several(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy spreads over worker processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def hosts_of(strategy: tf.distribute.Strategy) -> list[str]:
    """`host:port` of every worker, the chief first."""
    return _hosts(strategy.cluster_resolver) if several(strategy) else [""]


def _hosts(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> list[str]:
    cluster = resolver.cluster_spec().as_dict()
    return [host for kind in ("chief", "worker") for host in cluster.get(kind, ())]


def worker_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """(number of worker processes, 0-based index of this one)."""
    if not several(strategy):
        return 1, 0
    resolver = strategy.cluster_resolver
    before = len(resolver.cluster_spec().as_dict().get("chief", ()))
    index = resolver.task_id + (before if resolver.task_type == "worker" else 0)
    return max(1, len(hosts_of(strategy))), index


def await_others(start_seconds: int) -> None:
    """Returns when every worker has been seen once.

    TensorFlow itself waits for the last worker as long as it takes, in a call that holds Python's
    lock and that nothing can interrupt. So the workers meet before, at the ports that TensorFlow
    takes over then.

    Args:
      start_seconds: for the last worker to come.

    Raises:
      WorkerLost: when not all came.
      NeasError: when this worker's port is in use.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    hosts = _hosts(resolver)
    if len(hosts) < 2:
        return
    own = resolver.cluster_spec().task_address(resolver.task_type, resolver.task_id)
    missing = {i: host for i, host in enumerate(hosts) if host != own}
    end = time.monotonic() + start_seconds
    with listening(own):
        while missing:
            for index in [i for i, host in missing.items() if answers(host)]:
                del missing[index]
            if missing and time.monotonic() > end:
                who = " and ".join(f"worker {i} ({host})" for i, host in missing.items())
                raise WorkerLost(
                    f"workers: not all {len(hosts)} came within {start_seconds} seconds "
                    f"(workers.start_seconds); no answer from {who}."
                )
            if missing:
                time.sleep(_LOOK)


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Exits where a block takes longer, though TensorFlow holds Python's lock in it."""
    try:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or -1)
    except (AttributeError, OSError, RuntimeError, ValueError):  # stderr is no file
        yield
        return
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around a run: where one worker process fails, all of them end.

    Raises:
      WorkerLost: in the other processes.
    """
    if not several(strategy):
        yield
        return
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        # TensorFlow's own threads end with tracebacks when their connection does.
        if not isinstance(arguments.exc_value, tf.errors.OpError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    except BaseException as error:
        lost = _lost(error)
        if lost is None:
            raise
        sentence = _sentence(strategy, lost)
        # TensorFlow leaves the pool of a broken off reduction open. Kept by the frames until Python
        # ends, it may be collected after its own pipe and print a traceback under the sentence.
        for found in _chain(error):
            traceback.clear_frames(found.__traceback__)
        raise WorkerLost(sentence) from None


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Waits until all worker processes are here."""
    exchange(strategy, [1])


def exchange(strategy: tf.distribute.Strategy, values: Sequence[int]) -> np.ndarray:
    """int64 (workers, n): what every worker brought; all of them must call this.

    Args:
      strategy: of distribution.
      values: n integers of this worker, below 2³².
    """
    count, index = worker_of(strategy)
    table = np.zeros((count, len(values)), np.int64)
    table[index] = values
    if not several(strategy):
        return table
    own = tf.constant(table)

    def meet() -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, own)

    found = strategy.experimental_local_results(strategy.run(meet))
    return found[0].numpy() // len(found)  # every replica of a worker brought the same


def checksum(content: bytes) -> int:
    """A number to compare by `exchange`."""
    return zlib.crc32(content)


def agree(strategy: tf.distribute.Strategy, parts: Mapping[str, bytes], remedy: str) -> None:
    """Compares checksums of what must be the same in all worker processes.

    Args:
      strategy: of distribution.
      parts: content by name, the same names on all workers.
      remedy: what is expected, for the message.

    Raises:
      NeasError: on all workers, when one has something else than worker 0.
    """
    table = exchange(strategy, [checksum(content) for content in parts.values()])
    for index, row in enumerate(table):
        different = [name for name, same in zip(parts, row == table[0], strict=True) if not same]
        if different:
            raise NeasError(
                f"workers: worker {index} has another {', '.join(different)} than worker 0; "
                f"expected {remedy}."
            )


def agree_on_draws(strategy: tf.distribute.Strategy, rows: tf.Variable, first: int) -> None:
    """Checks that all replicas hold the same architectures for the steps from `first` on.

    Raises:
      NeasError: when they do not.
    """
    tables = [value.numpy().tobytes() for value in strategy.experimental_local_results(rows)]
    if len(set(tables)) > 1:
        raise NeasError(
            f"draws: the replicas of a worker hold different tables from step {first} on; expected "
            "one table for all."
        )
    name = f"table of architectures from step {first} on"
    agree(strategy, {name: tables[0]}, "the same settings and software on all workers")


def _lost(error: BaseException) -> tf.errors.OpError | None:
    """The collective operation's error that an exception is, or comes from."""
    for found in _chain(error):
        if isinstance(found, tf.errors.OpError) and (
            isinstance(found, _LOST) or any(text in str(found) for text in _ABORTED)
        ):
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it comes from."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        found = queue.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        queue += [found.__cause__, found.__context__]


def _sentence(strategy: tf.distribute.Strategy, error: tf.errors.OpError) -> str:
    hosts, (_, own) = hosts_of(strategy), worker_of(strategy)
    text = str(error.message)
    gone = {int(i) for i in re.findall(rf"unhealthy[^:]*:\s*{_TASK}", text)}
    gone |= {int(i) for i in re.findall(rf"remote target {_TASK}", text)}
    gone = {i + (len(hosts) - _jobs(strategy)) for i in gone} - {own}
    # Who reports a failure has not failed itself, so look who still answers.
    gone |= {i for i, host in enumerate(hosts) if i != own and not answers(host)}
    who = " and ".join(f"worker {i} ({hosts[i]})" for i in sorted(gone) if i < len(hosts))
    if not who:
        return f"workers: the work with the others was broken off ({_first_line(error)}). {_AGAIN}"
    return (
        f"workers: the connection to {who} is lost: it ended, stands still, or its machine "
        f"or network failed. {_AGAIN}"
    )


def _jobs(strategy: tf.distribute.Strategy) -> int:
    """How many tasks the job `worker` has; a chief of its own is counted before them."""
    return len(strategy.cluster_resolver.cluster_spec().as_dict().get("worker", ()))


def _first_line(error: tf.errors.OpError) -> str:
    text = str(error.message).rpartition("is aborted by: ")[2].strip()
    return (text.splitlines() or [""])[0][:_SHOWN]
