"""MACs of backbones: one rule for every network."""

import pytest
from small_detection import tiny_config

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.detection.config import Backbone
from neas_tf.detection.macs import backbone_macs, macs_of_settings
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture


def test_neas_s_is_its_classifier_less_the_heads():
    space = SearchSpace()
    table = CostTable(space)
    heads = 2 * table.head["macs"]
    expected = table.cost(load_architecture("neas_s", space)).macs - heads
    assert backbone_macs(Backbone()) == expected == 281_430_368


def test_settings_of_a_run_with_a_space_of_its_own(tmp_path):
    backbone = tiny_config(tmp_path).task.model.backbone
    assert macs_of_settings(backbone.as_dict()) > 1_000_000
    with pytest.raises(NeasError, match="not settings of a backbone"):
        macs_of_settings({"type": "neas", "nes": 1})
