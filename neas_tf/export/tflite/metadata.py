"""TFLite's metadata: what a `.tflite` file says of its tensors, and the class names inside of it.

MediaPipe Tasks, ML Kit and Android Studio read it. It is a flatbuffer, named `TFLITE_METADATA` in
the model, that follows `metadata_schema.fbs` (of MediaPipe and tflite-support); the class names are
the file `labels.txt` in a zip archive after the model. The few tables that are needed are written
here: the libraries that have writers bring OpenCV, audio and more. No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np

import neas_tf
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import SIGNATURE

LABELS = "labels.txt"  # inside the file
# How label files belong to a tensor: a name for each place of its last axis, or for each value.
AXIS, VALUE = 2, 3
_METADATA, _IDENTIFIER = "TFLITE_METADATA", b"M001"
_PARSER = "1.0.0"  # of readers; all that is written here has been there since
_FEATURE, _IMAGE, _NORMALISATION = 1, 2, 1  # members of unions
_COLOURS = {3: 1, 1: 2}  # channels: RGB, grey


@dataclasses.dataclass(frozen=True)
class TensorNote:
    """What a file says of one of its tensors.

    Attributes:
      description: a sentence.
      range: smallest and largest value, where known.
      image: (height, width, channels) of an input that is a picture. Its pixels go in as they are:
        mean 0, standard deviation 1.
      labels: `AXIS` or `VALUE` where the class names belong to the tensor, else 0.
    """

    description: str
    range: tuple[float, float] | None = None
    image: tuple[int, int, int] | None = None
    labels: int = 0


def classifier_metadata(content: bytes, info: LoadedInfo, labels: str) -> bytes:
    """A classifier's TFLite file with metadata and class names (`labels`, one a line).

    Its input is `image`, its outputs `logits` and maybe those of `tflite.outputs`.
    """
    space = info.space
    notes = {
        "image": TensorNote(
            "Pixels, as they are: the normalisation is inside of the graph.",
            range=(0.0, 255.0),
            image=(*space.input_size, space.input_channels),
        ),
        "probabilities": TensorNote("Softmax of the logits.", range=(0.0, 1.0), labels=AXIS),
        "logits": TensorNote(
            "Mean of the paths' logits, one a class: no probabilities, a softmax makes them.",
            labels=AXIS,
        ),
        "path_logits": TensorNote("Logits of each path: paths, then classes.", labels=AXIS),
        "disagreement": TensorNote(
            "How far the paths are apart, in nats: the mean divergence of their probabilities from "
            "the mean of these. 0 where they agree; compare it with a threshold to say 'not sure'.",
            range=(0.0, math.log(info.architecture.num_paths)),
        ),
    }
    name = info.architecture.name or info.architecture.key
    return with_metadata(content, f"NEAS ensemble {name}", "Image classifier.", notes, labels)


def with_metadata(
    content: bytes,
    name: str,
    description: str,
    notes: Mapping[str, TensorNote],
    labels: str,
) -> bytes:
    """A TFLite file with metadata and class names; the same bytes for the same arguments.

    Args:
      content: of the file, with the signature `serving_default`.
      name, description: of the model. Author and licence stay open, they are its owner's to say.
      notes: by the signature's names of tensors; those that the file lacks do not matter.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    (signature,) = (s for s in model.signatureDefs if _text(s.signatureKey) == SIGNATURE)
    names = {
        place.tensorIndex: _text(place.name) for place in (*signature.inputs, *signature.outputs)
    }
    graph = model.subgraphs[signature.subgraphIndex]

    def described(tensors: Any) -> list[dict[int, Any]]:
        return [_tensor(names[int(i)], notes.get(names[int(i)], TensorNote(""))) for i in tensors]

    subgraph = {2: described(graph.inputs), 3: described(graph.outputs)}
    table = {0: name, 1: description, 2: neas_tf.__version__, 3: [subgraph], 7: _PARSER}
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, table), file_identifier=_IDENTIFIER)

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    entry.name, entry.buffer = _METADATA, len(model.buffers)
    model.buffers.append(buffer)
    others = [old for old in model.metadata or () if _text(old.name) != _METADATA]
    model.metadata = [*others, entry]
    packed = io.BytesIO(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    # Readers take the file out of the mapped model: it must not be compressed.
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        file = zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0))
        file.create_system, file.external_attr = 3, 0o644 << 16
        archive.writestr(file, labels.encode())
    return packed.getvalue()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _tensor(name: str, note: TensorNote) -> dict[int, Any]:
    """A `TensorMetadata`; numbers are those of the schema's fields."""
    table: dict[int, Any] = {0: name, 1: note.description}
    if note.image:
        height, width, channels = note.image
        colours = np.int8(_COLOURS.get(channels, 0))
        picture = {0: colours, 1: {0: np.uint32(width), 1: np.uint32(height)}}
        table[3] = {0: np.uint8(_IMAGE), 1: picture}
        table[4] = [{0: np.uint8(_NORMALISATION), 1: {0: [0.0], 1: [1.0]}}]
    else:
        table[3] = {0: np.uint8(_FEATURE), 1: {}}
    if note.range:
        table[5] = {0: [note.range[1]], 1: [note.range[0]]}
    if note.labels:
        table[6] = [{0: LABELS, 1: "Class names, one a line.", 2: np.int8(note.labels)}]
    return table


def _write(builder: Any, value: str | list | dict[int, Any]) -> int:
    """Writes a string, a list (of numbers or of the others) or a table by fields; its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        numbers = isinstance(value[0], float)
        items = value if numbers else [_write(builder, item) for item in value]
        builder.StartVector(4, len(items), 4)
        put = builder.PrependFloat32 if numbers else builder.PrependUOffsetTRelative
        for item in reversed(items):
            put(item)
        return builder.EndVector()
    scalars = {
        np.int8: builder.PrependInt8Slot,
        np.uint8: builder.PrependUint8Slot,
        np.uint32: builder.PrependUint32Slot,
    }
    fields = {
        slot: item if type(item) in scalars else _write(builder, item)
        for slot, item in value.items()
    }
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, item in fields.items():
        if type(item) in scalars:
            scalars[type(item)](slot, int(item), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, item, 0)
    return builder.EndObject()
