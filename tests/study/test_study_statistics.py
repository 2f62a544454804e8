"""Statistics against values worked out by hand, and against what must hold for any values."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.study.statistics import (
    Mean,
    bootstrap,
    kendall,
    linear_cka,
    over_common_seeds,
    partial_kendall,
    ranking_words,
    spearman,
    without_quadratic,
)

# Integers, so that a monotone function of them keeps their order and their ties exactly.
values = st.integers(-50, 50)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=12)


def test_kendall_by_hand():
    # 5 of 6 pairs agree, 1 does not: (5 - 1) / 6.
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(2 / 3)
    # 2 agree, none disagrees, 1 is tied in x alone: 2 / sqrt(3 · 2).
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))


def test_spearman_by_hand():
    # Rank differences 1, 1, 1, 1, 0: 1 - 6 · 4 / (5 · 24).
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    # Ties take mean ranks, (1.5, 1.5, 3) against (1, 2, 3): 1.5 / sqrt(1.5 · 2).
    assert spearman([7, 7, 9], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))
    assert math.isnan(spearman([1, 2, 3], [4, 4, 4]))


@given(pairs)
def test_correlations_are_symmetric_and_see_the_order_alone(rows):
    x, y = zip(*rows, strict=True)
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    for correlation in (kendall, spearman):
        value = correlation(x, y)
        assert -1 - 1e-9 <= value <= 1 + 1e-9
        assert correlation(y, x) == pytest.approx(value)
        assert correlation([v**3 for v in x], y) == pytest.approx(value)
        assert correlation([-v for v in x], y) == pytest.approx(-value)


@pytest.mark.parametrize("correlation", [kendall, spearman])
def test_pairs_are_checked(correlation):
    with pytest.raises(NeasError, match="received 2 and 3 values"):
        correlation([1, 2], [1, 2, 3])
    with pytest.raises(NeasError, match="at least 2"):
        correlation([1], [1])


def test_mean_by_hand():
    assert Mean.of([1.0, 2.0, 6.0]) == Mean(3.0, math.sqrt(7.0), 3)
    single, none = Mean.of([0.25]), Mean.of([])
    assert (single.mean, single.count) == (0.25, 1) and math.isnan(single.std)
    assert none.count == 0 and math.isnan(none.mean)


def test_bootstrap_of_a_mean_by_hand():
    """Of two observations 0 and 1, a resample's mean is 0, ½ or 1 with chances ¼, ½, ¼."""
    data = np.array([0.0, 1.0])
    means = []

    def mean(rows):
        means.append(float(data[rows].mean()))
        return means[-1]

    interval = bootstrap(mean, 2, resamples=4000, seed=3, level=0.4)
    share = [means[:-1].count(value) / 4000 for value in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25], atol=0.03)
    # The middle 40 % lie inside the ½ of the middle.
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)
    wide = bootstrap(lambda rows: float(data[rows].mean()), 2, resamples=4000, seed=3)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_bootstrap_depends_on_its_seed_alone():
    x, y = np.arange(12.0), np.array([3, 1, 2, 6, 5, 4, 9, 8, 7, 12, 10, 11.0])

    def tau(rows):
        return kendall(x[rows], y[rows])

    first = bootstrap(tau, 12, 200, seed=1)
    assert bootstrap(tau, 12, 200, seed=1) == first
    assert bootstrap(tau, 12, 200, seed=2) != first
    assert first.low <= first.value <= first.high
    # Perfect order stays perfect, whatever is drawn.
    same = bootstrap(lambda rows: kendall(x[rows], x[rows]), 12, 200)
    assert (same.low, same.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_bootstrap_checks_and_leaves_nan_out():
    with pytest.raises(NeasError, match="observations"):
        bootstrap(lambda rows: 0.0, 1)
    with pytest.raises(NeasError, match="level"):
        bootstrap(lambda rows: 0.0, 2, level=1.0)
    interval = bootstrap(lambda rows: math.nan, 3, 10)
    assert all(map(math.isnan, (interval.value, interval.low, interval.high)))


@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_cka_knows_rotations(seed, scale):
    rng = np.random.default_rng(seed)
    x, other = rng.normal(size=(2, 40, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert linear_cka(x, scale * x @ rotation + 3.0) == pytest.approx(1.0)
    assert linear_cka(x, other) == pytest.approx(linear_cka(other, x))
    assert 0.0 <= linear_cka(x, other) < 0.9
    assert math.isnan(linear_cka(x, np.ones((40, 2))))


def test_cka_by_hand():
    x = np.array([[1.0], [-1.0], [0.0], [0.0]])
    y = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert linear_cka(x, y) == pytest.approx((2.0**2) / (2.0 * 4.0))


def means(**values: tuple[float, ...]) -> dict[str, Mean]:
    return {name: Mean.of(list(row)) for name, row in values.items()}


@pytest.mark.parametrize(
    "values,words",
    [
        (
            means(a=(0.9, 0.91), b=(0.7, 0.71)),
            "x: the paper's order, a > b, holds here (a > b); all neighbours differ by more than "
            "one standard deviation.",
        ),
        (
            means(a=(0.7, 0.71), b=(0.9, 0.91)),
            "x: the paper's order, a > b, does not hold here (b > a); all neighbours differ by "
            "more than one standard deviation.",
        ),
        (
            means(a=(0.8, 0.9), b=(0.7, 0.98)),
            "x: the paper's order, a > b, holds here (a > b); no more than one standard deviation "
            "lies between a and b.",
        ),
        (
            means(a=(0.5,), b=(0.5,)),
            "x: the paper's order, a > b, does not hold here (a = b); with one repetition nothing "
            "can be said about chance.",
        ),
        (means(a=(0.5,), b=()), "x: too little is done to compare a, b."),
    ],
)
def test_sentences_follow_from_the_values(values, words):
    assert ranking_words(values, ("a", "b"), "x") == words


def test_like_is_compared_with_like():
    rows = {
        "found": [{"seed": 0, "a": 0.7}, {"seed": 1, "a": 0.1}, {"seed": 2, "a": 0.6}],
        "rival": [{"seed": 2, "a": 0.5}, {"seed": 0, "a": 0.6}],
        "late": [],
    }
    both = over_common_seeds(rows, ("found", "rival"), lambda row: row["a"])
    assert [both[n].mean for n in both] == pytest.approx([0.65, 0.55]) and both["found"].count == 2
    three = over_common_seeds(rows, ("found", "rival", "late", "unknown"), lambda row: row["a"])
    assert [m.count for m in three.values()] == [2, 2, 0, 0]
    apart = {"a": [{"seed": 0, "a": 1.0}], "b": [{"seed": 1, "a": 2.0}]}
    assert {m.count for m in over_common_seeds(apart, "ab", lambda r: r["a"]).values()} == {0}


def test_partial_kendall_by_hand():
    """x and y are both the cost's square plus what is left: 1, −1, 1, … in x, of the other sign in y."""
    cost = np.arange(8.0)
    left = np.array([1, -3, 2, 1, -1, -2, 3, -1.0])  # not a quadratic
    x, y = cost**2 + left, 5 - 3 * cost + 2 * cost**2 - left
    assert kendall(x, y) > 0.5
    assert partial_kendall(x, y, cost) == pytest.approx(-1.0)
    assert partial_kendall(x, x, cost) == pytest.approx(1.0)
    assert np.isnan(partial_kendall(np.ones(8), y, cost))
    fit = np.polynomial.Polynomial.fit(cost, x, 2)
    np.testing.assert_allclose(without_quadratic(x, cost), x - fit(cost), atol=1e-9)
