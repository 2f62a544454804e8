import json
import os
import subprocess
from pathlib import Path

import pytest
import warm
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import save_model

ROOT = Path(__file__).resolve().parents[2]
MODEL = ("--model_dir=MODEL_DIR", "--output=x.tflite")
ARCH = (
    "--arch=neas_s",
    "--weights=MODEL_DIR/retrain/model/weights.weights.h5",
    "--output=x.tflite",
)


def run(*args, cwd=ROOT, **env):
    return subprocess.run(
        [warm.python(), *map(str, args)],
        cwd=cwd,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    architecture = ENSEMBLES["two_paths"]
    model = build_ensemble(architecture, SPACE)
    randomise(model)
    names = [f"class {i}" for i in range(SPACE.num_classes)]
    save_model(folder / "retrain" / "model", model, architecture, SPACE, names, Normalisation())
    return folder


@pytest.mark.parametrize("command", ["to_tflite", "to_saved_model", "to_keras"])
def test_help_names_the_flags(command):
    result = run(f"export/{command}.py", "--help")
    for flag in ("--model_dir", "--output", "--arch", "--weights", "--[no]overwrite"):
        assert flag in result.stdout
    assert "tensorflow" not in result.stderr.lower()


def test_to_tflite_as_a_script_from_elsewhere(model_dir, tmp_path):
    script = ROOT / "export" / "to_tflite.py"
    result = run(script, f"--model_dir={model_dir}", "--output=a/m.tflite", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "parity" in result.stdout and "s2:k7e4.skip|" in result.stdout
    report = json.loads((tmp_path / "a" / "m.tflite.json").read_text())
    assert report["parity"]["max_abs_diff"] <= 1e-4
    card = (tmp_path / "a" / "README.md").read_text()
    assert "| `m.tflite` | tflite, float32 |" in card and "its test is not known here" in card
    assert f"model card    {tmp_path / 'a' / 'README.md'}" in result.stdout
    again = run(script, f"--model_dir={model_dir}", "--output=a/m.tflite", cwd=tmp_path)
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    assert "earlier export" in again.stderr


def test_to_saved_model_as_a_module_writes_into_the_model_dir(model_dir):
    result = run("-m", "export.to_saved_model", f"--model_dir={model_dir}")
    assert result.returncode == 0, result.stderr
    assert (model_dir / "export" / "saved_model" / "saved_model.pb").is_file()
    assert (model_dir / "export" / "saved_model.json").is_file()
    assert "`saved_model`" in (model_dir / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--model_dir"),
        (["--model_dir=.", "--arch=neas_s", "--output=x"], "either --model_dir"),
        (["--model_dir=."], "no retrained model"),
        (["--arch=neas_s"], "--output"),
        (["--arch=neas_x", "--weights=w.weights.h5", "--output=x"], "neas_"),
        (["--arch=neas_s", "--output=x"], "--weights"),
        (["--arch=neas_s", "--weights=w.weights.h5", "--output=x"], "existing file"),
        (["--arch=neas_s", "--labels=none", "--weights=w", "--output=x"], "--labels"),
        (["--model_dir=MODEL_DIR", "--output=gs://bucket/x.tflite"], "which is an address"),
        (["--model_dir=MODEL_DIR", "--output=file:///tmp/x.tflite"], "which is an address"),
        (["--model_dir=MODEL_DIR", "--output=new/"], "the name of a file"),
        (["--model_dir=MODEL_DIR", "--output=."], "names nothing to write"),
        (["--model_dir=MODEL_DIR", "--output=/dev/null/x.tflite"], "'/dev/null' is a file"),
        (["--model_dir=MODEL_DIR", "--output=/dev/null"], "is not an export of ours"),
        (["--model_dir=MODEL_DIR", f"--output={'x' * 250}"], "File name too long"),
        (["--model_dir=MODEL_DIR", f"--output={'x' * 300}"], "File name too long"),
        (["--model_dir=MODEL_DIR", "--output=/proc/x/y.tflite"], "takes files"),
        (["--model_dir=MODEL_DIR", "--output=x.keras"], "export/to_keras.py"),
        (["--model_dir=MODEL_DIR", "--output=MODEL_DIR/retrain/model"], "is not an export of ours"),
        (["stray", "--output=x"], "arguments: received 'stray', expected flags only"),
        ([*MODEL, "--quantize=int4"], "quantize"),
        ([*MODEL, "--quantize=int8"], "representative_dataset"),
        ([*MODEL, "--representative_dataset=run"], "--representative_dataset"),
        ([*MODEL, "--quantize=int8", "--representative_dataset=run"], "params.yaml"),
        ([*MODEL, "--quantize=int8_qat"], "params.yaml"),
        ([*MODEL, "--quantize=int8_qat", "--representative_dataset=run"], "--representative_dat"),
        ([*MODEL, "--prune"], "params.yaml"),
        ([*MODEL, "--prune", "--sparsity=1.0"], "--sparsity"),
        ([*ARCH, "--prune"], "--model_dir"),
        ([*ARCH, "--quantize=int8_qat"], "--model_dir"),
        ([*MODEL, "--input_type=int8"], "input_type"),
        ([*MODEL, "--evaluate=-1"], "--evaluate"),
        ([*MODEL, "--evaluate=10"], "params.yaml"),
        ([*MODEL, "--evaluation_dataset=cifar10"], "--evaluation_dataset"),
    ],
)
def test_bad_input_is_one_line(flags, message, model_dir, tmp_path, to_tflite, capsys):
    assert to_tflite(*(flag.replace("MODEL_DIR", str(model_dir)) for flag in flags)) == 2
    error = capsys.readouterr().err
    assert error.startswith("export.to_tflite: ") and error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


@pytest.fixture
def to_tflite(tmp_path, monkeypatch):
    """Runs export/to_tflite.py with flags in this process; returns its exit code."""
    from absl import flags as absl_flags

    from neas_tf.export.commands import common, to_tflite

    def call(*flags):
        values = absl_flags.FlagValues()
        common.define_flags("export/model.tflite", values)
        to_tflite.define_flags(values)
        monkeypatch.setattr(common, "FLAGS", values)
        monkeypatch.setattr(to_tflite, "FLAGS", values)
        rest = values(["to_tflite", *flags])
        return common.main(rest, "export_tflite", "export/model.tflite", to_tflite.options)

    monkeypatch.chdir(tmp_path)
    return call


def test_pruning_and_training_for_int8_in_one_command(tmp_path, to_tflite, capsys):
    import digits_ensemble

    digits = digits_ensemble.dataset()
    model, info = digits_ensemble.ensemble(digits)
    save_model(
        tmp_path / "run" / "retrain" / "model",
        model,
        info.architecture,
        info.space,
        info.class_names,
        info.normalisation,
    )
    (tmp_path / "run" / "params.yaml").write_text(
        "data: {source: digits, augment: crop_flip, flip: false}\n"
        "retrain: {label_smoothing: 0.1, batch_size: 64}\n"
    )
    flags = ["--model_dir=run", "--quantize=int8_qat", "--prune", "--sparsity=0.6"]
    flags += ["--fine_tune_epochs=1", "--fine_tune_batch=256", "--representative_images=16"]
    assert to_tflite(*flags, "--evaluate=20") == 0
    printed = capsys.readouterr().out
    for text in ("float islands none", "emulation", "zeros         60", "gzip", "20 test images"):
        assert text in printed
    report = json.loads((tmp_path / "run" / "export" / "model.tflite.json").read_text())
    assert report["quantize"] == "int8_qat" and report["xnnpack_partitions"] == 1
    folder = tmp_path / "run" / "export" / "fine_tuning"
    assert sorted(p.name for p in folder.iterdir()) == ["pruned", "pruned_int8_qat"]
    identity = json.loads((folder / "pruned" / "fine_tuning.json").read_text())
    assert identity["label_smoothing"] == 0.1 and identity["data"]["augment"] == "crop_flip"
    # The same again goes on from there; another rate is refused, and what is there is kept.
    assert to_tflite(*flags, "--fine_tune_rate=0.01", "--output=other.tflite") == 2
    assert "another fine-tuning (rate: was 0.001, is 0.01)" in capsys.readouterr().err
    assert not (tmp_path / "other.tflite").exists()


def test_a_published_architecture_with_weights_from_a_file(tmp_path):
    from neas_tf.space.search_space import SearchSpace
    from neas_tf.space.zoo import load_architecture

    space = SearchSpace(input_size=(32, 32), num_classes=4)
    weights = tmp_path / "w.weights.h5"
    build_ensemble(load_architecture("neas_s"), space).save_weights(str(weights))
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    result = run(
        "export/to_saved_model.py",
        "--arch=neas_s",
        f"--weights={weights}",
        "--input_size=32",
        "--num_classes=4",
        f"--labels={tmp_path / 'labels.txt'}",
        f"--output={tmp_path / 'out'}",
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["class_names"] == ["a", "b", "c", "d"]
    assert report["architecture_name"].lower().replace("-", "_") == "neas_s"


def test_int8_and_accuracy_from_the_runs_data(tmp_path):
    """With relative paths, which mean the folder of the caller of Bazel."""
    from neas_tf.space.architecture import Architecture
    from neas_tf.space.search_space import SearchSpace, Stage

    space = SearchSpace(
        name="digits",
        input_size=(8, 8),
        input_channels=1,
        num_classes=10,
        stem_channels=8,
        stem_stride=1,
        stages=(Stage(8, 2, 1), Stage(16, 2, 2)),
        min_split=0,
        max_split=4,
        head_channels=16,
        feature_channels=16,
    )
    architecture = Architecture(
        2, (("k7e4", "skip", "k3e4", "k5e4"), ("k7e4", "skip", "k7e4", "skip"))
    )
    model = build_ensemble(architecture, space)
    randomise(model)
    names = [str(i) for i in range(10)]
    normalisation = Normalisation((0.3,), (0.4,))
    save_model(tmp_path / "retrain" / "model", model, architecture, space, names, normalisation)
    (tmp_path / "params.yaml").write_text("data: {source: digits}\n")
    result = run(
        "-m",
        "export.to_tflite",
        f"--model_dir={tmp_path.name}",
        f"--output={tmp_path.name}/m.tflite",
        "--quantize=int8",
        "--representative_dataset=run",
        "--representative_images=32",
        "--input_type=uint8",
        "--evaluate=50",
        "--norewrite_depthwise",
        BUILD_WORKING_DIRECTORY=str(tmp_path.parent),
    )
    assert result.returncode == 0, result.stderr
    assert "float islands none" in result.stdout and "50 test images" in result.stdout
    report = json.loads((tmp_path / "m.tflite.json").read_text())
    assert report["accuracy"]["examples"] == 50 and report["representative_images"] == 32
    assert report["rewrites"] == {"depthwise": False, "gates": True, "normalisation": True}
    assert report["inputs"][0]["dtype"] == "uint8"


def test_to_keras_writes_into_the_model_dir(model_dir):
    result = run("-m", "export.to_keras", f"--model_dir={model_dir}")
    assert result.returncode == 0, result.stderr
    assert (model_dir / "export" / "model.keras").is_file()
    report = json.loads((model_dir / "export" / "model.keras.json").read_text())
    assert report["kind"] == "keras" and report["parity"]["max_abs_diff"] <= 1e-4
