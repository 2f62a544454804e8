"""Reads PyTorch checkpoints without PyTorch and without running anything that is in them.

A checkpoint is a pickle (see `torch_pickle`) beside raw numbers. Both forms are read: the zip file
of PyTorch 1.6 and later, and the older one.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from neas_tf.common.errors import NeasError, check, unknown_name
from neas_tf.ensemble.torch_pickle import Storage, Tensor, run

READERS = ("own", "torch")
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001
_MAX_PICKLE = 1 << 28
DAMAGES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def open_checkpoint(path: str | os.PathLike[str], reader: str = "own") -> Iterator[Any]:
    """Opens a checkpoint.

    Args:
      path: the file.
      reader: 'own'; or 'torch', for forms that ours does not know: PyTorch's `torch.load` with
        `weights_only=True`, which needs PyTorch.

    Yields:
      What the file holds: dicts, lists, tuples, numbers and texts, with a `Tensor` for each
      tensor, whose numbers can be read as long as the file is open.

    Raises:
      NeasError: for a file that is missing, damaged, or holds more than plain data.
    """
    if reader not in READERS:
        unknown_name("reader", reader, READERS)
    path = os.fspath(path)
    check(os.path.isfile(path), "torch_checkpoint", path, "an existing file")
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(open(path, "rb"))
            content = _torch(path) if reader == "torch" else _own(stream, path, stack)
        except NeasError:
            raise
        except OSError as error:
            raise NeasError(f"torch_checkpoint: {path!r} cannot be read ({error}).") from None
        except DAMAGES as error:
            raise _unsound(path, error) from None
        yield content


def _unsound(path: str, error: Exception) -> NeasError:
    try:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
    except RecursionError:  # a KeyError shows its key, which may be nested without end
        reason = type(error).__name__
    return NeasError(f"torch_checkpoint: {path!r} is no sound PyTorch checkpoint ({reason}).")


def _own(stream: BinaryIO, path: str, stack: contextlib.ExitStack) -> Any:
    head = stream.read(2)
    stream.seek(0)
    if head == b"PK":
        return _zip(stack.enter_context(zipfile.ZipFile(stream)), path)
    if head == b"\x80\x02":
        return _old(stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    raise NeasError(
        f"torch_checkpoint: {path!r} is no file of torch.save (neither its zip form nor the older "
        "one)."
    )


def _zip(archive: zipfile.ZipFile, path: str) -> Any:
    file_size = os.path.getsize(path)
    infos = archive.infolist()
    entries = {entry.filename: entry for entry in infos}
    # Entries that share bytes, or a name, could unfold to many times the file.
    if len(entries) < len(infos) or sum(entry.compress_size for entry in infos) > file_size:
        raise ValueError("a zip file whose entries overlap or have one name")
    pickles = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("a zip file without one <name>/data.pkl")
    folder = pickles[0].removesuffix("data.pkl")

    def content(name: str, limit: int) -> bytes:
        entry = entries.get(name)
        if entry is None:
            raise ValueError(f"it lacks {name!r}")
        # torch.save never compresses; so nothing here can unfold to more than the file holds.
        stored = entry.compress_type == zipfile.ZIP_STORED
        if not stored or entry.compress_size != entry.file_size or entry.file_size > limit:
            raise ValueError(f"{name!r} is compressed or too large")
        return archive.read(entry)

    order = folder + "byteorder"
    if order in entries and content(order, 16).strip() != b"little":
        raise ValueError("its numbers are not little-endian")

    def read(storage: Storage) -> bytes:
        try:
            return content(f"{folder}data/{storage.key}", file_size)
        except (*DAMAGES, OSError) as error:
            raise _unsound(path, error) from None

    return run(io.BytesIO(content(pickles[0], min(file_size, _MAX_PICKLE))), read)


def _old(data: mmap.mmap) -> Any:
    where: dict[str, tuple[int, int]] = {}
    seen: dict[str, Storage] = {}

    def read(storage: Storage) -> bytes:
        if storage.key not in where:
            raise NeasError(f"torch_checkpoint: it lacks the numbers {storage.key!r}.")
        begin, size = where[storage.key]
        return data[begin : begin + size * storage.item]

    if run(data, read) != _OLD_MAGIC or run(data, read) != _OLD_VERSION:
        raise ValueError("a pickle that torch.save did not write")
    system = run(data, read)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise ValueError("its numbers are not little-endian")
    content = run(data, read, seen)
    keys = run(data, read)
    position = data.tell()
    for key in keys:
        (size,) = struct.unpack_from("<q", data, position)
        end = position + 8 + size * seen[key].item
        if size < 0 or end > len(data):
            raise ValueError(f"the numbers {key!r} go beyond its end")
        where[key] = (position + 8, size)
        position = end
    return content


def _torch(path: str) -> Any:
    try:
        import torch
    except ImportError:
        raise NeasError(
            "reader: received 'torch', but PyTorch is not installed; allowed is 'own', or install "
            "the extra 'torch'."
        ) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 6):  # before, weights_only could be made to run code (CVE-2025-32434)
        raise NeasError(
            f"reader: received 'torch', but PyTorch {torch.__version__} does not load files "
            "safely; allowed is 2.6 or later."
        )
    try:
        return _wrapped(torch.load(path, map_location="cpu", weights_only=True), torch)
    except Exception as error:  # its unpickler raises errors of many kinds
        reason = str(error).strip().split("\n")[0][:160]
        raise NeasError(f"torch_checkpoint: PyTorch refuses {path!r} ({reason}).") from None


def _wrapped(value: Any, torch: Any) -> Any:
    """The same with `Tensor` for the tensors in dicts, as far as state dicts go."""
    if isinstance(value, dict):
        return {key: _wrapped(item, torch) for key, item in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    dtype = "<f4" if value.is_floating_point() else "<i8"
    kind = torch.float32 if value.is_floating_point() else torch.int64
    return Tensor(
        tuple(value.shape), dtype, lambda: value.detach().to(kind).contiguous().numpy().copy()
    )
