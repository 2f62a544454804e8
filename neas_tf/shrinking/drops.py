"""Choosing which operator combinations to drop (paper section 3.2, Algorithm 1). Pure NumPy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_int, fail, unknown_name
from neas_tf.shrinking.measurements import PAPER_BETA, LayerScores, Measurements
from neas_tf.space.shrunk_space import Combination, ShrunkSpace

FORMAT = "neas-shrink/1"
METRICS = ("diversity", "accuracy", "none")
BATCH_NORMS = ("batch", "recalculated")
KeepsBudget = Callable[[ShrunkSpace], bool]


@dataclasses.dataclass(frozen=True)
class ShrinkSettings:
    """How a shrink is measured and how much it drops: `ShrinkConfig`, whose defaults these are."""

    metric: str = "diversity"
    remove: int = 20
    num_samples: int = 200
    beta: float | str = PAPER_BETA
    gamma: float = 1.0
    quality_power: float = 1.0
    min_pair_count: int = 5
    shrink_shared_layers: bool = False
    min_combinations: int = 1
    batch_norm: str = "batch"
    count_orders: bool = False

    def __post_init__(self):
        if self.metric not in METRICS:
            unknown_name("shrink.metric", self.metric, METRICS)
        check_int("shrink.remove", self.remove, 0)
        check_int("shrink.num_samples", self.num_samples, 1)
        check_int("shrink.min_pair_count", self.min_pair_count, 1)
        check_int("shrink.min_combinations", self.min_combinations, 0)
        if self.beta != "auto":
            _check_positive("shrink.beta", self.beta, "'auto' or a number > 0")
        _check_positive("shrink.gamma", self.gamma, "a number > 0")
        _check_positive("shrink.quality_power", self.quality_power, "a number > 0")
        if self.batch_norm not in BATCH_NORMS:
            unknown_name("shrink.batch_norm", self.batch_norm, BATCH_NORMS)
        for name in ("shrink_shared_layers", "count_orders"):
            flag = getattr(self, name)
            check(isinstance(flag, bool), f"shrink.{name}", flag, "true or false")


@dataclasses.dataclass(frozen=True)
class Drop:
    """A combination (or the operator of a layer that cannot split) that was dropped.

    Attributes:
      layer: 1-based.
      operators: K names in the order of the space, or one.
      score: by the metric in use.
    """

    layer: int
    operators: Combination
    score: float


def accuracy_scores(shrunk: ShrunkSpace, scores: LayerScores) -> tuple[np.ndarray, ...]:
    """Mean quality of each combination alive, by layer; NaN where an operator was never seen."""
    result = []
    for layer, rows in enumerate(shrunk.alive_combination_indices):
        seen = np.all(scores.operator_counts[layer][rows] > 0, axis=1)
        result.append(np.where(seen, scores.quality[layer][rows].mean(axis=1), np.nan))
    return tuple(result)


def combination_support(
    shrunk: ShrunkSpace, scores: LayerScores, metric: str = "diversity"
) -> tuple[np.ndarray, ...]:
    """By layer: observations that each combination's score rests on (see `min_pair_count`)."""
    result = []
    for layer, rows in enumerate(shrunk.alive_combination_indices):
        if metric == "accuracy":
            result.append(scores.operator_counts[layer][rows].min(axis=1))
        else:
            result.append(scores.support(layer, rows))
    return tuple(result)


