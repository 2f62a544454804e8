"""Accuracy against cost, and perhaps a third objective: what beats what, and who breeds (NSGA-II's rule).

A point beats another when it is no worse in all objectives and better in one. A third objective, the
paths' disagreement, is one of which more is better, as of accuracy. Fronts are peeled
off one by one: the points that nothing beats, then those that only the first front beats, and so
on. Inside a front those with more room around them come first, so that parents spread over costs.

K. Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neas_tf.common.errors import check

Values = Sequence[float] | np.ndarray


def pareto_front(costs: Values, accuracies: Values) -> np.ndarray:
    """Indices of the points that no other beats in cost (less) and accuracy (more), by cost.

    Of equal points the first one counts. Returns int64 (n,).
    """
    costs, accuracies = _points(costs, accuracies)
    order = np.lexsort((np.arange(len(costs)), -accuracies, costs))
    best_before = np.maximum.accumulate(np.r_[-np.inf, accuracies[order]])[:-1]
    return order[accuracies[order] > best_before]


def unbeaten(costs: Values, accuracies: Values, third: Values | None = None) -> np.ndarray:
    """Bool (n,): whether no other point beats this one; of equal points, all or none."""
    costs, accuracies, *more = _points(costs, accuracies, third)
    if not len(costs):
        return np.zeros(0, bool)
    if more:
        points = np.stack([-costs, accuracies, *more], 1)  # (n, 3), the more the better
        beaten = [(points >= p).all(1) & (points > p).any(1) for p in points]
        return ~np.any(beaten, axis=1)
    values, place = np.unique(costs, return_inverse=True)
    best = np.full(len(values), -np.inf)
    np.maximum.at(best, place, accuracies)
    cheaper = np.maximum.accumulate(np.r_[-np.inf, best])[:-1]
    return (accuracies == best[place]) & (accuracies > cheaper[place])


def front_numbers(
    costs: Values, accuracies: Values, count: int | None = None, third: Values | None = None
) -> np.ndarray:
    """int64 (n,): 0 for the points that nothing beats, 1 for those beaten by front 0 only, …

    It stops after the front with which `count` points are numbered; the others get the next number.
    """
    columns = _points(costs, accuracies, third)
    numbers = np.full(len(costs), -1, np.int64)
    left, front = np.arange(len(costs)), 0
    wanted = len(costs) if count is None else min(count, len(costs))
    while len(costs) - len(left) < wanted:
        mask = unbeaten(*(values[left] for values in columns))
        numbers[left[mask]] = front
        left, front = left[~mask], front + 1
    numbers[left] = front
    return numbers


def crowding(costs: Values, accuracies: Values, third: Values | None = None) -> np.ndarray:
    """Room around each point of one front, float64 (n,): infinite at the ends of an objective.

    For each objective the distance of a point's two neighbours, over the range of the front.
    """
    columns = _points(costs, accuracies, third)
    room = np.zeros(len(columns[0]))
    for values in columns:
        if not len(values):
            continue
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        span = ordered[-1] - ordered[0]
        if span > 0:
            room[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
        room[order[[0, -1]]] = np.inf
    return room


def breeding_order(
    costs: Values, accuracies: Values, count: int, third: Values | None = None
) -> np.ndarray:
    """Indices of the `count` points that breed first: by front, then room, then position.

    Returns int64 (min(count, n),).
    """
    columns = _points(costs, accuracies, third)
    numbers = front_numbers(costs, accuracies, count, third)
    room = np.zeros(len(numbers))
    for front in np.unique(numbers):
        members = np.flatnonzero(numbers == front)
        room[members] = crowding(*(values[members] for values in columns))
    return np.lexsort((np.arange(len(numbers)), -room, numbers))[:count]


def _points(costs: Values, accuracies: Values, third: Values | None = None) -> list[np.ndarray]:
    given = (costs, accuracies) if third is None else (costs, accuracies, third)
    columns = [np.asarray(values, float) for values in given]
    shapes = [values.shape for values in columns]
    fine = columns[0].ndim == 1 and len(set(shapes)) == 1
    check(fine, "Pareto front", shapes, "lists of equal length")
    return columns
