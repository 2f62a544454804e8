import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.cost import budget_sampling
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

TABLE = CostTable(TOY)
PAPER = CostTable(SearchSpace())


def quantile_budgets(shrunk):
    """Tight and loose budgets of every kind, from the costs of all ensembles."""
    costs = TABLE.costs(
        np.stack([e.to_array(TOY) for e, _ in all_ensembles(shrunk)]), shrunk.num_paths
    )
    macs = [int(np.quantile(costs["macs"], q)) for q in (0, 0.03, 0.3, 0.4, 0.9, 1)]
    params = [int(np.quantile(costs["params"], q)) for q in (0.1, 0.5)]
    return [
        Budget(),
        Budget(max_macs=macs[0]),
        Budget(max_macs=macs[1]),
        Budget(max_macs=macs[3]),
        Budget(min_macs=macs[4]),
        Budget(min_macs=macs[5]),
        Budget(max_params=params[0]),
        Budget(max_macs=macs[3], min_macs=macs[2]),
        Budget(max_macs=macs[3], max_params=params[1]),
        Budget(max_macs=macs[3], min_macs=macs[2], max_params=params[1]),
        Budget(max_macs=10**12, max_params=10**12, min_macs=1),
    ]


@pytest.mark.parametrize("which", range(11))
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("num_paths", [1, 2])
def test_the_distribution_is_the_conditional_one(which, coarse, num_paths, monkeypatch):
    """Against the probabilities of all ensembles; `coarse` forces heavy rounding."""
    if coarse:
        monkeypatch.setattr(budget_sampling, "_CELLS", 1)
    shrunk = some_shrunk(num_paths)
    budget = quantile_budgets(shrunk)[which]
    expected = {
        e.to_array(TOY).tobytes(): p
        for e, p in all_ensembles(shrunk)
        if budget.admits(TABLE.cost(e))
    }
    total, count = sum(expected.values()), 3000
    rng = np.random.default_rng(which)
    sampler = BudgetSampler(shrunk, TABLE, budget)
    seen = collections.Counter(sampler.sample_array(rng).tobytes() for _ in range(count))
    assert set(seen) <= set(expected)
    # Chi-square over groups of ensembles of about 30 expected draws each.
    groups, observed, weight = [], 0, 0.0
    for key, p in sorted(expected.items(), key=lambda item: item[0]):
        observed, weight = observed + seen[key], weight + p / total * count
        if weight >= 30:
            groups.append((observed, weight))
            observed, weight = 0, 0.0
    if len(groups) > 1:
        statistic = sum((o - w) ** 2 / w for o, w in groups)
        assert statistic < len(groups) + 5 * np.sqrt(2 * len(groups))


def test_every_admissible_ensemble_is_reachable():
    shrunk = some_shrunk()
    budget = quantile_budgets(shrunk)[2]
    expected = {e for e, _ in all_ensembles(shrunk) if budget.admits(TABLE.cost(e))}
    rng = np.random.default_rng(0)
    sampler = BudgetSampler(shrunk, TABLE, budget, even_splits=True)
    assert {sampler.sample(rng) for _ in range(60 * len(expected))} == expected


PAPER_BUDGETS = [
    (2, Budget(max_macs=300_000_000)),
    (2, Budget(max_macs=96_000_000)),
    (2, Budget(max_macs=95_019_584)),
    (2, Budget(min_macs=700_000_000)),
    (2, Budget(max_params=6_000_000)),
    (2, Budget(max_macs=300_000_000, min_macs=299_000_000)),
    (2, Budget(max_macs=300_000_000, max_params=8_000_000)),
    (2, Budget(max_macs=300_000_000, min_macs=280_000_000, max_params=8_000_000)),
    (4, Budget(max_macs=350_000_000, max_params=16_000_000)),
]


