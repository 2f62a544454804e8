"""Work as tasks of a Ray cluster (extra `ray`): its address, what a task takes, what is lost.

Ray places tasks, repeats one whose process or node dies, and says who is gone. Here it is asked
whether the cluster answers, whether some node has what a task takes, and on each node whether the
code is this command's. Tasks write into folders that all nodes see, and resume from what these hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import queue
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from neas_tf.common import console, keras_settings
from neas_tf.common.errors import NeasError, WorkerLost, check, fail, unknown_name
from neas_tf.cost.quantities import BYTES, quantity
from neas_tf.run.parts.ports import answers
from neas_tf.run.record import code_digest

ENGINES = ("local", "ray")
_LOOK = 2.0  # seconds between two looks at the tasks
_SILENT = 5  # looks in a row at which the cluster's head does not answer
_SYNTAX = "NAME=AMOUNT with commas, such as num_cpus=4,num_gpus=1,memory=16GB"


def define_flags() -> None:
    """The flags of commands whose work may go over Ray."""
    flags.DEFINE_string(
        "engine", "local", "local, this process; or ray, a Ray cluster (extra ray)."
    )
    flags.DEFINE_string("address", "auto", "Of the Ray cluster: HOST:PORT of its head, or auto.")
    flags.DEFINE_string("resources", "num_cpus=1", f"What a task takes of a node: {_SYNTAX}.")
    flags.DEFINE_integer(
        "retries", 3, "How often Ray repeats a task whose process or node died.", 0
    )


def from_flags() -> Ray | None:
    """What the flags say, checked; None for the local engine."""
    values = flags.FLAGS
    if values.engine not in ENGINES:
        unknown_name("engine", values.engine, ENGINES)
    if values.engine == "local":
        return None
    return Ray(values.address, parse_resources(values.resources), values.retries)


def parse_resources(text: str) -> dict[str, float]:
    """'num_cpus=2,memory=1GB' as numbers; names of one's own are Ray's custom resources.

    Raises:
      NeasError: for another syntax or a negative amount.
    """
    found: dict[str, float] = {"num_cpus": 1.0}
    for part in filter(None, text.split(",")):
        name, equals, amount = map(str.strip, part.partition("="))
        if name == "memory":
            found[name] = quantity(amount, "resources: memory", BYTES)
            continue
        try:
            found[name] = float(amount)
        except ValueError:
            fail("resources", text, _SYNTAX)
        check(bool(name and equals) and 0 <= found[name] < 1e9, "resources", text, _SYNTAX)
    return found


@dataclasses.dataclass(frozen=True)
class Ray:
    """How a command reaches a cluster.

    Attributes:
      address: HOST:PORT of the cluster's head; or auto, the cluster that this machine is a node of.
      resources: what one task takes, by Ray's names.
      retries: of a task whose process or node died.
    """

    address: str
    resources: Mapping[str, float]
    retries: int = 3

    @property
    def threads(self) -> int:
        """Of TensorFlow in a task: as many as it has CPUs."""
        return max(1, int(self.resources["num_cpus"]))

    def connect(self, task: str, shared: Sequence[Any] = (), show_output: bool = False) -> RayTasks:
        """Connects this process.

        Args:
          task: 'module:function', called on a node.
          shared: the first arguments of all tasks.
          show_output: whether what tasks print is printed here.

        Raises:
          NeasError: when Ray is not installed, no cluster answers, or no node has what a task takes.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise NeasError(
                "engine: received 'ray', which is not installed; expected the extra: "
                "pip install 'neas-tf[ray]'."
            ) from None
        if self.address != "auto" and not answers(self.address):
            fail("address", self.address, "HOST:PORT of the head of a Ray cluster that answers")
        console.say(f"Connecting to the Ray cluster ({self.address}) …")
        try:
            ray.init(self.address, log_to_driver=show_output, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise NeasError(
                f"address: received {self.address!r}, expected a Ray cluster that answers ({reason})."
            ) from None
        tasks = RayTasks(self, task, shared)
        if not tasks.has_room(0):
            ray.shutdown()
            raise NeasError(
                f"resources: received {self._words()}, expected what a node of the cluster has."
            )
        return tasks

    def _words(self) -> str:
        return ",".join(f"{name}={value:g}" for name, value in self.resources.items())


class RayTasks:
    """Tasks at work on a cluster that this process is connected to; a context manager.

    Args:
      options: what a task takes.
      task: 'module:function'.
      shared: the first arguments of all tasks.
    """

    def __init__(self, options: Ray, task: str, shared: Sequence[Any] = ()):
        import ray

        own = dict(options.resources)
        known = {name: own.pop(name) for name in ("num_cpus", "num_gpus", "memory") if name in own}
        self._options, self._ray = options, ray
        self._call = (code_digest(), os.getcwd(), options.threads, task)
        self._shared = tuple(shared)
        self._remote = ray.remote(run_task).options(
            max_retries=options.retries, resources=own, name=task, **known
        )
        self._head = ray.get_runtime_context().gcs_address
        self._at_work: dict[Any, Any] = {}

    def __enter__(self) -> RayTasks:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, WorkerLost):  # else Ray would wait for its head
            self._ray.shutdown()

    def has_room(self, at_work: int) -> bool:
        """Whether the nodes that are there now could hold one task more than so many.

        Raises:
          WorkerLost: when the cluster's head is gone.
        """
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        wanted = {names.get(k, k): v for k, v in self._options.resources.items() if v}
        room = 0
        for node in self._nodes():
            if node["Alive"]:
                has = node["Resources"]
                room += min([int(has.get(k, 0.0) / v) for k, v in wanted.items()] or [1])
        return at_work < room

    def _nodes(self) -> list[Any]:
        """What the head knows of the nodes.

        Asked in a thread: without a head Ray waits for a minute and then ends the process.
        """
        found: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        threading.Thread(target=lambda: found.put(self._ray.nodes()), daemon=True).start()
        return self._while_there_is_a_head(lambda: found.get(timeout=_LOOK))

    def _while_there_is_a_head(self, look: Callable[[], Any]) -> Any:
        """What a look that takes some seconds brings, as soon as one does not end with `queue.Empty`.

        Raises:
          WorkerLost: when the head does not answer after several looks in a row.
        """
        silent = 0
        while silent < _SILENT:
            with contextlib.suppress(queue.Empty):
                return look()
            silent = 0 if answers(self._head) else silent + 1
        raise WorkerLost(
            f"address: the head of the Ray cluster ({self._head}) does not answer any more. "
            "Start the cluster and the same command again; the work resumes from what the folder holds."
        )

    def start(self, key: Any, *arguments: Any) -> None:
        """Hands a task in; `key` comes back with its result."""
        found = self._remote.remote(*self._call, (*self._shared, *arguments))
        self._at_work[found] = key

    def finished(self) -> list[tuple[Any, Any]]:
        """(key, result) of at least one task; the result is a `NeasError` where it failed.

        Raises:
          WorkerLost: when the cluster's head is gone.
        """

        def look() -> list[Any]:
            ready, _ = self._ray.wait(list(self._at_work), num_returns=1, timeout=_LOOK)
            if not ready:
                raise queue.Empty
            return ready

        ready = self._while_there_is_a_head(look)
        return [(self._at_work.pop(found), self._result(found)) for found in ready]

    def _result(self, found: Any) -> Any:
        errors = self._ray.exceptions
        try:
            result, kind, reason = self._ray.get(found)
        except errors.RayTaskError as error:  # before `run_task`: the module is not there
            return NeasError(f"engine: a node cannot run the task ({_last_line(error)}).")
        except errors.RayError as error:
            kinds = f"its process or node died {self._options.retries + 1} times"
            return WorkerLost(f"engine: a task was lost for good, {kinds} ({_last_line(error)}).")
        return NeasError(reason) if kind == "refused" else result


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def run_task(
    code: str, folder: str, threads: int, task: str, arguments: Sequence[Any]
) -> tuple[Any, str, str]:
    """On a node: does a task where the code is the command's.

    Returns:
      (result, 'done', '') or (None, 'refused', one sentence).
    """
    node = socket.gethostname()
    if code_digest() != code:
        return (
            None,
            "refused",
            (
                f"engine: node {node} has other code (digest {code_digest()}) than this machine ({code}); "
                "expected the same version of neas_tf on all nodes."
            ),
        )
    try:
        os.chdir(folder)
        _prepare(threads)
        module, _, name = task.partition(":")
        return getattr(importlib.import_module(module), name)(*arguments), "done", ""
    except NeasError as error:
        return None, "refused", f"{str(error).rstrip('.')} (on node {node})."
    except OSError as error:
        where = error.filename or "a file"
        return None, "refused", f"engine: {where!r} on node {node}: {error.strerror or error}."
    except Exception as error:
        traceback.print_exc()  # into Ray's log of the process
        text = " ".join(str(error).split())
        return None, "refused", f"engine: failed on node {node} ({type(error).__name__}: {text})."


def _prepare(threads: int) -> None:
    """TensorFlow's threads; the process may have done a task before."""
    keras_settings.use_tensorflow()
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
