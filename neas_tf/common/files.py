"""Atomic file writing and JSON reading: a file is either the old one or the whole new one."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError

_SYSTEM = re.compile(
    "No space left on device|Disk quota exceeded|File too large|Read-only file system|"
    "Permission denied|Operation not permitted|Not a directory|Input/output error|Stale file handle"
)
OLD = "old"  # in a temporary folder: what was at the target before
MOST_BYTES = 1 << 28  # of a file of JSON; a search's history has about 1 kB a candidate
_MOST_LEVELS = 100  # of nested values
_MOST_DIGITS = 300  # of a whole number: any such number is a finite float too
# UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a temporary file in the same folder, syncs it and renames it over `path`.

    What a killed process left of an earlier try is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path, ".tmp")
    handle, temporary = _claimed(
        lambda: tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    )
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


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Tells what the system says of a disk in a block as a `NeasError` that begins with `what`."""
    try:
        yield
    except Exception as error:
        fault = str(error) if isinstance(error, OSError) else system_fault(error)
        if not fault:
            raise
        raise NeasError(f"{what}: cannot be written ({fault}).") from None


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` to make it in, which goes at the end; its parents are created.

    What killed processes left there of the same target is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)

    def make() -> tuple[int, str]:
        name = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.")
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name

    handle, name = _claimed(make)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(handle)


def remove_abandoned(path: Path) -> None:
    """Removes a temporary file or folder of this module, unless a living process works in it.

    What it had moved out of the way of something new goes back where nothing new has come.
    """
    try:
        if path.is_symlink():
            path.unlink()
            return
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        target = path.with_name(path.name[1:-9])  # without the dots and mkdtemp's eight letters
        if (path / OLD).exists() and not target.exists():
            os.rename(path / OLD, target)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:  # it is at work, or nobody can tell
        pass
    finally:
        os.close(handle)


def _sweep(target: Path, suffix: str = "") -> None:
    name = re.compile(re.escape(f".{target.name}.") + "[a-z0-9_]{8}" + re.escape(suffix))
    with os.scandir(target.parent) as entries:
        found = [entry.path for entry in entries if name.fullmatch(entry.name)]
    for path in found:
        remove_abandoned(Path(path))


def _claimed(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """A new file or folder, open and locked, so that no other process takes it for abandoned."""
    while True:
        handle, path = make()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # some network drives have no locks
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return handle, path
        else:
            if os.path.exists(path):
                return handle, path
        os.close(handle)  # who sweeps was faster


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text atomically."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | os.PathLike[str], value: Any, indent: int | None = 1) -> None:
    """Writes JSON atomically; NaN and infinities are refused, for they are no JSON."""
    write_text_atomic(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def check_writable(field: str, path: str | os.PathLike[str], kind: str = "") -> None:
    """Refuses a place where nothing can be written, before any work is spent; leaves nothing there.

    Args:
      field: begins the message, such as "output".
      path: of the file or folder to write; it and its parents may be missing.
      kind: 'file' refuses what is there and no regular file: a folder, a device.

    Raises:
      NeasError: for a name that is empty or too long, and a folder that takes no files.
    """
    path = Path(path)
    where = f"{field}: {str(path)!r}"
    if path.name in ("", ".."):
        raise NeasError(f"{where} names nothing to write; expected a name of its own.")
    try:
        if kind == "file" and path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise NeasError(f"{where} is {what}; expected the name of a file.")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        if not nearest.is_dir():
            raise NeasError(f"{where} cannot be written, as {str(nearest)!r} is a file.")
        # Longer than all names that are written beside it: only the system knows what it takes.
        with tempfile.NamedTemporaryFile(
            dir=nearest, prefix=f".{path.name}.labels.txt.", suffix=".tmp"
        ):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise NeasError(
            f"{where} cannot be written ({reason}); expected a place that takes files."
        ) from None


def system_fault(error: BaseException) -> str:
    """The system's words in TensorFlow's exception for a file that it cannot write; '' for others.

    TensorFlow has no class of its own for them, and this module does not load it.
    """
    ours = type(error).__module__.startswith("tensorflow")
    match = _SYSTEM.search(str(error)) if ours else None
    return match[0] if match else ""


def read_json(path: str | os.PathLike[str], what: str = "file", nan: bool = False) -> Any:
    """Reads JSON, or raises a `NeasError` that names the file and the fault; see `parse_json`."""
    return parse_json(read_bytes(path, what), f"{what}: {str(path)!r}", nan)


def decode_text(content: bytes, where: str, errors: str = "strict") -> str:
    """The text of a file that people or their tools wrote: UTF-8, UTF-16 or UTF-32.

    Windows' Notepad and PowerShell write UTF-8 with a byte order mark and UTF-16; the mark is no
    part of the text, wherever files with one were joined. UTF-16 without a mark shows by its zero
    bytes, all on one side of the pairs.

    Args:
      content: of the file.
      where: begins the message, such as "--labels: 'labels.txt'".
      errors: 'replace' lets through what the encoding has no character for.

    Raises:
      NeasError: for anything else.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content and len(content) % 2 == 0:
        if b"\0" not in content[::2]:
            encoding = "utf-16-le"
        elif b"\0" not in content[1::2]:
            encoding = "utf-16-be"
    try:
        text = content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n")
        raise NeasError(
            f"{where}: line {line} is no {encoding.upper()} text (byte {content[error.start]:#04x} "
            f"at {error.start:,}); expected UTF-8, or UTF-16 with a byte order mark."
        ) from None
    return re.sub("^\ufeff+", "", text, flags=re.MULTILINE)


def read_bytes(path: str | os.PathLike[str], what: str, most: int = MOST_BYTES) -> bytes:
    """The content of a file; raises a `NeasError` for one that cannot be read or is too large."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(most + 1)
    except FileNotFoundError:
        raise NeasError(f"{what}: no file at {str(path)!r}.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        reason = getattr(error, "strerror", None) or error
        raise NeasError(f"{what}: {str(path)!r} cannot be read ({reason}).") from None
    if len(content) > most:
        raise NeasError(f"{what}: {str(path)!r} is larger than {most >> 20} MiB.")
    return content


def parse_json(content: bytes, where: str, nan: bool = False) -> Any:
    """The value that JSON text stands for: UTF-8, every key once, finite numbers, real text.

    Args:
      content: the text.
      where: begins the message, such as "architecture: 'a.json'".
      nan: lets NaN and infinities pass, which are no JSON, but Python writes them.

    Raises:
      NeasError: for anything else; also for nesting, or whole numbers, that nothing needs.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=float if nan else _refuse,
            parse_float=float if nan else _finite,
            parse_int=_short,
        )
        check_plain(value, _MOST_LEVELS)
    except (ValueError, RecursionError, MemoryError) as error:
        raise NeasError(f"{where} is no valid JSON ({error}).") from None
    return value


def check_plain(value: Any, levels: int) -> None:
    """Raises a `ValueError` for values nested deeper, and strings with NUL or lone surrogates.

    Such strings could neither be written nor be names of files.
    """
    level = [value]
    for _ in range(levels):
        below: list[Any] = []
        for node in level:
            if isinstance(node, str):
                if _NO_TEXT.search(node):
                    raise ValueError(f"a string with NUL or half a character: {node[:40]!a}")
            elif isinstance(node, dict):
                below += node
                below += node.values()
            elif isinstance(node, list):
                below += node
        if not below:
            return
        level = below
    raise ValueError(f"nested deeper than {levels} levels")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return result


def _refuse(text: str) -> Any:
    raise ValueError(f"{text}, which is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"a number beyond all bounds: {text[:20]}")
    return value


def _short(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a whole number of more than {_MOST_DIGITS} digits")
    return int(text)


def difference(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, one short text each: 'a.b: was 1, is 2'."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        result = []
        for key in [*old, *(k for k in new if k not in old)]:
            path = f"{name}.{key}" if name else str(key)
            result += difference(old.get(key), new.get(key), path)
        return result
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > 4:
        gone, come = [v for v in old if v not in new], [v for v in new if v not in old]
        return [
            f"{name}: had {len(old)} entries, has {len(new)}, lost {_few(gone)}, "
            f"gained {_few(come)}"
        ]
    return [f"{name}: was {json.dumps(old)}, is {json.dumps(new)}"]


def listed(changes: list[str], most: int = 6) -> str:
    """The first of some differences as one text."""
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return f"{'; '.join(changes[:most])}{more}"


def check_same(where: str, what: str, found: Any, wanted: Any, remedy: str) -> None:
    """Refuses a folder whose record of what it holds is not what is wanted.

    Args:
      where: the field and its folder, such as "model_dir: 'runs/mine'".
      what: it is a folder of, such as "search".
      found, wanted: JSON values; the record, and what it should be.
      remedy: what to give instead.

    Raises:
      NeasError: names the first differences.
    """
    if changes := difference(found, wanted):
        raise NeasError(f"{where} holds another {what} ({listed(changes)}); expected {remedy}.")


def _few(values: list[Any], count: int = 3) -> str:
    texts = [json.dumps(value) for value in values[:count]]
    return ", ".join(texts + ["…"] * (len(values) > count)) or "nothing"