@pytest.mark.parametrize(("num_paths", "budget"), PAPER_BUDGETS)
def test_every_sample_keeps_a_tight_budget_in_the_papers_space(num_paths, budget):
    shrunk = ShrunkSpace.full(SearchSpace(), num_paths)
    rng = np.random.default_rng(1)
    for even in (False, True):
        sampler = BudgetSampler(shrunk, PAPER, budget, even)
        arrays = np.stack([sampler.sample_array(rng) for _ in range(100)])
        assert budget.admits_each(PAPER.costs(arrays, num_paths)).all()
        ensemble = sampler.sample(rng)
        assert shrunk.contains(ensemble)
        assert ensemble.split_point in sampler.split_points


def test_the_split_points_are_those_of_blind_rejection():
    shrunk = ShrunkSpace.full(SearchSpace())
    budget = Budget(max_macs=400_000_000)
    blind = draws_for_steps(shrunk, 0, 0, 30_000)
    blind = blind[budget.admits_each(PAPER.costs(blind, 2, ("macs",)))]
    rng, sampler = np.random.default_rng(0), BudgetSampler(shrunk, PAPER, budget)
    drawn = np.stack([sampler.sample_array(rng) for _ in range(2000)])
    for part in (0, slice(1, None)):
        shares = [
            np.bincount(a[:, part].ravel(), minlength=21) / a[:, part].size for a in (blind, drawn)
        ]
        assert np.abs(shares[0] - shares[1]).max() < 0.05
    even = BudgetSampler(shrunk, PAPER, budget, even_splits=True)
    counts = collections.Counter(int(even.sample_array(rng)[0]) for _ in range(1200))
    assert set(counts) == set(range(9, 21))
    assert max(counts.values()) < 160
    assert min(counts.values()) > 50


@given(st.data())
@settings(max_examples=25)
def test_shrunk_spaces_and_budgets_of_any_kind(data):
    shrunk = ShrunkSpace.full(TOY, data.draw(st.integers(1, 3)))
    for number, place in data.draw(
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=12)
    ):
        rows = shrunk.alive[number - 1]
        if len(rows) > 1:
            shrunk = shrunk.without(number, rows[place % len(rows)])
    low, high = TABLE.attainable_range(shrunk, "macs")
    budget = Budget(
        max_macs=data.draw(st.none() | st.integers(low, high)),
        max_params=data.draw(st.none() | st.integers(*TABLE.attainable_range(shrunk, "params"))),
    )
    if not budget.attainable(shrunk, TABLE):
        with pytest.raises(NeasError, match=r"search\.max_macs, search\.max_params"):
            BudgetSampler(shrunk, TABLE, budget)
        return
    sampler = BudgetSampler(shrunk, TABLE, budget, data.draw(st.booleans()))
    rng = np.random.default_rng(0)
    for _ in range(10):
        ensemble = sampler.sample(rng)
        assert shrunk.contains(ensemble)
        assert budget.admits(TABLE.cost(ensemble))


def test_samples_repeat_with_the_generator():
    shrunk = ShrunkSpace.full(SearchSpace())
    draws = []
    for _ in range(2):
        rng = np.random.default_rng(9)
        sampler = BudgetSampler(shrunk, PAPER, Budget(max_macs=300_000_000))
        draws.append([sampler.sample(rng) for _ in range(5)])
    assert draws[0] == draws[1]
    # A generator restored in the middle goes on alike: the sampler itself has no state.
    rng = np.random.default_rng(9)
    sampler.sample(rng)
    state = rng.bit_generator.state
    rng = np.random.default_rng(0)
    rng.bit_generator.state = state
    assert [sampler.sample(rng) for _ in range(4)] == draws[0][1:]


def test_an_unattainable_budget_is_an_error():
    with pytest.raises(NeasError, match=r"95,019,584 to 819,916,416 MACs"):
        BudgetSampler(ShrunkSpace.full(SearchSpace()), PAPER, Budget(max_macs=1000))
