"""The prefix tree: nothing twice, nothing left out, few maps at a time."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_search import seeds, shrunk_spaces, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.search.prefix_tree import PrefixTree, shares
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform
from neas_tf.space.shrunk_space import ShrunkSpace


@st.composite
def ensembles(draw):
    """Up to 12 ensembles of one space, some of them equal but for the order of their paths."""
    shrunk, rng = draw(shrunk_spaces()), np.random.default_rng(draw(seeds))
    found = [uniform(shrunk, rng) for _ in range(draw(st.integers(1, 8)))]
    for a in found[: draw(st.integers(0, 4))]:
        found.append(Architecture(a.split_point, a.paths[::-1]))
    return found


def without_skips(row):
    return tuple((m, name) for m, name in enumerate(row, 1) if name != "skip")


def sequence(tree: PrefixTree, index: int):
    """The operators from the root to a node."""
    found = []
    while index:
        node = tree.nodes[index]
        found.insert(0, (node.layer, node.operator))
        index = node.parent
    return tuple(found)


def work(found) -> int:
    """Layers to compute: nodes but for the stem; skips count nothing."""
    return len(PrefixTree(found).nodes) - 1 if found else 0


@given(ensembles())
def test_every_path_ends_where_its_operators_lead(found):
    tree = PrefixTree(found)
    ends = {}
    for index, node in enumerate(tree.nodes):
        assert node.parent < index
        for path, candidate in node.exits:
            assert (candidate, path) not in ends
            ends[candidate, path] = sequence(tree, index)
    assert ends == {
        (c, k): without_skips(row) for c, a in enumerate(found) for k, row in enumerate(a.paths)
    }


@given(ensembles())
def test_every_prefix_is_there_once(found):
    tree = PrefixTree(found)
    sequences = [sequence(tree, i) for i in range(len(tree.nodes))]
    prefixes = {()}
    for row in (without_skips(row) for a in found for row in a.paths):
        prefixes |= {row[: i + 1] for i in range(len(row))}
    assert len(sequences) == len(set(sequences)) and set(sequences) == prefixes


@given(ensembles())
def test_walk_has_its_maps_and_few_of_them(found):
    tree = PrefixTree(found)
    maps, walked = set(), []
    for step in tree.steps():
        walked.append(step.number)
        assert step.node is tree.nodes[step.number]
        if step.number:
            assert step.node.parent in maps
            if step.drops_input:
                maps.remove(step.node.parent)
        if step.keeps_output:
            maps.add(step.number)
        assert len(maps) <= found[0].num_layers
    assert not maps and walked == list(range(len(tree.nodes)))


def test_a_tree_by_hand():
    a = Architecture(1, (("k3e4", "skip", "k5e4"), ("k3e4", "k5e4", "skip")))
    b = Architecture(2, (("k3e4", "skip", "k5e4"), ("k3e4", "skip", "k7e4")))
    tree = PrefixTree([a, b])
    assert [(n.parent, n.layer, n.operator, n.exits) for n in tree.nodes] == [
        (-1, 0, "", ()),
        (0, 1, "k3e4", ()),
        (1, 3, "k5e4", ((0, 0), (0, 1))),
        (1, 2, "k5e4", ((1, 0),)),
        (1, 3, "k7e4", ((1, 1),)),
    ]
    assert [(s.number, s.drops_input, s.keeps_output) for s in tree.steps()] == [
        (0, True, True),
        (1, True, True),
        (2, False, False),
        (3, False, False),
        (4, True, False),
    ]


def test_paths_of_nothing_but_skips_end_at_the_stem():
    a = Architecture(2, (("skip", "skip"), ("skip", "skip")))
    tree = PrefixTree([a])
    assert len(tree.nodes) == 1 and tree.nodes[0].exits == ((0, 0), (1, 0))


@settings(max_examples=50)
@given(ensembles(), st.integers(1, 5))
def test_shares_are_neighbours_of_about_equal_work(found, count):
    dealt = shares(found, count)
    assert len(dealt) == count
    assert sorted(itertools.chain(*dealt)) == list(range(len(found)))
    order = sorted(range(len(found)), key=lambda i: (found[i].paths, i))
    places = [[order.index(i) for i in share] for share in dealt if share]
    assert all(max(a) < min(b) for a, b in itertools.pairwise(places))
    assert shares(found, 1) == [list(range(len(found)))]
    most = max(work([a]) for a in found)
    added = [work([found[i] for i in share]) for share in dealt]
    # What a share has beyond its part is at most one ensemble, and the prefixes cut in two.
    assert max(added) <= work(found) / count + 2 * most


def test_a_generation_is_dealt_out_evenly():
    shrunk, rng = ShrunkSpace.full(toy_space(), 2), np.random.default_rng(3)
    found = [uniform(shrunk, rng) for _ in range(40)]
    sizes = [work([found[i] for i in share]) for share in shares(found, 2)]
    assert max(sizes) < 0.6 * sum(sizes)


def test_shares_weigh_macs():
    """Five candidates, of which the first is as dear as the others together."""
    names = ("k7e6", "k5e6", "k5e4", "k3e6", "k3e4")
    found = [Architecture(0, ((name, "skip"), ("skip", "skip"))) for name in names]
    macs = dict.fromkeys(names, 1) | {"k7e6": 4}
    assert shares(found, 2, lambda layer, operator: macs[operator] * layer) == [[1, 2, 3, 4], [0]]
    assert sorted(map(len, shares(found, 2))) == [2, 3]


def test_refuses_what_is_no_generation():
    with pytest.raises(NeasError, match="at least one ensemble"):
        PrefixTree([])
    one = Architecture(1, (("k3e4", "k3e4"),))
    two = Architecture(1, (("k3e4", "k3e4"), ("k3e4", "k5e4")))
    with pytest.raises(NeasError, match=r"received \(2, 2\), expected 1 paths of 2 layers"):
        PrefixTree([one, two])
    with pytest.raises(NeasError, match="devices: received 0"):
        shares([one], 0)
