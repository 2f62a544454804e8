"""What a shrink is decided by: distances and accuracies of sampled ensembles (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.normalisation import Normalisation, network_input
from neas_tf.config.settings import NeasConfig
from neas_tf.search.layer_functions import statistics_of
from neas_tf.shrinking.diversity import path_distances
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.shrinking.measurements import Measurements
from neas_tf.space import sampling
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet

_TAG = 0x5C04E  # Keeps the random numbers of shrinking apart from those of other stages.


def training_part(config: NeasConfig) -> str:
    """The part of the data that the supernet is trained on."""
    return "supernet" if config.data.search_fraction else "train"


def forward_functions(
    model: Supernet, xla: bool = False, normalisation: Normalisation | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What `measure` runs of a supernet; all shrinks take the same, which are traced once.

    With `xla` they are compiled, one program each for all ensembles. `normalisation` is that of pixels.

    Returns:
      From images and an architecture's code to the moments of the batch, as mean and mean square;
      from images, labels (b,), code and statistics to the distances (K, K) and accuracies (K,).
    """

    compiled = True if xla else None

    @tf.function(autograph=False, jit_compile=compiled)
    def moments(x, architecture):
        # Mean and mean square: their means over equal batches are those of all images together.
        both = model(network_input(x, normalisation), architecture).moments
        return tf.nest.map_structure(lambda m: tf.stack([m[0], m[1] + tf.square(m[0])]), both)

    @tf.function(autograph=False, jit_compile=compiled)
    def forward(x, y, architecture, statistics):
        output = model(network_input(x, normalisation), architecture, statistics)
        correct = tf.equal(tf.argmax(output.logits, -1), y[None, :])
        return path_distances(output.features), tf.reduce_mean(tf.cast(correct, tf.float32), 1)

    return moments, forward


def measure(
    functions: tuple[Callable[..., Any], Callable[..., Any]],
    shrunk: ShrunkSpace,
    settings: ShrinkSettings,
    info: data.DatasetInfo,
    config: NeasConfig,
    index: int,
) -> Measurements:
    """Distances and accuracies of sampled ensembles on a part of the training set (Eqs. 5, 7).

    BN normalises with the moments of each measured batch, or (`batch_norm: recalculated`) with
    those of all measured images, as the search does. `functions` are `forward_functions`.
    """
    moments, forward = functions
    rng = np.random.default_rng([config.seed, _TAG, index])
    ensembles = sampling.stratified(shrunk, rng, settings.num_samples, settings.min_pair_count)
    part, wanted = training_part(config), config.shrink.images
    images, labels = data.make_images(info, part, wanted, config.seed)
    size = min(config.shrink.batch_size, len(images))
    batches = [
        (tf.constant(images[i : i + size]), tf.constant(labels[i : i + size], tf.int64))
        for i in range(0, len(images) // size * size, size)
    ]

    def recalculated(architecture):
        if settings.batch_norm == "batch":
            return None
        each = [moments(x, architecture) for x, _ in batches]
        return tf.nest.map_structure(lambda *m: statistics_of(tf.add_n(m), len(m)), *each)

    codes, distances, accuracies = [], [], []
    with console.bar(f"shrink {index}", len(ensembles), "ensembles", leave=False) as bar:
        for ensemble in ensembles:
            code = ensemble.to_array(shrunk.space)
            drawn = tf.constant(code)
            statistics = recalculated(drawn)
            parts = [forward(x, y, drawn, statistics) for x, y in batches]
            codes.append(code)
            distances.append(np.mean([d.numpy() for d, _ in parts], 0, dtype=np.float64))
            accuracies.append(np.mean([a.numpy() for _, a in parts], 0, dtype=np.float64))
            bar.update()
    return Measurements(np.stack(codes), np.stack(distances), np.stack(accuracies))
