import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_for_tests import TOY, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.operators import PAPER_OPERATORS
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

NEAS_L = "16,2,0,5,5,1,3,5,1,3,4,1,2,5,4,1,3,3,1,3,1,5,1,0,5,4,4,3,0"


@st.composite
def architectures(draw, max_paths=4):
    depth = draw(st.integers(1, 8))
    split = draw(st.integers(0, depth))
    operators = st.sampled_from(PAPER_OPERATORS)
    shared = draw(st.lists(operators, min_size=split, max_size=split))
    rows = []
    for _ in range(draw(st.integers(1, max_paths))):
        own = draw(st.lists(operators, min_size=depth - split, max_size=depth - split))
        rows.append(tuple(shared + own))
    return Architecture(split, tuple(rows), draw(st.text(max_size=5)))


@given(architectures())
def test_every_form_round_trips(architecture):
    assert Architecture.from_key(architecture.key) == architecture
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert again.name == architecture.name
    assert Architecture.from_official(architecture.to_official()) == architecture
    text = ", ".join(map(str, architecture.to_official()))
    assert Architecture.from_official(text) == architecture
    assert hash(again) == hash(architecture)


@given(architectures(), architectures())
def test_the_key_says_everything(one, other):
    assert (one.key == other.key) == (one == other)


def test_array_round_trip():
    rng = np.random.default_rng(0)
    for shrunk in (some_shrunk(), ShrunkSpace.full(SearchSpace(), 3)):
        for _ in range(20):
            architecture = uniform(shrunk, rng)
            array = architecture.to_array(shrunk.space)
            assert array.dtype == np.int32
            assert array.shape == (1 + shrunk.num_paths * shrunk.space.num_layers,)
            assert Architecture.from_array(array, shrunk.space) == architecture


def test_the_official_list_of_neas_l():
    architecture = Architecture.from_official(NEAS_L, "neas_l")
    assert architecture.split_point == 16
    assert architecture.num_paths == 2
    assert architecture.paths[0][-4:] == ("k5e6", "k3e6", "k7e6", "k3e6")
    assert architecture.paths[1][-4:] == ("k7e6", "k7e4", "k7e4", "k5e6")
    assert architecture.heterogeneous
    assert architecture.shared == architecture.paths[1][:16]
    assert str(architecture).startswith("s16:k7e6.k7e6.k3e6.")
    assert architecture.check_in(SearchSpace()) is architecture


def test_the_name_takes_no_part_in_comparisons():
    assert Architecture(0, (("k3e4",),), "a") == Architecture(0, (("k3e4",),), "b")


def test_homogeneous_ensembles_are_told():
    assert not Architecture(0, (("k3e4", "skip"), ("k3e6", "skip"))).heterogeneous
    assert Architecture(2, (("k3e4", "skip"), ("k3e4", "skip"))).heterogeneous


@pytest.mark.parametrize(
    ("split", "paths", "message"),
    [
        (0, (), "at least one path"),
        (0, ((),), "at least one layer"),
        (3, (("k3e4", "skip"),), "from 0 to 2"),
        (-1, (("k3e4",),), "split_point"),
        (None, (("k3e4",),), "split_point"),
        (0, (("k3e4", "skip"), ("k3e4",)), r"paths\[1\]"),
        (1, (("k3e4", "skip"), ("k3e6", "skip")), r"paths\[1\].*shared"),
        (0, (("k3e5.",),), r"paths\[0\]"),
    ],
)
def test_bad_architectures_are_refused(split, paths, message):
    with pytest.raises(NeasError, match=message):
        Architecture(split, paths)


@pytest.mark.parametrize(
    "text",
    [
        "1,2",
        "1,2,1,0,1,0,2,0",
        "1,2,0,0,1,0,2",
        "1,2,0,0,1,1,2,0",
        "1,2,0,0,6,0,2,0",
        "1,2,0,0,-2,0,2,0",
        "9,2,0,0,1,0,2,0",
        "1,0,0,0,1,0,2,0",
        "1,2,0,0,a,0,2,0",
        "1;2;0",
        "",
        "1" * 5000 + ",2,0,0",
    ],
)
def test_bad_official_lists_are_refused(text):
    with pytest.raises(NeasError):
        Architecture.from_official(text)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "s1",
        "s1:k3e4",
        "s:k3e4|k3e4",
        "s0:.|k4e4",
        "x",
        None,
        "s2:k3e4|k3e4",
        "s" + "9" * 5000 + ":k3e4|.",
    ],
)
def test_bad_keys_are_refused(key):
    with pytest.raises(NeasError):
        Architecture.from_key(key)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "neas-architecture/2"},
        {"name": 1},
        {"paths": [["k3e4"], "k3e4"]},
        {"paths": None},
        {"paths": [[["k3e4"]]]},
        {"split_point": "0"},
        {"split_points": 0},
    ],
)
def test_bad_json_is_refused(change):
    good = Architecture(0, (("k3e4",),)).to_dict()
    assert Architecture.from_dict({**good, "x_accuracy": 0.5})
    with pytest.raises(NeasError):
        Architecture.from_dict({**good, **change})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("s1:k3e2|k3e2|k3e4", "has 2 layers"),
        ("s0:.|k3e2.k3e2.k3e2.k3e2|k3e4.k3e4.k3e4.k3e4", "split point 0 is outside 1..4"),
        ("s4:k3e2.skip.skip.k3e2|.|.", "path 1 uses 'skip' in layer 3"),
        ("s3:k3e2.k3e2.k3e2|k3e2|k7e4", "path 2 uses 'k7e4' in layer 4"),
    ],
)
def test_what_is_not_in_the_space_is_told(key, message):
    with pytest.raises(NeasError, match=message):
        Architecture.from_key(key).check_in(TOY)
