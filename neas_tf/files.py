"""Atomic file writing and JSON reading: a file is either the old one or the whole new one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from neas_tf.errors import NeasError


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


def read_json(path: str | os.PathLike[str], what: str = "file") -> Any:
    """Reads JSON, or raises a `NeasError` that names the file and the fault."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise NeasError(f"{what}: no file at {str(path)!r}.") from None
    except OSError as error:
        raise NeasError(f"{what}: {str(path)!r} cannot be read ({error.strerror}).") from None
    return parse_json(content, f"{what}: {str(path)!r}")


def parse_json(content: bytes, where: str) -> Any:
    """The value that JSON text (UTF-8) stands for.

    Args:
      content: the text.
      where: begins the message, such as "architecture: 'a.json'".

    Raises:
      NeasError: for anything else.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NeasError(f"{where} is no valid JSON ({error}).") from None
