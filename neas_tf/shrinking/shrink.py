"""One shrink from measurements to the smaller space and its report (paper Algorithm 1)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from neas_tf.common.errors import check
from neas_tf.shrinking.diversity import diversity_scores, similarity_and_quality
from neas_tf.shrinking.drops import (
    KeepsBudget,
    ShrinkSettings,
    accuracy_scores,
    apply_drops,
    choose_drops,
    combination_support,
    shrink_report,
)
from neas_tf.shrinking.measurements import Measurements
from neas_tf.space.shrunk_space import ShrunkSpace

_log = logging.getLogger(__name__)


def shrink(
    shrunk: ShrunkSpace,
    measurements: Measurements,
    settings: ShrinkSettings,
    keeps_budget: KeepsBudget | None = None,
    *,
    index: int,
    step: int,
    epoch: float,
) -> tuple[ShrunkSpace, dict[str, Any]]:
    """Scores all combinations alive and drops the lowest ones.

    Args:
      shrunk: the space so far.
      measurements: the sampled ensembles, drawn from `shrunk`.
      settings: metric, k, β and so on. With metric 'none' the report holds the diversity scores.
      keeps_budget: whether an ensemble within the budget is left in a space; None for no budget.
      index: running number of this shrink, 1-based.
      step: optimizer steps of the supernet so far.
      epoch: the same in epochs.

    Returns:
      The smaller space and the report `neas-shrink/1` (plain JSON types).

    Raises:
      NeasError: when the measurements do not fit the space.
    """
    space = shrunk.space
    shape = (measurements.num_paths, measurements.num_layers)
    expected = (shrunk.num_paths, space.num_layers)
    check(shape == expected, "measurements (paths, layers)", shape, str(expected))
    beta = measurements.resolve_beta(settings.beta)
    layer_scores = similarity_and_quality(
        measurements, len(space.operators), beta, settings.gamma, settings.quality_power
    )
    if settings.metric == "accuracy":
        scores = accuracy_scores(shrunk, layer_scores)
    else:
        scores = diversity_scores(shrunk, layer_scores)
    support = combination_support(shrunk, layer_scores, settings.metric)
    ranked = [
        counts
        for layer, counts in zip(space.layers, support, strict=True)
        if shrunk.can_split(layer.number) or settings.shrink_shared_layers
    ]
    weak = sum(int(np.sum(counts < settings.min_pair_count)) for counts in ranked)
    if weak and settings.metric != "none":
        _log.warning(
            "Shrink %d: %d of %d combinations were measured fewer than %d times "
            "(shrink.min_pair_count) and cannot be dropped; raise shrink.num_samples.",
            index,
            weak,
            sum(map(len, ranked)),
            settings.min_pair_count,
        )
    drops = choose_drops(shrunk, scores, settings, keeps_budget, support)
    report = shrink_report(
        shrunk,
        drops,
        scores,
        layer_scores,
        measurements,
        settings,
        beta=beta,
        index=index,
        step=step,
        epoch=epoch,
    )
    return apply_drops(shrunk, drops), report
