"""Where examples lie: decoded in memory, in image files, or in record files."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import ClassVar

import numpy as np
import tensorflow as tf

from neas_tf.data.reading.path_list import PathList


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayStore:
    """Decoded images of one size.

    Attributes:
      images: uint8 tensor (n, h, w, c) in the host's memory, 0..255, shared by all pipelines.
      labels: int32 (n,).
    """

    images: tf.Tensor
    labels: np.ndarray
    kind: ClassVar[str] = "arrays"

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> ArrayStore:
        """Copies the images into a tensor on the host."""
        with tf.device("CPU:0"):
            return cls(tf.constant(images, tf.uint8), np.asarray(labels, np.int32))

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class FileStore:
    """Image files, each read when it is wanted.

    Attributes:
      paths: of n image files.
      labels: int32 (n,).
      unusable: for messages: what has an image's name and is no file, and so is not among them.
      root: the folder that the folders of the classes lie in; empty where it is not known.
    """

    paths: PathList
    labels: np.ndarray
    unusable: tuple[str, ...] = ()
    root: str = ""
    kind: ClassVar[str] = "files"

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def where(self, index: int) -> str:
        """What messages call an example."""
        return repr(self.paths[index])

    def names(self, indices: tf.Tensor) -> tf.Tensor:
        """The same inside a graph; string (n,)."""
        return tf.map_fn(self.paths.written, indices, fn_output_signature=tf.string)

    def encoded(self, token: tf.Tensor) -> tf.Tensor:
        """The encoded image of what a stream holds of an example: its path."""
        return tf.io.read_file(token)


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """Records `skip` .. `skip + take` of a TFRecord file."""

    path: str
    skip: int
    take: int


@dataclasses.dataclass(frozen=True, eq=False)
class RecordStore:
    """TFRecord files of `tf.train.Example` that are read one record after the other.

    Attributes:
      files: an example's index is its place in their concatenation.
      image_key, label_key: names of the features (encoded image, int64 label).
      label_offset: taken off every label.
    """

    files: tuple[RecordFile, ...]
    image_key: str
    label_key: str
    label_offset: int = 0
    kind: ClassVar[str] = "records"
    labels: ClassVar[None] = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return sum(file.take for file in self.files)

    @functools.cached_property
    def first_indices(self) -> np.ndarray:
        """int64 (files,): index of each file's first example."""
        takes = [file.take for file in self.files]
        return np.cumsum([0, *takes[:-1]]).astype(np.int64)

    def where(self, index: int) -> str:
        """What messages call an example."""
        at = int(np.searchsorted(self.first_indices, index, side="right")) - 1
        file = self.files[at]
        return f"record {file.skip + index - int(self.first_indices[at])} of {file.path!r}"

    def names(self, indices: tf.Tensor) -> tf.Tensor:
        """The same inside a graph, counted over all files; string (n,)."""
        return tf.strings.join(["record ", tf.strings.as_string(indices), " of the split"])

    def encoded(self, token: tf.Tensor) -> tf.Tensor:
        """The encoded image of what a stream holds of an example, which is that image."""
        return token

    def parse(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A serialised example → (encoded image, int32 label counted from 0)."""
        example = tf.io.parse_single_example(
            record,
            {
                self.image_key: tf.io.FixedLenFeature([], tf.string),
                self.label_key: tf.io.FixedLenFeature([], tf.int64),
            },
        )
        return example[self.image_key], self._label(example)

    def parse_label(self, record: tf.Tensor) -> tf.Tensor:
        """A serialised example → its int32 label; −1 where it has none."""
        feature = tf.io.FixedLenFeature([], tf.int64, default_value=self.label_offset - 1)
        return self._label(tf.io.parse_single_example(record, {self.label_key: feature}))

    def _label(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        label = example[self.label_key] - self.label_offset
        # A cast alone would make a sound label of 2**32.
        return tf.cast(tf.clip_by_value(label, -1, tf.int32.max), tf.int32)

    def records_of(self, file: tf.Tensor) -> tf.data.Dataset:
        """(int64 index, serialised example) of one file, given by its number."""
        path, skip, take, first = (column[file] for column in self._columns)
        records = tf.data.TFRecordDataset(path, buffer_size=1 << 20).skip(skip).take(take)
        return records.enumerate(first)

    @functools.cached_property
    def _columns(self) -> tuple[tf.Tensor, ...]:
        """Path, skip, take and first index of all files; one set of tensors for all graphs."""
        with tf.init_scope(), tf.device("CPU:0"):
            return (
                tf.constant([os.fsencode(f.path) for f in self.files]),
                tf.constant([f.skip for f in self.files], tf.int64),
                tf.constant([f.take for f in self.files], tf.int64),
                tf.constant(self.first_indices),
            )

    def records(self) -> tf.data.Dataset:
        """(int64 index, serialised example) of all files, in the order of the indices."""
        return tf.data.Dataset.range(len(self.files)).flat_map(self.records_of)


Store = ArrayStore | FileStore | RecordStore
