"""Algorithm 2: what crossover, mutation and the generations must and must not do."""

import collections
import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import (
    OPERATORS,
    blind_sample,
    seeds,
    shrink,
    shrunk_spaces,
    toy_costs,
    toy_evaluate,
    toy_macs,
    toy_score,
    toy_search,
    toy_space,
)

from neas_tf.common.console import short_count
from neas_tf.common.errors import NeasError
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.candidate import Candidate, Score
from neas_tf.search.evolution import SearchSettings, crossover, propose, run_search
from neas_tf.search.history import History, ensemble_identity
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Thousands of syncs only slow the tests down."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def scored(architectures, shrunk):
    return [
        Candidate(
            i, 0, "random", a, toy_score(a).accuracy, toy_score(a).path_accuracies, toy_costs(a)
        )
        for i, a in enumerate(architectures)
    ]


@settings(max_examples=40)
@given(shrunk_spaces(), seeds, st.integers(100, 500))
def test_proposals_are_new_and_inside_space_and_budget(shrunk, seed, budget):
    rng = np.random.default_rng(seed)
    sample = blind_sample(shrunk)
    before = {ensemble_identity(a): a for a in [sample(rng) for _ in range(6)]}
    chosen = SearchSettings(population=8, parents=3, crossover=3, mutation=3)
    result = propose(
        chosen,
        shrunk,
        sample,
        lambda a: toy_macs(a) <= budget,
        scored(before.values(), shrunk),
        rng,
    )
    identities = [ensemble_identity(a) for _, a in result]
    assert len(set(identities)) == len(identities) <= 8
    assert not before.keys() & set(identities)
    origins = [origin for origin, _ in result]
    assert origins == sorted(origins, key=["crossover", "mutation", "random"].index)
    assert origins.count("crossover") <= 3 >= origins.count("mutation")
    assert all(shrunk.contains(a) and toy_macs(a) <= budget for _, a in result)


def test_proposals_outside_the_space_are_drawn_anew():
    shrunk = shrink(ShrunkSpace.full(toy_space(), 2), 40)
    whole = blind_sample(ShrunkSpace.full(toy_space(), 2))
    chosen = SearchSettings(method="random", population=5)
    rng = np.random.default_rng(0)
    result = propose(chosen, shrunk, whole, lambda a: True, [], rng)
    assert len(result) == 5 and all(shrunk.contains(a) for _, a in result)


def test_parents_are_the_best_of_all_generations_earlier_ones_first(monkeypatch):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    rng = np.random.default_rng(0)
    sample = blind_sample(shrunk)
    accuracies = [0.5, 0.9, 0.7, 0.7, 0.7, 0.1]
    candidates = [
        dataclasses.replace(c, accuracy=accuracy)
        for c, accuracy in zip(
            scored([sample(rng) for _ in accuracies], shrunk), accuracies, strict=True
        )
    ]
    used = set()

    def spy(a, b, shrunk, rng):
        used.update((a, b))
        assert a != b
        return crossover(a, b, shrunk, rng)

    monkeypatch.setattr("neas_tf.search.evolution.crossover", spy)
    chosen = SearchSettings(population=20, parents=3, crossover=20, mutation=0)
    propose(chosen, shrunk, sample, lambda a: True, candidates, rng)
    assert used == {candidates[i].architecture for i in (1, 2, 3)}


@pytest.mark.parametrize("num_paths", [1, 2, 3])
@pytest.mark.parametrize("heterogeneous", [True, False])
@pytest.mark.parametrize("method", ["evolution", "random"])
def test_search(tmp_path, num_paths, heterogeneous, method):
    shrunk = shrink(ShrunkSpace.full(toy_space(), num_paths, heterogeneous), 10)
    chosen = SearchSettings(method, population=10, parents=4, generations=4, seed=3)
    result = toy_search(tmp_path / "a", chosen, shrunk, 450)
    assert [c.number for c in result.candidates] == list(range(40))
    assert [c.generation for c in result.candidates] == [g for g in range(4) for _ in range(10)]
    assert len({ensemble_identity(c.architecture) for c in result.candidates}) == 40
    for c in result.candidates:
        assert shrunk.contains(c.architecture) and c.macs == toy_macs(c.architecture) <= 450
        assert c.accuracy == toy_score(c.architecture).accuracy
    origins = collections.Counter((c.generation > 0, c.origin) for c in result.candidates)
    assert origins[False, "random"] == 10
    if method == "random":
        assert origins[True, "random"] == 30
    else:
        # Random ones stand in where the few parents have no new child left.
        assert 5 <= origins[True, "crossover"] <= 15 == origins[True, "mutation"]
    assert result.best.accuracy == max(c.accuracy for c in result.candidates)
    assert toy_search(tmp_path / "b", chosen, shrunk, 450) == result
    other = dataclasses.replace(chosen, seed=4)
    assert toy_search(tmp_path / "c", other, shrunk, 450).candidates != result.candidates


