"""Streams of encoded images out of files and records, in an order that a seed fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from neas_tf.data.dataset_info import Part
from neas_tf.data.stores import FileStore, RecordStore

if TYPE_CHECKING:
    from neas_tf.data.pipeline import Slicing

# Record files that are read side by side.
_SIDE_BY_SIDE = 16


def permuted(index: tf.Tensor, size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Place of each index in a permutation of 0..size−1 that belongs to (seed, epoch).

    Args:
      index: int64 (n,).
      size: length of the permutation.
      seed: at most 62 bits.
      epoch: int64, broadcastable to (n,).

    Returns:
      int64 (n,). It is computed index by index, without the permutation ever being stored.
    """
    keys = tf.constant(_scramble_number(seed), tf.uint64) + tf.cast(epoch, tf.uint64)
    keys, words = tf.broadcast_to(keys, tf.shape(index)), []
    for _ in range(3):
        keys = _scramble(keys)
        words.append(tf.cast(tf.bitwise.right_shift(keys, tf.constant(33, tf.uint64)), tf.int64))
    # The operation takes only the low bits of the words (three, for 64 indices), hence the
    # scrambling; and with its default of four rounds neighbours stay visibly related.
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.stack(words, 1),
        max_index=tf.constant(size - 1, tf.int64),
        rounds=8,
    )


_MASK = (1 << 64) - 1


def _scramble_number(value: int) -> int:
    """One step of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _scramble(values: tf.Tensor) -> tf.Tensor:
    """The same for a uint64 tensor."""

    def folded(x: tf.Tensor, bits: int) -> tf.Tensor:
        shifted = tf.bitwise.right_shift(x, tf.constant(bits, tf.uint64))
        return tf.bitwise.bitwise_xor(x, shifted)

    values += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    values = folded(values, 30) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    values = folded(values, 27) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return folded(values, 31)


def shuffled_position(g: tf.Tensor, size: int, seed: int) -> tf.Tensor:
    """Position in a part of the training example number g; int64 (n,) → int64 (n,)."""
    return permuted(g % size, size, seed, g // size)


def encoded_stream(
    part: Part, slicing: Slicing, seed: int | None, start_step: int, buffer: int
) -> tf.data.Dataset:
    """One input pipeline's examples as (number g, token, label, index in the store).

    `part.store.encoded` makes the encoded image of a token.

    Args:
      part: in a `FileStore` or `RecordStore`.
      slicing: which examples are this pipeline's.
      seed: draws the order of endless epochs; None goes once through in order.
      start_step: global batches already taken.
      buffer: records that are mixed, for a `RecordStore`.
    """
    if isinstance(part.store, FileStore):
        return _from_image_files(part, slicing, seed, start_step)
    store = part.store
    assert isinstance(store, RecordStore)  # images in memory are no stream
    if seed is None:
        numbered = _kept(store.records(), part).enumerate()
    else:
        first = start_step * slicing.batch
        epoch, done = divmod(first, part.size)
        epochs = tf.data.Dataset.range(epoch, tf.int64.max)
        records = epochs.flat_map(lambda e: shuffled_records(part, seed, e, buffer)).skip(done)
        numbered = records.enumerate(first)
    return numbered.filter(lambda g, _: slicing.owns(g)).map(
        lambda g, element: (g, *store.parse(element[1]), element[0]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def shuffled_records(part: Part, seed: int, epoch: tf.Tensor, buffer: int) -> tf.data.Dataset:
    """(index, serialised example) of one epoch of a part in a `RecordStore`.

    Files are permuted and read side by side, and their records mixed in a buffer.
    """
    store = part.store
    assert isinstance(store, RecordStore)
    count = len(store.files)
    order = permuted(tf.range(count, dtype=tf.int64), count, seed, epoch)
    records = tf.data.Dataset.from_tensor_slices(order).interleave(
        store.records_of,
        cycle_length=min(count, _SIDE_BY_SIDE),
        block_length=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    # A number that differs from epoch to epoch, and from seed to seed.
    mixing = tf.random.stateless_uniform(
        [], tf.stack([tf.constant(seed, tf.int64), epoch]), 0, tf.int64.max, tf.int64
    )
    return _kept(records, part).shuffle(
        min(buffer, part.size), seed=mixing, reshuffle_each_iteration=False
    )


def _kept(records: tf.data.Dataset, part: Part) -> tf.data.Dataset:
    """Those (index, record) whose index belongs to the part."""
    if part.indices is None:
        return records
    mask = np.zeros(part.store.size, bool)
    mask[part.indices] = True
    keep = tf.constant(mask)
    return records.filter(lambda index, _: keep[index])


def _from_image_files(
    part: Part, slicing: Slicing, seed: int | None, start_step: int
) -> tf.data.Dataset:
    store = part.store
    assert isinstance(store, FileStore)
    indices = np.arange(store.size) if part.indices is None else part.indices
    paths = tf.constant(store.places(indices))
    labels = tf.constant(store.labels[indices])
    indices = tf.constant(indices, tf.int64)
    n = part.size

    def read(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        position = g if seed is None else shuffled_position(g[None], n, seed)[0]
        return g, paths[position], labels[position], indices[position]

    if seed is None:
        numbers = tf.data.Dataset.range(n).filter(slicing.owns)
    else:
        first = start_step * slicing.replicas * slicing.piece
        numbers = tf.data.Dataset.range(first, tf.int64.max).map(slicing.example)
    return numbers.map(read, num_parallel_calls=tf.data.AUTOTUNE)
