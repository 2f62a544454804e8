"""Crossover, mutation and the settings of Algorithm 2."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from toy_search import OPERATORS, blind_sample, seeds, shrunk_spaces, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.search.variation import SearchSettings, crossover, mutate
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace

ALWAYS = SearchSettings(split_probability=1, layer_probability=1)
ONLY_SPLIT = SearchSettings(split_probability=1, layer_probability=0)
ONLY_LAYERS = SearchSettings(split_probability=0, layer_probability=1)


def columns_of(architecture):
    return list(zip(*architecture.paths, strict=True))


@given(shrunk_spaces(), seeds)
def test_child_lies_in_the_space_and_takes_its_columns_from_the_parents(shrunk, seed):
    rng = np.random.default_rng(seed)
    sample = blind_sample(shrunk)
    a, b = sample(rng), sample(rng)
    child = crossover(a, b, shrunk, rng)
    assert not shrunk.why_not(child)
    assert child.split_point in (a.split_point, b.split_point)
    for i, column in enumerate(columns_of(child)):
        parents = [columns_of(p)[i] for p in (a, b)]
        if i < child.split_point:
            assert any(column[0] in parent for parent in parents)
        else:
            repaired = any(
                i < p.split_point and columns_of(p)[i][0] in column and not shrunk.allows(i + 1, c)
                for p, c in zip((a, b), parents, strict=True)
            )
            assert column in parents or repaired


def test_child_takes_both_parents_evenly():
    shrunk = ShrunkSpace.full(toy_space(), 2)
    rng = np.random.default_rng(0)
    a = Architecture.from_key("s6:k3e4.k3e4.k3e4.k3e4.k3e4.k3e4|.|.")
    b = Architecture.from_key("s2:k5e4.k5e4|k5e4.k5e4.k5e4.k5e4|k7e4.k7e4.k7e4.k7e4")
    children = [crossover(a, b, shrunk, rng) for _ in range(2000)]
    assert 900 < sum(c.split_point == 6 for c in children) < 1100
    from_a = [sum("k3e4" in column for column in columns_of(c)) for c in children]
    assert 2.8 < np.mean(from_a) < 3.2
    # A split column that becomes shared keeps the operator of either path.
    shared = collections.Counter(c.paths[0][5] for c in children if c.split_point == 6)
    assert set(shared) == {"k3e4", "k5e4", "k7e4"} and shared["k5e4"] > 200 < shared["k7e4"]
    # A shared column that becomes split gets every partner, on either side.
    pairs = {columns_of(c)[5] for c in children if c.split_point == 2} - {("k5e4", "k7e4")}
    others = [name for name in OPERATORS if name != "k3e4"]
    assert pairs == {(o, "k3e4") for o in others} | {("k3e4", o) for o in others}


@given(shrunk_spaces(), seeds)
def test_mutant_lies_in_the_space(shrunk, seed):
    rng = np.random.default_rng(seed)
    parent = blind_sample(shrunk)(rng)
    for chosen in (ALWAYS, ONLY_SPLIT, ONLY_LAYERS, SearchSettings()):
        assert not shrunk.why_not(mutate(parent, shrunk, chosen, rng))
    never = SearchSettings(split_probability=0, layer_probability=0)
    assert mutate(parent, shrunk, never, rng) == parent


@given(shrunk_spaces(), seeds)
def test_split_point_moves_up_to_one_path_and_down_to_alive_combinations(shrunk, seed):
    rng = np.random.default_rng(seed)
    parent = blind_sample(shrunk)(rng)
    mutant = mutate(parent, shrunk, ONLY_SPLIT, rng)
    old, new = parent.split_point, mutant.split_point
    assert (new != old) == (len(shrunk.space.split_points) > 1)
    before, after = columns_of(parent), columns_of(mutant)
    touched = range(min(old, new), max(old, new))
    assert all(before[i] == after[i] for i in range(len(before)) if i not in touched)
    if new > old:
        shared = mutant.paths[0][old:new]
        assert shared in [row[old:new] for row in parent.paths]
    for i in range(new, old):
        assert before[i][0] in after[i] and shrunk.allows(i + 1, after[i])
        if shrunk.allows(i + 1, before[i]):  # (o, …, o) is alive: the copy stays as it is.
            assert after[i] == before[i]


@given(shrunk_spaces(), seeds)
def test_every_layer_changes_when_it_can(shrunk, seed):
    rng = np.random.default_rng(seed)
    parent = blind_sample(shrunk)(rng)
    mutant = mutate(parent, shrunk, ONLY_LAYERS, rng)
    assert mutant.split_point == parent.split_point
    for i, (old, new) in enumerate(zip(columns_of(parent), columns_of(mutant), strict=True)):
        if i < parent.split_point:
            assert (old != new) == (len(shrunk.alive_operators[i]) > 1)
        else:
            rows = shrunk.alive[i]
            assert (old != new) == (len(rows) > 1 or len(set(rows[0])) > 1)


def test_mutation_probabilities_and_reach():
    shrunk = ShrunkSpace.full(toy_space(), 2)
    rng = np.random.default_rng(0)
    parent = Architecture.from_key("s3:k3e4.k3e4.k3e4|k3e4.k3e4.k3e4|k5e4.k5e4.k5e4")
    mutants = [mutate(parent, shrunk, SearchSettings(), rng) for _ in range(4000)]
    splits = collections.Counter(m.split_point for m in mutants)
    assert 320 < 4000 - splits[3] < 480  # P_s = 0.1
    assert set(splits) == {1, 2, 3, 4, 5, 6}
    same_split = [m for m in mutants if m.split_point == 3]
    for i in range(6):
        changed = [
            columns_of(m)[i] for m in same_split if columns_of(m)[i] != columns_of(parent)[i]
        ]
        assert 0.08 < len(changed) / len(same_split) < 0.12  # P_m = 0.1
        names = shrunk.space.layers[i].operators
        ordered = set(itertools.permutations(names, 2)) - {("k3e4", "k5e4")}
        assert set(changed) == (ordered if i >= 3 else {(n, n) for n in names if n != "k3e4"})


@pytest.mark.parametrize(
    "values,field",
    [
        ({"method": "evolutoin"}, "Did you mean 'evolution'"),
        ({"population": 0}, "search.population"),
        ({"population": 2.5}, "search.population"),
        ({"parents": 0}, "search.parents"),
        ({"generations": 0}, "search.generations"),
        ({"seed": -1}, "search.seed"),
        ({"split_probability": 1.5}, "search.split_probability"),
        ({"layer_probability": float("nan")}, "search.layer_probability"),
        ({"layer_probability": True}, "search.layer_probability"),
        ({"population": 10, "crossover": 11}, "search.crossover"),
        ({"population": 10, "crossover": 6, "mutation": 5}, "search.crossover . search.mutation"),
    ],
)
def test_settings_are_checked(values, field):
    with pytest.raises(NeasError, match=field):
        SearchSettings(**values)


def test_defaults_are_the_papers():
    chosen = SearchSettings()
    assert (chosen.num_crossover, chosen.num_mutation) == (25, 25)
    assert (chosen.population, chosen.parents, chosen.generations) == (50, 10, 20)
    assert SearchSettings(population=9).num_mutation == 4
    assert SearchSettings(population=10, crossover=8).num_mutation == 2
    assert SearchSettings(crossover=25, mutation=25).to_dict() == chosen.to_dict()