def choose_drops(
    shrunk: ShrunkSpace,
    scores: Sequence[np.ndarray],
    settings: ShrinkSettings,
    keeps_budget: KeepsBudget | None = None,
    support: Sequence[np.ndarray] | None = None,
) -> list[Drop]:
    """The combinations with the lowest scores, in the order in which they are dropped.

    A layer keeps at least one. Passed over is a combination that was not measured well enough, and
    one without which the budget could not be met any more. Equal scores are dropped by layer, then
    in the order of the space. With `count_orders` the last one may take the count past `remove`.

    For example, with K = 2 and `remove` = 3, `count_orders` drops two combinations: the first counts
    as (a, b) and (b, a), and so does the second. Without it three go.

    Args:
      shrunk: the space before the shrink.
      scores: by layer, in the order of `shrunk.alive`; NaN where unknown.
      settings: how many, and of which layers.
      keeps_budget: whether an ensemble within the budget is left in a space; None for no budget.
      support: by layer, observations behind each score; None takes all scores as good.
    """
    for layer, (values, rows) in enumerate(zip(scores, shrunk.alive, strict=True), start=1):
        shape = np.shape(values)
        check(shape == (len(rows),), f"scores of layer {layer}", shape, f"shape {(len(rows),)}")
    if settings.metric == "none":
        return []
    room = shrunk.num_combinations - settings.min_combinations  # combinations, never orders
    if room <= 0:
        return []
    numbers = [layer.number for layer in shrunk.space.layers]
    splitting = [number for number in numbers if shrunk.can_split(number)]
    quotas = [(splitting, settings.remove, room)]
    if settings.shrink_shared_layers:
        shared = [number for number in numbers if not shrunk.can_split(number)]
        singles = sum(len(shrunk.alive[number - 1]) for number in shared)
        total = sum(
            _weight(combination, settings)
            for number in splitting
            for combination in shrunk.alive[number - 1]
        )
        share = -(-settings.remove * singles // total)
        quotas.append((shared, share, share))

    drops: list[Drop] = []
    for pool, quota, most in quotas:
        candidates = []
        for number in pool:
            for place, score in enumerate(scores[number - 1]):
                known = support is None or support[number - 1][place] >= settings.min_pair_count
                if known and not math.isnan(score):
                    candidates.append((float(score), number, place))
        alive_before = {number: shrunk.alive[number - 1] for number in pool}
        dropped = counted = 0
        for score, number, place in sorted(candidates):
            if counted >= quota or dropped == most:
                break
            if len(shrunk.alive[number - 1]) == 1:
                continue
            combination = alive_before[number][place]
            smaller = shrunk.without(number, combination)
            if keeps_budget is not None and not keeps_budget(smaller):
                continue
            shrunk, dropped = smaller, dropped + 1
            counted += _weight(combination, settings)
            drops.append(Drop(number, combination, score))
    return drops


def _weight(combination: Combination, settings: ShrinkSettings) -> int:
    """What a combination counts against `remove`: 1, or the orders that its operators have."""
    if not settings.count_orders:
        return 1
    same = [math.factorial(combination.count(name)) for name in set(combination)]
    return math.factorial(len(combination)) // math.prod(same)


def apply_drops(shrunk: ShrunkSpace, drops: Iterable[Drop]) -> ShrunkSpace:
    """The space without these combinations; raises `NeasError` for one that cannot go."""
    for drop in drops:
        shrunk = shrunk.without(drop.layer, drop.operators)
    return shrunk


def shrink_report(
    before: ShrunkSpace,
    drops: Sequence[Drop],
    scores: Sequence[np.ndarray],
    layer_scores: LayerScores,
    measurements: Measurements,
    settings: ShrinkSettings,
    *,
    beta: float,
    index: int,
    step: int,
    epoch: float,
) -> dict[str, Any]:
    """What one shrink measured and did, as JSON `neas-shrink/1`.

    Every layer lists all combinations of the whole space; those dropped before have no score.
    Numbers that no observation backs are null.

    Args:
      before: the space before the shrink.
      drops: what `choose_drops` chose.
      scores: by layer, in the order of `before.alive`.
      layer_scores: S, r and counts.
      measurements: what they were estimated from.
      settings: of the shrink.
      beta: β as used.
      index: running number of the shrink, 1-based.
      step: optimizer steps of the supernet so far.
      epoch: the same in epochs.
    """
    gone = {(drop.layer, drop.operators) for drop in drops}
    whole = ShrunkSpace.full(before.space, before.num_paths, before.heterogeneous)
    layers = []
    for layer, combinations, values in zip(before.space.layers, whole.alive, scores, strict=True):
        m, number = layer.number - 1, layer.number
        by_name = dict(zip(before.alive[m], values, strict=True))
        used = np.array([before.space.operator_index(name) for name in layer.operators])
        seen = layer_scores.operator_counts[m][used] > 0
        entry = {
            "layer": number,
            "operators": list(layer.operators),
            "similarity": _numbers(layer_scores.similarity[m][np.ix_(used, used)]),
            "quality": _numbers(np.where(seen, layer_scores.quality[m][used], np.nan)),
            "pair_counts": layer_scores.pair_counts[m][np.ix_(used, used)].tolist(),
            "operator_counts": layer_scores.operator_counts[m][used].tolist(),
            "combinations": [
                {
                    "operators": list(combination),
                    "score": _number(by_name.get(combination, math.nan)),
                    "alive_before": combination in by_name,
                    "dropped": (number, combination) in gone,
                }
                for combination in combinations
            ],
        }
        if not before.heterogeneous:
            entry["self_similarity"] = _numbers(layer_scores.self_similarity[m][used])
        layers.append(entry)
    return {
        "format": FORMAT,
        "index": int(index),
        "step": int(step),
        "epoch": float(epoch),
        "metric": settings.metric,
        "batch_norm": settings.batch_norm,
        "count_orders": settings.count_orders,
        "num_samples": measurements.num_samples,
        "beta": float(beta),
        "gamma": float(settings.gamma),
        "quality_power": float(settings.quality_power),
        "distance_quantiles": measurements.distance_quantiles(),
        "layers": layers,
        "dropped": [
            {"layer": drop.layer, "operators": list(drop.operators), "score": drop.score}
            for drop in drops
        ],
        "alive": apply_drops(before, drops).to_dict(),
    }


def _check_positive(field: str, value: object, allowed: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        fail(field, value, allowed)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _numbers(values: np.ndarray) -> list:
    if values.ndim > 1:
        return [_numbers(row) for row in values]
    return [_number(value) for value in values]
