"""Faults inside a sitting of the pipeline: at the nth touch of a file the process is ended.

Every function through which the project or TensorFlow's checkpoints touch a file is wrapped; each
call is an event, before and behind it. TensorFlow writes the content of a checkpoint in C++, so
that its events are the operations: data and index under temporary names (save), both in place
(merge), the file `checkpoint` written and renamed, old files removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

FILLER = "filler"


class Faults:
    """Counts events and acts at one of them.

    Args:
      folder: only what happens below it counts.
      fault: {"at": n} or {"match": regular expression on 'kind before|after path', "nth": n}, with
        "action": "kill", "term", "half" (half of what is appended is written, then killed) or "full"
        (the file system is filled up with the file `FILLER`, and nobody is killed); {} for none. With "stages" only events below a stage's folder count for `at`.
      journal: file that gets a line for the event that fires; with "trace" for every event.
    """

    def __init__(self, folder: str, fault: Mapping[str, Any], journal: str):
        self.folder = os.path.realpath(folder)
        self.fault, self.journal = fault, journal
        self.count = 0

    def event(self, kind: str, when: str, path: Any, half: Callable[[], None] | None = None):
        """Notes one; may not return."""
        name = os.path.realpath(os.fsdecode(path))
        if not name.startswith(self.folder + os.sep):
            return
        name = os.path.relpath(name, self.folder)
        text = f"{kind} {when} {name}"
        fault = self.fault
        if fault.get("trace"):
            self._note(text)
        if "match" in fault:
            counts = re.search(fault["match"], text) is not None
        else:
            counts = "at" in fault and (os.sep in name or not fault.get("stages"))
        if not counts:
            return
        self.count += 1
        if self.count != fault.get("at", fault.get("nth", 1)):
            return
        self._note(f"fired {text}")
        if fault["action"] == "full":
            fill(self.folder)
            return
        if fault["action"] == "half" and half is not None:
            half()
        if fault["action"] == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, text: str) -> None:
        with open(self.journal, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")

    def wrap(self, owner: Any, name: str, kind: str, path_of: Callable[..., Any]) -> None:
        """Makes a function's calls events."""
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            path = path_of(*args, **kwargs)
            self.event(kind, "before", path)
            result = function(*args, **kwargs)
            self.event(kind, "after", path)
            return result

        setattr(owner, name, wrapped)

    def install(self) -> None:
        """Wraps everything; loads TensorFlow."""
        from tensorflow.python.lib.io import file_io
        from tensorflow.python.ops import gen_io_ops, io_ops

        from neas_tf.search import history as search_state
        from neas_tf.training import training_loop

        self.wrap(os, "replace", "rename", lambda a, b, **_: b)
        self.wrap(os, "rename", "rename", lambda a, b, **_: b)
        self.wrap(os, "fsync", "fsync", lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
        self.wrap(
            tempfile, "mkdtemp", "folder", lambda *a, **k: f"{k.get('dir')}/{k.get('prefix')}"
        )
        self.wrap(
            tempfile, "mkstemp", "create", lambda *a, **k: f"{k.get('dir')}/{k.get('prefix')}"
        )
        self.wrap(file_io, "rename", "rename", lambda a, b, *_, **__: b)
        self.wrap(file_io, "write_string_to_file", "write", lambda a, *_, **__: a)
        self.wrap(file_io, "delete_file", "delete", lambda a: a)
        self.wrap(io_ops, "save_v2", "save", lambda a, *_, **__: _value(a))
        self.wrap(
            gen_io_ops,
            "merge_v2_checkpoints",
            "merge",
            lambda a, b, *_, **__: _value(b),
        )
        self._wrap_appends(search_state, training_loop)

    def _wrap_appends(self, search_state: Any, training_loop: Any) -> None:
        """The two files that grow line by line."""

        def open_history(path: Any, mode: str) -> Any:
            return _Stream(open(path, mode), path, self)

        search_state.open = open_history  # in front of the builtin, in that module only
        append = training_loop.MetricsLog.append

        def append_metrics(log: Any, values: dict[str, Any]) -> None:
            def half() -> None:
                with log.path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(values)[:20])

            self.event("append", "before", log.path, half)
            append(log, values)
            self.event("append", "after", log.path)

        training_loop.MetricsLog.append = append_metrics


def fill(folder: str) -> None:
    """Leaves no room on the file system of a folder."""
    with contextlib.suppress(OSError), open(os.path.join(folder, FILLER), "wb", 0) as stream:
        while stream.write(bytes(4096)):
            pass


def _value(name: Any) -> Any:
    """A tensor's string; '' while a graph is traced, when nothing is written."""
    return name.numpy() if hasattr(name, "numpy") else ""


class _Stream:
    """A file of the history whose writes are events."""

    def __init__(self, stream: Any, path: pathlib.Path, faults: Faults):
        self._stream, self._path, self._faults = stream, path, faults

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stream.close()

    def write(self, data: bytes) -> None:
        def half() -> None:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()

        self._faults.event("append", "before", self._path, half)
        self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()
        self._faults.event("append", "after", self._path)

    def fileno(self) -> int:
        return self._stream.fileno()
