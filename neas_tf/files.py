"""Atomic file writing and JSON reading: a file is either the old one or the whole new one."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from neas_tf.errors import NeasError

_SYSTEM = re.compile(
    "No space left on device|Disk quota exceeded|File too large|Read-only file system|"
    "Permission denied|Operation not permitted|Not a directory|Input/output error"
)


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a temporary file in the same folder, syncs it and renames it over `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | os.PathLike[str], value: Any, indent: int | None = 1) -> None:
    """Writes JSON atomically; NaN and infinities are refused, for they are no JSON."""
    write_text_atomic(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def system_fault(error: BaseException) -> str:
    """The system's words in TensorFlow's exception for a file that it cannot write; '' for others.

    TensorFlow has no class of its own for them, and this module does not load it.
    """
    ours = type(error).__module__.startswith("tensorflow")
    match = _SYSTEM.search(str(error)) if ours else None
    return match[0] if match else ""


def read_json(path: str | os.PathLike[str], what: str = "file") -> Any:
    """Reads JSON, or raises a `NeasError` that names the file and the fault."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NeasError(f"{what}: no file at {str(path)!r}.") from None
    except OSError as error:
        raise NeasError(f"{what}: {str(path)!r} cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NeasError(f"{what}: {str(path)!r} is no valid JSON ({error}).") from None
