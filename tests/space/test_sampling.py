import collections
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.space.sampling import (
    draw_for_step,
    draws_for_steps,
    pair_counts,
    pairs_of,
    stratified,
    uniform,
    uniform_array,
)
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

PAPER = ShrunkSpace.full(SearchSpace())
CHOICES = [
    ShrunkSpace.full(TOY, 1),
    some_shrunk(2),
    some_shrunk(2, heterogeneous=False),
    ShrunkSpace.full(TOY, 3),
]


def check_even(counts, total, options):
    """Every one of the options occurs, about equally often (5 standard deviations)."""
    expected = total / options
    assert len(counts) == options
    spread = 5 * np.sqrt(expected)
    assert all(abs(n - expected) < spread for n in counts.values())


@pytest.mark.parametrize("shrunk", [*CHOICES, PAPER])
def test_every_split_operator_combination_and_order_is_drawn_evenly(shrunk):
    draws = draws_for_steps(shrunk, 3, 0, 12_000)
    space = shrunk.space
    splits = draws[:, 0]
    check_even(collections.Counter(splits.tolist()), len(draws), len(space.split_points))
    paths = draws[:, 1:].reshape(len(draws), shrunk.num_paths, space.num_layers)
    for layer in space.layers:
        m = layer.number - 1
        columns = paths[:, :, m]
        shared = columns[splits > m]
        if len(shared):
            assert (shared == shared[:, :1]).all()
            counts = collections.Counter(shared[:, 0].tolist())
            assert set(counts) == set(shrunk.alive_operator_indices[m].tolist())
            check_even(counts, len(shared), len(shrunk.alive_operators[m]))
        split = columns[splits <= m]
        if len(split):
            counts = collections.Counter(map(tuple, np.sort(split).tolist()))
            known = {tuple(sorted(row)) for row in shrunk.alive_combination_indices[m].tolist()}
            assert set(counts) == known
            check_even(counts, len(split), len(known))
            for row in (*split.T,):  # no path is preferred
                first = collections.Counter(row.tolist())
                assert set(first) == set(np.unique(split).tolist())
            different = split[(np.diff(np.sort(split)) > 0).all(axis=1)]
            orders = collections.Counter(map(tuple, different.argsort(axis=1).tolist()))
            if len(different) > 200:
                check_even(orders, len(different), len(orders))
                assert len(orders) == [0, 1, 2, 6][shrunk.num_paths]


@pytest.mark.parametrize("shrunk", CHOICES)
def test_draws_lie_in_the_shrunk_space(shrunk, rng):
    for _ in range(100):
        assert shrunk.why_not(uniform(shrunk, rng)) == ""


@given(st.integers(0, 2**62), st.integers(0, 10**9))
@settings(max_examples=30)
def test_the_draw_of_a_step_depends_on_seed_and_step_alone(seed, step):
    rows = draws_for_steps(PAPER, seed, step, 3)
    assert rows.dtype == np.int32
    assert rows.shape == (3, 41)
    for i, row in enumerate(rows):
        assert (draw_for_step(PAPER, seed, step + i) == row).all()
    assert (rows[0] != rows[1]).any()
    assert (draw_for_step(PAPER, seed + 1, step) != rows[0]).any()


def test_draws_of_steps_refuse_bad_counts():
    assert draws_for_steps(PAPER, 0, 0, 0).shape == (0, 41)
    for bad in ((-1, 0), (0, -1), (0, 1.5)):
        with pytest.raises(NeasError):
            draw_for_step(PAPER, *bad)


def test_drawing_is_fast(rng):
    uniform_array(PAPER, rng)
    start = time.perf_counter()
    draws_for_steps(PAPER, 0, 0, 10_000)
    for _ in range(1000):
        uniform_array(PAPER, rng)
    assert time.perf_counter() - start < 4  # takes 0.15 s; machines are shared


def test_pairs():
    assert pairs_of(("a", "b", "c")) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs_of(("a", "a", "b")) == {("a", "a"), ("a", "b")}
    assert pairs_of(("a",)) == {("a", "a")}


def test_pair_counts_against_a_direct_count(rng):
    shrunk = ShrunkSpace.full(TOY, 3)
    ensembles = [uniform(shrunk, rng) for _ in range(40)]
    counts = pair_counts(shrunk, ensembles)
    for m in range(TOY.num_layers):
        for i, a in enumerate(TOY.operators):
            for j, b in enumerate(TOY.operators):
                expected = sum(
                    e.split_point <= m
                    and any(
                        p[m] == a and q[m] == b
                        for x, p in enumerate(e.paths)
                        for y, q in enumerate(e.paths)
                        if x != y
                    )
                    for e in ensembles
                )
                assert counts[m, i, j] == expected


@pytest.mark.parametrize("shrunk", [*CHOICES, PAPER, ShrunkSpace.full(SearchSpace(), 4)])
@pytest.mark.parametrize(("num_samples", "least"), [(1, 1), (30, 3), (200, 2), (5, 0)])
def test_stratified_samples_cover_every_pair_alive(shrunk, num_samples, least, rng):
    ensembles = stratified(shrunk, rng, num_samples, least)
    assert len(ensembles) >= num_samples
    assert all(shrunk.contains(e) for e in ensembles)
    counts = pair_counts(shrunk, ensembles)
    index = shrunk.space.operator_index
    for layer, rows in zip(shrunk.space.layers, shrunk.alive, strict=True):
        m = layer.number - 1
        if not shrunk.can_split(layer.number):
            shared = collections.Counter(e.paths[0][m] for e in ensembles)
            assert min(shared[name] for name in shrunk.alive_operators[m]) >= least
            continue
        for row in rows:
            for a, b in pairs_of(row):
                assert counts[m, index(a), index(b)] >= least


def test_stratified_samples_are_no_larger_than_coverage_needs(rng):
    # Layer 10 splits at s = 9 only and has 21 pairs.
    assert len(stratified(PAPER, rng, 1, 2)) == 42
    assert len(stratified(PAPER, rng, 100, 2)) == 100
    even = stratified(PAPER, rng, 1200, 2)
    assert set(collections.Counter(e.split_point for e in even).values()) == {100}


def test_stratified_samples_repeat_with_the_seed():
    one, two = (stratified(PAPER, np.random.default_rng(5), 20, 1) for _ in range(2))
    assert one == two
    assert one != stratified(PAPER, np.random.default_rng(6), 20, 1)


def test_everything_is_reachable_in_a_small_space():
    shrunk = some_shrunk()
    seen = {row.tobytes() for row in draws_for_steps(shrunk, 0, 0, 60_000)}
    likely = {e.to_array(TOY).tobytes() for e, p in all_ensembles(shrunk) if p * 60_000 > 15}
    every = {e.to_array(TOY).tobytes() for e, _ in all_ensembles(shrunk)}
    assert likely <= seen <= every
