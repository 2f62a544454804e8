"""Scores an ensemble with the supernet's weights (method section 8.9).

BN statistics are recalculated for each candidate: the exact mean of the batch moments (of mean
and mean square) over the calibration images, in one pass through the candidate's own layers.
Nothing of the supernet changes, and nothing passes from one candidate to the next.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf.architecture import Architecture
from neas_tf.errors import check_int
from neas_tf.supernet import Supernet


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """Accuracy in [0, 1] of the ensemble and of each path."""

    accuracy: float
    path_accuracies: tuple[float, ...]


class CandidateEvaluator:
    """Recalculates BN and measures accuracy, architecture after architecture, in one graph.

    Args:
      supernet: the trained supernet; it is only read.
      calibration: normalised images (n, H, W, C); a rest smaller than the batch is left out.
      images, labels: held-out images and their classes.
      calibration_batch: images a batch of the recalculation.
      batch_size: images a batch of the accuracy.
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        calibration_batch: int = 128,
        batch_size: int = 500,
    ):
        check_int("search.calibration_batch", calibration_batch, 1)
        check_int("search.batch_size", batch_size, 1)
        check_int("search.calibration_images: images found", len(calibration), 1)
        check_int("search.validation_images: images found", len(images), 1)
        self.supernet = supernet
        size = min(calibration_batch, len(calibration))
        whole = len(calibration) // size * size
        self._calibration = [tf.constant(calibration[i : i + size]) for i in range(0, whole, size)]
        self._labels = np.asarray(labels)
        self._images = [
            tf.constant(images[i : i + batch_size]) for i in range(0, len(images), batch_size)
        ]
        # The last batch is smaller as a rule: it is traced too, once.
        self._moments = tf.function(self._batch_moments, reduce_retracing=False)
        self._predict = tf.function(self._batch_logits, reduce_retracing=False)

    def _batch_moments(self, images, architecture):
        moments = self.supernet(images, architecture).moments
        return tf.nest.map_structure(_to_raw, moments)

    def _batch_logits(self, images, architecture, statistics):
        return self.supernet(images, architecture, statistics=statistics).logits

    def statistics(self, architecture: Architecture) -> Any:
        """BN statistics of the candidate, in the structure of `SupernetOutput.moments`."""
        code = tf.constant(architecture.to_array(self.supernet.space))
        total = None
        for images in self._calibration:
            raw = self._moments(images, code)
            total = raw if total is None else tf.nest.map_structure(tf.add, total, raw)
        count = float(len(self._calibration))
        return tf.nest.map_structure(lambda value: _from_raw(value / count), total)

    def logits(self, architecture: Architecture, statistics: Any = None) -> np.ndarray:
        """(K, n, classes) on the held-out images."""
        if statistics is None:
            statistics = self.statistics(architecture)
        code = tf.constant(architecture.to_array(self.supernet.space))
        parts = [self._predict(images, code, statistics).numpy() for images in self._images]
        return np.concatenate(parts, axis=1)

    def evaluate(self, architecture: Architecture) -> Accuracies:
        """Accuracy of the ensemble (mean logits, Eq. 1) and of each path."""
        logits = self.logits(architecture)
        paths = tuple(float(np.mean(row.argmax(-1) == self._labels)) for row in logits)
        ensemble = float(np.mean(logits.mean(0).argmax(-1) == self._labels))
        return Accuracies(ensemble, paths)


def _to_raw(moments):
    """(2, C) mean and variance → mean and mean square, which average exactly."""
    return tf.stack([moments[0], moments[1] + tf.square(moments[0])])


def _from_raw(raw):
    return tf.stack([raw[0], tf.maximum(raw[1] - tf.square(raw[0]), 0.0)])
