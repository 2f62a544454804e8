"""Reads PyTorch checkpoints without PyTorch and without running anything that is in them.

A checkpoint is a pickle, a program for a small stack machine, beside raw numbers. Python's own
machine can call any function that the program names. The one here knows the instructions that
checkpoints need, imports nothing, and calls nothing: the few names it accepts stand for plain
data, every other name is an error. Both forms are read: the zip file of PyTorch 1.6 and later, and
the older one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import mmap
import os
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.errors import NeasError, check, unknown_name

READERS = ("own", "torch")
_STORAGES = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "BFloat16": "bfloat16",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "<i1",
    "Byte": "<u1",
    "Bool": "|b1",
}
_REBUILD = "torch._utils._rebuild_"
_TENSORS = (f"{_REBUILD}tensor", f"{_REBUILD}tensor_v2")
# What training programs leave beside the weights. It is read over: `Ignored` takes its place.
_METADATA = (
    "argparse.Namespace",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "torch.Size",
    "torch.device",
)
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_VERSION = 1001
_MAX_PICKLE = 1 << 28
_MARK = object()
_DAMAGES = (
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


@dataclasses.dataclass(frozen=True)
class Name:
    """What stands for `module.name` of the pickle; it is never looked up."""

    text: str


@dataclasses.dataclass(frozen=True)
class Ignored:
    """Takes the place of an object that is no part of the weights."""

    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers in the file.

    Attributes:
      key: its name in the file.
      dtype: NumPy's type string, or 'bfloat16'.
      size: how many numbers.
      first: where this view begins in it.
      read: gives the bytes of the whole run.
    """

    key: str
    dtype: str
    size: int
    first: int
    read: Callable[[Storage], bytes]

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor whose numbers are still in the file.

    Attributes:
      shape: of the tensor.
      dtype: NumPy's type string, or 'bfloat16'.
      array: reads the numbers; bfloat16 becomes float32.
    """

    shape: tuple[int, ...]
    dtype: str
    array: Callable[[], np.ndarray]


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
            content = _torch(path) if reader == "torch" else _own(path, stack)
        except NeasError:
            raise
        except OSError as error:
            raise NeasError(f"torch_checkpoint: {path!r} cannot be read ({error}).") from None
        except _DAMAGES as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise NeasError(
                f"torch_checkpoint: {path!r} is no sound PyTorch checkpoint ({reason})."
            ) from None
        yield content


def _own(path: str, stack: contextlib.ExitStack) -> Any:
    stream = stack.enter_context(Path(path).open("rb"))
    head = stream.read(2)
    stream.seek(0)
    if head == b"PK":
        return _zip(stack.enter_context(zipfile.ZipFile(stream)), os.path.getsize(path))
    if head == b"\x80\x02":
        return _old(stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    raise NeasError(
        f"torch_checkpoint: {path!r} is no file of torch.save (neither its zip form nor the older "
        "one)."
    )


def _zip(archive: zipfile.ZipFile, file_size: int) -> Any:
    entries = {entry.filename: entry for entry in archive.infolist()}
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
        return content(f"{folder}data/{storage.key}", file_size)

    return _run(io.BytesIO(content(pickles[0], min(file_size, _MAX_PICKLE))), read)


def _old(data: mmap.mmap) -> Any:
    where: dict[str, tuple[int, int]] = {}
    seen: dict[str, Storage] = {}

    def read(storage: Storage) -> bytes:
        begin, size = where[storage.key]
        return data[begin : begin + size * storage.item]

    if _run(data, read) != _OLD_MAGIC or _run(data, read) != _OLD_VERSION:
        raise ValueError("a pickle that torch.save did not write")
    system = _run(data, read)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise ValueError("its numbers are not little-endian")
    content = _run(data, read, seen)
    keys = _run(data, read)
    position = data.tell()
    for key in keys:
        (size,) = struct.unpack_from("<q", data, position)
        end = position + 8 + size * seen[key].item
        if size < 0 or end > len(data):
            raise ValueError(f"the numbers {key!r} go beyond its end")
        where[key] = (position + 8, size)
        position = end
    return content


def _run(
    stream: Any, read: Callable[[Storage], bytes], seen: dict[str, Storage] | None = None
) -> Any:
    """Interprets one pickle; leaves the stream behind it.

    Args:
      stream: to read from; a read beyond the end gives what there is.
      read: gives the bytes of a storage.
      seen: takes the storages by key.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a pickle without its mark")
        items = stack[at + 1 :]
        del stack[at:]
        return items

    for opcode, argument, _ in pickletools.genops(stream):
        code = opcode.name
        if code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _LITERALS:
            stack.append(argument)
        elif code in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif code == "MARK":
            stack.append(_MARK)
        elif code in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if code == "EMPTY_DICT" else [])
        elif code == "TUPLE":
            stack.append(tuple(marked()))
        elif code in _TUPLES:
            count = _TUPLES[code]
            stack[-count:] = [tuple(stack[-count:])]
        elif code in ("APPEND", "APPENDS"):
            items = marked() if code == "APPENDS" else [stack.pop()]
            _of(stack[-1], list).extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = marked() if code == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _fill(stack[-1], zip(items[::2], items[1::2], strict=True))
        elif code == "GLOBAL":
            stack.append(_name(argument.replace(" ", ".")))
        elif code == "STACK_GLOBAL":
            last = _of(stack.pop(), str)
            stack.append(_name(f"{_of(stack.pop(), str)}.{last}"))
        elif code == "BINPERSID":
            storage = _storage(stack.pop(), read)
            if seen is not None:
                seen[storage.key] = storage
            stack.append(storage)
        elif code in ("REDUCE", "NEWOBJ"):
            arguments = _of(stack.pop(), tuple)
            stack.append(_made(_of(stack.pop(), Name), arguments))
        elif code == "BUILD":  # attributes, such as a state dict's `_metadata`
            stack.pop()
            if not isinstance(stack[-1], (dict, Ignored)):
                raise ValueError("attributes for something that has none")
        elif code == "STOP":
            return stack.pop()
        elif code not in ("PROTO", "FRAME"):
            raise NeasError(
                f"torch_checkpoint: received a file with the pickle instruction {code}, allowed "
                "are those of plain weights."
            )
    raise ValueError("a pickle without an end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING")
