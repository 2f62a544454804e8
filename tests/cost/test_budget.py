import itertools

import numpy as np
import pytest
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.cost.budget import Budget
from neas_tf.cost.cost_table import METRICS, CostTable
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

TABLE = CostTable(TOY)
PAPER = CostTable(SearchSpace())


def toy_costs(shrunk):
    arrays = np.stack([e.to_array(TOY) for e, _ in all_ensembles(shrunk)])
    return TABLE.costs(arrays, shrunk.num_paths)


def test_zero_and_none_are_no_bound():
    assert Budget() == Budget(max_macs=None)
    assert Budget(max_macs=0, min_macs=0, max_params=0).limits == ()
    Budget(max_params=0).check_attainable(some_shrunk(), TABLE)
    assert [x.field for x in Budget(7, 3, 9).limits] == ["max_macs", "min_macs", "max_params"]
    assert Budget(7, 3, 9).metrics == ("macs", "params")


@pytest.mark.parametrize("bad", [{"max_macs": -1}, {"max_params": 1.5}, {"min_macs": "3"}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(NeasError, match=f"search.{next(iter(bad))}"):
        Budget(**bad)
    with pytest.raises(NeasError, match=r"max_macs: received 5, .*min_macs"):
        Budget(max_macs=5, min_macs=6)


def test_admits():
    shrunk = some_shrunk()
    ensembles = [e for e, _ in all_ensembles(shrunk)]
    costs = toy_costs(shrunk)
    low, high = (int(np.quantile(costs["macs"], q)) for q in (0.2, 0.6))
    params = int(np.quantile(costs["params"], 0.5))
    budget = Budget(max_macs=high, min_macs=low, max_params=params)
    inside = budget.admits_each(costs)
    assert 0 < inside.sum() < len(inside)
    for i in range(0, len(ensembles), 37):
        cost = TABLE.cost(ensembles[i])
        assert budget.admits(cost) == inside[i]
        assert budget.admits({m: costs[m][i] for m in METRICS}) == inside[i]
    assert Budget(max_macs=int(costs["macs"][5])).admits(TABLE.cost(ensembles[5]))


@pytest.mark.parametrize(
    ("field", "end", "step"), [("max_macs", 0, -1), ("min_macs", 1, 1), ("max_params", 0, -1)]
)
def test_one_bound_outside_the_range_is_an_error_with_the_range(field, end, step):
    shrunk = ShrunkSpace.full(SearchSpace())
    ends = PAPER.attainable_range(shrunk, field.partition("_")[2])
    assert Budget(**{field: ends[end]}).attainable(shrunk, PAPER)
    with pytest.raises(NeasError) as error:
        Budget(**{field: ends[end] + step}).check_attainable(shrunk, PAPER)
    for part in (f"search.{field}", f"{ends[end] + step:,}", f"{ends[0]:,}", f"{ends[1]:,}"):
        assert part in str(error.value)


@pytest.mark.parametrize("shrunk", [some_shrunk(1), some_shrunk(2), some_shrunk(3)])
def test_joint_bounds_are_decided_exactly_in_a_small_space(shrunk):
    costs = toy_costs(shrunk)
    levels = {
        m: np.unique(np.quantile(costs[m], np.linspace(0, 1, 7)).astype(int)) for m in METRICS
    }
    decided = []
    for macs, params in itertools.product(levels["macs"], levels["params"]):
        decided.append(Budget(max_macs=int(macs), max_params=int(params)))
        decided.append(Budget(min_macs=int(macs), max_params=int(params)))
    for low, high in itertools.combinations(levels["macs"], 2):
        decided.append(Budget(max_macs=int(high), min_macs=int(low)))
        decided += [
            Budget(max_macs=int(high), min_macs=int(low), max_params=int(params))
            for params in levels["params"]
        ]
    for value in np.unique(costs["macs"])[:5]:
        decided += [Budget(max_macs=int(value + d), min_macs=int(value + d)) for d in (0, 1)]
    outcomes = set()
    for budget in decided:
        expected = bool(budget.admits_each(costs).any())
        outcomes.add(expected)
        assert budget.attainable(shrunk, TABLE) == expected, budget
    assert outcomes == {True, False}


def test_the_joint_error_says_how_far_each_bound_lets_the_other_go():
    shrunk = some_shrunk()
    costs = toy_costs(shrunk)
    high, params = int(np.quantile(costs["macs"], 0.9)), int(costs["params"].min())
    with pytest.raises(NeasError, match=r"search\.min_macs, search\.max_params") as error:
        Budget(min_macs=high, max_params=params).check_attainable(shrunk, TABLE)
    fewest = costs["params"][costs["macs"] >= high].min()
    most = costs["macs"][costs["params"] <= params].max()
    assert f"{fewest:,}" in str(error.value)
    assert f"{most:,}" in str(error.value)


def test_joint_bounds_in_the_papers_space():
    shrunk = ShrunkSpace.full(SearchSpace())
    assert Budget(max_macs=300_000_000, max_params=7_000_000).attainable(shrunk, PAPER)
    assert not Budget(min_macs=500_000_000, max_params=7_000_000).attainable(shrunk, PAPER)
    assert Budget(max_macs=300_000_000, min_macs=299_000_000).attainable(shrunk, PAPER)
