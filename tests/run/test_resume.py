"""A run that is killed in every stage ends as an undisturbed one (issue: Must show 4)."""

import json
import pathlib
import signal
import time

import h5py
import numpy as np
import pytest
import warm
from soak.crashes import cut, newest
from soak.sittings import EQUAL_BYTES, Nursery
from soak.trials import Trial
from tiny_run import TINY, contents

from neas_tf.common.folder_lock import is_leftover
from neas_tf.common.paths import project_file

SAME_BYTES = (*EQUAL_BYTES, "export/model.tflite.json")
LIMIT = 300.0  # seconds that one sitting may take on a busy machine


def steps(folder: pathlib.Path, stage: str) -> int:
    """The last step in a stage's metrics."""
    path = folder / stage / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    try:
        return json.loads(lines[-1])["step"] if lines else 0
    except ValueError:  # half a line
        return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


def saved(folder: pathlib.Path, stage: str) -> str:
    """What the stage's newest checkpoint is called."""
    path = folder / stage / "checkpoint"
    text = path.read_text() if path.exists() else ""
    return text.splitlines()[0].split('"')[1] if text else ""


def scored(folder: pathlib.Path) -> int:
    path = folder / "search" / "history.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


# (where the run is killed, how that is seen, what must then (not) be there)
KILLS = (
    (
        "supernet, before its first checkpoint",
        lambda d, log: steps(d, "supernet") >= 3,
        lambda d: not saved(d, "supernet"),
    ),
    (
        "behind a checkpoint, before the shrink file",
        lambda d, log: saved(d, "supernet") == "ckpt-20",
        lambda d: not (d / "shrink/shrink_01.json").exists(),
    ),
    (
        "supernet, in the middle of a span",
        lambda d, log: steps(d, "supernet") > 26,
        lambda d: "ckpt-2" in saved(d, "supernet"),
    ),
    (
        "while the second shrink is measured",
        lambda d, log: "shrink 2: " in log(),
        lambda d: not (d / "shrink/shrink_02.json").exists(),
    ),
    (
        "search, in the middle of a generation",
        lambda d, log: scored(d) > 9,
        lambda d: scored(d) < 24 and not (d / "search/best.json").exists(),
    ),
    (
        "retrain, half-way",
        lambda d, log: steps(d, "retrain") > 20,
        lambda d: saved(d, "retrain") and not (d / "retrain/model").exists(),
    ),
    (
        "between training and results",
        lambda d, log: (d / "retrain/model").exists(),
        lambda d: not (d / "retrain/results.json").exists(),
    ),
    (
        "export",
        lambda d, log: any(map(is_leftover, (d / "export").glob(".model.tflite.*"))),
        lambda d: not (d / "export/model.tflite").exists(),
    ),
)


def sitting(folder, flags, log_path, kill_when=None) -> int | None:
    """Runs the command, or kills it at a moment. Returns its exit code, None when killed."""
    with log_path.open("w") as log:
        process = warm.Process(
            ["-m", "neas_tf.train", *flags, f"--model_dir={folder}"],
            cwd=project_file(),
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
    end = time.monotonic() + LIMIT
    try:
        while process.poll() is None:
            assert time.monotonic() < end, f"too slow: {log_path.read_text()}"
            if kill_when and kill_when(folder, log_path.read_text):
                process.kill()
                process.wait()
                return None
            time.sleep(0.002 if kill_when else 0.1)
        return process.returncode
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of an undisturbed run."""
    base = tmp_path_factory.mktemp("resume")
    (base / "tiny.yaml").write_text(json.dumps(TINY))
    flags = [f"--config_file={base / 'tiny.yaml'}"]
    log = base / "log.txt"
    assert sitting(base / "whole", flags, log) == 0, log.read_text()
    return base / "whole"


@pytest.fixture(scope="module")
def runs(whole):
    """(folder of the undisturbed run, folder of one that was killed again and again)."""
    base = whole.parent
    flags = [f"--config_file={base / 'tiny.yaml'}"]
    log = base / "log.txt"
    killed = base / "killed"
    for name, moment, state in KILLS:
        code = sitting(killed, flags, log, moment)
        assert code is None, f"{name}: ended with {code} before it was killed: {log.read_text()}"
        assert state(killed), f"{name}: killed at another moment: {sorted(contents(killed))}"
    assert sitting(killed, flags, log) == 0, log.read_text()
    return whole, killed


@pytest.mark.parametrize("name", SAME_BYTES)
def test_same_bytes(runs, name):
    whole, killed = runs
    assert (whole / name).read_bytes() == (killed / name).read_bytes()


def test_same_weights(runs):
    def weights(folder):
        found = {}
        with h5py.File(folder / "retrain/model/weights.weights.h5") as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
            )
        return found

    first, second = map(weights, runs)
    assert first and first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_faults_at_chosen_events(whole, tmp_path):
    """A few of those that `make soak` has all of: inside of writes, and damage behind them."""
    with Nursery(tmp_path / "logs") as nursery:
        trial = Trial(tmp_path, tmp_path / "run", nursery)
        for name, match, nth, action in (
            ("checkpoint not in place", r"save after supernet/", 1, "kill"),
            ("checkpoint not named", r"merge after supernet/", 2, "kill"),
            ("told to stop", r"rename after supernet/checkpoint$", 5, "term"),
        ):
            number = signal.SIGTERM if action == "term" else signal.SIGKILL
            assert trial.kill(name, number, fault={"match": match, "nth": nth, "action": action})
        assert "received SIGTERM; the same command continues" in trial.last.log
        data = newest(tmp_path / "run/supernet", ".data-00000-of-00001")
        cut(data)
        half = {"match": r"append before search/history", "nth": 5, "action": "half"}
        assert trial.kill("half a line of history", fault=half)
        assert f"Checkpoint '{str(data).split('.data')[0]}' is damaged" in trial.last.log
        assert not (tmp_path / "run/search/history.jsonl").read_bytes().endswith(b"\n")
        assert trial.finish(whole) == ""
        assert "dropped line 5, half-written" in trial.last.log


def test_nothing_half_written_is_left(runs):
    _, killed = runs
    assert not [path for path in killed.rglob("*") if is_leftover(path)]
    assert (killed / "report/summary.json").exists()


def test_a_finished_run_changes_nothing_that_counts(runs, tmp_path):
    """The command once more: nothing is trained, scored or exported again."""
    _, killed = runs
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    before = contents(killed)
    log = tmp_path / "log.txt"
    assert sitting(killed, [f"--config_file={tmp_path / 'tiny.yaml'}"], log) == 0
    changed = {name for name, value in contents(killed).items() if before.get(name) != value}
    assert changed <= {"timing.json", "run.json", ".lock"} | {
        n for n in before if n.startswith("report/")
    }
    assert "finished before" in log.read_text()
