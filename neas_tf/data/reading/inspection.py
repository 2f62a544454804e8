"""A bounded look at a source before any work is spent on it: features, labels, orientation.

What cannot be seen so: of more than `MOST_RECORDS` records a feature or label that is wrong beyond
the first of each file. Training and evaluation check every label again when they come to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from neas_tf.common.errors import NeasError
from neas_tf.data.bad_records import reason
from neas_tf.data.reading import pictures
from neas_tf.data.stores import ArrayStore, FileStore, RecordStore, Store

MOST_RECORDS = 10_000  # of each split; 1 GB of ImageNet's
MOST_PICTURES = 1_000  # whose headers are looked at, of each split
_SIDE_BY_SIDE = 16
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
_TYPES = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def inspect(stores: dict[str, Store], classes: int) -> None:
    """Checks records, and warns where pictures say that they are to be turned.

    Args:
      stores: by the field of the settings that names them, such as `data.test_split`.
      classes: how many there are.

    Raises:
      NeasError: when records are damaged, lack their image or label, hold pixels instead of an
        encoded image, or have a label outside 0..classes − 1.
    """
    looked, total, turned = 0, 0, []
    for field, store in stores.items():
        if isinstance(store, ArrayStore):
            continue
        if isinstance(store, RecordStore):
            orientations = _records(store, field, classes)
        else:
            orientations = _files(store)
        looked, total = looked + len(orientations), total + store.size
        turned += [store.where(index) for index, value in orientations.items() if value != 1]
    if turned:
        logging.warning(
            "data: %d of %d pictures looked at (of %d) have an EXIF orientation other than 1, such "
            "as %s; pictures are taken as they are stored and turned nowhere (docs/data.md).",
            *(len(turned), looked, total, turned[0]),
        )


def check_record(store: RecordStore, content: bytes, where: str) -> tuple[bytes, int]:
    """Encoded image and label, counted from 0, of a serialised example.

    Args:
      store: names the features.
      content: the record.
      where: for messages.

    Raises:
      NeasError: when it is no example, or image or label is missing or of another type.
    """
    try:
        feature = tf.train.Example.FromString(content).features.feature
    except DecodeError:
        raise NeasError(f"data: {where} is no tf.train.Example.") from None
    values = []
    for key, what, kind in (
        (store.image_key, "the encoded image", "bytes_list"),
        (store.label_key, "the label", "int64_list"),
    ):
        found = feature[key].WhichOneof("kind") if key in feature else None
        if found == kind and len(getattr(feature[key], kind).value) == 1:
            values.append(getattr(feature[key], kind).value[0])
            continue
        if found is None:
            problem = f"has no feature {key!r}"
        else:
            count = len(getattr(feature[key], found).value)
            problem = f"has {count} {_TYPES[found]} values in its feature {key!r}"
        raise NeasError(
            f"data: {where} {problem}; expected one {_TYPES[kind]} value, {what}; the record has "
            f"{_described(feature)}."
        )
    return values[0], values[1] - store.label_offset


def _described(feature: dict[str, tf.train.Feature]) -> str:
    if not feature:
        return "no features"
    names = sorted(feature)
    shown = ", ".join(
        f"{name} ({_TYPES.get(feature[name].WhichOneof('kind'), 'empty')})" for name in names[:20]
    )
    return f"the features {shown}" + ", …" * (len(names) > 20)


def check_labels(
    store: FileStore | RecordStore,
    indices: Sequence[int] | np.ndarray,
    labels: np.ndarray,
    classes: int,
    among: str,
) -> None:
    """Checks the labels (n,) of some examples of a store; `among` tells which these are.

    Raises:
      NeasError: names the first one whose label is not in 0..classes − 1, and counts them.
    """
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        first = int(outside[0])
        raise NeasError(
            f"data.num_classes: received {classes} classes, but "
            f"{store.where(int(indices[first]))} has the label {labels[first]} and {len(outside)} "
            f"{among} lie outside 0..{classes - 1} (data.label_offset is already taken off)."
        )


def check_all(store: RecordStore) -> None:
    """`check_record` for every record.

    Raises:
      NeasError: for the first that is not sound.
    """
    for index, content in _read(store, store.size):
        check_record(store, content, store.where(index))


def _records(store: RecordStore, field: str, classes: int) -> dict[int, int]:
    """Checks the first records of every file; orientation of some of them, by index."""
    indices, labels, orientations, encoded_at_all = [], [], {}, False
    step = -(-min(store.size, MOST_RECORDS) // MOST_PICTURES)
    for number, (index, content) in enumerate(_read(store, MOST_RECORDS)):
        image, label = check_record(store, content, store.where(index))
        indices.append(index)
        labels.append(label)
        encoded_at_all |= image.startswith(_MAGIC)
        if number % step == 0:
            orientations[index] = pictures.orientation(image)
        if number == 0:
            first, size, features = index, len(image), content
    values = np.array(labels, object)
    if len(labels) and (values + store.label_offset == -1).all():
        raise NeasError(
            f"{field}: the {len(labels)} records looked at have the label -1, which means that "
            "it is not told; expected a split with labels, such as 'validation' of ImageNet."
        )
    check_labels(store, indices, values, classes, f"of {len(labels)} labels looked at")
    if len(labels) and not encoded_at_all:
        described = _described(tf.train.Example.FromString(features).features.feature)
        raise NeasError(
            f"data: {store.where(first)} holds {size} bytes in its feature {store.image_key!r}, "
            "and these are no image, nor are those of the other records looked at; expected an "
            f"encoded JPEG, PNG, GIF, BMP or WebP, not pixels; the record has {described}."
        )
    return orientations


def _files(store: FileStore) -> dict[int, int]:
    """Orientation of pictures evenly spread over the files, by index."""
    count = min(store.size, MOST_PICTURES)
    chosen = np.linspace(0, store.size - 1, count).round().astype(int).tolist()
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        found = pool.map(lambda i: pictures.orientation(pictures.head(store.paths[i])), chosen)
        return dict(zip(chosen, found, strict=True))


def _read(store: RecordStore, most: int) -> Iterator[tuple[int, bytes]]:
    """(index, record) of about so many: as many of the first of each file.

    Raises:
      NeasError: when they cannot be read; the file is named.
    """
    number = len(store.files)
    chosen = np.linspace(0, number - 1, min(number, most)).round().astype(np.int64)
    each = max(file.take for file in store.files) if store.size <= most else -(-most // len(chosen))

    def first(file: tf.Tensor) -> tf.data.Dataset:
        return store.records_of(file).take(each)

    records = tf.data.Dataset.from_tensor_slices(chosen).interleave(
        first,
        cycle_length=min(len(chosen), _SIDE_BY_SIDE),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    try:
        for index, content in records.as_numpy_iterator():
            yield int(index), content
    except tf.errors.OpError as error:
        why, path = _first_unreadable(store, chosen.tolist(), first) or (reason(error), "")
        place = f" in {path!r}" if path else ""
        raise NeasError(f"data: the records are damaged ({why}){place}.") from None


def _first_unreadable(store: RecordStore, files: list[int], first) -> tuple[str, str] | None:
    for file in files:
        try:
            for _ in first(tf.constant(file)):
                pass
        except tf.errors.OpError as error:
            return reason(error), store.files[file].path
    return None
