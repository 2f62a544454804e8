"""A stand-alone ensemble with the weights that the supernet has for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tf_keras

from neas_tf.ensemble.model import Slot, build_ensemble, weight_slots
from neas_tf.operators import Operator, batch_norms, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet.model import Supernet


def inherited_ensemble(
    supernet: Supernet, architecture: Architecture, statistics: Any
) -> tf_keras.Model:
    """The ensemble with the supernet's slice: it computes what the supernet does for this architecture.

    Args:
      architecture: of the supernet's space and number of paths.
      statistics: its BN statistics, from `CandidateEvaluator.statistics`.

    Returns:
      A tf_keras model (batch, h, w, c) → (batch, K, classes).
    """
    architecture.check_in(supernet.space)
    model = build_ensemble(architecture, supernet.space)
    values = []
    for slot, variable in zip(
        weight_slots(architecture, supernet.space), model.weights, strict=True
    ):
        if "/moving_" in slot.role:
            value = _statistic(statistics, architecture, supernet.space, slot)
            value = value[: variable.shape[0]]  # The supernet pads to its widest operator.
        else:
            value = _weight(supernet, slot)
        values.append(value)
    model.set_weights(values)
    return model


def _weight(supernet: Supernet, slot: Slot) -> np.ndarray:
    if slot.part == "layer":
        return supernet.searchable[slot.layer - 1].weight(slot.operator, slot.role)
    part = supernet.heads[slot.path] if slot.part == "head" else supernet.stem
    return part.roles[f"block/{slot.role}" if slot.part == "block" else slot.role].numpy()


def _statistic(
    statistics: Any, architecture: Architecture, space: SearchSpace, slot: Slot
) -> np.ndarray:
    name, _, kind = slot.role.partition("/")
    row = 0 if kind == "moving_mean" else 1
    if slot.part == "layer":
        own = 0 if slot.layer <= architecture.split_point else slot.path
        steps = operator_steps(Operator.parse(slot.operator), space.layers[slot.layer - 1])
        found = statistics["layers"][slot.layer - 1][own][batch_norms(steps).index(name)]
    elif slot.part == "head":
        found = statistics["heads"][slot.path][name]
    else:
        found = statistics["stem"][f"block/{name}" if slot.part == "block" else name]
    return np.asarray(found)[row]
