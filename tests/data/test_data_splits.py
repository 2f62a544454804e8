"""Drawing parts: sizes, proportions, no example twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.data import splits

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80)


@given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_stratified(labels, share, seed):
    labels = np.array(labels)
    count = round(share * len(labels))
    chosen = splits.stratified_indices(labels, count, np.random.default_rng(seed))
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    for label in set(labels.tolist()):
        exact = (labels == label).sum() * count / len(labels)
        assert abs((labels[chosen] == label).sum() - exact) <= 1
    rest = splits.complement(len(labels), chosen)
    assert sorted([*chosen, *rest]) == list(range(len(labels)))


@given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_balanced(labels, share, seed):
    labels = np.array(labels)
    count = round(share * len(labels))
    chosen = splits.balanced_indices(labels, count, np.random.default_rng(seed))
    assert len(chosen) == count == len(set(chosen.tolist()))
    classes, sizes = np.unique(labels, return_counts=True)
    taken = np.array([(labels[chosen] == label).sum() for label in classes])
    left_open = taken[taken < sizes]
    # A class that has more to give is not far behind any other.
    assert not len(left_open) or taken.max() - left_open.min() <= 1


def test_seeds_matter():
    labels = np.arange(1000) % 10
    draw = lambda seed: splits.stratified_indices(labels, 100, np.random.default_rng(seed))  # noqa: E731
    np.testing.assert_array_equal(draw(3), draw(3))
    assert len(np.intersect1d(draw(3), draw(4))) < 30


@pytest.mark.parametrize("count", [0, 7, 20])
def test_random(count, rng):
    chosen = splits.random_indices(20, count, rng)
    assert len(set(chosen.tolist())) == count
