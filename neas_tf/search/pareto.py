"""Two objectives, accuracy against cost: what beats what, and who breeds (NSGA-II's rule).

A point beats another when it is no worse in both objectives and better in one. Fronts are peeled
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


def unbeaten(costs: Values, accuracies: Values) -> np.ndarray:
    """Bool (n,): whether no other point beats this one; of equal points, all or none."""
    costs, accuracies = _points(costs, accuracies)
    if not len(costs):
        return np.zeros(0, bool)
    values, place = np.unique(costs, return_inverse=True)
    best = np.full(len(values), -np.inf)
    np.maximum.at(best, place, accuracies)
    cheaper = np.maximum.accumulate(np.r_[-np.inf, best])[:-1]
    return (accuracies == best[place]) & (accuracies > cheaper[place])


def front_numbers(costs: Values, accuracies: Values, count: int | None = None) -> np.ndarray:
    """int64 (n,): 0 for the points that nothing beats, 1 for those beaten by front 0 only, …

    It stops after the front with which `count` points are numbered; the others get the next number.
    """
    costs, accuracies = _points(costs, accuracies)
    numbers = np.full(len(costs), -1, np.int64)
    left, front = np.arange(len(costs)), 0
    wanted = len(costs) if count is None else min(count, len(costs))
    while len(costs) - len(left) < wanted:
        mask = unbeaten(costs[left], accuracies[left])
        numbers[left[mask]] = front
        left, front = left[~mask], front + 1
    numbers[left] = front
    return numbers


def crowding(costs: Values, accuracies: Values) -> np.ndarray:
    """Room around each point of one front, float64 (n,): infinite at the ends of an objective.

    For each objective the distance of a point's two neighbours, over the range of the front.
    """
    columns = _points(costs, accuracies)
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


def breeding_order(costs: Values, accuracies: Values, count: int) -> np.ndarray:
    """Indices of the `count` points that breed first: by front, then room, then position.

    Returns int64 (min(count, n),).
    """
    costs, accuracies = _points(costs, accuracies)
    numbers = front_numbers(costs, accuracies, count)
    room = np.zeros(len(costs))
    for front in np.unique(numbers):
        members = np.flatnonzero(numbers == front)
        room[members] = crowding(costs[members], accuracies[members])
    return np.lexsort((np.arange(len(costs)), -room, numbers))[:count]


def _points(costs: Values, accuracies: Values) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(costs, float), np.asarray(accuracies, float)
    fine = a.ndim == 1 and a.shape == b.shape
    check(fine, "Pareto front", (a.shape, b.shape), "two lists of equal length")
    return a, b
