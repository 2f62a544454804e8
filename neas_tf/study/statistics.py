"""The few statistics of the studies: rank correlation with its interval, mean and deviation."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.stats

from neas_tf.common.errors import NeasError, check, check_int, check_share

Values = Sequence[float] | np.ndarray
Name = TypeVar("Name", bound=Hashable)

_TAG = 0xB007  # keeps the resampling apart from what else derives from the same seed


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean and sample standard deviation (n − 1) over repetitions.

    Attributes:
      mean: NaN without values.
      std: NaN with fewer than two values.
      count: n.
    """

    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of these values."""
        array = np.asarray(values, np.float64)
        mean = float(array.mean()) if len(array) else math.nan
        std = float(array.std(ddof=1)) if len(array) > 1 else math.nan
        return cls(mean, std, len(array))


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval.

    Attributes:
      value: of the sample itself.
      low, high: the interval's ends; NaN where no resample had a value.
    """

    value: float
    low: float
    high: float


def kendall(x: Values, y: Values) -> float:
    """Kendall's τ-b, which corrects for ties; NaN where one side is constant.

    Raises:
      NeasError: for fewer than two pairs or lists of unequal length.
    """
    _check_pairs(x, y)
    return float(scipy.stats.kendalltau(x, y, variant="b").statistic)


def spearman(x: Values, y: Values) -> float:
    """Spearman's ρ with mean ranks for ties; NaN where one side is constant.

    Raises:
      NeasError: for fewer than two pairs or lists of unequal length.
    """
    _check_pairs(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan  # without the library's warning
    return float(scipy.stats.spearmanr(x, y).statistic)


def without_quadratic(values: Values, costs: Values) -> np.ndarray:
    """What is left of values when the best quadratic in a cost (least squares) is taken off, (n,).

    Of equal costs the mean is taken off. Values that a quadratic explains leave rounding, not
    zeros: correlations of what is left mean nothing then.

    Raises:
      NeasError: for fewer than two pairs or lists of unequal length.
    """
    _check_pairs(values, costs)
    y, x = (np.asarray(side, np.float64) for side in (values, costs))
    x = (x - x.mean()) / (x.std() or 1.0)
    powers = np.stack([np.ones_like(x), x, x**2], 1)
    return y - powers @ np.linalg.lstsq(powers, y, rcond=None)[0]


def partial_kendall(x: Values, y: Values, costs: Values) -> float:
    """τ-b of what quadratics in a cost leave of both sides; NaN where one side is constant.

    Raises:
      NeasError: for fewer than two pairs or lists of unequal length.
    """
    if len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan  # not the order of what rounding leaves
    return kendall(without_quadratic(x, costs), without_quadratic(y, costs))


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    size: int,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a statistic of `size` observations, drawn again with replacement.

    Args:
      statistic: of the numbers (0-based) of the observations that are drawn, such as
        `lambda rows: kendall(x[rows], y[rows])`; resamples in which it is NaN are left out.
      level: of the interval, such as 0.95.

    Raises:
      NeasError: for fewer than two observations or an argument out of range.
    """
    check_int("observations", size, 2)
    check_int("resamples", resamples, 1)
    check_share("level", level)
    rng = np.random.default_rng([seed, _TAG])
    values = np.array([statistic(rows) for rows in rng.integers(size, size=(resamples, size))])
    values = values[~np.isnan(values)]
    value = statistic(np.arange(size))
    if not len(values):
        return Interval(value, math.nan, math.nan)
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


def bootstrap_groups(
    statistic: Callable[..., float],
    samples: Sequence[Sequence[Values]],
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap over groups and what is in them: values of one group may depend on each other.

    Args:
      statistic: of the samples, each a list of arrays, one a group. From each sample as many groups
        as it has are drawn with replacement, and from each of those as many values.
      samples: of each its groups, each with one value at least.
      level: of the interval.

    Raises:
      NeasError: for an empty sample or group, or an argument out of range.
    """
    check_int("resamples", resamples, 1)
    check_share("level", level)
    given = [[np.asarray(group, np.float64) for group in groups] for groups in samples]
    for groups in given:
        check(bool(groups) and all(len(g) for g in groups), "groups", groups, "values in each")
    rng = np.random.default_rng([seed, _TAG])

    def drawn(groups: list[np.ndarray]) -> list[np.ndarray]:
        chosen = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        return [group[rng.integers(len(group), size=len(group))] for group in chosen]

    values = [statistic(*(drawn(groups) for groups in given)) for _ in range(resamples)]
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return Interval(statistic(*given), float(low), float(high))


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """How alike two networks see the same images: linear centred kernel alignment, 0 to 1.

    It does not change when one side's features (n, features) are rotated, mirrored or scaled, so that
    networks trained apart can be compared. NaN where one side is constant.
    """
    check(len(x) == len(y), "features", (len(x), len(y)), "equally many images")
    x, y = (np.asarray(v, np.float64) - np.mean(v, 0, dtype=np.float64) for v in (x, y))
    norm = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.sum((y.T @ x) ** 2) / norm) if norm else math.nan


