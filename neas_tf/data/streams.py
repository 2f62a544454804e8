"""Streams of encoded images out of files and records, in an order that a seed fixes."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from neas_tf.data.dataset_info import Part
from neas_tf.data.stores import FileStore, RecordStore

if TYPE_CHECKING:
    from neas_tf.data.pipeline import Slicing

# Streams of records that are read side by side, and what each should have of an epoch at least.
SIDE_BY_SIDE = 64
_LEAST_IN_STREAM = 4096
# Images that are decoded one after the other by one thread.
_GROUP = 16
_as_written = tf.autograph.experimental.do_not_convert


def permuted(index: tf.Tensor, size: int | tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Place of each index in a permutation of 0..size−1 that belongs to (seed, epoch).

    Args:
      index: int64 (n,).
      size: length of the permutation, int64 where it is a tensor.
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
        max_index=tf.cast(size - 1, tf.int64),
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
        numbered = RecordStreams.of(part, slicing.batch, buffer, seed).numbered(slicing, start_step)
    return numbered.filter(lambda g, _: slicing.owns(g)).map(
        lambda g, element: (g, *store.parse(element[1]), element[0]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


@dataclasses.dataclass(frozen=True)
class RecordStreams:
    """Endless epochs of a part in record files, read by several streams side by side.

    Every epoch has its own order of the files. Stream s reads records s·m .. (s + 1)·m of it and
    makes the rows s·b .. (s + 1)·b of every global batch, so that a pipeline reads what its rows
    need. Within a stream the records are mixed in chunks. A run that resumes skips whole files and
    chunks, and at most one chunk's records are read in vain.

    Worked example: 10 files of 1,000 records, batches of 32 in 2 streams: m = 5,000, b = 16. Step
    400 begins with record 6,400 of each stream, which is record 1,400 of epoch 1. With chunks of
    500, stream 1 is opened at record 5,000 + 1,000 of that epoch, the beginning of its seventh
    file, and 400 of that chunk are dropped.

    Attributes:
      part: in a `RecordStore`.
      seed: of all orders.
      count: of the streams. Where it does not divide the size of the part, an epoch leaves out
        the last few records of its order, others in each epoch.
      length: records of an epoch in each stream, m.
      rows: of a batch in each stream, b.
      chunk: records that are mixed; all of an epoch where the buffer holds them. Otherwise, the
        streams hold twice a chunk each, which is the buffer.
    """

    part: Part
    seed: int
    count: int
    length: int
    rows: int
    chunk: int

    @classmethod
    def of(cls, part: Part, batch: int, buffer: int, seed: int) -> RecordStreams:
        """As many streams as files and examples are enough for, a divisor of the batch size."""
        store = part.store
        assert isinstance(store, RecordStore)
        most = min(SIDE_BY_SIDE, len(store.files), max(1, part.size // _LEAST_IN_STREAM))
        count = max(n for n in range(1, most + 1) if batch % n == 0)
        length = part.size // count
        chunk = length if part.size <= buffer else max(1, buffer // (2 * count))
        return cls(part, seed, count, length, batch // count, min(chunk, length))

    def numbered(self, slicing: Slicing, start_step: int) -> tf.data.Dataset:
        """(number g, (index, record)): a pipeline's rows of all batches, and few of its neighbours."""
        first = slicing.first_row // self.rows
        last = -(-(slicing.first_row + slicing.replicas * slicing.piece) // self.rows)
        width = (last - first) * self.rows
        records = tf.data.Dataset.range(first, last).interleave(
            lambda stream: self._endless(stream, start_step * self.rows),
            cycle_length=last - first,
            block_length=self.rows,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

        @_as_written
        def number(k: tf.Tensor, element: tuple) -> tuple[tf.Tensor, tuple]:
            step, row = start_step + k // width, first * self.rows + k % width
            return step * slicing.batch + row, element

        return records.enumerate().map(number)

    def once(self) -> tf.data.Dataset:
        """(index, record) of every record once, of each stream in turn."""
        zero, rest = tf.zeros([], tf.int64), self.part.size - self.count * self.length
        return tf.data.Dataset.range(self.count).interleave(
            lambda stream: self._epoch(
                stream,
                zero,
                zero,
                tf.where(stream == self.count - 1, tf.cast(rest, tf.int64), zero),
            ),
            cycle_length=self.count,
            block_length=1,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _endless(self, stream: tf.Tensor, done: int) -> tf.data.Dataset:
        """One stream after its first `done` records."""
        epoch, done = divmod(done, self.length)
        chunk, done = divmod(done, self.chunk)
        epochs = tf.data.Dataset.range(epoch, tf.int64.max)
        zero = tf.zeros([], tf.int64)
        return epochs.flat_map(
            lambda e: self._epoch(stream, e, tf.where(e == epoch, tf.cast(chunk, tf.int64), zero))
        ).skip(done)

    def _epoch(
        self, stream: tf.Tensor, epoch: tf.Tensor, first: tf.Tensor, rest: tf.Tensor | int = 0
    ) -> tf.data.Dataset:
        """One epoch of a stream, from its chunk `first` on, and the `rest` records after it."""
        store = self.part.store
        assert isinstance(store, RecordStore)
        files, chunks = len(store.files), -(-self.length // self.chunk)
        order = permuted(tf.range(files, dtype=tf.int64), files, self.seed, epoch)
        ends = tf.cumsum(tf.gather(self._in_files, order))
        begin = stream * self.length + first * self.chunk
        file = tf.searchsorted(ends, begin[None], "right", tf.int64)[0]
        skipped = begin - tf.concat([[tf.zeros([], tf.int64)], ends], 0)[file]
        records = tf.data.Dataset.range(file, files).flat_map(lambda i: store.records_of(order[i]))
        wanted = self.length - first * self.chunk + rest
        records = _kept(records, self.part).skip(skipped).take(wanted)

        @_as_written
        def mixed(number: tf.Tensor, elements: tuple) -> tuple[tf.Tensor, ...]:
            size = tf.size(elements[0], tf.int64)
            key = -1 - ((epoch * self.count + stream) * chunks + number)  # none of a file order's
            places = permuted(tf.range(size), size, self.seed, key)
            return tuple(tf.gather(element, places) for element in elements)

        return records.batch(self.chunk).enumerate(first).map(mixed).prefetch(1).unbatch()

    @functools.cached_property
    def _in_files(self) -> tf.Tensor:
        """int64 (files,): records of the part in each file."""
        store = self.part.store
        assert isinstance(store, RecordStore)
        if self.part.indices is None:
            counts = np.array([file.take for file in store.files])
        else:
            file = np.searchsorted(store.first_indices, self.part.indices, side="right") - 1
            counts = np.bincount(file, minlength=len(store.files))
        with tf.init_scope(), tf.device("CPU:0"):  # first asked for while a graph is traced
            return tf.constant(counts, tf.int64)


def _kept(records: tf.data.Dataset, part: Part) -> tf.data.Dataset:
    """Those (index, record) whose index belongs to the part."""
    if part.indices is None:
        return records
    keep = part.mask
    return records.filter(lambda index, _: keep[index])


def _from_image_files(
    part: Part, slicing: Slicing, seed: int | None, start_step: int
) -> tf.data.Dataset:
    store = part.store
    assert isinstance(store, FileStore)
    labels = tf.constant(store.labels)
    indices = None if part.indices is None else tf.constant(part.indices, tf.int64)
    n = part.size

    def read(g: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        index = g if seed is None else shuffled_position(g[None], n, seed)[0]
        index = index if indices is None else indices[index]
        return g, store.paths.at(index), labels[index], index

    if seed is None:
        numbers = tf.data.Dataset.range(n).filter(slicing.owns)
    else:
        first = start_step * slicing.replicas * slicing.piece
        numbers = tf.data.Dataset.range(first, tf.int64.max).map(slicing.example)
    return numbers.map(read, num_parallel_calls=tf.data.AUTOTUNE)


def decoded_stream(
    stream: tf.data.Dataset, decode: Callable[..., tuple], grey: Callable[..., tuple]
) -> tf.data.Dataset:
    """What `decode` makes of each element, in order; where it fails, what `grey` makes of it.

    An error ends a whole graph, so that each image would need one of its own, which costs as much
    as decoding a small JPEG. So groups of images have one, and only a group with a damaged image
    is decoded again image by image.
    """

    def grey_if_damaged(*element: tf.Tensor) -> tf.data.Dataset:
        good = tf.data.Dataset.from_tensors(element).map(decode)
        stand_in = tf.data.Dataset.from_tensors(grey(*element))
        return good.ignore_errors(log_warning=True).concatenate(stand_in).take(1)

    def group(*elements: tf.Tensor) -> tf.data.Dataset:
        each = tf.data.Dataset.from_tensor_slices(elements)
        good = each.map(decode).batch(_GROUP).ignore_errors()
        return good.concatenate(each.flat_map(_as_written(grey_if_damaged)).batch(_GROUP)).take(1)

    groups = stream.batch(_GROUP).interleave(
        _as_written(group),
        cycle_length=max(4, os.cpu_count() or 1),
        block_length=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return groups.unbatch()
