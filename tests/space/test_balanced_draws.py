"""Several draws a step: each operator equally often, inside the shrunk space, a function of the step."""

import itertools

import numpy as np
import pytest
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.extremes import widest_and_narrowest
from neas_tf.space.architecture import Architecture
from neas_tf.space.balanced_draws import balanced_draws
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

FULL = ShrunkSpace.full(TOY, 2)
N = 4  # operators; layers that begin a stage with another shape have no skip, and 3


def counts(step, shrunk):
    """How often a step's draws (D, 1 + K·d) hold each operator, (d, N), shared ones once a draw."""
    depth, paths = shrunk.space.num_layers, shrunk.num_paths
    found = np.zeros((depth, len(shrunk.space.operators)), int)
    for split, *row in step:
        for m, column in enumerate(np.reshape(row, (paths, depth)).T):
            for operator in column[: 1 if m < split else paths]:
                found[m, operator] += 1
    return found


@pytest.mark.parametrize("num_paths", [1, 2, 3])
def test_as_many_draws_as_operators_are_strictly_fair(num_paths):
    shrunk = ShrunkSpace.full(TOY, num_paths)
    keeping = [m for m, layer in enumerate(TOY.layers) if len(layer.operators) == N]
    assert keeping
    for step in balanced_draws(shrunk, 5, 0, 60, N):
        (split,) = set(step[:, 0])  # one for all draws of a step
        for m in keeping:
            assert set(counts(step, shrunk)[m]) == {1 if m < split else num_paths}


@pytest.mark.parametrize("heterogeneous", [True, False])
@pytest.mark.parametrize("draws", [1, 2, 3, 5, 9])
def test_otherwise_counts_differ_by_one_at_most(draws, heterogeneous):
    shrunk = ShrunkSpace.full(TOY, 2, heterogeneous)
    for step in balanced_draws(shrunk, 1, 3, 40, draws):
        for layer, found in zip(TOY.layers, counts(step, shrunk), strict=True):
            own = [found[TOY.operator_index(name)] for name in layer.operators]
            assert max(own) - min(own) <= 1 and found.sum() == sum(own)


def test_every_draw_lies_in_what_is_alive_and_all_of_it_is_drawn():
    shrunk = some_shrunk()
    drawn = balanced_draws(shrunk, 0, 0, 2000, 3).reshape(-1, 9)
    found = {Architecture.from_array(row, TOY) for row in drawn}
    assert all(shrunk.contains(architecture) for architecture in found)
    for m in range(TOY.num_layers):
        split = {shrunk.ordered(path[m] for path in a.paths) for a in found if a.split_point <= m}
        assert split == (set(shrunk.alive[m]) if shrunk.can_split(m + 1) else set())
        assert {a.paths[0][m] for a in found if a.split_point > m} == set(shrunk.alive_operators[m])
    shares = np.bincount(drawn[::3, 0], minlength=5)[1:] / 2000
    np.testing.assert_allclose(shares, 1 / 4, atol=0.05)


def test_the_first_draw_alone_is_uniform_over_combinations():
    """By symmetry of the whole space: 6 pairs of 4 operators, each in either order."""
    drawn = balanced_draws(FULL, 7, 0, 6000, 3)[:, 0]
    late = drawn[drawn[:, 0] == 1]
    pairs = late[:, [1 + 1, 1 + 4 + 1]]  # of layer 2, which keeps its shape
    found = [np.sum((pairs == pair).all(1)) for pair in itertools.permutations(range(N), 2)]
    expected = len(late) / 12
    assert sum((np.array(found) - expected) ** 2 / expected) < 35  # χ² of 11: p = 0.0002


def test_they_are_a_function_of_seed_and_step():
    whole = balanced_draws(FULL, 3, 0, 600, 4)
    assert np.array_equal(whole[295:305], balanced_draws(FULL, 3, 295, 10, 4))
    assert not np.array_equal(whole, balanced_draws(FULL, 4, 0, 600, 4))
    assert balanced_draws(FULL, 3, 0, 0, 4).shape == (0, 4, 9)


@pytest.mark.parametrize("shrunk", [FULL, some_shrunk(), some_shrunk(3), some_shrunk(2, False)])
def test_the_widest_and_the_narrowest_of_all_ensembles(shrunk):
    table = CostTable(TOY)
    every = [table.cost(architecture).macs for architecture, _ in all_ensembles(shrunk)]
    both = [Architecture.from_array(row, TOY) for row in widest_and_narrowest(shrunk, table)]
    assert all(shrunk.contains(architecture) for architecture in both)
    assert [table.cost(a).macs for a in both] == [max(every), min(every)]
    assert both[0].split_point == 1 and both[1].split_point == 4


def test_a_sandwich_begins_with_both_in_any_order_of_the_paths():
    extremes = widest_and_narrowest(FULL, CostTable(TOY))
    drawn = balanced_draws(FULL, 2, 0, 50, 5, extremes)
    orders = set()
    for step in drawn:
        for row, extreme in zip(step[:2], extremes, strict=True):
            assert row[0] == extreme[0]
            columns, given = (np.reshape(r[1:], (2, 4)) for r in (row, extreme))
            assert np.array_equal(np.sort(columns, 0), np.sort(given, 0))
        orders.add(tuple(step[0]))
        rest = counts(step[2:], FULL)
        for layer, found in zip(TOY.layers, rest, strict=True):
            own = [found[TOY.operator_index(name)] for name in layer.operators]
            assert max(own) - min(own) <= 1
    assert len(orders) > 4  # 2 orders in each of 3 layers


def test_a_layer_of_one_operator():
    space = SearchSpace.from_dict(TOY.to_dict() | {"operators": ["k3e2"]})
    drawn = balanced_draws(ShrunkSpace.full(space, 1), 0, 0, 3, 2)
    assert (drawn[..., 1:] == 0).all()


@pytest.mark.parametrize("draws", [0, True, 1.5])
def test_bad_numbers_of_draws(draws):
    with pytest.raises(NeasError, match=r"^draws: received"):
        balanced_draws(FULL, 0, 0, 1, draws)
