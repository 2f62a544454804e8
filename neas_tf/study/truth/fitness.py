"""Which number of a candidate ranks as long trainings do: τ and partial τ by fitness and truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.report.page import Table
from neas_tf.search.candidate import Score
from neas_tf.search.fitness import ACCURACY, FITNESSES, HALVING, fitness_values
from neas_tf.study.reporting import number
from neas_tf.study.statistics import Mean, bootstrap, kendall, partial_kendall
from neas_tf.study.tables.correlations import LEAST
from neas_tf.study.units import Result, Scores

# Halving has no order of its own: who gets a second look depends on the whole generation.
SHOWN = tuple(name for name in FITNESSES if name != HALVING)


def values_of(unit: Scores, scored: Result, fitness: str) -> dict[str, float] | None:
    """A fitness of each ensemble that a supernet has scored; None where the result lacks it."""
    numbers = scored.get("numbers") or {}
    rows = [
        Score(
            accuracy,
            (),
            numbers={name: row[i] for name, row in numbers.items() if row[i] is not None},
        )
        for i, accuracy in enumerate(scored["accuracies"])
    ]
    if fitness != ACCURACY and not all(row.numbers for row in rows):
        return None
    return dict(zip(unit.ensembles, fitness_values(rows, fitness).tolist(), strict=True))


def ranking_by_fitness(
    scored: Sequence[tuple[Scores, Result]], truth: Mapping[str, Any], resamples: int
) -> dict[str, dict[str, Any]]:
    """How each fitness orders ensembles, against the truth.

    Args:
      scored: what supernets of one kind, which differ in their seed, say of the same ensembles.
      truth: see `correlations.truth_of`.
      resamples: of the bootstrap over ensembles.

    Returns:
      By fitness that all supernets have: `kendall` and `partial` (quadratics in MACs taken off both
      sides), means over the supernets, `partial_each` of them, and `partial_interval` of the mean;
      `partial_together` of what they say in the mean, each standardised. What that is below 1 is not
      the chance of one supernet's training. {} with fewer than `LEAST` ensembles.
    """
    result: dict[str, dict[str, Any]] = {}
    for fitness in SHOWN:
        rows = [values_of(unit, value, fitness) for unit, value in scored]
        known = [row for row in rows if row is not None]
        keys = [key for key in truth if known and key in known[0]]
        if not known or len(known) < len(rows) or len(keys) < LEAST:
            continue
        x = np.array([[row[key] for key in keys] for row in known])
        y = np.array([truth[key]["accuracy"] for key in keys])
        macs = np.array([truth[key]["macs"] for key in keys], np.float64)

        def partial(chosen: np.ndarray, x=x, y=y, macs=macs) -> float:
            return float(
                np.mean([partial_kendall(row[chosen], y[chosen], macs[chosen]) for row in x])
            )

        interval = bootstrap(partial, len(keys), resamples)
        each = [partial_kendall(row, y, macs) for row in x]
        result[fitness] = {
            "kendall": Mean.of([kendall(row, y) for row in x]),
            "partial": Mean.of(each),
            "partial_each": each,
            "partial_interval": [interval.low, interval.high],
            "partial_together": partial_kendall(_standardised(x).mean(0), y, macs),
        }
    return result


def _standardised(x: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and standard deviation 1; of equal numbers, 0."""
    spread = x.std(1, keepdims=True)
    return (x - x.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)


def _of_each(values: Sequence[float]) -> str:
    if len(values) > 5:
        return f"{min(values):.2f} to {max(values):.2f}"
    return ", ".join(f"{value:.2f}" for value in values)


def table_by_fitness(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], first: str = "truth, supernets"
) -> Table:
    """One row a fitness and what `found` is by, which the column `first` names."""
    rows = [
        {
            first: name,
            "fitness": fitness.replace("_", " "),
            "supernets": str(row["kendall"].count),
            "Kendall τ": number(row["kendall"], 2),
            "partial τ": number(row["partial"], 2),
            "of each": _of_each(row["partial_each"]),
            "95 % interval (ensembles)": "{:.2f} to {:.2f}".format(*row["partial_interval"]),
            "of their mean": f"{row['partial_together']:.2f}",
        }
        for name, by_fitness in found.items()
        for fitness, row in by_fitness.items()
    ]
    return Table.of("By fitness; partial τ: a quadratic in MACs is taken off both sides", rows)
