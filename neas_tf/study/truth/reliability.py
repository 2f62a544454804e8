"""How sharp a truth is: what two trainings of the same ensembles agree on, and what follows from it.

A training's accuracy is the ensemble's true one plus noise. Two trainings correlate with the share r
of the variance that is true; the mean of n trainings has the share n·r / (1 + (n − 1)·r)
(Spearman-Brown), and what knows the true accuracies correlates with that mean as the square root of
that. For normal values Kendall's τ is 2/π · arcsin of a correlation (Greiner), which leads from τ to
r and back. So everything here follows from one measured τ, and an interval of it gives the others'.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.study.statistics import (
    Interval,
    bootstrap,
    kendall,
    partial_kendall,
    spearman,
    without_quadratic,
)

WANTED = 0.5  # τ between two halves of the trainings that a truth should have


def share_of_truth(tau: float) -> float:
    """Share r of the variance that is true, from τ between single trainings; 0 where τ is not above 0."""
    return math.sin(math.pi / 2 * max(tau, 0.0))


def share_of_mean(tau: float, trainings: float) -> float:
    """The same of the mean of n trainings: the correlation of two such means (Spearman-Brown)."""
    share = share_of_truth(tau)
    return trainings * share / (1 + (trainings - 1) * share)


def ceiling(tau: float, trainings: int) -> float:
    """τ that a predictor who knows the true accuracies reaches against the mean of n trainings.

    By Spearman-Brown and Greiner, not by simulation: 2/π · arcsin √(n·r / (1 + (n − 1)·r)). An
    example: τ = 1/3 between two trainings is r = 1/2, so a perfect predictor has τ = 1/2 with one of
    them.

    Args:
      tau: between single trainings; below 0 it counts as 0.
      trainings: n.
    """
    return 2 / math.pi * math.asin(math.sqrt(share_of_mean(tau, trainings)))


def trainings_needed(tau: float, wanted: float = WANTED) -> int | None:
    """Trainings a half so that the means of two halves agree with τ ≥ `wanted`.

    Solves n·r / (1 + (n − 1)·r) ≥ sin(π/2 · wanted) for n.

    Args:
      tau: between single trainings.
      wanted: below 1.

    Returns:
      None where no number of trainings does: single ones do not agree at all.
    """
    share, goal = share_of_truth(tau), share_of_truth(wanted)
    if share <= 0:
        return None
    if share >= goal:
        return 1
    return math.ceil(goal * (1 - share) / (share * (1 - goal)) - 1e-9)


def reliability(
    trainings: Sequence[Sequence[float]], macs: Sequence[float], resamples: int
) -> dict[str, Any]:
    """What repeated trainings of the same ensembles say of each other.

    Args:
      trainings: accuracies, (seeds, ensembles); two seeds and two ensembles at least.
      macs: of the ensembles.
      resamples: of the bootstrap over ensembles.

    Returns:
      `kendall`, `spearman` and `partial` (τ of what a quadratic in MACs leaves): means over the pairs
      of seeds, as `Interval`; `ceilings` by number of trainings (1, and as many as there are) and
      `needed` (`trainings_needed`) with what follows at the ends of τ's interval, the lower end first;
      `spread`, standard deviation of the ensembles' means, `noise`, that of one training around
      them, `of_macs`, τ of MACs with the means, and `explained_by_macs`, the share of the
      means' variance that the quadratic explains.
    """
    values, costs = np.asarray(trainings, np.float64), np.asarray(macs, np.float64)
    size = values.shape[1]

    def over_pairs(statistic, rows: np.ndarray) -> float:
        pairs = itertools.combinations(values[:, rows], 2)
        return float(np.mean([statistic(a, b) for a, b in pairs]))

    tau = bootstrap(lambda rows: over_pairs(kendall, rows), size, resamples)
    means = values.mean(0)
    left = without_quadratic(means, costs)
    variance = float(means.var())
    counts = sorted({1, len(values)})
    return {
        "kendall": tau,
        "spearman": bootstrap(lambda rows: over_pairs(spearman, rows), size, resamples),
        "partial": bootstrap(
            lambda rows: over_pairs(lambda a, b: partial_kendall(a, b, costs[rows]), rows),
            size,
            resamples,
        ),
        "ceilings": {n: _over(tau, lambda value, n=n: ceiling(value, n)) for n in counts},
        "needed": [trainings_needed(value) for value in (tau.value, tau.low, tau.high)],
        "spread": float(means.std(ddof=1)),
        "noise": float(np.sqrt(values.var(0, ddof=1).mean())),
        "of_macs": kendall(costs, means),
        "explained_by_macs": 1 - float(left.var()) / variance if variance else math.nan,
    }


def _over(tau: Interval, follows: Any) -> Interval:
    """What follows from τ, which rises with it."""
    return Interval(*(follows(value) for value in (tau.value, tau.low, tau.high)))


def known(by_seed: Mapping[str, Sequence[float]], seeds: int) -> list[str]:
    """Those ensembles that all seeds have trained."""
    return [key for key, values in by_seed.items() if len(values) == seeds]
