"""Starts Python programs from a process that has the libraries loaded already.

TensorFlow, Keras and Model Garden take some ten seconds of a core to load, longer than most of what the
tests start. A server, one for each process of pytest, loads them once (none of this project) and forks
a child for every program. The child imports the project afresh, has its own environment, folder and streams, and
TensorFlow's runtime starts in it, so it is what a started program is but for the loading.

A program whose environment would have changed the loading (other `TF_…`, `KERAS_…`, `PYTHON…` and so
on than the server's) is started in the ordinary way. Tests of loading itself, such as that a command does
without TensorFlow, use `sys.executable`.

    subprocess.run([warm.python(), "-m", "neas_tf.train", …])  # a file named python, for PATH too
    warm.Process(["-m", "neas_tf.train", …])                    # its pid is the program's: for kills
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

_STREAMS = 3
# What the loading of the libraries depends on.
_AT_LOADING = ("TF_", "XLA_", "KERAS_", "PYTHON", "LD_", "OMP_", "MKL_", "MPL", "CUDA_", "MALLOC_")
_HARMLESS = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "TF_CONFIG"}
_HARMLESS |= {
    "TF_CPP_MIN_LOG_LEVEL",
    "TF_CPP_VMODULE",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
}
_HARMLESS |= {"CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH"}
_HARMLESS |= {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}  # of NumPy's matrix products, no result's


def _at_loading(environment: dict[str, str]) -> dict[str, str]:
    found = {
        name: value
        for name, value in environment.items()
        if name.startswith(_AT_LOADING) and name not in _HARMLESS
    }
    # OpenCV adds a folder of its own as soon as it is imported, before or after the server began.
    folders = found.pop("LD_LIBRARY_PATH", "").split(os.pathsep)
    own = [folder for folder in folders if folder and "/cv2/" not in folder]
    return found | ({"LD_LIBRARY_PATH": os.pathsep.join(own)} if own else {})


class Process:
    """A program that the server at `address` has forked; much like `subprocess.Popen`.

    Args:
      arguments: of the interpreter: `-m module …`, `-c code …` or `script …`.
      cwd, env: as in `subprocess`.
      stdin, stdout, stderr: file descriptors; None for those of this process.
      address: of the server; None starts one where there is none yet.
    """

    def __init__(
        self, arguments, cwd=None, env=None, stdin=None, stdout=None, stderr=None, address=None
    ):
        self.returncode: int | None = None
        order = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": os.path.abspath(cwd or "."),
            "env": dict(os.environ if env is None else env),
        }
        streams = [i if given is None else given for i, given in enumerate((stdin, stdout, stderr))]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address or _server())
        text = json.dumps(order).encode()
        socket.send_fds(self._socket, [len(text).to_bytes(8, "big")], streams)
        self._socket.sendall(text)
        self._answers = self._socket.makefile("r")
        self.pid = json.loads(self._answers.readline())["pid"]

    def wait(self, timeout: float | None = None) -> int:
        """Exit code, or minus the number of the signal that ended the program."""
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout or 0)
            answer = self._answers.readline()
            self.returncode = json.loads(answer)["status"] if answer else -signal.SIGKILL
        return self.returncode

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Nothing happens where the program has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


_SHIM = """#!{python} -SEI
import sys
sys.path.insert(0, {folder!r})
import warm
warm.pass_on({address!r})
"""
_started: dict[str, str] = {}


def _server() -> str:
    """Address of this process' server, which is started on the first call."""
    if "address" not in _started:
        import atexit
        import shutil
        import tempfile

        folder = tempfile.mkdtemp(prefix="neas-warm-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        address = os.path.join(folder, "socket")
        # It ends when this process does: then its stdin is at its end.
        # The native libraries read once how much they may say; tests of that start their own.
        process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), address],
            stdin=subprocess.PIPE,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        while not os.path.exists(address):
            assert process.poll() is None, "the server did not start"
            time.sleep(0.02)
        for name in ("python", "python3"):
            shim = os.path.join(folder, name)
            with open(shim, "w") as file:
                file.write(
                    _SHIM.format(
                        python=sys.executable,
                        folder=os.path.dirname(os.path.abspath(__file__)),
                        address=address,
                    )
                )
            os.chmod(shim, 0o755)
        _started.update(address=address, folder=folder)
    return _started["address"]


def python() -> str:
    """Stands for `sys.executable` in the command of a program."""
    _server()
    return os.path.join(_started["folder"], "python")


