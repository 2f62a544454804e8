import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_for_tests import TOY

from neas_tf.common.errors import NeasError
from neas_tf.space.search_space import SearchSpace, Stage


def test_the_papers_space():
    space = SearchSpace()
    assert space.num_layers == 20
    assert len(space.split_points) == 12
    assert space.split_points == range(9, 21)
    assert space.stem_size == space.block_size == (112, 112)
    firsts = [layer for layer in space.layers if layer.number % 4 == 1]
    assert [layer.out_size[0] for layer in firsts] == [56, 28, 14, 14, 7]
    assert [layer.c_out for layer in firsts] == [24, 40, 80, 112, 160]
    assert [len(layer.operators) for layer in space.layers] == [6, 7, 7, 7] * 5
    assert [layer.keeps_shape for layer in space.layers] == [False, True, True, True] * 5
    assert [layer.number for layer in space.layers] == list(range(1, 21))
    assert space.out_channels == 160


def test_a_space_without_the_fixed_block():
    space = SearchSpace.from_dict({"block_channels": 0, "stem_channels": 24, "input_size": 64})
    assert space.layers[0].c_in == 24
    assert space.block_size == space.stem_size == (32, 32)


@pytest.mark.parametrize("space", [SearchSpace(), TOY])
def test_json_round_trip(space):
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.fingerprint() == space.fingerprint()


def test_fingerprint_ignores_the_name_only():
    assert dataclasses.replace(TOY, name="other").fingerprint() == TOY.fingerprint()
    assert dataclasses.replace(TOY, num_classes=11).fingerprint() != TOY.fingerprint()


@given(st.integers(1, 400), st.integers(1, 400), st.lists(st.integers(1, 2), min_size=1))
def test_odd_sizes_round_up(height, width, strides):
    space = dataclasses.replace(
        TOY,
        input_size=(height, width),
        stages=tuple(Stage(8, 1, stride) for stride in strides),
        min_split=0,
        max_split=len(strides),
    )
    size = (height, width)
    for layer in space.layers:
        assert layer.in_size == size
        size = tuple((side - 1) // layer.stride + 1 for side in size)
        assert layer.out_size == size


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stage": []}, "Did you mean 'stages'"),
        ({"stages": []}, "at least one stage"),
        ({"stages": [[16, 2]]}, r"stages\[0\]"),
        ({"stages": [{"channels": 8, "layers": 1}]}, "stride"),
        ({"stages": [{"channels": 8, "layers": 1, "strid": 1}]}, "'stride'"),
        ({"stages": [[16, 2, 3]]}, r"stages\[0\]\.stride: received 3, .*from 1 to 2"),
        ({"stages": "16"}, "a list of stages"),
        ({"operators": ["skip"]}, "besides skip"),
        ({"operators": ["k3e4", "k3e4"]}, "every operator once"),
        ({"operators": ["k3e4", ["k5e4"]]}, "k5e6"),
        ({"operators": ["k2e4"]}, "k5e6"),
        ({"operators": "k3e4"}, "a list of names"),
        ({"min_split": 12, "max_split": 11}, "max_split"),
        ({"max_split": 21}, "max_split: received 21"),
        ({"input_size": 0}, "input_size"),
        ({"input_size": [1, 2, 3]}, "height, width"),
        ({"input_size": "224"}, "one or two integers"),
        ({"stem_kernel": 4}, "stem_kernel"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"name": 3}, "name"),
        ([], "a mapping"),
    ],
)
def test_bad_spaces_are_refused(config, message):
    with pytest.raises(NeasError, match=message):
        SearchSpace.from_dict(config)
