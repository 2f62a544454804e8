"""A stand-alone ensemble with the weights that the supernet has for it."""

from __future__ import annotations

from typing import Any

import tf_keras

from neas_tf.ensemble.model import build_ensemble, weight_slots
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet, statistic_of, weight_of


def inherited_ensemble(
    supernet: Supernet, architecture: Architecture, statistics: Any
) -> tf_keras.Model:
    """Builds the ensemble and fills it with the supernet's slice.

    Args:
      supernet: the trained supernet.
      architecture: the ensemble, of the supernet's space and number of paths.
      statistics: its BN statistics, from `CandidateEvaluator.statistics`.

    Returns:
      A tf_keras model (batch, h, w, c) → (batch, K, classes) that computes what the supernet
      does for this architecture.
    """
    architecture.check_in(supernet.space)
    model = build_ensemble(architecture, supernet.space)
    values = []
    for slot, variable in zip(
        weight_slots(architecture, supernet.space), model.weights, strict=True
    ):
        if "/moving_" in slot.role:
            place = (slot.part, slot.layer, slot.path, slot.operator, slot.role)
            value = statistic_of(statistics, architecture, supernet.space, *place)
            value = value[: variable.shape[0]]  # The supernet pads to its widest operator.
        else:
            value = weight_of(supernet, slot.part, slot.layer, slot.path, slot.operator, slot.role)
        values.append(value)
    model.set_weights(values)
    return model
