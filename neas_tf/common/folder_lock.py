"""One process per model_dir at a time, and tidying up after one that was killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from neas_tf.common.errors import NeasError
from neas_tf.common.files import remove_abandoned

LOCK_FILE = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_WAIT = 0.1  # seconds; who asks `is_at_work` is in the way for microseconds
# Names of what is renamed when it is whole: files of `neas_tf.common.files`, model and export folders,
# and the shards of a checkpoint.
_LEFTOVER = re.compile(
    r"\..+\.[a-z0-9_]{8}\.tmp|\.(data|model|saved_model|model(_[a-z0-9_]+)?\.(tflite|keras))\.[a-z0-9_]{8}"
    r"|ckpt-\d+_temp|ckpt-\d+(\.\S+)?\.tempstate\d+"
)
_FOLDERS: tuple[str, ...] = ("", "supernet", "shrink", "search", "retrain", "export", "report")
_FOLDERS += tuple(
    f"export/fine_tuning/{kind}" for kind in ("pruned", "int8_qat", "pruned_int8_qat")
)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds a folder's lock for a block; the system gives it back however the process ends.

    Where the file system knows no locks (some network drives), nothing is locked.

    Raises:
      NeasError: when another process holds it, or the lock file cannot be made.
    """
    path = folder / LOCK_FILE
    lock = FileLock(path, fallback_to_soft=False, on_acquired=_sign)
    try:
        lock.acquire(timeout=_WAIT)
    except Timeout:
        owner = path.read_bytes()[:32].decode("ascii", "replace").strip()
        raise NeasError(
            f"model_dir: {str(folder)!r} is in use by another process"
            f"{f' ({owner})' if owner else ''}; expected one at a time."
        ) from None
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise NeasError(
                f"model_dir: {str(folder)!r} cannot be written ({error.strerror})."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _sign(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()}\n".encode("ascii"), 0)


def is_at_work(folder: Path) -> bool | None:
    """Whether a process holds the folder's lock; None where that cannot be told."""
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return True if error.errno in _HELD else None
    finally:
        os.close(handle)
    return False


def is_leftover(path: Path) -> bool:
    """Whether a path's name is one of those that exist only while something is written."""
    return _LEFTOVER.fullmatch(path.name) is not None


def sweep(folder: Path) -> None:
    """Removes what a killed process left half-written; only for who holds the lock."""
    for name in _FOLDERS:
        part = folder / name
        # The commands of export/ fine-tune there without the run's lock, but with one of its own.
        if part.is_dir() and not (name and is_at_work(part)):
            sweep_part(part)


def sweep_part(folder: Path) -> None:
    """`sweep` for a folder alone, of which the lock is held too."""
    for path in filter(is_leftover, list(folder.iterdir())):
        if path.name.startswith("."):
            remove_abandoned(path)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
