"""Writes checkpoints in the form of torch.save, instruction by instruction, without PyTorch."""

from __future__ import annotations

import struct
import zipfile

import numpy as np

from neas_tf.ensemble.torch_weight_names import torch_layout
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

KINDS = {"<f4": "Float", "<f8": "Double", "<f2": "Half", "<i8": "Long"}


class Raw(bytes):
    """Pickle instructions that put one value on the stack."""


def name(module: str, attribute: str) -> Raw:
    return Raw(f"c{module}\n{attribute}\n".encode())


def call(function: Raw, *arguments) -> Raw:
    return Raw(function + b"(" + b"".join(map(instructions, arguments)) + b"tR")


def instructions(value, storages: list | None = None) -> bytes:
    """Pickle instructions (protocol 2) that put a value on the stack; tensors go to `storages`."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, (tuple, list)):
        items = b"".join(instructions(item, storages) for item in value)
        return b"(" + items + b"t" if isinstance(value, tuple) else b"](" + items + b"e"
    if isinstance(value, dict):
        items = (instructions(key) + instructions(v, storages) for key, v in value.items())
        return b"}(" + b"".join(items) + b"u"
    return tensor(np.asarray(value), storages)


def tensor(numbers: np.ndarray, storages: list | None, **changes) -> Raw:
    """A tensor; `changes` replace its offset, shape, strides, or the size or type of its storage."""
    content = np.array(numbers, order="C")
    storages.append(content)
    steps = tuple(s // numbers.itemsize for s in content.strides)
    given = {"offset": 0, "shape": numbers.shape, "strides": steps, "size": content.size}
    given |= {"key": str(len(storages) - 1), "kind": KINDS[content.dtype.str], **changes}
    storage = ("storage", name("torch", f"{given['kind']}Storage"), given["key"], "cpu")
    storage = Raw(instructions((*storage, given["size"])) + b"Q")
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    hooks = call(name("collections", "OrderedDict"))
    place = (given["offset"], given["shape"], given["strides"])
    return call(rebuild, storage, *place, False, hooks)


def write(path, content, *, compression=zipfile.ZIP_STORED, storages=None, **entries):
    """Writes a checkpoint.

    Args:
      path: of the file.
      content: dicts, tuples, lists, numbers, texts, arrays and `Raw` instructions.
      compression: of the zip file's entries.
      storages: those of tensors inside `Raw` instructions.
      entries: more entries of the zip file.
    """
    storages = [] if storages is None else storages
    program = b"\x80\x02" + instructions(content, storages) + b"."
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", entries.pop("byteorder", "little"))
        for number, array in enumerate(storages):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def state_dict(
    model, architecture: Architecture, space: SearchSpace, extras: bool = True
) -> dict[str, np.ndarray]:
    """A Keras model's weights as the authors' state dict has them, with what it never uses."""
    from neas_tf.ensemble.model import model_slots  # imports TensorFlow

    layout = torch_layout(architecture, space)
    result = {}
    for slot, value in zip(model_slots(model), model.get_weights(), strict=True):
        weight = layout.weights[(slot.part, slot.layer, slot.path, slot.role)]
        if value.ndim == 4:
            depthwise = slot.role == "dw/kernel"
            value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        elif value.ndim == 2:
            value = value.T
        result[weight.name] = np.ascontiguousarray(value)
    if extras:
        for unused in layout.unused:
            counter = unused.endswith("num_batches_tracked")
            result[unused] = np.array(7, "<i8") if counter else np.full((3,), np.nan, "<f4")
    return result
