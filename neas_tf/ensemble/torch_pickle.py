"""The stack machine of pickles, for checkpoints only: it imports nothing and calls nothing.

A pickle is a program. Python's own machine can call any function that the program names; the one
here knows the instructions that checkpoints need, and the few names that it accepts stand for plain
data. Every other name or instruction is an error.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError

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
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "torch.Size",
    "torch.device",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "datetime.datetime",
)
_DICTS = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict")
# Types that such things mention; nothing is made of them.
_TYPES = frozenset(
    {"numpy.ndarray", *(f"torch.{kind}" for kind in ("float32", "float16", "bfloat16", "float64"))}
    | {f"{m}.{t}" for m in ("builtins", "__builtin__") for t in ("list", "dict", "int", "float")}
)
_MARK = object()
_MOST_DIMENSIONS, _LARGEST = 32, 1 << 40  # of a tensor, and of each of its sides and strides


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


def run(
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
    if allowed or text in (*_DICTS, f"{_REBUILD}parameter") or text in _TYPES:
        return Name(text)
    raise NeasError(
        f"torch_checkpoint: received a file that calls for {text[:80]!r}, allowed are tensors and "
        "plain data only; nothing of the file was run (--reader=torch lets PyTorch's weights_only "
        "decide)."
    )


def _made(name: Name, arguments: tuple) -> Any:
    """What stands for the call of a name."""
    if name.text == "collections.defaultdict":
        return {}
    if name.text in _DICTS:
        result: dict = {}
        if arguments:
            (pairs,) = arguments
            _fill(result, pairs.items() if type(pairs) is dict else _of(pairs, list))
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
    if len(_of(shape, tuple)) > _MOST_DIMENSIONS:
        raise ValueError("a tensor of very many dimensions")
    shape = tuple(_natural(side) for side in shape)
    strides = tuple(_natural(step) for step in _of(strides, tuple))
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # Neither beyond the storage nor larger than it: a stride of 0 could unfold to any size.
    count = math.prod(shape)
    if count > storage.size or (count and last >= storage.size):
        raise ValueError("a tensor larger than its numbers")

    def array() -> np.ndarray:
        content = storage.read(storage)
        if len(content) < storage.size * storage.item:
            raise NeasError(f"torch_checkpoint: the numbers {storage.key!r} are incomplete.")
        half = storage.dtype == "bfloat16"
        numbers = np.frombuffer(content, "<u2" if half else storage.dtype, storage.size)
        if half:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        bytes_apart = tuple(step * numbers.itemsize for step in strides)
        if not count:
            return np.zeros(shape, numbers.dtype)
        view = np.lib.stride_tricks.as_strided(
            numbers[offset:], shape, bytes_apart, writeable=False
        )
        return np.array(view)

    return Tensor(shape, storage.dtype, array)


def _natural(value: Any) -> int:
    if not 0 <= _of(value, int) <= _LARGEST:
        raise ValueError("a negative or endless size")
    return value
