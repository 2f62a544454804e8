"""SIGTERM as an exception, so that a run that is told to stop tidies up and says so."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

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
