"""benchmarks.candidate_evaluation: its counts, times and races at tiny sizes."""

import json

import numpy as np
import pytest
from tiny_training import SPACE
from toy_search import toy_search, toy_space

from benchmarks import candidate_evaluation, racing
from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.variation import SearchSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace


def test_counts_of_a_search():
    (found,) = candidate_evaluation.count_layers([], 3, 8).values()
    assert (found["generations"], found["candidates"]) == (3, 24)
    for name in ("layers", "layers_with_skips", "macs"):
        row = found[name]
        assert row["full_paths"] > row["shared_trunk"] > row["prefix_tree"]
        expected = round(row["full_paths"] / row["prefix_tree"], 3)
        assert row["full_paths/prefix_tree"] == expected
    assert found["layers_with_skips"]["full_paths"] == 24 * 2 * 20


def test_macs_of_one_ensemble_are_the_cost_table_s():
    a = Architecture(1, (("k3e2", "k5e2", "k3e4"), ("k3e2", "skip", "k3e2")))
    found = candidate_evaluation.counts([[a]], SPACE)["macs"]
    assert found["shared_trunk"] == found["prefix_tree"] == CostTable(SPACE).cost(a).macs


def test_counts_of_a_history_on_disk(tmp_path):
    settings = SearchSettings(population=4, generations=2)
    toy_search(tmp_path / "search", settings, ShrunkSpace.full(toy_space(), 2))
    file = tmp_path / "search" / "history.jsonl"
    with pytest.raises(NeasError, match="no params"):
        candidate_evaluation.count_layers([str(file)], 1, 2)
    (tmp_path / "params.yaml").write_text(json.dumps({"space": toy_space().to_dict()}))
    found = candidate_evaluation.count_layers([str(file)], 1, 2)["history search"]
    assert (found["generations"], found["candidates"]) == (2, 8)


def test_times_of_a_tiny_space():
    found = candidate_evaluation.compare_times(SPACE, 4, 8, 1, 2)
    assert found["candidates"] == 4
    for name in ("shared_trunk", "full_paths"):
        row = found[f"{name}/prefix_tree"]
        assert row["cpu_time"] > 0 and row["macs"] >= 1
        assert row["cpu_time/macs"] == pytest.approx(row["cpu_time"] / row["macs"], abs=2e-3)


def test_races_on_made_up_results():
    results = racing.made_up(SearchSpace(), images=600)
    found = racing.compare(results, 2, {"population": 12, "generations": 2}, 0.01, 50)
    assert found["searches"] == 2 and len(found["by_search"]) == 2
    assert found["validation_images_saved"] > 1 and found["validation_macs_saved"] > 1
    for row in found["by_search"]:
        assert 0 < row["stopped"] < 1
        assert row["same_best"] == (row["accuracy"] == row["accuracy_with_race"])


def test_made_up_results_belong_to_the_ensemble():
    correct, shrunk, _ = racing.made_up(SPACE, images=50)
    a = Architecture(1, (("k3e2", "k5e2", "k3e4"), ("k3e2", "skip", "k3e2")))
    b = Architecture(3, (("k5e2", "skip", "k3e2"), ("k5e2", "skip", "k3e2")))
    assert shrunk.contains(a)
    both = correct([a, b])
    assert both.shape == (2, 3, 50)
    np.testing.assert_array_equal(both[1:], correct([b]))
