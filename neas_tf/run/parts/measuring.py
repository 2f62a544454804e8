"""What a shrink is decided by: distances and accuracies of sampled ensembles (section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.normalisation import Normalisation
from neas_tf.config.settings import NeasConfig
from neas_tf.search.replicas import EnsembleFunctions, OfBatches, Runner
from neas_tf.shrinking.diversity import path_distances
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.shrinking.measurements import Measurements
from neas_tf.space import sampling
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet, SupernetOutput

_TAG = 0x5C04E  # Keeps the random numbers of shrinking apart from those of other stages.


def training_part(config: NeasConfig) -> str:
    """The part of the data that the supernet is trained on."""
    return "supernet" if config.data.search_fraction else "train"


class Functions(NamedTuple):
    """What `measure` runs of a supernet.

    Attributes:
      ensembles: the supernet's functions, for the recalculation of statistics.
      forward: from dealt images and labels, code and statistics to the distances (K, K) and
        accuracies (K,) of each batch.
    """

    ensembles: EnsembleFunctions
    forward: OfBatches


def forward_functions(
    model: Supernet,
    xla: bool = False,
    normalisation: Normalisation | None = None,
    runner: Runner | None = None,
) -> Functions:
    """What `measure` runs of a supernet; all shrinks take the same, which are traced once.

    With `xla` they are compiled, one program each for all ensembles. `normalisation` is that of
    pixels, and `runner` says where they run.
    """
    ensembles = EnsembleFunctions(model, runner, xla, normalisation)

    def measured(output: SupernetOutput, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        correct = tf.equal(tf.argmax(output.logits, -1), y[None, :])
        return path_distances(output.features), tf.reduce_mean(tf.cast(correct, tf.float32), 1)

    return Functions(ensembles, ensembles.of(measured))


def measure(
    functions: Functions,
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
    whole, forward = functions
    rng = np.random.default_rng([config.seed, _TAG, index])
    ensembles = sampling.stratified(shrunk, rng, settings.num_samples, settings.min_pair_count)
    part, wanted = training_part(config), config.shrink.images
    images, labels = data.make_images(info, part, wanted, config.seed)
    size = min(config.shrink.batch_size, len(images))
    dealt = whole.runner.deal(
        [
            (images[i : i + size], np.asarray(labels[i : i + size], np.int64))
            for i in range(0, len(images) // size * size, size)
        ]
    )
    recalculated = settings.batch_norm != "batch"
    codes, distances, accuracies = [], [], []
    with console.bar(f"shrink {index}", len(ensembles), "ensembles", leave=False) as bar:
        for ensemble in ensembles:
            code = ensemble.to_array(shrunk.space)
            drawn = tf.constant(code)
            statistics = whole.statistics(dealt, drawn) if recalculated else None
            parts = forward(dealt, drawn, statistics)
            codes.append(code)
            distances.append(np.mean([np.asarray(d) for d, _ in parts], 0, dtype=np.float64))
            accuracies.append(np.mean([np.asarray(a) for _, a in parts], 0, dtype=np.float64))
            bar.update()
    return Measurements(np.stack(codes), np.stack(distances), np.stack(accuracies))
