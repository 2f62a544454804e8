"""The command's manners: one sentence on stderr, exit code 2, nothing written, no traceback."""

import errno
import json
import os
import subprocess

import pytest
import tensorflow as tf
import yaml
from absl import flags
from absl.testing import flagsaver
from tiny_run import TINY, contents, start_train

from neas_tf import train


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    try:
        _, text = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return process.returncode, text


@pytest.mark.parametrize(
    "arguments,words",
    [
        ((), "model_dir: received nothing"),
        (("--modl_dir=x",), "Did you mean: model_dir"),
        (("--logical_cpus=none", "--model_dir=x"), "logical_cpus"),
        (("--logical_cpus=0", "--model_dir=x"), "logical_cpus"),
        (("--model_dir=x", "supernet"), "received 'supernet', expected flags only"),
    ],
)
def test_flags(arguments, words):
    code, text = finish(start_train(*arguments))
    assert code == 2
    (line,) = text.splitlines()
    assert line.startswith("neas_tf.train: ") and words in line


def test_bad_input_in_a_process_of_its_own(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    code, text = finish(start_train(f"--model_dir={tmp_path}"))
    assert code == 2
    assert [line for line in text.splitlines() if line != "Starting TensorFlow …"] == [
        f"neas_tf.train: model_dir: {str(tmp_path)!r} holds files of something else (no "
        "params.yaml of a run); expected an empty or new folder, or one of an earlier run."
    ]
    assert contents(tmp_path) == before


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls `main` with flags in this process; returns the exit code and what it said."""
    monkeypatch.setattr(train.command_line, "start_tensorflow", lambda cpus, threads: None)

    def call(**values):
        with flagsaver.flagsaver(**values):
            code = train.main(["train"])
        return code, capsys.readouterr().err

    parsed = flags.FLAGS.is_parsed()
    flags.FLAGS.mark_as_parsed()
    yield call
    if not parsed:
        flags.FLAGS.unparse_flags()


def test_bad_input(command, tmp_path):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    (tmp_path / "broken.yaml").write_text("a: [1")
    folder, tiny = str(tmp_path / "run"), [str(tmp_path / "tiny.yaml")]
    for values, words in (
        ({"experiment": "neas_cifar"}, "Did you mean 'neas_cifar10'"),
        ({"stage": "retrian"}, "Did you mean 'retrain'"),
        ({"config_file": ["none.yaml"]}, "no file at 'none.yaml'"),
        ({"config_file": [f"{tiny[0]},none.yaml"]}, "no file at 'none.yaml'"),
        ({"config_file": [str(tmp_path / "broken.yaml")]}, "no valid YAML"),
        ({"params_override": "search.max_mac=3"}, "Did you mean 'max_macs'"),
        ({"params_override": "search.max_macs=3"}, "expected at least"),
        ({"params_override": "space.stages=[[1,2]]"}, "[channels, layers, stride]"),
        ({"stage": "search"}, "run --stage=supernet first"),
    ):
        code, text = command(**({"model_dir": folder, "config_file": tiny} | values))
        assert code == 2 and words in text, text
        assert len(text.splitlines()) == 1 and text.startswith("neas_tf.train: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.yaml", "tiny.yaml"]


def test_a_run_goes_on_with_the_settings_in_its_folder(command, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr("neas_tf.run.pipeline.run_pipeline", lambda *given: begun.append(given))

    def settings(**values):
        code, text = command(model_dir=str(tmp_path), **values)
        assert code == 0
        return begun.pop()[0].as_dict(), text

    first, text = settings(experiment="neas_cifar10", params_override="seed=3,search.population=7")
    assert text == "" and first["seed"] == 3
    own = tmp_path / "params.yaml"
    own.write_text(yaml.safe_dump(json.loads(json.dumps(first)), sort_keys=False))
    again, text = settings(stage="search")
    assert json.dumps(again) == json.dumps(first)
    assert text.startswith(f"Settings of {own} (--experiment=NAME")
    # Files and overrides count over them; a named experiment stands for itself.
    other, _ = settings(params_override="search.population=8")
    assert other["search"].pop("population") == 8 and first["search"].pop("population") == 7
    assert json.dumps(other) == json.dumps(first)
    named, text = settings(experiment="neas_quickstart")
    assert named["seed"] == 0 and named["data"] != first["data"] and text == ""
    # What is no run's is left for `run_pipeline` to refuse.
    for content in ("seed: 1", "a: [", "\udcff"):
        own.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert settings()[0] == settings(experiment="neas_quickstart")[0]


def test_relative_folders_mean_the_callers(command, tmp_path, monkeypatch):
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    code, text = command(model_dir="run", stage="search")
    assert code == 2 and repr(str(tmp_path / "run")) in text


def test_stopping_is_no_crash(command, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("neas_tf.config.parse.load_config", stop)
    code, text = command(model_dir=str(tmp_path / "run"))
    assert code == 130 and "the same command continues from here" in text


def test_a_full_disk_in_the_words_of_tensorflow(command, tmp_path, monkeypatch):
    """The real thing, on a file system that is full, is part of `make soak`."""
    folder = str(tmp_path / "run")

    def fail(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "/x/y.pb.tmp; No space left on device")

    monkeypatch.setattr("neas_tf.run.pipeline.run_pipeline", fail)
    code, text = command(model_dir=folder)
    assert code == 2
    assert text == f"neas_tf.train: {folder!r} cannot be written (No space left on device).\n"

    def out_of_memory(*arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("neas_tf.run.pipeline.run_pipeline", out_of_memory)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        command(model_dir=folder)


def test_a_full_disk(command, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "a.json"))

    monkeypatch.setattr("neas_tf.run.pipeline.run_pipeline", full)
    code, text = command(model_dir=str(tmp_path / "run"))
    assert code == 2 and text == (
        f"neas_tf.train: {str(tmp_path / 'a.json')!r} cannot be written (No space left on device).\n"
    )