def pass_on(address: str) -> None:
    """What `python()` does: has the server run this command line, and ends as it does."""
    process = Process(sys.argv[1:], address=address)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: process.send_signal(received))
    status = process.wait()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _load() -> None:
    """Loads what the project's commands load, and nothing of the project."""
    import importlib

    gc.disable()
    hidden = ("jax", "matplotlib", "pandas", "sklearn")  # as of every command: keras_settings
    sys.modules.update(dict.fromkeys(hidden))
    importlib.import_module("tensorflow")
    importlib.import_module("tf_keras")
    for name in hidden:
        del sys.modules[name]
    for name in (
        "numpy",
        "yaml",
        "absl.app",
        "official.core.exp_factory",
        "official.core.base_task",
        "official.core.base_trainer",
        "official.core.train_utils",
        "official.modeling.optimization",
        "official.modeling.performance",
        "official.vision.ops.augment",
        "ai_edge_litert.interpreter",
        "altair",
        "scipy.stats",
        "sklearn.datasets",
        "tqdm",
    ):
        importlib.import_module(name)
    gc.enable()
    gc.freeze()  # else the first collection of every child copies all of it
    gc.set_threshold(20_000, 20, 20)  # graphs are many objects and no garbage


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    head, streams, _, _ = socket.recv_fds(connection, 8, _STREAMS)
    size, text = int.from_bytes(head, "big"), b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    return json.loads(text), list(streams)


def _become(order: dict, streams: list[int], before: dict[str, str]) -> None:
    """The child: takes streams, folder and environment, and runs the program.

    Args:
      order, streams: as they came.
      before: the server's environment before it loaded anything.
    """
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["cwd"])
    arguments = order["arguments"]
    known = arguments[0] in ("-m", "-c") or not arguments[0].startswith("-")
    if not known or _at_loading(order["env"]) != _at_loading(before):
        os.execve(sys.executable, [sys.executable, *arguments], order["env"])
    of_loading = {name: v for name, v in os.environ.items() if before.get(name) != v}
    os.environ.clear()
    os.environ.update(of_loading | order["env"])
    time.tzset()
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != own]
    added = [entry for entry in order["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = added
    import runpy

    if arguments[0] == "-m":
        sys.argv[:] = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv[:] = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        import __main__

        exec(compile(arguments[1], "<string>", "exec"), __main__.__dict__)
    else:
        sys.argv[:] = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


def _keep_drawn(folder: str) -> None:
    """Vega's scripts and equal charts are made by the first who asks, for all children.

    V8, which makes them, takes a second to start, and a process that has it cannot be forked.
    """
    import hashlib

    import vl_convert

    def kept(make, read, write):
        def get(*arguments, **options):
            asked = json.dumps([make.__name__, arguments, options], sort_keys=True)
            name = os.path.join(folder, hashlib.sha256(asked.encode()).hexdigest())
            if not os.path.exists(name):
                with open(f"{name}.{os.getpid()}", "wb") as file:
                    file.write(write(make(*arguments, **options)))
                os.replace(file.name, name)
            with open(name, "rb") as file:
                return read(file.read())

        return get

    vl_convert.javascript_bundle = kept(vl_convert.javascript_bundle, bytes.decode, str.encode)
    vl_convert.vegalite_to_png = kept(vl_convert.vegalite_to_png, bytes, bytes)


def _serve(address: str) -> tuple[dict, list[int]] | None:
    """Forks a child for every order; returns in the child, with its order, or None at the end."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    _load()
    _keep_drawn(os.path.dirname(address))
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    children: dict[int, socket.socket] = {}
    while True:
        waiting = [0, wake, listener, *children.values()]
        ready, _, _ = select.select(waiting, [], [])
        if 0 in ready:  # whoever wanted us is gone
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        if wake in ready:
            os.read(wake, 4096)
        for pid, connection in list(children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                answer = json.dumps({"status": os.waitstatus_to_exitcode(status)}) + "\n"
                with contextlib.suppress(OSError):
                    connection.sendall(answer.encode())
                connection.close()
                del children[pid]
            elif connection in ready:  # the one who asked was killed
                os.kill(pid, signal.SIGKILL)
        if listener in ready:
            connection, _ = listener.accept()
            order, streams = _receive(connection)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for used in (wake, waker):
                    os.close(used)
                for used in (listener, connection, *children.values()):
                    used.close()
                return order, streams
            for stream in streams:
                os.close(stream)
            connection.sendall((json.dumps({"pid": pid}) + "\n").encode())
            children[pid] = connection


if __name__ == "__main__":
    environment = dict(os.environ)
    chosen = _serve(sys.argv[1])
    if chosen is not None:
        _become(*chosen, environment)
