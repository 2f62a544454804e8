"""Levels of a pyramid from strides alone."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.levels import check_levels, level_layers
from neas_tf.space.search_space import SearchSpace, Stage

PAPER = SearchSpace()


def test_the_papers_levels_end_stages_2_4_and_5():
    assert level_layers(PAPER) == {2: 4, 3: 8, 4: 16, 5: 20}


def test_strides_of_stem_and_block_count():
    space = dataclasses.replace(PAPER, stem_stride=1, block_stride=2)
    assert level_layers(space) == level_layers(PAPER)
    without_block = dataclasses.replace(space, block_channels=0)
    assert level_layers(without_block) == {1: 4, 2: 8, 3: 16, 4: 20}


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([1, 2])), min_size=1, max_size=6))
def test_every_level_is_the_last_layer_of_its_size(rows):
    stages = tuple(Stage(8, layers, stride) for layers, stride in rows)
    space = SearchSpace(
        input_size=(1024, 1024), stages=stages, min_split=0, max_split=sum(n for n, _ in rows)
    )
    levels = level_layers(space)
    by_size = {layer.out_size: layer.number for layer in space.layers}
    assert sorted(levels.values()) == sorted(by_size.values())
    for level, number in levels.items():
        assert space.layers[number - 1].out_size == (1024 >> level,) * 2


@pytest.mark.parametrize("level", [1, 6])
def test_a_level_that_is_not_there(level):
    with pytest.raises(
        NeasError, match=rf"min_level: received {level}, but neas_s .*3 \(stride 8\)"
    ):
        check_levels("task.model.min_level", level, PAPER, "neas_s")
    check_levels("task.model.min_level", 3, PAPER, "neas_s")
