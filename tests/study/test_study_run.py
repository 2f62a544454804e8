"""A study end to end on the digits: killed and resumed it leaves the same bytes; the command's manners."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import warm
import yaml
from latency_tables import made_up_table
from tiny_run import TINY, contents

from neas_tf.common import paths
from neas_tf.common.errors import NeasError
from neas_tf.config.parse import apply_override
from neas_tf.cost.cost_table import CostTable
from neas_tf.run.identity import essential_settings
from neas_tf.run.pipeline import make_strategy
from neas_tf.space.architecture import Architecture
from neas_tf.study.command import load_settings, run_studies
from neas_tf.study.runner import Runner
from neas_tf.study.schedule import Local, work
from neas_tf.study.store import Store
from neas_tf.study.units import (
    Comparison,
    Costs,
    Embedding,
    Found,
    Latency,
    LatencyTable,
    Pace,
    Robustness,
    Scores,
    Search,
    Supernet,
    Taught,
    Training,
    Uncertain,
)
from neas_tf.uncertainty import robustness as counting

STUDY = {"experiment": "neas_quickstart", "seeds": [0], "ensembles": 5, "metrics": ["diversity"]}
STUDY |= {"top": 4, "resamples": 20, "images": 20, "paths": [2]}
SMALL = {
    **TINY,
    "study": STUDY,
    "supernet": {**TINY["supernet"], "epochs": 1.0},
    "shrink": {**TINY["shrink"], "num_samples": 12, "min_pair_count": 1},
    "search": {**TINY["search"], "generations": 2},
    "retrain": {**TINY["retrain"], "epochs": 1.0},
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


def start(*arguments: str, python: str = sys.executable, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [python, "-m", "neas_tf.study", *arguments],
        cwd=paths.project_file(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
        **kwargs,
    )


def results(folder: pathlib.Path) -> dict[str, bytes]:
    """All files but the ones that hold times."""
    found = {f"units/{name}": value for name, value in contents(folder / "units").items()}
    found |= {f"studies/{name}": value for name, value in contents(folder / "studies").items()}
    timed = ("README.md", "report.html")
    return {name: value for name, value in found.items() if not name.endswith(timed)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, config_file) -> pathlib.Path:
    """The folder of a study that nothing disturbed: a supernet, a search, a training."""
    folder = tmp_path_factory.mktemp("whole") / "studies"
    config, settings = load_settings([config_file], "")
    done = run_studies(("paths",), config, settings, str(folder))
    assert not done.left and [unit.kind for unit in done.done] == ["supernet", "search", "training"]
    return folder


def test_a_killed_study_goes_on_and_ends_with_the_same_bytes(tmp_path, config_file, whole):
    config, settings = load_settings([config_file], "")
    folder = tmp_path / "killed"
    flags = ["--study=paths", f"--model_dir={folder}", f"--config_file={config_file}"]
    process = start(*flags, python=warm.python())
    try:
        end = time.monotonic() + 300
        # In the middle of the search: one unit is stored, and there is work on the next.
        while not list((folder / "units").glob("*.json")) or (
            len(list((folder / "work").glob("*"))) < 2
        ):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    before = contents(folder / "units")
    assert [name.partition("-")[0] for name in before if not name.startswith(".")] == ["supernet"]
    assert not run_studies(("paths",), config, settings, str(folder)).left
    assert results(folder) == results(whole) and len(results(whole)) == 5
    assert {name: contents(folder / "units")[name] for name in before} == before


def test_results_without_weights(tmp_path, config_file, whole, capsys):
    """Copied results go on: what a unit needs of another one is made again where it is missing."""
    config, settings = load_settings([config_file], "")
    folder = tmp_path / "copied"
    shutil.copytree(whole / "units", folder / "units")
    shutil.copy(whole / "study.json", folder)
    (search,) = (folder / "units").glob("search-*")
    search.unlink()
    assert not run_studies(("paths",), config, settings, str(folder)).left
    assert results(folder) == results(whole)
    said = capsys.readouterr().err
    assert said.count("done, but its weights are not in this folder") == 1
    assert "came out otherwise" not in said
    (path,) = (folder / "units").glob("training-*")
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"result": value["result"] | {"ensemble_accuracy": 2}}))
    store = Store(folder, essential_settings(config))
    found = Found(Search(0, "{}", Supernet(0)))
    training = Training(0, "{}", found).resolve(store.get)
    engine = Local(Runner(config, store, make_strategy(config)))
    comparison = Comparison(0, "{}", training)
    assert not work([comparison], store, engine, lost=store.without_weights).left
    assert 0 <= store.get(comparison)["disagreement"] <= 1
    assert "came out otherwise than in training-" in capsys.readouterr().err


def test_a_study_with_other_settings_is_refused(config_file, whole):
    config, settings = load_settings([config_file], "study.paths=[1]")
    left = run_studies(("paths",), config, settings, str(whole), list_only=True).left
    assert len(left) == 3  # other sizes of a study are welcome
    other, _ = load_settings([config_file], "shrink.remove=1")
    kept = contents(whole)
    with pytest.raises(NeasError, match=r"another set of studies \(shrink.remove: was 2, is 1\)"):
        run_studies(("paths",), other, settings, str(whole))
    assert contents(whole) == kept


def test_the_other_kinds_of_units(config_file, whole, monkeypatch):
    config, _ = load_settings([config_file], "")
    store = Store(whole, essential_settings(config))
    runner = Runner(config, store, make_strategy(config))
    supernet, seed = Supernet(0), 0
    history = store.get(Search(seed, "{}", supernet))["candidates"]
    keys = tuple(key for key, *_ in history[-3:])
    scores = runner(Scores(seed, "{}", supernet, keys))
    assert scores["accuracies"] == [accuracy for _, accuracy, *_ in history[-3:]]
    training = Training(seed, "{}", Found(Search(seed, "{}", supernet))).resolve(store.get)
    result = runner(Comparison(seed, "{}", training))
    assert 0 <= result["disagreement"] <= 1 and 0 < result["similarity"] <= 1
    found = runner(Embedding(0, "{}", training, 20))
    assert np.shape(found["points"]) == (2, 20, 2) and len(found["labels"]) == 20
    assert runner(Latency(0, "{}", training))["milliseconds"] > 0
    pace = runner(Pace(0, '{"supernet":{"draws_per_step":4}}'))
    assert 1.1 < pace["ratio"] < 10 and min(pace["epoch_seconds"]) > 0
    winner = Found(Search(seed, "{}", supernet))
    costs = runner(Costs(0, "{}", winner).resolve(store.get))
    assert min(costs[name] for name in ("supernet", "search", "epoch")) > 0
    alone = runner(Costs(0, "{}", training.ensemble))
    assert alone["supernet"] == alone["search"] == 0
    assert 0.3 < alone["epoch"] / costs["epoch"] < 3
    known = runner(Uncertain(0, "{}", training))
    assert known["ensemble"]["accuracy"] == store.get(training)["ensemble_accuracy"]
    assert known["disagreement"] is not None and len(known["paths"]) == 2
    how = '{"retrain":{"distillation":{"temperature":2.0,"weight":0.5}}}'
    taught = runner(Taught(0, how, training.ensemble, training))
    assert taught["architecture"] == training.ensemble and taught["ensemble_accuracy"] > 0
    # Corrupted at 32², read at the 8² of the digits.
    monkeypatch.setattr(counting, "corrupted", lambda image, *_: 255 - image)
    robust = runner(Robustness(0, "{}", training, 20, (32, 32)))
    assert set(robust) == {"examples", "seed", "kinds", "severities", "ensemble", "paths"}
    assert robust["examples"] == 20 and np.shape(robust["ensemble"]["errors"]) == (15, 5)
    assert len(robust["paths"]) == 2 and len(set(np.ravel(robust["ensemble"]["errors"]))) == 1
    # A search under latency, with a table that is made up where measuring takes minutes.
    run = runner.base_run()
    made_up = made_up_table(run.space)
    table = LatencyTable(0, "{}", supernet)
    store.put(table, {"table": made_up.to_dict()}, 0.0)
    result = runner(Search(seed, "{}", supernet, table, 0.3))
    times = [
        made_up.predict_ns(Architecture.from_key(key), run.space) / 1e6
        for key, *_ in result["candidates"]
    ]
    assert max(times) <= result["max_latency_ms"] and len(times) > 3
    low, high = CostTable(run.space, made_up).attainable_range(run.full, "latency_ns")
    assert result["max_latency_ms"] == pytest.approx((low + 0.3 * (high - low)) / 1e6)


@pytest.mark.parametrize(
    "arguments,words",
    [
        ((), "study: received nothing"),
        (("--study=rankin", "--model_dir=x"), "Did you mean 'ranking'"),
        (("--study=ranking",), "model_dir: received nothing"),
        (("--study=ranking", "--model_dir=x", "more"), "received 'more', expected flags only"),
        (("--studdy=x",), "Did you mean: study"),
        (("--study=ranking", "--model_dir=x", "--time_limit=long"), "time_limit"),
        (("--study=ranking", "--model_dir=x", "--shard=1/2"), "expected --engine=ray --address"),
        (("--study=ranking", "--model_dir=x", "--engine=rai"), "Did you mean 'ray'"),
    ],
)
def test_flags(arguments, words):
    process = start(*arguments)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 2
    (line,) = text.splitlines()
    assert line.startswith("neas_tf.study: ") and words in line


def test_bad_input_of_the_command_changes_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    process = start("--study=ranking", f"--model_dir={tmp_path}")
    _, text = process.communicate(timeout=300)
    assert process.returncode == 2
    assert text.splitlines()[-1] == (
        f"neas_tf.study: model_dir: {str(tmp_path)!r} holds files of something else (no "
        "study.json); expected an empty or new folder, or one of earlier studies."
    )
    assert list(contents(tmp_path)) == ["notes.txt"]


@pytest.mark.parametrize(
    "override,words",
    [
        ("study.seedz=[1]", "Did you mean 'seeds'"),
        ("study=3", "study.: unknown name"),
        ("study.experiment=neas_nothing", "study.experiment: unknown name"),
        ("shrink.metrik=none", "Did you mean 'metric'"),
    ],
)
def test_settings_are_refused(override, words, config_file):
    with pytest.raises(NeasError, match=words):
        load_settings([config_file], override)


@pytest.mark.parametrize("name", ["cifar10_cpu", "imagenet"])
def test_the_projects_files_are_read(name):
    file = paths.project_file("configs", "studies", f"{name}.yaml")
    config, settings = load_settings([file], "")
    assert len(settings.seeds) >= 3 and settings.ensembles >= 30
    assert config.search.max_macs in settings.budgets
    assert settings.experiment in ("neas_cifar10", "neas_imagenet")
    assert not config.supernet.zero_init_residual  # the stored units are without
    for shrink in settings.shrinks.values():  # names with dots are names
        apply_override(config, {"shrink": dict(shrink)})
    assert settings.shrinks["quality_power 0.25"] == {"quality_power": 0.25}


def test_the_space_of_operators_that_differ_more():
    """The second file over the first: another space and other MACs, the rest as it was."""
    files = [
        paths.project_file("configs", "studies", f"{name}.yaml")
        for name in ("cifar10_cpu", "mixed_space")
    ]
    (config, settings), (plain, before) = load_settings(files, ""), load_settings(files[:1], "")
    assert config.space.name == "mixed16" and config.data == plain.data
    assert config.retrain == plain.retrain and settings.seeds == before.seeds
    assert settings.truth.retrain == before.truth.retrain == {"epochs": 40.0}
    assert (settings.truth.macs, settings.truth.ensembles) == (1_400_000, 40)


def test_one_setting_of_the_truth_leaves_the_others(config_file):
    files = [paths.project_file("configs", "studies", "cifar10_cpu.yaml")]
    _, settings = load_settings(files, "study.truth.ensembles=12")
    assert settings.truth.ensembles == 12 and settings.truth.macs == 1_000_000
