"""The check of a device, on the CPU at tiny size; a loss that is another ends with 1."""

import json

import pytest

from benchmarks import device_check


@pytest.fixture(scope="module")
def report(tmp_path_factory, warm_children):
    path = tmp_path_factory.mktemp("check") / "check.json"
    arguments = ["--case=tiny", "--draws=3", "--candidates=2", "--no_xla"]
    arguments += ["--batch_size=2", f"--output={path}"]
    code = device_check.main([*arguments, "--tolerance=1e-5"])
    return code, json.loads(path.read_text())


def test_the_cpu_is_like_the_cpu(report):
    code, found = report
    assert found["batch_size"] == 2
    assert code == 0 and found["differs"] == [] and set(found["runs"]) == {"cpu", "device"}
    for run in found["runs"].values():
        assert len(run["losses"]) == 3 and run["images_per_s"] > 0
        assert run["compilations"] == {"traces": 1, "xla": 0}  # one graph for all ensembles
        assert run["generation"]["s"] > 0 and run["first_step_cpu_s"] > 0


def test_other_losses_and_logits_are_told(report):
    runs = report[1]["runs"]
    assert device_check.compare(runs, 0.0) == []  # the same machine, the same bits
    losses = [x * 1.001 for x in runs["device"]["losses"]]
    logits = runs["device"]["generation"] | {"logits": [[[9.0]]]}
    other = runs | {"device": runs["device"] | {"losses": losses}}
    (sentence,) = device_check.compare(other, 1e-4)
    assert sentence == "device: losses differ by 1.00e-03, expected ≤ 0.0001"
    assert device_check.compare(other, 1e-2) == []
    other = runs | {"device": runs["device"] | {"generation": logits}}
    assert "generation differ" in device_check.compare(other, 1e-4)[0]
    nan = runs | {"device": runs["device"] | {"losses": [float("nan")] * 3}}
    assert "losses differ by nan" in device_check.compare(nan, 1e-2)[0]


def test_late_losses_may_have_drifted_apart(report):
    runs = {name: run | {"losses": [1.0] * 20} for name, run in report[1]["runs"].items()}
    runs["device"]["losses"][8:] = [2.0] * 12
    assert device_check.compare(runs, 1e-5) == []
    runs["device"]["losses"][7] = 1.1
    assert "losses differ by 1.00e-01" in device_check.compare(runs, 1e-5)[0]


def test_the_table_has_what_failed(report):
    runs = report[1]["runs"] | {"device_xla": {"error": "worker: ended in 'step': aborted"}}
    text = device_check.table(runs, device_check.CASES["tiny"])
    assert "| device_xla | failed: worker: ended in 'step': aborted |" in text
    assert text.startswith("K = 2, toy, batch 4, TensorFlow 2.") and "images/s" in text


@pytest.mark.parametrize("flag", ["--case=k9", "--draws=2", "--candidates=0", "--batch_size=0"])
def test_bad_flags(flag, capsys):
    assert device_check.main(["--case=tiny", flag]) == 2
    assert capsys.readouterr().err.startswith("error: --")
