"""benchmarks.racing: its counts and races at tiny sizes."""

import json

import numpy as np
from tiny_training import SPACE

from benchmarks import racing
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.prefix_tree import PrefixTree
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace


def test_macs_of_a_tree():
    table = CostTable(SPACE)
    a = Architecture(1, (("k3e2", "k5e2", "k3e4"), ("k3e2", "skip", "k3e2")))
    b = Architecture(2, (("k3e2", "skip", "k3e2"), ("k3e2", "skip", "k3e4")))
    assert racing.tree_macs(PrefixTree([a]), table, SPACE) == table.cost(a).macs
    both = racing.tree_macs(PrefixTree([a, b]), table, SPACE)
    assert max(table.cost(a).macs, table.cost(b).macs) < both
    assert both < table.cost(a).macs + table.cost(b).macs
    # b's second path has a layer and an end of its own, its first path a head of its own.
    macs = table.operators["macs"]
    own = macs[2, SPACE.operator_index("k3e4")] + 2 * table.head["macs"]
    assert both == table.cost(a).macs + own


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


def test_a_race_on_made_up_results_is_no_measurement(capsys):
    assert racing.main(["--quick", "--population=8", "--generations=2"]) == 0
    report = json.loads(capsys.readouterr().out)
    (row,) = report["targets"]
    assert report["searches"] == 3 and row["value"] is None and "made-up" in row["reason"]
    (row,) = racing.targets({"results": "a real run", "validation_macs_saved": 2.25})
    assert row["value"] == 2.25 and row["met"]
    assert racing.main(["--searches=0"]) == 2
    assert "--searches" in capsys.readouterr().err
