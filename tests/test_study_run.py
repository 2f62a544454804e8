"""A study end to end on the digits: killed and resumed it leaves the same bytes; the command's manners."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml
from tiny_run import TINY, contents

from neas_tf import paths
from neas_tf.errors import NeasError
from neas_tf.study.command import Options, load_settings, run_studies

STUDY = {"experiment": "neas_quickstart", "seeds": [0], "ensembles": 5, "metrics": ["diversity"]}
STUDY |= {"top": 4, "resamples": 20, "images": 20}
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


def start(*arguments: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "neas_tf.study", *arguments],
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
    return {name: value for name, value in found.items() if not name.endswith("README.md")}


def test_a_killed_study_goes_on_and_ends_with_the_same_bytes(tmp_path, config_file):
    config, settings = load_settings([config_file], "")
    names = ("ranking", "homogeneous", "searcher")
    whole = run_studies(names, config, settings, str(tmp_path / "whole"))
    assert not whole.left
    kinds = {unit.kind for unit in whole.done}
    assert kinds == {"supernet", "scores", "training", "search", "embedding"}

    folder = tmp_path / "killed"
    flags = [f"--study={','.join(names)}", f"--model_dir={folder}", f"--config_file={config_file}"]
    process = start(*flags, start_new_session=True)
    try:
        end = time.monotonic() + 300
        # In the middle of the third unit: two are stored, and there is work on one more.
        while len(list((folder / "units").glob("*.json"))) < 2 or (
            len(list((folder / "work").glob("*"))) < 3
        ):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    before = contents(folder / "units")
    done = len(list((folder / "units").glob("*.json")))
    assert 2 <= done < len(contents(tmp_path / "whole" / "units"))
    run_studies(names, config, settings, str(folder))
    assert results(folder) == results(tmp_path / "whole")
    assert {name: contents(folder / "units")[name] for name in before} == before

    # What is done is not done again, and more ensembles add to what is there.
    assert not run_studies(names, config, settings, str(folder), Options(report_only=True)).left
    _, more = load_settings([config_file], "study.ensembles=6")
    now = run_studies(names, config, more, str(folder), Options(list_only=True))
    assert {unit.kind for unit in now.left} == {"training", "scores"} and len(now.left) == 2

    # Another base is refused, and nothing of the folder changes.
    other, _ = load_settings([config_file], "shrink.remove=1")
    kept = contents(folder)
    with pytest.raises(NeasError, match=r"other settings \(shrink.remove: was 2, is 1\)"):
        run_studies(names, other, settings, str(folder))
    assert contents(folder) == kept


def test_a_single_path_is_a_study_too(tmp_path, config_file):
    config, settings = load_settings([config_file], "study.paths=[1]")
    assert not run_studies(("paths",), config, settings, str(tmp_path / "s")).left
    found = json.loads((tmp_path / "s/studies/paths/results.json").read_text())
    row = found["values"]["paths"]["1"]
    assert row["ensemble"]["count"] == 1 and row["macs"]["mean"] <= TINY["search"]["max_macs"]
    assert row["architectures"][0].count("|") == 1  # one path behind the split


@pytest.mark.parametrize(
    "arguments,words",
    [
        ((), "study: received nothing"),
        (("--study=rankin", "--model_dir=x"), "Did you mean 'ranking'"),
        (("--study=ranking",), "model_dir: received nothing"),
        (("--study=ranking", "--model_dir=x", "more"), "received 'more', allowed are flags only"),
        (("--studdy=x",), "Did you mean: study"),
        (("--study=ranking", "--model_dir=x", "--time_limit=long"), "time_limit"),
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
        "study.json); allowed is an empty or new folder, or one of earlier studies."
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
