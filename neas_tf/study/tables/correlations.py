"""How supernets' accuracies of random ensembles go with accuracies from scratch (study `ranking`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.study.statistics import Interval, Mean, bootstrap, kendall, spearman
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Lookup, Supernet, Training, found

LEAST = 5  # ensembles that a correlation needs to be worth printing

Scores = Mapping[int, Mapping[str, float]]  # accuracy by supernet seed and ensemble
Truth = Mapping[str, Mapping[str, Any]]  # by ensemble, its `accuracy` from scratch among others


def mean_truth(plan: Plan, lookup: Lookup) -> dict[str, dict[str, Any]]:
    """What training from scratch says of the random ensembles: `truth_of` their trainings."""
    return truth_of(
        {
            key: [plan.training(seed, key) for seed in plan.settings.training_seeds]
            for key in plan.random_ensembles()
        },
        lookup,
    )


def truth_of(
    trainings: Mapping[str, Sequence[Training]], lookup: Lookup
) -> dict[str, dict[str, Any]]:
    """What trainings from scratch say of ensembles, means over the seeds that are done.

    Args:
      trainings: by ensemble, one a seed.
      lookup: of results.

    Returns:
      By ensemble that has one: `accuracy`, the same `by_seed`, the `gain` over the best path, and
      `macs`.
    """
    result = {}
    for key, units in trainings.items():
        done = [value for unit in units if (value := found(unit, lookup)) is not None]
        if done:
            accuracies = [value["ensemble_accuracy"] for value in done]
            gains = [v["ensemble_accuracy"] - max(v["path_accuracies"]) for v in done]
            result[key] = {
                "accuracy": float(np.mean(accuracies)),
                "by_seed": accuracies,
                "gain": float(np.mean(gains)),
                "macs": done[0]["macs"],
            }
    return result


def scores_of(
    supernets: Mapping[int, Supernet], plan: Plan, lookup: Lookup, ensembles: tuple[str, ...] = ()
) -> Scores:
    """By seed, accuracies of ensembles under the supernets that have scored them; by default the random ones."""
    result = {}
    for seed, supernet in supernets.items():
        unit = plan.scores(supernet, ensembles)
        scored = found(unit, lookup)
        if scored is not None:
            result[seed] = dict(zip(unit.ensembles, scored["accuracies"], strict=True))
    return result


def kendalls(scores: Scores, truth: Truth) -> Mean:
    """τ of each supernet with the truth; without any where too few ensembles have both."""
    common, x = _matrix(scores, truth)
    y = _accuracies(truth, common)
    return Mean.of([kendall(row, y) for row in x] if len(common) >= LEAST else [])


def correlations(scores: Scores, truth: Truth, resamples: int) -> dict[str, Any]:
    """Rank correlations of each supernet with the truth, and with the others.

    Returns:
      Means over the supernets: `kendall`, `spearman`, `score` (accuracy of the ensembles),
      `score_spread` (its standard deviation over them); `between_supernets`, the mean τ over pairs of
      them; and, with enough ensembles, `interval`, the bootstrap interval of the mean τ.
    """
    common, x = _matrix(scores, truth)
    y = _accuracies(truth, common)
    enough = len(common) >= LEAST and len(x) > 0
    pairs = itertools.combinations(x, 2) if enough else ()
    result: dict[str, Any] = {
        "kendall": kendalls(scores, truth),
        "spearman": Mean.of([spearman(row, y) for row in x] if enough else []),
        "between_supernets": Mean.of([kendall(a, b) for a, b in pairs]),
        "score": Mean.of([float(np.mean(row)) for row in x] if enough else []),
        "score_spread": Mean.of([float(np.std(row, ddof=1)) for row in x] if enough else []),
    }
    if enough:
        interval = bootstrap(lambda rows: _mean_kendall(x[:, rows], y[rows]), len(y), resamples)
        result["interval"] = [interval.low, interval.high]
    return result


def difference(ours: Scores, theirs: Scores, truth: Truth, resamples: int) -> Interval | None:
    """Mean τ of one kind of supernet less that of another, over the seeds that both have.

    The bootstrap draws the same ensembles for both sides.

    Returns:
      None while a seed or ensembles are missing.
    """
    seeds = [seed for seed in ours if seed in theirs]
    rows = [side[seed] for side in (ours, theirs) for seed in seeds]
    common, x = _matrix(dict(enumerate(rows)), truth)
    if not seeds or len(common) < LEAST:
        return None
    a, b = np.split(x, 2)
    y = _accuracies(truth, common)
    return bootstrap(
        lambda rows: _mean_kendall(a[:, rows], y[rows]) - _mean_kendall(b[:, rows], y[rows]),
        len(common),
        resamples,
    )


def among(scores: Scores, truth: Truth, alive: Mapping[int, list[str]]) -> dict[str, Any]:
    """τ over those ensembles only that shrinking left in the space (`alive`, by seed).

    Returns:
      `ensembles`, how many are left, and their `kendall`; means over the seeds.
    """
    counts, values = [], []
    for seed, row in scores.items():
        keys = [key for key in alive.get(seed, ()) if key in truth]
        counts.append(len(keys))
        if len(keys) >= LEAST:
            values.append(kendall([row[k] for k in keys], list(_accuracies(truth, keys))))
    return {"ensembles": Mean.of(counts), "kendall": Mean.of(values)}


def _matrix(scores: Scores, keys: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Those ensembles that every supernet has scored, and (supernets, ensembles) accuracies."""
    common = [key for key in keys if all(key in row for row in scores.values())]
    return common, np.array([[row[key] for key in common] for row in scores.values()])


def _accuracies(truth: Truth, keys: list[str]) -> np.ndarray:
    return np.array([truth[key]["accuracy"] for key in keys])


def _mean_kendall(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([kendall(row, y) for row in x]))
