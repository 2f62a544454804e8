"""Paths of very many files, kept in a few arrays instead of a million objects."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


class PathList(Sequence[str]):
    """An immutable sequence of paths: each folder once, the names in one string.

    A million paths of ImageNet take 35 MB here and 150 MB as a tuple. Worked example: the paths
    `a/x.jpg`, `a/yy.jpg`, `b/x.jpg` have the folders `(b"a", b"b")`, of which theirs are
    `[0, 0, 1]`, the names `b"x.jpgyy.jpgx.jpg"`, and these begin and end at `[0, 5, 11, 16]`.

    Attributes:
      folders: of all paths, each once; with an `/` at the end where there is one in the path.
      of_folder: int32 (n,), place of each path's folder.
      names: of the files, one after the other.
      bounds: int64 (n + 1,); name i is `names[bounds[i]:bounds[i + 1]]`.
    """

    def __init__(
        self, folders: tuple[bytes, ...], of_folder: np.ndarray, names: bytes, bounds: np.ndarray
    ):
        self.folders, self.of_folder, self.names, self.bounds = folders, of_folder, names, bounds

    @classmethod
    def of(cls, paths: Iterable[str]) -> PathList:
        """Packs paths; those of one folder need not lie side by side."""
        folders: dict[bytes, int] = {}
        of_folder, names = [], []
        for path in paths:
            encoded = os.fsencode(path)
            cut = encoded.rfind(b"/") + 1
            of_folder.append(folders.setdefault(encoded[:cut], len(folders)))
            names.append(encoded[cut:])
        bounds = np.cumsum([0, *map(len, names)], dtype=np.int64)
        return cls(tuple(folders), np.array(of_folder, np.int32), b"".join(names), bounds)

    @classmethod
    def joined(cls, lists: Sequence[PathList]) -> PathList:
        """Several lists as one, in their order."""
        folders: dict[bytes, int] = {}
        of_folder, bounds, begin = [], [np.zeros(1, np.int64)], 0
        for part in lists:
            places = [folders.setdefault(folder, len(folders)) for folder in part.folders]
            of_folder.append(np.array(places, np.int32)[part.of_folder])
            bounds.append(part.bounds[1:] + begin)
            begin += len(part.names)
        return cls(
            tuple(folders),
            np.concatenate([np.zeros(0, np.int32), *of_folder]),
            b"".join(part.names for part in lists),
            np.concatenate(bounds),
        )

    def __len__(self) -> int:
        return len(self.of_folder)

    def __getitem__(self, index: Any) -> Any:
        """The path at a place; a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return os.fsdecode(self.folders[self.of_folder[index]] + self._name(index))

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def _name(self, index: int) -> bytes:
        return self.names[self.bounds[index] : self.bounds[index + 1]]

    def take(self, indices: np.ndarray) -> PathList:
        """Those at some places (m,), in their order."""
        names = [self._name(i) for i in np.asarray(indices).tolist()]
        bounds = np.cumsum([0, *map(len, names)], dtype=np.int64)
        return PathList(self.folders, self.of_folder[indices], b"".join(names), bounds)

    def by_folder(self) -> Iterator[tuple[str, np.ndarray, list[bytes]]]:
        """Of each folder with files: its path, their places (ascending) and their names."""
        order = np.argsort(self.of_folder, kind="stable")
        cuts = np.flatnonzero(np.diff(self.of_folder[order])) + 1
        for places in np.split(order, cuts) if len(order) else []:
            folder = os.fsdecode(self.folders[self.of_folder[places[0]]])
            yield folder.rstrip("/") or "/", places, [self._name(i) for i in places.tolist()]

    def at(self, index: tf.Tensor) -> tf.Tensor:
        """The path at a place inside a graph, as bytes; int64 () → string ().

        What a graph captures are two strings and three arrays, the same ones for all graphs.
        """
        import tensorflow as tf

        folders, of_folder, names, bounds = self._tensors
        begin = bounds[index]
        name = tf.strings.substr(names, begin, bounds[index + 1] - begin)
        return tf.strings.join([folders[of_folder[index]], name])

    def written(self, index: tf.Tensor) -> tf.Tensor:
        """The path inside a graph as Python writes it: TensorFlow's errors take UTF-8 only.

        Paths that are written as they are, which is nearly all, are not kept a second time.
        """
        import tensorflow as tf

        places, texts = self._odd
        place = tf.searchsorted(places, index[None])[0]
        return tf.where(places[place] == index, texts[place], self.at(index))

    @functools.cached_property
    def _odd(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Places (ascending) and texts of paths that are written otherwise; a stop after them."""
        import tensorflow as tf

        whole = b"".join((*self.folders, self.names))
        plain = whole.isascii() and whole.decode().isprintable() and not set(whole) & set(b"\\'")
        shown = [] if plain else [(i, repr(path)[1:-1], path) for i, path in enumerate(self)]
        odd = [(i, text.encode()) for i, text, path in shown if text != path]
        with tf.init_scope(), tf.device("CPU:0"):
            places = tf.constant([*(i for i, _ in odd), len(self)], tf.int64)
            return places, tf.constant([*(text for _, text in odd), b""])

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, ...]:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            return tuple(
                map(tf.constant, (list(self.folders), self.of_folder, self.names, self.bounds))
            )
