"""Magnitude pruning of a trained ensemble with the Model Optimization Toolkit (tfmot).

Every convolution and dense layer but the stem and the depthwise kernels is pruned: they hold nearly
all weights, and tfmot cannot prune depthwise kernels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

from neas_tf.common.errors import check_share

_sparsity = tfmot.sparsity.keras
# The rest of the steps trains the weights that are left.
_PRUNING_SHARE = 0.6
_UPDATES = 50


def with_pruning(model: Any, sparsity: float, steps: int) -> Any:
    """A copy of a trainable-form ensemble whose layers lose their smallest weights while it is trained.

    The share of zeros in each pruned kernel grows from 0 to `sparsity` by tfmot's polynomial decay (of
    degree 3) over the first 60 % of the steps. `without_pruning` undoes it.
    """
    check_share("sparsity", sparsity)
    every = max(1, int(steps * _PRUNING_SHARE) // _UPDATES)
    # Masks change in multiples of `every` only, so the end must be one to be reached.
    end = every * max(1, int(steps * _PRUNING_SHARE) // every)
    schedule = _sparsity.PolynomialDecay(0.0, sparsity, 0, end, frequency=every)

    def clone(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        return _sparsity.prune_low_magnitude(copy, schedule) if is_prunable(layer) else copy

    result = tf_keras.models.clone_model(model, clone_function=clone)
    for layer in result.layers:
        inner = unwrapped(layer)
        inner.set_weights(model.get_layer(inner.name).get_weights())
        if inner is not layer:
            layer.pruning_step.assign(0)  # tfmot's callback does this in `fit`
    return result


def without_pruning(pruned: Any, target: Any) -> Any:
    """Puts a pruned model's weights, the masked ones as zeros, into a model without wrappers."""
    for layer in pruned.layers:
        inner = unwrapped(layer)
        if inner is not layer:
            layer.pruning_obj.weight_mask_op()
        target.get_layer(inner.name).set_weights(inner.get_weights())
    return target


def is_prunable(layer: Any) -> bool:
    """Whether pruning takes a layer."""
    kinds = (tf_keras.layers.Conv2D, tf_keras.layers.Dense)
    # A depthwise convolution is no Conv2D of tf_keras; the stem is small, and all else hangs on it.
    return isinstance(layer, kinds) and not layer.name.startswith("stem_")


def unwrapped(layer: Any) -> Any:
    """The layer inside a wrapper of pruning, or itself."""
    return layer.layer if hasattr(layer, "pruning_obj") else layer


def sparsity_report(kernels: Iterable[tuple[str, np.ndarray]], weights: int) -> dict[str, Any]:
    """How many weights of the pruned kernels (name, values) are zero.

    `layers` is the share of zeros by layer, `pruned_layers` that over all of them, `all_weights` their
    share in all trainable weights.
    """
    counts = {name: (int(np.sum(value == 0)), value.size) for name, value in kernels}
    zeros = sum(zero for zero, _ in counts.values())
    return {
        "layers": {name: round(zero / size, 4) for name, (zero, size) in counts.items()},
        "pruned_layers": round(zeros / sum(size for _, size in counts.values()), 4),
        "all_weights": round(zeros / weights, 4),
    }
