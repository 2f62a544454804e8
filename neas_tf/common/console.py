"""What people see during a run: lines, progress bars, and no noise of libraries.

Everything goes to stderr; stdout is for results. Where stderr is no terminal, bars become one
plain line every few seconds, so that logs stay readable and small. A terminal that cannot show a
character, or is gone, is no reason to lose a run.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging as standard_logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from absl import logging
from tqdm import tqdm

LOG_INTERVAL = 10.0  # seconds between the lines of a bar in a log
_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}, {elapsed} + {remaining}{postfix}"
)
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left{postfix}"
# Model Garden's remark on lists in overrides, which is how `space.stages` is set.
_UNTRUE = ("The list/tuple don't match the value dictionaries",)


# What stands for characters that a terminal lacks; others become \\u2026 and the like.
_PLAIN = {
    "─": "-",
    "━": "=",
    "═": "=",
    "│": "|",
    "▼": "v",
    "●": "o",
    "█": "#",
    "×": "x",
    "·": ".",
    "–": "-",
}
_PLAIN |= {
    "±": "+-",
    "²": "^2",
    "µ": "u",
    "−": "-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "τ": "tau",
    "σ": "sigma",
}
_PLAIN |= dict.fromkeys("├┬╮┴╯", "+")
_ERRORS = "neas_plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    texts = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters)
    return "".join(texts), error.end


codecs.register_error(_ERRORS, _plain)


def say(text: str) -> None:
    """Writes a line to stderr, above the bars that are shown."""
    if (stream := sys.stderr) is not None:  # None where it was closed from the start
        with contextlib.suppress(OSError, ValueError):  # its reader is gone, or it was closed
            tqdm.write(_fitting(text, stream), file=stream)
            stream.flush()


def show(text: str) -> None:
    """Writes a result to stdout, as a line."""
    if (stream := sys.stdout) is None:
        return
    try:
        stream.write(_fitting(text, stream) + "\n")
        stream.flush()
    except BrokenPipeError:  # who reads it has seen enough; nor may Python's own flush fail
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError) as error:
        say(f"Warning: standard output cannot be written ({_reason(error)}).")


def _fitting(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _Patient(io.FileIO):
    """A file whose writing never fails: it remembers the first fault, and drops what follows."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes


def mend_streams() -> None:
    """Makes stdout and stderr take every character and every line, also closed, full or broken.

    For the beginning of a command. Where one of the three standard streams is closed, the next
    file that is opened would take its number, and what libraries print would go into that file.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            old.flush()
        lines = number == 2 or os.isatty(number)
        stream = io.TextIOWrapper(
            io.BufferedWriter(_Patient(number, "w", closefd=False)),
            encoding=getattr(old, "encoding", None) or "utf-8",
            errors=_ERRORS,
            line_buffering=lines,
        )
        setattr(sys, name, stream)


def stdout_fault() -> str:
    """Why results could not be written to stdout, as far as `mend_streams` saw it; '' if they were.

    A reader that has gone, as `head` does, is no fault.
    """
    stream = sys.stdout
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()
    fault = getattr(getattr(getattr(stream, "buffer", None), "raw", None), "fault", None)
    return "" if fault is None or fault.errno in (errno.EPIPE, errno.EBADF) else _reason(fault)


def heading(title: str, *details: str) -> None:
    """Announces a stage: its title, and what will be done, one indented line each."""
    say(f"\n━━ {title} {'━' * max(4, 68 - len(title))}")
    for detail in details:
        say(f"   {detail}")


class _Bar(tqdm):
    """A bar whose text waits for the next drawing: in a log every drawing is a line."""

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """Shows a string after the bar."""
        super().set_postfix_str(s, refresh)


def bar(
    title: str,
    total: int | None,
    unit: str,
    initial: int = 0,
    leave: bool = True,
    disable: bool = False,
) -> tqdm:
    """A progress bar with the time left.

    Args:
      title: in front.
      total: units altogether; None where nobody knows.
      unit: what is counted, in the plural.
      initial: units that were done before.
      leave: whether it stays on the terminal after its end.
      disable: whether it is not shown at all, as in workers other than the chief.
    """
    common: dict[str, Any] = {"desc": title, "total": total, "unit": unit, "initial": initial}
    common["disable"] = disable or sys.stderr is None
    if sys.stderr is not None and sys.stderr.isatty():
        return _Bar(**common, leave=leave, dynamic_ncols=True, mininterval=0.5, bar_format=_BAR)
    return _Bar(
        **common,
        file=_Lines(sys.stderr),
        position=0,
        ascii=False,
        mininterval=LOG_INTERVAL,
        maxinterval=3 * LOG_INTERVAL,
        delay=1e-9,  # no line before the first unit
        bar_format=_LINE,
    )


class _Lines:
    """A stream that turns what tqdm draws over and over into lines."""

    def __init__(self, stream: TextIO | None):
        self._stream, self._last = stream or io.StringIO(), ""

    def write(self, text: str) -> int:
        line = text.replace("\x1b[A", "").strip("\r\n ")
        if line and line != self._last:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(_fitting(line, self._stream) + "\n")
            self._last = line
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


@contextlib.contextmanager
def native_noise_off() -> Iterator[None]:
    """Drops what C++ code writes to stderr in a block, unless the block fails."""
    try:
        number = sys.__stderr__.fileno() if sys.__stderr__ else -1
        kept = os.dup(number)
    except (AttributeError, OSError, ValueError):
        yield
        return
    with tempfile.TemporaryFile() as store:
        sys.stderr.flush()
        os.dup2(store.fileno(), number)
        try:
            yield
        except BaseException:
            store.seek(0)
            os.write(kept, store.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, number)
            os.close(kept)


def short_count(value: float) -> str:
    """301500768 → '301.50 M'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:,.0f}"


def quiet_libraries() -> None:
    """Silences what TensorFlow and its kin tell of themselves; call before importing TensorFlow.

    Warnings of this project's own remain, as plain lines.
    """
    # "failed call to cuInit" on machines without a GPU has the level of an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.WARNING)
    root = standard_logging.getLogger()
    root.removeHandler(logging.get_absl_handler())
    if not any(isinstance(handler, _AboveBars) for handler in root.handlers):
        root.addHandler(_AboveBars())
    logging.get_absl_logger().addFilter(_worth_telling)
    standard_logging.getLogger("tensorflow").setLevel(standard_logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextlib.contextmanager
def without_repeats() -> Iterator[None]:
    """Within it a warning is told once: what plans a run and the run itself read the same data."""
    told: set[str] = set()

    def is_new(record: standard_logging.LogRecord) -> bool:
        if record.levelno != standard_logging.WARNING:
            return True
        text = record.getMessage()
        known = text in told
        told.add(text)
        return not known

    logging.get_absl_logger().addFilter(is_new)
    try:
        yield
    finally:
        logging.get_absl_logger().removeFilter(is_new)


class _AboveBars(standard_logging.Handler):
    """Shows log records as plain lines that do not tear the bars."""

    def emit(self, record: standard_logging.LogRecord) -> None:
        """Writes a record."""
        try:
            say(f"{record.levelname.capitalize()}: {record.getMessage()}")
        except Exception:
            self.handleError(record)


def _worth_telling(record: standard_logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_UNTRUE)
