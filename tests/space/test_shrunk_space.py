import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace, all_combinations


@pytest.mark.parametrize("num_paths", [1, 2, 3, 6])
def test_the_papers_space_has_all_k_subsets(num_paths):
    shrunk = ShrunkSpace.full(SearchSpace(), num_paths)
    for layer, rows in zip(shrunk.space.layers, shrunk.alive, strict=True):
        size = num_paths if layer.number > 9 else 1
        assert len(rows) == math.comb(len(layer.operators), size)
        assert all(len(set(row)) == size for row in rows)
    assert shrunk.alive_operators == tuple(layer.operators for layer in shrunk.space.layers)


def test_homogeneous_combinations():
    rows = all_combinations(("k3e2", "skip"), 2, heterogeneous=False)
    assert rows == (("k3e2", "k3e2"), ("k3e2", "skip"), ("skip", "skip"))
    assert ShrunkSpace.full(TOY, 9, heterogeneous=False).num_paths == 9


def test_too_many_paths_are_refused():
    with pytest.raises(NeasError, match=r"num_paths: received 7.*6 operators"):
        ShrunkSpace.full(SearchSpace(), 7)
    with pytest.raises(NeasError, match="num_paths"):
        ShrunkSpace.full(SearchSpace(), 0)


def test_dropping():
    shrunk = ShrunkSpace.full(TOY, 2)
    before = shrunk.num_combinations
    smaller = shrunk.without(2, ("k3e2", "k5e3"))
    assert smaller.num_combinations == before - 1
    assert shrunk.allows(2, ("k5e3", "k3e2"))
    assert not smaller.allows(2, ("k5e3", "k3e2"))
    assert smaller.alive_operators[1] == shrunk.alive_operators[1]
    with pytest.raises(NeasError, match="a combination alive"):
        smaller.without(2, ("k3e2", "k5e3"))
    for row in shrunk.alive[3][1:]:
        shrunk = shrunk.without(4, row)
    assert shrunk.alive_operators[3] == shrunk.alive[3][0]
    with pytest.raises(NeasError, match="at least one"):
        shrunk.without(4, shrunk.alive[3][0])


def test_a_layer_that_cannot_split_holds_single_operators():
    shrunk = some_shrunk()
    assert shrunk.alive[0] == (("k5e3",), ("k3e4",), ("skip",))
    assert shrunk.alive_operators[0] == ("k5e3", "k3e4", "skip")
    assert [shrunk.can_split(n) for n in (1, 2, 3, 4)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("num_paths", "heterogeneous"), [(1, True), (2, True), (2, False), (3, True)]
)
def test_contains_exactly_its_ensembles(num_paths, heterogeneous):
    whole = ShrunkSpace.full(TOY, num_paths, heterogeneous)
    shrunk = some_shrunk(num_paths, heterogeneous)
    inside = {e for e, _ in all_ensembles(shrunk)}
    for ensemble, _ in all_ensembles(whole):
        assert whole.contains(ensemble)
        assert shrunk.contains(ensemble) == (ensemble in inside)


def test_why_not():
    shrunk = some_shrunk()
    for key, reason in (
        ("s4:k3e2.k3e2.k3e2.k3e4|.|.", "Layer 1 shares 'k3e2'"),
        ("s1:k5e3|k3e2.k3e2.k3e2|k5e3.k5e3.k5e3", "Layer 2 splits into k3e2, k5e3"),
        ("s1:k5e3|k3e4.k3e2.k3e2|k3e4.k5e3.k3e4", "Layer 2 splits into k3e4, k3e4"),
        ("s4:k5e3.k3e2.k3e2.k3e4|.|.|.", "3 paths"),
        ("s1:k5e3|k3e4|k3e4", "has 2 layers"),
    ):
        assert reason in shrunk.why_not(Architecture.from_key(key))
    assert not shrunk.allows(2, ("k9e9", "k3e2"))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=20), st.booleans())
def test_json_round_trip_after_any_drops(drops, heterogeneous):
    shrunk = ShrunkSpace.full(TOY, 2, heterogeneous)
    for number, place in drops:
        rows = shrunk.alive[number - 1]
        if len(rows) > 1:
            shrunk = shrunk.without(number, rows[place % len(rows)])
    again = ShrunkSpace.from_dict(json.loads(json.dumps(shrunk.to_dict())), TOY)
    assert again == shrunk
    for singles, rows in zip(
        again.alive_operator_indices, again.alive_combination_indices, strict=True
    ):
        assert set(singles.tolist()) == set(np.unique(rows).tolist())


@pytest.mark.parametrize(
    "change",
    [
        {"format": "x"},
        {"space": "0"},
        {"num_paths": 5},
        {"num_paths": None},
        {"heterogeneous": None},
        {"alive": []},
        {"alive": [[], [], [], []]},
        {"alive": [[["k9e9"]]] * 4},
        {"alive": [1, 2, 3, 4]},
        {"alive": [[1]] * 4},
        {"alive": [[[["k3e2"]]]] * 4},
    ],
)
def test_bad_json_is_refused(change):
    with pytest.raises(NeasError):
        ShrunkSpace.from_dict({**ShrunkSpace.full(TOY).to_dict(), **change}, TOY)
    with pytest.raises(NeasError):
        ShrunkSpace.from_dict([], TOY)
