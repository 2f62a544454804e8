"""The latency benchmark, on two tiny networks and in one round."""

import json
import os
import shutil
import subprocess

import pytest
import warm

from benchmarks import tflite_latency
from benchmarks.parts import networks
from benchmarks.parts.latency_plot import draw
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, NO_REWRITES
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

SPACE = SearchSpace(
    name="tiny",
    input_size=(24, 20),
    num_classes=5,
    stem_channels=8,
    block_channels=0,
    stages=(Stage(8, 2, 2),),
    operators=("k3e2", "k5e2", "k7e2", "skip"),
    min_split=0,
    max_split=2,
    head_channels=16,
    feature_channels=24,
)
WHOLE = Architecture(1, (("k3e2", "k7e2"), ("k3e2", "k5e2")))
APART = [Architecture(WHOLE.split_point, (row,)) for row in WHOLE.paths]


def tiny(name, architectures, rewrites=MOBILE_REWRITES, family=networks.NEAS):
    def build():
        for architecture in architectures:
            yield networks.ensemble(architecture, SPACE, rewrites)

    return networks.Network(name, name.upper(), family, SPACE.input_size, build)


TINY = {
    network.name: network
    for network in (
        tiny("neas_s", [WHOLE]),
        tiny("neas_s_separate", APART),
        tiny("efficientnet_b0", [APART[0]], NO_REWRITES, "efficientnet"),
    )
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The command's folder and its report."""
    folder = tmp_path_factory.mktemp("latency")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tflite_latency, "networks", lambda: TINY)
        flags = [f"--cache={folder / 'cache'}", f"--output={folder / 'out.json'}"]
        flags += [f"--plot={folder / 'out.png'}", "--rounds=1", "--runs=1"]
        assert tflite_latency.main(flags) == 0
    return folder, json.loads((folder / "out.json").read_text())


def test_the_report_says_what_was_measured(run):
    folder, report = run
    assert report["format"] == "neas-tflite-latency/1" and report["reference"] == "efficientnet_b0"
    assert (report["rounds"], report["runs"], report["threads"]) == (1, 1, 1)
    assert report["clock"] == "cpu" and report["machine"]["processor"]
    assert {"ai-edge-litert", "tensorflow", "neas_tf"} <= set(report["versions"])
    assert report["command"].startswith("python -m benchmarks.tflite_latency --cache=")
    assert [row["name"] for row in report["networks"]] == list(TINY)
    for row in report["networks"]:
        assert row["input_size"] == [24, 20] and row["int8_speedup"] > 0
        for format in ("float32", "int8"):
            found = row[format]
            assert 0 < found["ms_p10"] <= found["ms"] <= found["ms_p90"]
            assert found["xnnpack_partitions"] == row["files"] and found["ratio"] > 0
            assert found["not_delegated"] == {}
        assert row["int8"]["float_islands"] == 0
    reference = report["networks"][-1]
    assert reference["float32"]["ratio"] == reference["int8"]["ratio"] == 1.0
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


def test_macs_and_parameters_are_those_of_the_cost_table(run):
    rows = {row["name"]: row for row in run[1]["networks"]}
    table = CostTable(SPACE)
    apart = rows["neas_s_separate"]
    for row, architectures in ((rows["neas_s"], [WHOLE]), (apart, APART)):
        costs = [table.cost(architecture) for architecture in architectures]
        assert row["macs"] == sum(cost.macs for cost in costs)
        assert row["params"] == sum(cost.params for cost in costs)
    assert [rows[name]["files"] for name in TINY] == [1, 2, 1]
    assert apart["float32"]["bytes"] > rows["neas_s"]["float32"]["bytes"]


def test_the_table_has_a_row_for_each_network(run):
    lines = tflite_latency.table(run[1]).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 2 + len(TINY)
    assert len(lines) == 2 + len(TINY)


def test_the_picture_is_a_function_of_the_report(run):
    report = run[1]
    assert draw(report) == draw(report)
    one = report | {"networks": [{**row, "int8": None} for row in report["networks"]]}
    for row in one["networks"]:
        del row["int8"]
    assert draw(one) != draw(report)


def test_a_second_run_converts_nothing(run, monkeypatch, capsys):
    def refuse(*arguments):
        raise AssertionError("converted again")

    monkeypatch.setattr(networks, "_convert", refuse)
    monkeypatch.setattr(tflite_latency, "networks", lambda: TINY)
    flags = [f"--cache={run[0] / 'cache'}", "--rounds=1", "--runs=1", "--threads=2"]
    assert tflite_latency.main([*flags, "--models=neas_s", "--formats=int8"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["clock"] == "wall" and [row["name"] for row in report["networks"]] == ["neas_s"]
    assert "float32" not in report["networks"][0]


def test_files_that_are_gone_are_made_again(run, tmp_path, monkeypatch):
    cache, made = tmp_path / "cache", []
    shutil.copytree(run[0] / "cache", cache)

    def convert(network, folder, stem):
        made.append(network.name)
        shutil.copytree(run[0] / "cache", folder, dirs_exist_ok=True)

    monkeypatch.setattr(networks, "_convert", convert)
    gone, kept = TINY["neas_s_separate"], TINY["neas_s"]
    for path in networks.prepare(gone, "int8", cache)["paths"]:
        path.unlink()
    assert all(path.is_file() for path in networks.prepare(gone, "int8", cache)["paths"])
    assert networks.prepare(kept, "int8", cache)["macs"] == run[1]["networks"][0]["macs"]
    assert made == ["neas_s_separate"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--models=neas_x", "Did you mean 'neas_"),
        ("--formats=int4", "--formats"),
        ("--rounds=0", "--rounds"),
        ("--plot=picture.pdf", "ends with .png"),
        ("--cache=", "--cache"),
    ],
)
def test_bad_flags_are_one_sentence(flag, message, capsys):
    assert tflite_latency.main([flag]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text('{"format": "another"}')
    assert tflite_latency.main([f"--output={path}", f"--cache={tmp_path / 'cache'}"]) == 2
    assert "one that this command wrote" in capsys.readouterr().err
    assert path.read_text() == '{"format": "another"}' and len(list(tmp_path.iterdir())) == 1


def test_every_network_of_the_issue_is_there():
    known = networks.networks()
    for letter in "sml":
        assert {f"neas_{letter}{v}" for v in ("", "_plain", "_separate")} <= set(known)
    assert {"mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_b1"} <= set(
        known
    )
    assert {"mobilenet_v4_conv_small", "mobilenet_v4_conv_medium"} <= set(known)
    assert tflite_latency.REFERENCE in known
    assert known["efficientnet_b1"].size == (240, 240) and known["neas_s"].size == (224, 224)


def python(*arguments):
    environment = {**os.environ, "PYTHONPATH": project_file()}
    command = [warm.python(), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=project_file(), check=False
    )


def test_help_comes_without_tensorflow():
    done = python("-X", "importtime", "-m", "benchmarks.tflite_latency", "--help")
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "usage" in done.stdout
    assert not loaded & {"tensorflow", "tf_keras", "official", "ai_edge_litert", "altair"}
