"""The benchmark of a space's ensembles: which it draws, and what it reports."""

from __future__ import annotations

import json

import yaml
from mixed_space import MIXED

from benchmarks import ensembles
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.zoo import load_space

MOBILE = project_file("configs", "spaces", "mobile.yaml")


def test_random_ensembles_have_the_macs_and_are_different():
    space = load_space(MOBILE)
    chosen = ensembles.sample(space, 800_000_000, 6, seed=1)
    assert len({one.key for one in chosen}) == 6
    table = CostTable(space)
    for one in chosen:
        assert abs(table.cost(one).macs / 800e6 - 1) <= ensembles.TOLERANCE
    assert ensembles.sample(space, 800_000_000, 6, seed=1) == chosen


def test_given_ensembles_are_compared_with_the_first(tmp_path):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"space": MIXED.to_dict()}))
    keys = ["s5:k3e2.skip.uib_m3e2.uib_e2.k5e2", "s5:k3e2.skip.uib_m3e2.skip.skip"]
    arguments = [
        f"--space={tmp_path / 'space.yaml'}",
        f"--architectures={','.join(key + '|.|.' for key in keys)}",
        *("--rounds=2", "--runs=1"),
        f"--cache={tmp_path / 'cache'}",
        f"--output={tmp_path / 'out.json'}",
        f"--plot={tmp_path / 'out.png'}",
    ]
    assert ensembles.main(arguments) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["reference"]["name"] == keys[0] + "|.|."
    (other,) = report["ensembles"]
    assert other["architecture"] == keys[1] + "|.|." and other["ratio"] > 0
    assert other["macs"] < report["reference"]["macs"]
    assert report["ratio_percentiles"]["50"] == other["ratio"]
    assert report["command"].startswith("python -m benchmarks.ensembles --space=")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "cache").glob("ensemble-*.tflite"))) == 2


def test_bad_input_ends_with_2(tmp_path, capsys):
    bad = {
        f"--space={tmp_path / 'none.yaml'}": "none.yaml",
        "--count=0": "--count: received 0",
        "--architectures=s1:k3e4|k3e4|k3e4": "architecture",
    }
    for argument, text in bad.items():
        assert ensembles.main([argument, f"--cache={tmp_path / 'cache'}"]) == 2
        assert text in capsys.readouterr().err
