"""Reads whole stores, once: every example decoded at the size of the network's input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from neas_tf.data.decoding import Decoder
from neas_tf.data.stores import ArrayStore, FileStore, RecordStore, Store
from neas_tf.errors import NeasError

_BATCH = 256


def decode_all(store: Store, decoder: Decoder, what: str) -> tuple[ArrayStore, int]:
    """Decodes a store into memory.

    Args:
      store: what to read.
      decoder: to which size.
      what: for messages.

    Returns:
      The decoded images, and how many damaged ones were left out (which is logged).

    Raises:
      NeasError: when no image can be decoded, or the records cannot be read.
    """
    if isinstance(store, ArrayStore):
        return _resized(store, decoder), 0
    tokens, fetch = token_reader(store)
    try:
        images, labels = _collect(_fast(tokens, fetch, decoder), store.size, decoder)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
        # One damaged image fails its batch: read image by image and leave those out.
        images, labels = _collect(_careful(tokens, fetch, decoder), store.size, decoder)
    except tf.errors.DataLossError as error:
        raise NeasError(f"data: {what}: the records are damaged ({error.message}).") from None
    skipped = store.size - len(labels)
    if len(labels) == 0:
        raise NeasError(f"data: {what}: none of {store.size} images can be decoded.")
    if skipped:
        logging.warning("%s: %d of %d are damaged and left out.", what, skipped, store.size)
    return ArrayStore.of(images, labels), skipped


def token_reader(
    store: FileStore | RecordStore,
) -> tuple[tf.data.Dataset, Callable[..., tuple[tf.Tensor, tf.Tensor]]]:
    """What to read of each example, in order, and how to get (encoded image, label) from it."""
    if isinstance(store, FileStore):
        tokens = tf.data.Dataset.from_tensor_slices((list(store.paths), store.labels))
        return tokens, lambda path, label: (tf.io.read_file(path), label)
    return store.records().map(lambda _, record: (record,)), store.parse


def _resized(store: ArrayStore, decoder: Decoder) -> ArrayStore:
    if tuple(store.images.shape[1:]) == (decoder.height, decoder.width, decoder.channels):
        return store
    images = store.images
    if images.shape[-1] != decoder.channels:
        to_rgb = decoder.channels == 3
        images = tf.image.grayscale_to_rgb(images) if to_rgb else tf.image.rgb_to_grayscale(images)
    specification = tf.TensorSpec([decoder.height, decoder.width, decoder.channels], tf.uint8)
    fitted = tf.function(lambda x: tf.map_fn(decoder.fit, x, fn_output_signature=specification))
    return ArrayStore.of(fitted(images).numpy(), store.labels)


def _collect(
    dataset: tf.data.Dataset, size: int, decoder: Decoder
) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((size, decoder.height, decoder.width, decoder.channels), np.uint8)
    labels = np.empty(size, np.int32)
    done = 0
    for some, their_labels in dataset.prefetch(2).as_numpy_iterator():
        images[done : done + len(some)] = some
        labels[done : done + len(some)] = their_labels
        done += len(some)
    return images[:done], labels[:done]


def _fast(tokens: tf.data.Dataset, fetch: Callable, decoder: Decoder) -> tf.data.Dataset:
    """Batch by batch, which costs a third of reading image by image for small images."""
    shape = [decoder.height, decoder.width, decoder.channels]

    def one(token: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = fetch(*token)
        return decoder.fixed(encoded), label

    signature = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([], tf.int32))
    return tokens.batch(_BATCH).map(
        lambda *batch: tf.map_fn(one, batch, fn_output_signature=signature),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _careful(tokens: tf.data.Dataset, fetch: Callable, decoder: Decoder) -> tf.data.Dataset:
    def one(*token: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = fetch(*token)
        return decoder.fixed(encoded), label

    decoded = tokens.map(one, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.ignore_errors(log_warning=True).batch(_BATCH)
