"""Reads whole stores, once: every example decoded at the size of the network's input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import NeasError
from neas_tf.data.bad_records import reason, report_damaged
from neas_tf.data.reading.decoding import Decoder, traced
from neas_tf.data.reading.inspection import check_all, check_labels
from neas_tf.data.stores import ArrayStore, FileStore, RecordStore, Store

_BATCH = 256


def decode_all(
    store: Store, decoder: Decoder, what: str, classes: int, on_bad_record: str = "skip"
) -> tuple[ArrayStore, int]:
    """Decodes a store into memory.

    Args:
      store: what to read.
      decoder: to which size.
      what: for messages.
      classes: how many there are; a label beyond them is an error.
      on_bad_record: 'skip' or 'stop'.

    Returns:
      The decoded images, and how many damaged ones were left out (which is logged).

    Raises:
      NeasError: when no image can be decoded, the records cannot be read, a label is out of range
        (the first is named), or, with 'stop', one image cannot be decoded (it is named).
    """
    if isinstance(store, ArrayStore):
        return _resized(store, decoder), 0
    tokens, fetch = token_reader(store)
    try:
        try:
            images, labels, kept = _collect(_fast(tokens, fetch, decoder), store.size, decoder)
        except (tf.errors.OpError, UnicodeDecodeError):  # the latter of messages about odd names
            # One damaged image fails its batch: read image by image and leave those out. Broken
            # record files, and records without image or label, are no such thing, so these are
            # looked for first: what follows hides errors.
            if isinstance(store, RecordStore):
                check_all(store)
            images, labels, kept = _collect(_careful(tokens, fetch, decoder), store.size, decoder)
    except tf.errors.DataLossError as error:
        raise NeasError(f"data: {what}: the records are damaged ({reason(error)}).") from None
    bad = np.setdiff1d(np.arange(store.size), kept)
    if len(labels) == 0:
        raise NeasError(f"data: {what}: none of {store.size} images can be decoded.")
    report_damaged(what, [store.where(int(i)) for i in bad], store.size, on_bad_record)
    check_labels(store, kept, labels, classes, "labels in all")
    return ArrayStore.of(images, labels), len(bad)


def token_reader(
    store: FileStore | RecordStore,
) -> tuple[tf.data.Dataset, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
    """(index, what to read) of each example, and how to get (encoded image, label) of the latter."""
    if isinstance(store, FileStore):
        indices = np.arange(store.size)
        tokens = tf.data.Dataset.from_tensor_slices((indices, indices, store.labels))
        return tokens, lambda index, label: (tf.io.read_file(store.paths.at(index)), label)
    return store.records(), store.parse


def _resized(store: ArrayStore, decoder: Decoder) -> ArrayStore:
    if tuple(store.images.shape[1:]) == (decoder.height, decoder.width, decoder.channels):
        return store
    images = store.images
    if images.shape[-1] != decoder.channels:
        to_rgb = decoder.channels == 3
        images = tf.image.grayscale_to_rgb(images) if to_rgb else tf.image.rgb_to_grayscale(images)
    specification = tf.TensorSpec([decoder.height, decoder.width, decoder.channels], tf.uint8)
    fitted = tf.function(
        lambda x: tf.map_fn(decoder.fit, x, fn_output_signature=specification), autograph=False
    )
    return ArrayStore.of(fitted(images).numpy(), store.labels)


def _collect(
    dataset: tf.data.Dataset, size: int, decoder: Decoder
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, labels and indices of what can be decoded."""
    images = np.empty((size, decoder.height, decoder.width, decoder.channels), np.uint8)
    labels, indices = np.empty(size, np.int32), np.empty(size, np.int64)
    done = 0
    for those, some, their_labels in dataset.prefetch(2).as_numpy_iterator():
        images[done : done + len(some)] = some
        labels[done : done + len(some)] = their_labels
        indices[done : done + len(some)] = those
        done += len(some)
    return images[:done], labels[:done], indices[:done]


def _fast(tokens: tf.data.Dataset, fetch: Callable, decoder: Decoder) -> tf.data.Dataset:
    """Batch by batch, which costs a third of reading image by image for small images."""
    shape = [decoder.height, decoder.width, decoder.channels]
    decode = traced(decoder, "fixed")

    def one(token: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = fetch(*token)
        return decode(encoded), label

    signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([], tf.int32))
    return tokens.batch(_BATCH).map(
        lambda index, *batch: (index, *tf.map_fn(one, batch, fn_output_signature=signature)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _careful(tokens: tf.data.Dataset, fetch: Callable, decoder: Decoder) -> tf.data.Dataset:
    decode = traced(decoder, "fixed")

    def one(index: tf.Tensor, *token: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, label = fetch(*token)
        return index, decode(encoded), label

    decoded = tokens.map(one, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.ignore_errors(log_warning=True).batch(_BATCH)
