"""A run that is disturbed in every stage ends as an undisturbed one; `make soak` has all the moments."""

import json
import pathlib
import signal

import h5py
import numpy as np
import pytest
from soak.crashes import cut, newest
from soak.sittings import EQUAL_BYTES, Nursery
from soak.trials import Trial
from tiny_run import contents

from neas_tf.common.folder_lock import is_leftover

SAME_BYTES = (*EQUAL_BYTES, "export/model.tflite.json")


def step(folder: pathlib.Path, stage: str) -> int:
    """The last step in a stage's metrics."""
    lines = (folder / stage / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["step"]


def saved(folder: pathlib.Path, stage: str) -> int:
    """The step of the stage's newest checkpoint, 0 for none."""
    path = folder / stage / "checkpoint"
    text = path.read_text() if path.exists() else ""
    return int(text.splitlines()[0].split('"')[1].removeprefix("ckpt-")) if text else 0


def scored(folder: pathlib.Path) -> int:
    return (folder / "search/history.jsonl").read_bytes().count(b"\n")


# (where the run is disturbed, at which event, how often it passes, how, what must then (not) be there)
FAULTS = (
    (
        "supernet, before its first checkpoint",
        *(r"append after supernet/metrics", 1, "kill"),
        lambda d: step(d, "supernet") == 3 and not saved(d, "supernet"),
    ),
    (
        "checkpoint not in place",
        *(r"save after supernet/", 1, "kill"),
        lambda d: not saved(d, "supernet"),
    ),
    (
        "checkpoint not named",
        *(r"merge after supernet/", 2, "kill"),
        lambda d: saved(d, "supernet") == 3 and (d / "supernet/ckpt-9.index").exists(),
    ),
    (
        "told to stop",
        *(r"rename after supernet/checkpoint$", 5, "term"),
        lambda d: saved(d, "supernet"),
    ),
    (
        "after a checkpoint, before the shrink file",
        *(r"rename before shrink/shrink_01", 1, "kill"),
        lambda d: saved(d, "supernet") == 20 and not (d / "shrink/shrink_01.json").exists(),
    ),
    # Here the newest checkpoint is damaged.
    (
        "supernet, in the middle of a span",
        *(r"append after supernet/metrics", 4, "kill"),
        lambda d: 20 <= saved(d, "supernet") < step(d, "supernet") < 40,
    ),
    (
        "the second shrink is measured",
        *(r"rename before shrink/shrink_02", 1, "kill"),
        lambda d: not (d / "shrink/shrink_02.json").exists(),
    ),
    (
        "search, in the middle of a generation, half a line",
        *(r"append before search/history", 10, "half"),
        lambda d: scored(d) == 9 and not (d / "search/best.json").exists(),
    ),
    (
        "retrain, half-way",
        *(r"append after retrain/metrics", 8, "kill"),
        lambda d: 0 < saved(d, "retrain") < step(d, "retrain") < 40,
    ),
    (
        "between training and results",
        *(r"rename before retrain/results", 1, "kill"),
        lambda d: (d / "retrain/model").exists() and not (d / "retrain/results.json").exists(),
    ),
    (
        "export",
        *(r"rename before export/model\.tflite$", 1, "kill"),
        lambda d: not (d / "export/model.tflite").exists(),
    ),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(undisturbed run's folder, trial of the other after its end, log of each disturbed session)."""
    base = tmp_path_factory.mktemp("resume")
    with Nursery(base / "logs", quick_graphs=True) as nursery:
        undisturbed = Trial(base, base / "whole", nursery)
        assert undisturbed.sit().code == 0, undisturbed.last.log
        trial, logs = Trial(base, base / "disturbed", nursery), {}
        for name, match, nth, action, state in FAULTS:
            if name == "supernet, in the middle of a span":
                cut(newest(trial.folder / "supernet", ".data-00000-of-00001"))
            number = signal.SIGTERM if action == "term" else signal.SIGKILL
            fault = {"match": match, "nth": nth, "action": action}
            assert trial.kill(name, number, fault=fault), (name, trial.last)
            assert state(trial.folder), (name, sorted(contents(trial.folder)), trial.last)
            logs[name] = trial.last.log
        assert trial.finish(undisturbed.folder) == ""
        yield undisturbed.folder, trial, logs


@pytest.mark.parametrize("name", SAME_BYTES)
def test_same_bytes(runs, name):
    whole, trial, _ = runs
    assert (whole / name).read_bytes() == (trial.folder / name).read_bytes()


def test_same_weights(runs):
    def weights(folder):
        found = {}
        with h5py.File(folder / "retrain/model/weights.weights.h5") as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
            )
        return found

    first, second = map(weights, (runs[0], runs[1].folder))
    assert first and first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_what_is_said(runs):
    _, trial, logs = runs
    assert "received SIGTERM; the same command continues" in logs["told to stop"]
    path = trial.folder / "supernet/ckpt-20"
    assert f"Checkpoint '{path}' is damaged" in logs["supernet, in the middle of a span"]
    assert "dropped line 10, half-written" in logs["retrain, half-way"]


def test_nothing_half_written_is_left(runs):
    folder = runs[1].folder
    assert not [path for path in folder.rglob("*") if is_leftover(path)]
    assert (folder / "report/summary.json").exists()


def test_a_finished_run_changes_nothing_that_counts(runs):
    """The command once more: nothing is trained, scored or exported again."""
    trial = runs[1]
    before = contents(trial.folder)
    assert trial.sit().code == 0
    after = contents(trial.folder)
    changed = {name for name, value in after.items() if before.get(name) != value}
    assert changed <= {"timing.json", "run.json", ".lock"} | {
        n for n in before if n.startswith("report/")
    }
    assert "finished before" in trial.last.log