def _check_pairs(x: Values, y: Values) -> None:
    if len(x) != len(y):
        raise NeasError(f"pairs: received {len(x)} and {len(y)} values, expected equally many.")
    check(len(x) >= 2, "pairs", len(x), "at least 2")


def over_common_seeds(
    rows: Mapping[Name, Sequence[Mapping[str, Any]]],
    names: Sequence[Name],
    value: Callable[[Mapping[str, Any]], float],
) -> dict[Name, Mean]:
    """Means over the seeds that all of several contenders have, so that like is compared with like.

    Found with seeds 0, 1 and 2, a rival with seed 0 alone: both means are of seed 0.

    Args:
      rows: of each contender, one a repetition with its `seed`.
      names: those that are compared; one without any repetition is left out of the seeds.
      value: what is compared, of a row.
    """
    known = {name: {row["seed"]: value(row) for row in rows.get(name, ())} for name in names}
    done = [set(by_seed) for by_seed in known.values() if by_seed]
    seeds = sorted(set.intersection(*done)) if done else []
    return {
        name: Mean.of([by_seed[seed] for seed in seeds] if by_seed else [])
        for name, by_seed in known.items()
    }


def ranking_words(values: dict[str, Mean], expected: Sequence[str], what: str) -> str:
    """Whether an ordering of the paper holds, as a sentence made of the values (larger is better).

    It says which order the means have, whether it is the expected one (the best first), and whether
    neighbours differ by more than the larger of their standard deviations.
    """
    known = {name: values[name] for name in expected if values[name].count}
    if len(known) < 2:
        return f"{what}: too little is done to compare {', '.join(expected)}."
    order = sorted(known, key=lambda name: -known[name].mean)  # stable: ties in the given order
    wanted = [name for name in expected if name in known]
    holds = all(known[a].mean > known[b].mean for a, b in itertools.pairwise(wanted))
    verdict = "holds here" if holds else "does not hold here"
    shown = order[0]
    for a, b in itertools.pairwise(order):
        shown += f" {'>' if known[a].mean > known[b].mean else '='} {b}"
    text = f"{what}: the paper's order, {' > '.join(wanted)}, {verdict} ({shown})"
    deviations = [known[name].std for name in wanted if not math.isnan(known[name].std)]
    if not deviations:
        return f"{text}; with one repetition nothing can be said about chance."
    close = []
    for a, b in itertools.pairwise(order):
        spread = np.nanmax([known[a].std, known[b].std, 0.0])
        if known[a].mean - known[b].mean <= spread:
            close.append(f"{a} and {b}")
    if close:
        return f"{text}; no more than one standard deviation lies between {', '.join(close)}."
    return f"{text}; all neighbours differ by more than one standard deviation."


def ranking_over_common_seeds(
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    expected: Sequence[str],
    value: Callable[[Mapping[str, Any]], float],
    what: str,
) -> str:
    """`ranking_words` of `over_common_seeds`."""
    return ranking_words(over_common_seeds(rows, expected, value), expected, what)
