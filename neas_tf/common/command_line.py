"""What commands share: help, completion, how mistakes, faults and Ctrl-C end, TensorFlow's start."""

from __future__ import annotations

import argparse
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

from absl import app, flags, logging

from neas_tf.common import console, keras_settings
from neas_tf.common.errors import NeasError, WorkerLost, fail
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

    def work() -> None:
        _settle_help()
        if completing():
            complete(_as_argparse())
        app.run(main, flags_parser=flags_parser or app.parse_flags_with_usage)

    start(work, printed)


def start(work: Callable[[], Any], printed: bool = False) -> NoReturn:
    """As `run`, for a command that reads its arguments itself; `work` returns the exit code."""
    _use_utf8()
    keras_settings.use_tensorflow()
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


def program() -> str:
    """How this command was called, such as `neas train` or `python -m neas_tf.train`."""
    called = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if called[1:] and called[1].endswith(("/bin/neas", "/neas_tf/__main__.py")):
        return " ".join(["neas", *called[2:]])
    return " ".join([*map(os.path.basename, called[:1]), *called[1:]])


def _settle_help() -> None:
    """`-h` and `--help` begin with the usage, and end with 0; absl's own end with 1."""
    app.define_help_flags()
    if "h" in flags.FLAGS:  # another command has run in this process
        return
    flags.DEFINE_bool("h", False, "show this help")
    for name in ("help", "helpshort", "helpfull", "helpxml"):
        flag = flags.FLAGS[name]
        flag.parse = _answering(flag.parse, name)
    flags.FLAGS["h"].parse = flags.FLAGS["help"].parse


def _answering(parse: Callable[[Any], None], name: str) -> Callable[[Any], None]:
    def answer(argument: Any) -> None:
        if name != "helpxml" and argument in ("true", "t", "1", True):
            console.show(f"usage: {program()} [--flag=value …]\n")
        try:
            parse(argument)
        except SystemExit:
            raise SystemExit(0) from None

    return answer


def completing() -> bool:
    """Whether a shell asks, through argcomplete, how the command line could continue."""
    return "_ARGCOMPLETE" in os.environ


def words_before_cursor() -> list[str]:
    """The arguments of a command line that is being completed, without the one at the cursor."""
    from argcomplete.lexers import split_line

    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    return words[int(os.environ["_ARGCOMPLETE"]) :]


def skip_words(count: int) -> None:
    """So many arguments were names of commands: what is completed comes after them."""
    if completing():
        os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + count)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell, and ends the process, where `completing`; else nothing happens."""
    if completing():
        import argcomplete

        argcomplete.autocomplete(parser, always_complete_options="long")


def _as_argparse() -> argparse.ArgumentParser:
    """The command's flags, those of --help, as argcomplete understands them."""
    parser = argparse.ArgumentParser()
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        kinds: dict[str, Any] = {"action": "append"}
        if flag.boolean:
            kinds = {"action": "store_true"}
        elif isinstance(flag, flags.EnumFlag):
            kinds = {"choices": flag.parser.enum_values}
        parser.add_argument(f"--{flag.name}", help=(flag.help or "").replace("%", "%%"), **kinds)
    return parser


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


def flags_only(argv: Sequence[str]) -> None:
    """Refuses words that are no flags.

    Raises:
      NeasError: for anything after the program's name.
    """
    if argv[1:]:
        fail("arguments", " ".join(argv[1:]), "flags only (see --help)")


def quiet_exit_code(name: str, work: Callable[[], None]) -> int:
    """`exit_code` of a command that loads TensorFlow late, of whose libraries only errors are told."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    return exit_code(name, None, work)


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


def start_tensorflow(threads: int, logical_cpus: int = 1, quiet: bool = True) -> None:
    """Imports TensorFlow quietly and splits the CPU, which must precede everything else.

    Args:
      threads: of one operation; 0 takes all cores.
      logical_cpus: devices that the CPU is split into.
      quiet: whether libraries are silenced; else only what C++ code remarks, not what Model Garden logs.
    """
    if not quiet:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    elif not flags.FLAGS["verbosity"].present:
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
