"""Worker processes that take turns: one library in each, told over a pipe what to do.

TensorFlow and PyTorch each bring thread pools and allocators of their own; in one process they
would disturb each other. A worker sleeps in its pipe while another one has its turn, and measures
its own processor time. Messages are JSON, one a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from neas_tf.common import keras_settings
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file

_TAIL = 600  # characters of a dead worker's stderr in the error


class Turn(NamedTuple):
    """One call of a worker: what it returned, and seconds by its processor and its clock."""

    value: Any
    cpu: float
    wall: float


class Worker:
    """A child process, `python -m module arguments`, that serves calls; the module ends in `serve`."""

    def __init__(self, module: str, arguments: Sequence[str] = (), threads: int = 1):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads))
        environment |= {"TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.name = " ".join([module, *arguments])
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            cwd=project_file(),
            text=True,
        )

    def call(self, name: str, **arguments: Any) -> Turn:
        """Has the worker do something, and waits for it.

        Raises:
          NeasError: when the worker failed or died, with the end of what it said.
        """
        try:
            self._process.stdin.write(json.dumps({"do": name, "with": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise NeasError(f"benchmark worker '{self.name}': ended in {name!r}: {self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise NeasError(f"benchmark worker '{self.name}', {name!r}: {answer['error']}")
        return Turn(answer["value"], answer["cpu"], answer["wall"])

    def _said(self) -> str:
        self._process.wait()
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-_TAIL:] or "it said nothing."

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()


@contextmanager
def workers(commands: Mapping[str, tuple[str, Sequence[str]]], threads: int = 1) -> Iterator[dict]:
    """Workers by name, from (module, arguments); they end with the block."""
    with ExitStack() as stack:
        found = {}
        for name, (module, arguments) in commands.items():
            found[name] = Worker(module, arguments, threads)
            stack.callback(found[name].close)
        yield found


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answers calls until the pipe ends; to be called by a worker's main program.

    A handler gets the call's arguments by name and returns what JSON can hold. What the handlers
    or libraries print goes to stderr. TensorFlow starts as in the project's commands.
    """
    keras_settings.use_tensorflow()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                answer = {"value": handlers[request["do"]](**request["with"])}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {str(error)[:_TAIL]}"}
            answer["cpu"] = time.process_time() - cpu
            answer["wall"] = time.perf_counter() - wall
            replies.write(json.dumps(answer) + "\n")
            replies.flush()


def peak_memory_gb() -> float:
    """Largest resident size of this program so far, in GB (10⁹ bytes)."""
    import resource

    status = Path("/proc/self/status")
    if status.exists():  # `resource` begins with what the process had that started this one
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e9
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size * (1 if sys.platform == "darwin" else 1024) / 1e9