def test_ties_go_to_fewer_macs_then_to_the_earlier(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    chosen = SearchSettings(population=30, generations=2)

    def flat(architectures):
        return [Score(0.5, (0.5, 0.5)) for _ in architectures]

    result = toy_search(tmp_path, chosen, shrunk, evaluate=flat)
    least = min(c.macs for c in result.candidates)
    assert result.best == next(c for c in result.candidates if c.macs == least)


def test_evolution_beats_random(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    found = collections.defaultdict(list)
    for seed in range(5):
        for method in ("evolution", "random"):
            chosen = SearchSettings(method, population=20, parents=5, generations=8, seed=seed)
            result = toy_search(tmp_path / f"{method}{seed}", chosen, shrunk, 500)
            found[method].append(result.best.accuracy)
    assert np.mean(found["evolution"]) > np.mean(found["random"]) + 0.03


def test_papers_space_under_a_tight_budget(tmp_path):
    # Only 0.25 % of the random ensembles have at most 300 M MACs.
    shrunk = shrink(ShrunkSpace.full(SearchSpace(), 2), 100)
    table, budget = CostTable(shrunk.space), Budget(max_macs=300_000_000, min_macs=250_000_000)

    def costs(architecture):
        cost = dataclasses.asdict(table.cost(architecture))
        return {metric: cost[metric] for metric in ("macs", "paper_flops", "params")}

    def evaluate(architectures):
        for architecture in architectures:
            accuracy = np.mean([name[:2] == "k5" for row in architecture.paths for name in row])
            yield Score(accuracy, (accuracy, accuracy))

    result = run_search(
        SearchSettings(population=20, parents=5, generations=5),
        shrunk,
        BudgetSampler(shrunk, table, budget).sample,
        lambda architecture: budget.admits(table.cost(architecture)),
        evaluate,
        History(tmp_path, costs),
        context={"budget": dataclasses.asdict(budget)},
    )
    assert collections.Counter(c.origin for c in result.candidates) == {
        "random": 20,
        "crossover": 40,
        "mutation": 40,
    }
    for c in result.candidates:
        assert shrunk.contains(c.architecture)
        assert 250_000_000 <= table.cost(c.architecture).macs == c.macs <= 300_000_000
    first = max(c.accuracy for c in result.candidates if c.generation == 0)
    assert result.best.accuracy > first


def test_single_ensemble_left(tmp_path):
    shrunk = shrink(ShrunkSpace.full(toy_space(min_split=6), 2), 10**6)
    result = toy_search(tmp_path, SearchSettings(population=5, generations=5), shrunk)
    assert len(result.candidates) == 1
    assert "no new ensemble" in result.reason


@pytest.mark.parametrize("num_paths,total", [(1, 9), (2, 9 + 9 + 18)])
def test_small_space_is_exhausted_without_a_second_score(tmp_path, num_paths, total):
    # Two layers of three operators. One path: 3² networks, wherever they "split". Two paths: 9
    # share both layers; 3 shared operators before 3 pairs; 3·3 pairs, matched in 2 ways.
    space = toy_space(OPERATORS[:3], min_split=0, max_split=2, layers=1)
    shrunk = ShrunkSpace.full(space, num_paths)
    result = toy_search(tmp_path, SearchSettings(population=10, generations=30), shrunk)
    identities = {ensemble_identity(c.architecture) for c in result.candidates}
    assert len(identities) == len(result.candidates) == total
    assert result.candidates[-1].generation < 29 and result.reason


def test_single_combination_left_in_every_split_layer(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(max_split=5), 2)
    for number in range(2, 7):
        for row in shrunk.alive[number - 1][1:]:
            shrunk = shrunk.without(number, row)
    result = toy_search(tmp_path, SearchSettings(population=10, generations=5), shrunk)
    assert result.candidates and all(shrunk.contains(c.architecture) for c in result.candidates)


def test_unattainable_budget_is_an_error_and_blocks_nothing(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    chosen = SearchSettings(population=4, generations=2)
    with pytest.raises(NeasError, match=r"no ensemble .* inside the budget"):
        toy_search(tmp_path, chosen, shrunk, -1)
    assert len(toy_search(tmp_path, chosen, shrunk, 500).candidates) == 8


@pytest.mark.parametrize("count", [3, 5])
def test_wrong_number_of_scores_is_noticed(tmp_path, count):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    with pytest.raises(ValueError, match="zip"):
        toy_search(
            tmp_path,
            SearchSettings(population=4, generations=2),
            shrunk,
            evaluate=lambda architectures: [Score(0.1, (0.1, 0.1))] * count,
        )


def test_scores_reach_the_history_one_by_one(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    history = History(tmp_path, toy_costs)
    lines = []

    def evaluate(architectures):
        for architecture in architectures:
            lines.append(history.path.read_bytes().count(b"\n") if history.path.exists() else 0)
            yield toy_score(architecture)

    chosen = SearchSettings(population=5, generations=2)
    run_search(chosen, shrunk, blind_sample(shrunk), lambda a: True, evaluate, history)
    assert lines == list(range(10))


class FakeBar:
    def __init__(self, total, initial):
        self.total, self.n, self.texts, self.closed = total, initial, [], False

    def update(self, n=1):
        self.n += n

    def set_postfix_str(self, s):
        self.texts.append(s)

    def close(self):
        self.closed = True


def test_bar_and_callback(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    bars, seen = [], []

    def make_bar(total, initial):
        bars.append(FakeBar(total, initial))
        return bars[-1]

    result = toy_search(
        tmp_path,
        SearchSettings(population=6, generations=3),
        shrunk,
        make_bar=make_bar,
        on_generation=lambda g, new, best: seen.append((g, [c.number for c in new], best)),
    )
    (bar,) = bars
    assert (bar.total, bar.n, bar.closed) == (18, 18, True)
    best = result.best
    assert bar.texts[-1] == f"best {best.accuracy:.2%} at {short_count(best.macs)} MACs"
    assert [g for g, _, _ in seen] == [0, 1, 2] and seen[1][1] == list(range(6, 12))
    assert seen[-1][2] == result.best


def test_order_of_paths_and_the_split_of_one_path_are_no_new_ensemble():
    a = Architecture.from_key("s1:k3e4|k3e4.k5e4|k5e4.k3e4")
    b = Architecture.from_key("s1:k3e4|k5e4.k3e4|k3e4.k5e4")
    assert a != b and ensemble_identity(a) == ensemble_identity(b)
    crossed = Architecture.from_key("s1:k3e4|k3e4.k3e4|k5e4.k5e4")
    assert ensemble_identity(a) != ensemble_identity(crossed)
    one, two = Architecture.from_key("s1:k3e4|k3e4"), Architecture.from_key("s2:k3e4.k3e4|.")
    assert ensemble_identity(one) == ensemble_identity(two)
    same_rows = [Architecture.from_key(k) for k in ("s1:k3e4|k3e4|k3e4", "s2:k3e4.k3e4|.|.")]
    assert len({ensemble_identity(a) for a in same_rows}) == 2  # Trained apart, costs more.


def test_evaluate_gets_a_list_of_new_ensembles(tmp_path):
    shrunk = ShrunkSpace.full(toy_space(), 2)
    calls = []

    def evaluate(architectures):
        calls.append(architectures)
        return list(toy_evaluate(architectures))

    toy_search(tmp_path, SearchSettings(population=4, generations=3), shrunk, evaluate=evaluate)
    assert [len(call) for call in calls] == [4, 4, 4]
