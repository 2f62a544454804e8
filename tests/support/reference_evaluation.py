"""One candidate by itself through the supernet's own graph: what the prefix tree must agree with."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf.search.candidate import Score
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet


def supernet_statistics(
    supernet: Supernet, architecture: Architecture, calibration: np.ndarray, batch: int
) -> Any:
    """BN statistics as `SupernetOutput.moments`, padded to the widest operator's."""
    code = tf.constant(architecture.to_array(supernet.space))
    total, count = None, 0
    for first in range(0, len(calibration) // batch * batch, batch):
        moments = supernet(tf.constant(calibration[first : first + batch]), code).moments
        raw = tf.nest.map_structure(lambda m: tf.stack([m[0], m[1] + tf.square(m[0])]), moments)
        total = raw if total is None else tf.nest.map_structure(tf.add, total, raw)
        count += 1

    def mean_and_variance(value):
        mean, square = tf.unstack(value / float(count))
        return tf.stack([mean, tf.maximum(square - tf.square(mean), 0.0)])

    return tf.nest.map_structure(mean_and_variance, total)


def by_norm(supernet: Supernet, statistics: Any) -> dict[str, Any]:
    """The same as `CandidateEvaluator.statistics` gives them: (2, C) for each batch normalisation."""
    layers = [
        [tf.split(own, layer.shape.moment_widths, axis=1) for own in paths]
        for layer, paths in zip(supernet.searchable, statistics["layers"], strict=True)
    ]
    return statistics | {"layers": layers}


def supernet_logits(
    supernet: Supernet, architecture: Architecture, statistics: Any, images: np.ndarray
) -> np.ndarray:
    """(K, n, classes)."""
    code = tf.constant(architecture.to_array(supernet.space))
    return supernet(tf.constant(images), code, statistics=statistics).logits.numpy()


def accuracies(logits: np.ndarray, labels: np.ndarray) -> Score:
    """From (K, n, classes)."""
    paths = tuple(float(np.mean(row.argmax(-1) == labels)) for row in logits)
    return Score(float(np.mean(logits.mean(0).argmax(-1) == labels)), paths)