_LITERALS = (*_NUMBERS, *_TEXTS, "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _fill(target: Any, pairs: Any) -> None:
    target = _of(target, dict)
    for key, value in pairs:
        if not isinstance(key, (str, int, float, bytes)):  # others could nest without end
            raise ValueError(f"a {type(key).__name__} as a key")
        target[key] = value


def _name(text: str) -> Name:
    """A name that the pickle mentions, if weights need it."""
    kind = text.removeprefix("torch.").removesuffix("Storage")
    allowed = text == f"torch.{kind}Storage" and kind in _STORAGES
    allowed |= text in _TENSORS or text in _METADATA
    if allowed or text in ("collections.OrderedDict", f"{_REBUILD}parameter"):
        return Name(text)
    raise NeasError(
        f"torch_checkpoint: received a file that calls for {text[:80]!r}, allowed are tensors and "
        "plain data only; nothing of the file was run (--reader=torch lets PyTorch's weights_only "
        "decide)."
    )


def _made(name: Name, arguments: tuple) -> Any:
    """What stands for the call of a name."""
    if name.text == "collections.OrderedDict":
        result: dict = {}
        if arguments:
            (pairs,) = arguments
            _fill(result, _of(pairs, list))
        return result
    if name.text == f"{_REBUILD}parameter":
        return _of(arguments[0], Tensor)
    if name.text in _TENSORS:
        return _tensor(*arguments[:4])
    if name.text in _METADATA:
        return Ignored(name.text)
    raise ValueError(f"a call of {name.text}")


def _storage(identity: Any, read: Callable[[Storage], bytes]) -> Storage:
    tag, kind, key, _, size, *view = _of(identity, tuple)
    if tag != "storage" or not _of(kind, Name).text.endswith("Storage"):
        raise ValueError("an unknown kind of reference")
    first = 0
    if view and view[0] is not None:
        first = _natural(view[0][1])
    dtype = _STORAGES[kind.text.removeprefix("torch.").removesuffix("Storage")]
    return Storage(_of(key, str), dtype, _natural(size), first, read)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    storage = _of(storage, Storage)
    offset = _natural(offset) + storage.first
    shape = tuple(_natural(side) for side in _of(shape, tuple))
    strides = tuple(_natural(step) for step in _of(strides, tuple))
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # Neither beyond the storage nor larger than it: a stride of 0 could unfold to any size.
    if math.prod(shape) > storage.size or (math.prod(shape) and last >= storage.size):
        raise ValueError("a tensor larger than its numbers")

    def array() -> np.ndarray:
        content = storage.read(storage)
        half = storage.dtype == "bfloat16"
        numbers = np.frombuffer(content, "<u2" if half else storage.dtype)
        if math.prod(shape) and last >= len(numbers):
            raise NeasError(f"torch_checkpoint: the numbers {storage.key!r} are incomplete.")
        if half:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        bytes_apart = tuple(step * numbers.itemsize for step in strides)
        view = np.lib.stride_tricks.as_strided(
            numbers[offset:], shape, bytes_apart, writeable=False
        )
        return np.array(view)

    return Tensor(shape, storage.dtype, array)


def _natural(value: Any) -> int:
    if _of(value, int) < 0:
        raise ValueError("a negative size")
    return value


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
    """Dicts two levels down, as far as state dicts go, with `Tensor` for PyTorch's tensors."""
    if isinstance(value, dict):
        return {key: _wrapped(item, torch) for key, item in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    dtype = "<f4" if value.is_floating_point() else "<i8"
    kind = torch.float32 if value.is_floating_point() else torch.int64
    return Tensor(
        tuple(value.shape), dtype, lambda: value.detach().to(kind).contiguous().numpy().copy()
    )
