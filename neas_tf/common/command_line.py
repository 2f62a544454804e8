"""What commands share: terminals, how mistakes, faults and Ctrl-C end, and TensorFlow's start."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags

from neas_tf.common import console
from neas_tf.common.errors import NeasError, WorkerLost
from neas_tf.common.files import system_fault

# What a folder or its disk is to blame for, in the middle of a run as well.
_NOT_WRITABLE: tuple[int, ...] = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NOT_WRITABLE += (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO)
_PATIENCE = 10.0  # seconds for a process that has lost another one


def run(
    main: Callable[[Sequence[str]], Any],
    flags_parser: Callable[[Sequence[str]], list[str]] | None = None,
    printed: bool = False,
) -> NoReturn:
    """Runs a command with absl flags on whatever terminal, and ends the process.

    Args:
      main: the command; returns its exit code.
      flags_parser: of `flags_parser`; absl's own by default.
      printed: whether what it prints is its result, which is then lost with stdout (exit code 2);
        other commands leave files.
    """
    start(lambda: app.run(main, flags_parser=flags_parser or app.parse_flags_with_usage), printed)


def start(work: Callable[[], Any], printed: bool = False) -> NoReturn:
    """As `run`, for a command that reads its arguments itself; `work` returns the exit code."""
    _use_utf8()
    console.mend_streams()
    try:
        code = work()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        console.say("\nstopped.")
        code = 130
    if fault := console.stdout_fault():
        console.say(f"Warning: standard output cannot be written ({fault}).")
        code = code or (2 if printed else 0)
    sys.exit(code)


def _use_utf8() -> None:
    """Starts Python again, in its UTF-8 mode, where names of files could not be non-ASCII.

    TensorFlow takes names of files in UTF-8 only. What is printed keeps the terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    encoding = getattr(sys.stdout or sys.stderr, "encoding", "ascii")
    environment = {"PYTHONIOENCODING": encoding, **os.environ, "PYTHONUTF8": "1"}
    sys.stdout and sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def flags_parser(name: str) -> Callable[[Sequence[str]], list[str]]:
    """A parser for `app.run`; a mistake in the flags ends with one sentence and exit code 2."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except flags.Error as error:
            console.say(f"{name}: {' '.join(str(error).split())} (see --help)")
            sys.exit(2)

    return parse


def exit_code(name: str, model_dir: str | None, work: Callable[[], None]) -> int:
    """Does the work of a command, and says in one sentence why it did not end.

    Args:
      name: of the command.
      model_dir: what it writes and continues from; None where a command does neither, whose own
        words tell of files, and which does not continue after Ctrl-C.
      work: the command itself.

    Returns:
      0, 2 after bad input and where nothing can be written, 3 where another worker was lost, 130
      after Ctrl-C.
    """
    try:
        work()
    except NeasError as error:
        console.say(f"{name}: {error}")
        if isinstance(error, WorkerLost):
            _leave(error.exit_code)
        return error.exit_code
    except OSError as error:
        if model_dir is None or error.errno not in _NOT_WRITABLE:
            raise
        where = error.filename or model_dir
        console.say(f"{name}: {where!r} cannot be written ({error.strerror}).")
        return 2
    except Exception as error:
        if model_dir is None or not (fault := system_fault(error)):
            raise
        console.say(f"{name}: {model_dir!r} cannot be written ({fault}).")
        return 2
    except KeyboardInterrupt:
        if model_dir is None:
            raise
        console.say(f"\n{name}: stopped; the same command continues from here.")
        return 130
    return 0


def start_tensorflow(threads: int, logical_cpus: int = 1) -> None:
    """Imports TensorFlow quietly and splits the CPU, which must precede everything else.

    Args:
      threads: of one operation; 0 takes all cores.
      logical_cpus: devices that the CPU is split into.
    """
    if not flags.FLAGS["verbosity"].present:
        console.quiet_libraries()
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    console.say("Starting TensorFlow …")
    # What an import makes is no garbage: the collector need not look for any in it, then or later.
    gc.disable()
    import tensorflow as tf

    gc.freeze()
    gc.enable()
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [configuration] * logical_cpus)


def _leave(code: int) -> None:
    """Ends the process soon, though TensorFlow may wait in its destructors for who is gone."""

    def end() -> None:
        time.sleep(_PATIENCE)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()


EXIT_CODE = 128 + signal.SIGTERM
_AGAIN = 5.0  # seconds


class Terminated(BaseException):
    """The process received SIGTERM. Not an `Exception`: nothing may take it for a failure."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Raises `Terminated` in a block, in the main thread, when SIGTERM comes.

    Python runs handlers between its own instructions, so that a loop of TensorFlow's steps is
    finished first. Where Python swallows the exception (in a destructor) it comes again every five
    seconds. Outside the main thread the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = False

    def stop(number: int, frame: FrameType | None) -> None:
        if not caught:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            raise Terminated

    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGALRM, stop)
    try:
        yield
    except Terminated:
        caught = True
        raise
    finally:
        caught = True
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])
