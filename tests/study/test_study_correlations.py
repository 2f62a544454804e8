"""Rank correlations of supernets with the truth, on made-up accuracies."""

import math

import numpy as np
import pytest

from neas_tf.study.tables.correlations import LEAST, among, correlations, difference

KEYS = [f"ensemble {number}" for number in range(12)]
TRUTH = {key: {"accuracy": 0.4 + 0.01 * number} for number, key in enumerate(KEYS)}


def scores(order, keys=KEYS):
    """One supernet's accuracies, in this order of the ensembles."""
    return {key: 0.1 + 0.01 * order[number] for number, key in enumerate(keys)}


FORWARD = scores(range(12))
BACKWARD = scores(range(12)[::-1])
MIXED = scores(np.random.default_rng(0).permutation(12))


def test_order_and_its_opposite():
    row = correlations({0: FORWARD, 1: FORWARD}, TRUTH, 50)
    assert (row["kendall"].mean, row["spearman"].mean) == pytest.approx((1.0, 1.0))
    assert row["between_supernets"].mean == pytest.approx(1.0)
    assert row["interval"] == [pytest.approx(1.0), pytest.approx(1.0)]
    row = correlations({0: FORWARD, 1: BACKWARD}, TRUTH, 50)
    assert row["kendall"].mean == pytest.approx(0.0)
    assert row["between_supernets"].mean == pytest.approx(-1.0)
    assert row["score"].mean == pytest.approx(0.155)


def test_too_few_ensembles_have_no_correlation():
    few = dict(list(TRUTH.items())[: LEAST - 1])
    row = correlations({0: FORWARD}, few, 50)
    assert row["kendall"].count == 0 and "interval" not in row
    assert difference({0: FORWARD}, {0: MIXED}, few, 50) is None
    assert correlations({}, TRUTH, 50)["kendall"].count == 0


def test_difference_is_paired():
    found = difference({0: FORWARD}, {0: BACKWARD}, TRUTH, 50)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    same = difference({0: MIXED}, {0: MIXED}, TRUTH, 50)
    assert (same.value, same.low, same.high) == pytest.approx((0.0, 0.0, 0.0))


def test_difference_takes_seeds_and_ensembles_that_both_have():
    part = scores(range(8), KEYS[:8])
    found = difference({0: FORWARD, 1: BACKWARD}, {0: part, 2: BACKWARD}, TRUTH, 50)
    assert found.value == pytest.approx(0.0)
    assert difference({0: FORWARD}, {1: FORWARD}, TRUTH, 50) is None
    few = scores(range(LEAST - 1), KEYS[: LEAST - 1])
    assert difference({0: FORWARD}, {0: few}, TRUTH, 50) is None


def test_among_counts_what_is_left():
    row = among({0: FORWARD, 1: BACKWARD}, TRUTH, {0: KEYS[:6], 1: KEYS[:2]})
    assert row["ensembles"].mean == 4.0
    assert (row["kendall"].mean, row["kendall"].count) == (pytest.approx(1.0), 1)
    nothing = among({0: FORWARD}, TRUTH, {})
    assert nothing["ensembles"].mean == 0.0 and math.isnan(nothing["kendall"].mean)
