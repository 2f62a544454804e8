"""A bounded look into the TFRecords of detection, before anything is trained on them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.lib.io._pywrap_record_io import RecordIterator

from neas_tf.common.errors import NeasError, shown
from neas_tf.detection.pictures.annotations import same_name
from neas_tf.detection.pictures.drawing import decode, size_fault, stored_size

_FILES, _RECORDS = 32, 512  # at most; of more files every so-manieth
_SLACK = 0.05  # that a box may reach beyond its picture, of the picture's side
_BOX = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
_LABEL, _TEXT = "image/object/class/label", "image/object/class/text"
_KINDS = {
    "image/encoded": "bytes_list",
    "image/source_id": "bytes_list",
    "image/height": "int64_list",
    "image/width": "int64_list",
    "image/object/is_crowd": "int64_list",
    "image/object/area": "float_list",
    _LABEL: "int64_list",
    **dict.fromkeys(_BOX, "float_list"),
}
_SINGLE = ("image/encoded", "image/source_id", "image/height", "image/width")


def check_content(
    field: str,
    data: Any,
    files: Sequence[str],
    num_classes: int,
    *,
    categories: Mapping[int, str] | None = None,
    images: Collection[Any] | None = None,
) -> None:
    """Looks at the first records of some files, as the decoder of Model Garden will.

    Args:
      field: `task.train_data` or `task.validation_data`, and `data` its settings.
      categories: names by id in the annotation file, where there is one.
      images: ids of its pictures, where it judges this part.

    Raises:
      NeasError: for a record that training would end at, or learn something else from.
    """
    if data.decoder.type != "simple_decoder":  # finds classes by their names
        return
    check = _Check(field, data, num_classes, categories or {}, images)
    chosen = sorted(files)[:: -(-len(files) // _FILES)]
    for file in chosen:
        for number, record in enumerate(_records(field, data, file, _RECORDS // len(chosen))):
            check.record(f"{field}: record {number} of {file!r}", record, first=number == 0)
    if not check.records:
        raise NeasError(f"{field}.input_path: {data.input_path!r} holds no record.")
    if not check.boxes and images is None:
        raise NeasError(
            f"{field}.input_path: the first {check.records} records of {data.input_path!r} hold "
            f"no box; expected {_LABEL!r} and {_BOX[0]!r} to {_BOX[-1]!r}."
        )


def _records(field: str, data: Any, file: str, most: int) -> Iterator[bytes]:
    # No dataset: an operation that runs before the strategy is made keeps workers from meeting.
    packed = "GZIP" if data.file_type == "tfrecord_compressed" else ""
    try:
        yield from itertools.islice(RecordIterator(file, packed), most)
    except tf.errors.OpError:
        raise NeasError(
            f"{field}.input_path: {file!r} is damaged, or no file of TFRecords (file_type "
            f"{data.file_type!r})."
        ) from None


class _Check:
    def __init__(self, field, data, num_classes, categories, images):
        self.field, self.num_classes = field, num_classes
        self.categories, self.images = categories, images
        self.own_ids = not data.decoder.get().regenerate_source_id
        self.training = data.is_training
        self.records = self.boxes = 0

    def record(self, where: str, record: bytes, first: bool) -> None:
        """One record; of the first in a file the picture is decoded too."""
        try:
            example = tf.train.Example.FromString(record)
        except Exception:  # protobuf's own class, which it may change
            raise NeasError(f"{where} is no tf.train.Example.") from None
        feature = example.features.feature
        values: dict[str, Any] = {}
        for key, kind in _KINDS.items():
            found = feature[key].WhichOneof("kind") if key in feature else None
            values[key] = list(getattr(feature[key], kind).value) if found == kind else []
            if found not in (None, kind):
                raise NeasError(f"{where}: {key!r} holds a {found}, expected a {kind}.")
        needed = ["image/encoded", *(["image/source_id"] if self.own_ids else [])]
        for key in _SINGLE:
            count = len(values[key])
            if count > 1 or (not count and key in needed):
                keys = ", ".join(sorted(feature)[:12]) or "nothing"
                raise NeasError(
                    f"{where} holds {count} values of {key!r}, expected one; its keys are {keys}."
                )
        self.picture(where, values, first)
        self.identity(where, values)
        self.objects(where, values, feature)
        self.records += 1

    def picture(self, where: str, values: dict[str, Any], first: bool) -> None:
        encoded = values["image/encoded"][0]
        try:
            stored = stored_size(encoded)
            good = not encoded.startswith(b"GIF8")  # which Model Garden takes for an animation
            good = good and (not first or decode(encoded) is not None)
        except NeasError:
            good = False
        if not good:
            raise NeasError(
                f"{where}: 'image/encoded' cannot be decoded, expected a JPEG or PNG file."
            )
        height, width = (
            values[f"image/{side}"][0] if values[f"image/{side}"] else -1
            for side in ("height", "width")
        )
        if -1 in (height, width):
            return
        fault = size_fault((height, width), stored, encoded)
        # Boxes are shares of the sides: of a picture that was scaled they still hold, but where
        # evaluation goes by pixels.
        if fault and (not self.training or "EXIF" in fault):
            raise NeasError(f"{where}: its picture {fault}.")

    def identity(self, where: str, values: dict[str, Any]) -> None:
        """Evaluation takes the id as a number, and judges by the annotations of that picture."""
        if self.training or not self.own_ids:
            return
        text = values["image/source_id"][0]
        try:
            number = int(text) if text else None
            good = number is None or -(2**63) <= number < 2**63
        except ValueError:
            good = False
        if not good:
            raise NeasError(
                f"{where}: 'image/source_id' is {shown(text)}, expected a whole number as text."
            )
        if self.images is not None and number not in self.images:
            raise NeasError(
                f"{where}: 'image/source_id' is {shown(text)}, expected the id of one of the "
                f"'images' in task.annotation_file."
            )

    def objects(self, where: str, values: dict[str, Any], feature: Any) -> None:
        labels = values[_LABEL]
        for key in (*_BOX, "image/object/is_crowd", "image/object/area"):
            if len(values[key]) != len(labels) and (key in _BOX or values[key]):
                raise NeasError(
                    f"{where}: {key!r} holds {len(values[key])} values, expected {len(labels)}, "
                    f"one for each of {_LABEL!r}."
                )
        boxes = np.array([values[key] for key in _BOX], np.float64)  # (4, boxes)
        inside = np.isfinite(boxes) & (boxes >= -_SLACK) & (boxes <= 1 + _SLACK)
        good = inside.all(0) & (boxes[2:] >= boxes[:2]).all(0)
        if not good.all():
            wrong = [round(float(n), 3) for n in boxes[:, int(np.argmin(good))]]
            raise NeasError(
                f"{where}: a box is {wrong}, expected [ymin, xmin, ymax, xmax] as shares of the "
                "picture's sides, from 0 to 1."
            )
        names = feature[_TEXT].bytes_list.value if _TEXT in feature else ()
        for i, label in enumerate(labels):
            self.label(where, label, names[i] if len(names) == len(labels) else b"")
        self.boxes += len(labels)

    def label(self, where: str, label: int, text: bytes) -> None:
        if not 0 < label < self.num_classes:
            expected = (
                f"at least {label + 1} (the largest class id plus 1)" if label > 0 else "ids from 1"
            )
            zero = "" if label > 0 else ", and 0 is the background"
            raise NeasError(
                f"task.model.num_classes: received {self.num_classes}, expected {expected}: "
                f"{where.removeprefix(f'{self.field}: ')} has class id {label}{zero}."
            )
        if not self.categories:
            return
        name = self.categories.get(label)
        if name is None and not self.training:
            raise NeasError(
                f"{where} has class id {label}, expected one of the 'categories' of "
                "task.annotation_file."
            )
        said = text.decode("utf-8", "replace")
        if name and said and not same_name(name, said):
            raise NeasError(
                f"{where}: class id {label} is {said!r}, but {name!r} in task.annotation_file; "
                "expected the same classes."
            )
