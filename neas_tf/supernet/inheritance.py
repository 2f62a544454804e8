"""Weights between the supernet and stand-alone ensembles, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tf_keras

from neas_tf.ensemble.model import Slot, build_ensemble, weight_slots
from neas_tf.operators import Operator, batch_norms, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet.fixed_layers import FixedLayer
from neas_tf.supernet.model import Supernet

# Part, layer, path, operator and role of a weight, as in `ensemble.model.Slot`.
Place = tuple[str, int, int, str, str]


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
            value = weight_of(supernet, slot)
        values.append(value)
    model.set_weights(values)
    return model


def weight_of(supernet: Supernet, slot: Slot) -> np.ndarray:
    """The weight that a slot of a stand-alone ensemble takes from the supernet."""
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


class Taken(NamedTuple):
    """What `give_weights` found a place for.

    Attributes:
      stem: whether the stem (and the fixed layer after it) fits.
      layers: searchable layers with at least one operator that fits.
      operators: of all layers together.
      heads: heads, with or without their classifiers.
    """

    stem: bool
    layers: int
    operators: int
    heads: int


def give_weights(supernet: Supernet, values: Mapping[Place, np.ndarray]) -> Taken:
    """Gives a supernet the weights of an ensemble where they fit; all others stay as they are.

    An operator fits where the layer of the same number has it, with the same widths. Where several
    paths have the same one in a layer, the first path's weights are taken. Running statistics are
    left alone: nothing that is trained or searched reads them.

    Args:
      supernet: with fresh weights.
      values: by place; those of running statistics may be there.
    """
    trained = {place: value for place, value in values.items() if "/moving_" not in place[4]}
    by_operator: dict[tuple[int, str], dict[int, dict[str, np.ndarray]]] = {}
    for (part, layer, path, operator, role), value in trained.items():
        if part == "layer":
            by_operator.setdefault((layer, operator), {}).setdefault(path, {})[role] = value
    found = [
        number
        for (number, operator), paths in sorted(by_operator.items())
        if number <= len(supernet.searchable)
        and supernet.searchable[number - 1].take_weights(operator, paths[min(paths)])
    ]
    stem = {role: v for (part, *_, role), v in trained.items() if part == "stem"}
    stem |= {f"block/{role}": v for (part, *_, role), v in trained.items() if part == "block"}
    heads = 0
    for k, head in enumerate(supernet.heads):
        own = {p[4]: v for p, v in trained.items() if p[0] == "head" and p[2] == k}
        heads += bool(own) and _take(head, own, ("classifier/kernel", "classifier/bias"))
    return Taken(_take(supernet.stem, stem), len(set(found)), len(found), heads)


def _take(
    layer: FixedLayer, values: Mapping[str, np.ndarray], optional: tuple[str, ...] = ()
) -> bool:
    """Gives a fixed layer its weights if all fit but `optional` ones, which may be absent."""
    roles = {role: v for role, v in layer.roles.items() if "/moving_" not in role}

    def fits(role: str) -> bool:
        return role in values and values[role].shape == tuple(roles[role].shape)

    if not all(fits(role) for role in roles if role not in optional):
        return False
    for role, variable in roles.items():
        if fits(role):
            variable.assign(values[role])
    return True
