"""Fixed subsets as arrays: for BN recalculation, scoring and the search's validation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import NeasError, check_int
from neas_tf.data import splits
from neas_tf.data.bad_records import failures, report_damaged
from neas_tf.data.dataset_info import DatasetInfo, Part
from neas_tf.data.loading import make_decoder
from neas_tf.data.reading.decoding import traced
from neas_tf.data.reading.inspection import check_record
from neas_tf.data.stores import ArrayStore, FileStore, RecordStore
from neas_tf.data.streams import SIDE_BY_SIDE, RecordStreams

# Labels of a stream of records are read for at most this many times the wanted count.
_LOOK_AHEAD = 4


def make_arrays(
    info: DatasetInfo, part: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`make_images` with all images normalised: float32 (n, h, w, c)."""
    images, labels = make_images(info, part, count, seed)
    return info.normalisation.apply(images), labels


def make_images(
    info: DatasetInfo, part: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A fixed random subset of a part, with the classes as even as they can be.

    10,000 images of 224² take 1.5 GB so, and 6 GB as the network wants them.

    Args:
      info: the data set.
      part: `train`, `supernet`, `search` or `test`.
      count: examples; 0, or more than there are, takes the whole part.
      seed: draws the subset.

    Returns:
      (pixels uint8 (n, h, w, c), not augmented; labels int32 (n,)), in the order of the data set (of the drawing, for streamed records). Streams of records are read once, as
      far as needed; there the classes are even only as far as four times `count` records allow.

    Raises:
      NeasError: for an unknown or empty part, or when no image can be decoded.
    """
    check_int("count", count, 0)
    check_int("seed", seed, 0, (1 << 62) - 1)
    source = info.part(part)
    count = min(count or source.size, source.size)
    rng = np.random.default_rng(seed)
    if source.labels is None:
        with failures():
            images, labels = _from_records(info, source, count, seed)
    else:
        chosen = splits.balanced_indices(source.labels, count, rng)
        indices = chosen if source.indices is None else source.indices[chosen]
        labels = source.labels[chosen]
        if isinstance(store := source.store, FileStore):
            images, labels = _decode(
                tf.data.Dataset.from_tensor_slices((indices, labels)),
                lambda index, label: (tf.io.read_file(store.paths.at(index)), label),
                info,
                f"{info.name}, part {part}",
                [store.where(int(i)) for i in indices],
            )
        else:
            assert isinstance(store, ArrayStore)
            images = tf.gather(store.images, indices).numpy()
    return images, labels.astype(np.int32)


def class_weights(info: DatasetInfo, part: str) -> np.ndarray | None:
    """What an example of each class weighs in the loss (`data.class_weights`).

    Records are read once for their labels.

    Returns:
      float32 (classes,) with a mean of 1 over the part; None where all weigh the same.

    Raises:
      NeasError: for the name of no class, or an empty part.
    """
    setting, source = info.config.weight_setting, info.part(part)
    if setting == "none":
        return None
    labels = source.labels
    if labels is None:
        assert isinstance(source.store, RecordStore)
        records = source.store.records().map(
            lambda index, record: (index, source.store.parse_label(record)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        with failures():
            labels = np.array([v for _, v in records.as_numpy_iterator()], np.int32)
        labels = labels if source.indices is None else labels[source.indices]
        labels = labels[(labels >= 0) & (labels < info.num_classes)]
    counts = np.bincount(labels, minlength=info.num_classes)
    return splits.loss_weights(counts, info.class_names, setting)


def _from_records(
    info: DatasetInfo, part: Part, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    store = part.store
    assert isinstance(store, RecordStore)  # the only one whose labels nobody knows
    quota = -(-count // info.num_classes)
    taken = np.zeros(info.num_classes + 1, np.int64)  # one more for labels outside
    chosen: list[tuple[int, bytes]] = []  # (index, record)
    spare: list[tuple[int, bytes]] = []
    stream = RecordStreams.of(part, SIDE_BY_SIDE, info.config.shuffle_buffer, seed).once()
    labelled = stream.map(lambda index, record: (index, record, store.parse_label(record)))
    for index, record, label in labelled.take(_LOOK_AHEAD * count).as_numpy_iterator():
        label = int(label) if 0 <= label < info.num_classes else info.num_classes
        if taken[label] < quota:
            chosen.append((index, record))
            taken[label] += 1
        elif len(spare) < count:
            spare.append((index, record))
        if len(chosen) == count:
            break
    taken_now = [*chosen, *spare][:count]
    records = tf.data.Dataset.from_tensor_slices(([record for _, record in taken_now],))
    where = [store.where(int(index)) for index, _ in taken_now]
    for (_, record), place in zip(taken_now, where, strict=True):
        check_record(store, record, place)  # decoding would take it for a damaged image
    images, labels = _decode(records, store.parse, info, info.name, where)
    if labels.min() < 0 or labels.max() >= info.num_classes:
        raise NeasError(
            f"data.num_classes: received {info.num_classes} classes, but there are labels from "
            f"{labels.min()} to {labels.max()} (label_offset is already taken off)."
        )
    return images, labels


def _decode(
    tokens: tf.data.Dataset, fetch: Callable, info: DatasetInfo, what: str, where: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes examples; damaged ones are counted and left out, or named where that is to stop.

    Args:
      tokens: what to read of each.
      fetch: makes (encoded image, label) of it.
      info: of the data set.
      what: for messages.
      where: name of each, for messages.
    """
    decode = traced(make_decoder(info.config, info.input_shape), "fixed")

    def one(index: tf.Tensor, token: tuple) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, label = fetch(*token)
        return index, decode(encoded), label

    decoded = tokens.enumerate().map(one, num_parallel_calls=tf.data.AUTOTUNE)
    pairs = list(decoded.ignore_errors(log_warning=True).batch(256).as_numpy_iterator())
    if not pairs:
        raise NeasError(f"data: {what}: none of {len(where)} images can be decoded.")
    kept, images, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
    bad = np.setdiff1d(np.arange(len(where)), kept)
    names = [where[i] for i in bad]
    report_damaged(f"images of {what}", names, len(where), info.config.on_bad_record)
    return images, labels
