"""Stage 4 with every format of `export.formats`, on a run whose retraining is made up."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
import yaml
from small_ensembles import randomise
from tiny_run import TINY, contents

from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json
from neas_tf.config.parse import load_config
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import load_model, save_model
from neas_tf.export.checks import predict_exported
from neas_tf.run.context import open_run
from neas_tf.run.export_stage import export
from neas_tf.run.identity import Identity
from neas_tf.run.pipeline import run_pipeline
from neas_tf.run.preflight import EXPORT_FORMATS
from neas_tf.space.architecture import Architecture

ARCHITECTURE = Architecture(1, (("k3e1", "k5e1", "skip"), ("k3e1", "k3e2", "skip")))
FILES = {
    "tflite": "model.tflite",
    "tflite_float16": "model_float16.tflite",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_int8": "model_int8.tflite",
    "tflite_int8_qat": "model_int8_qat.tflite",
    "tflite_pruned": "model_pruned.tflite",
    "saved_model": "saved_model",
    "keras": "model.keras",
}
EXPORT = {
    "formats": list(FILES),
    "parity_examples": 8,
    "calibration_images": 16,
    "test_examples": 40,
    "fine_tune_epochs": 1.0,
    "fine_tune_batch": 256,
    "sparsity": 0.6,
}


def configured(folder, **export):
    path = folder / "tiny.yaml"
    path.write_text(json.dumps({**TINY, "export": {**EXPORT, **export}}))
    return load_config("neas_quickstart", [str(path)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run after its export stage, and the reports by format."""
    folder = tmp_path_factory.mktemp("stage")
    run = open_run(configured(folder), str(folder / "run"), strategy())
    with run.writing():
        trained(run)
        reports = export(*run.inputs)
    return run, dict(zip(FILES, reports, strict=True))


def trained(run, seed=0, temperature=None):
    """What the retraining stage leaves for this one."""
    model = build_ensemble(ARCHITECTURE, run.space, dtype="float32")
    randomise(model, seed)
    identity = Identity("retrain", run.config, run.model_dir, run.info)
    identity.record({"architecture": ARCHITECTURE.key}, True)
    save_model(
        run.folder("retrain", "model"),
        model,
        ARCHITECTURE,
        run.space,
        run.info.class_names,
        run.info.normalisation.to_dict(),
        temperature=temperature,
    )


def test_outputs_and_the_temperature_are_settings(tmp_path):
    outputs, formats = ["disagreement", "probabilities"], ["tflite_int8", "saved_model"]
    config = configured(tmp_path, formats=formats, outputs=outputs, calibrated=True)
    config.retrain.calibrate = True
    run = open_run(config, str(tmp_path / "run"), strategy())
    with run.writing():
        trained(run, temperature=4.0)
        int8, saved = export(*run.inputs)
        assert [r["temperature"] for r in (int8, saved)] == [4.0, 4.0]
        names = [[output["name"] for output in r["outputs"]] for r in (int8, saved)]
        assert sorted(names[0]) == ["disagreement", "logits"]  # int8 leaves probabilities out
        assert names[1] == ["logits", "probabilities", "disagreement"]
        pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
        found = predict_exported(run.folder("export", "saved_model"), pixels)["logits"]
        model, info = load_model(run.folder("retrain", "model"))
        logits = model(info.normalisation.apply(pixels), training=False).numpy().mean(1)
        np.testing.assert_allclose(found, logits / 4.0, rtol=1e-4, atol=1e-5)
        card = run.folder("export", "README.md").read_text("utf-8")
        assert "are calibrated: the logits are divided by 4, fitted" in card
        assert "`disagreement` of `model_int8.tflite`, `saved_model`: how far" in card
        before = contents(run.folder("export"))
        assert export(*run.inputs) == [int8, saved] and contents(run.folder("export")) == before
        run.config.export.calibrated = False
        run.config.export.formats = ["saved_model"]
        (plain,) = export(*run.inputs)
    assert "temperature" not in plain and plain["outputs"] == saved["outputs"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "export.outputs=[disagreement],num_paths=1",
            "export.outputs: received 'disagreement', expected an ensemble of 2 paths or more",
        ),
        ("export.outputs=[logit]", "export.outputs: unknown name 'logit'"),
        (
            "export.outputs=[logits],export.formats=[tflite,keras]",
            r"export.outputs: received \['logits'\], expected formats without 'keras'",
        ),
        (
            "export.calibrated=true",
            "export.calibrated: received True, expected retrain.calibrate=true with it",
        ),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path, override, words):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(tmp_path / "tiny.yaml")], override)
    with pytest.raises(NeasError, match=words):
        open_run(config, str(tmp_path / "run"), strategy())
    assert not (tmp_path / "run").exists()


def test_the_model_card_has_every_format_and_its_code_runs(exported, monkeypatch):
    run, reports = exported
    _, front, body = (run.folder("export") / "README.md").read_text().split("---\n", 2)
    (entry,) = yaml.safe_load(front)["model-index"][0]["results"]
    values = {metric["name"]: metric["value"] for metric in entry["metrics"]}
    assert values == {
        f"Accuracy of `{name}`, 40 test images": reports[kind]["accuracy"]["exported"]
        for kind, name in FILES.items()
    }
    for kind, name in FILES.items():
        assert f"| `{name}` | {reports[kind]['kind']}, " in body
    monkeypatch.chdir(run.folder("export"))
    blocks, logits = re.findall(r"```python\n(.*?)```", body, re.DOTALL), []
    for code in blocks:
        names: dict = {}
        exec(code, names)
        logits.append(np.asarray(names["logits"]))
    assert len(logits) == 3 and logits[0].shape == (1, 10)
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], atol=1e-4)


def test_every_format_is_tested_here():
    assert set(FILES) == set(EXPORT_FORMATS)


@pytest.mark.parametrize("name", FILES)
def test_a_format_has_its_file_and_its_report(name, exported):
    run, reports = exported
    path, report = run.folder("export", FILES[name]), reports[name]
    assert path.exists() and read_json(run.folder("export", FILES[name] + ".json")) == report
    assert report["bytes"] > 1000 and (report.get("ops") or report["layers"])
    assert report["parity"]["examples"] == 8 and report["accuracy"]["examples"] == 40
    if name in ("tflite", "tflite_pruned", "saved_model", "keras"):
        assert report["parity"]["max_abs_diff"] <= 1e-4 and report["quantize"] == "none"
    if name.startswith("tflite"):
        assert report["xnnpack_partitions"] >= 1


@pytest.mark.parametrize("name", ["tflite_int8", "tflite_int8_qat"])
def test_integer_formats_are_integer_throughout(name, exported):
    report = exported[1][name]
    assert report["quantize"] == name.removeprefix("tflite_")
    assert report["float_islands"] == {}
    assert report["xnnpack_partitions"] == 1 and report["not_delegated"] == {}
    assert [o["name"] for o in report["outputs"]] == ["logits"]


def test_fine_tuned_formats_say_how_they_were_made(exported):
    run, reports = exported
    how = {"epochs": 1.0, "steps": 6, "batch_size": 256, "seed": run.config.seed}
    assert reports["tflite_int8_qat"]["fine_tuning"] == {**how, "rate": 2e-5}
    found = reports["tflite_pruned"]
    assert found["pruning_fine_tuning"] == {**how, "rate": 1e-3}
    assert found["pruning"]["target"] == 0.6
    assert found["pruning"]["pruned_layers"] == pytest.approx(0.6, abs=0.01)
    assert found["gzip_bytes"]["after"] < 0.9 * found["gzip_bytes"]["before"]
    assert found["bytes"] == pytest.approx(reports["tflite"]["bytes"], rel=0.02)
    for kind in ("int8_qat", "pruned"):
        assert run.folder("export", "fine_tuning", kind, "checkpoint").exists()


def test_the_model_of_another_run_is_refused(exported, tmp_path):
    """As with --stage=export and the name of another experiment: nothing is written."""
    run, _ = exported
    config = configured(tmp_path)
    config.data.crop_padding += 1
    before = contents(run.model_dir)
    with pytest.raises(NeasError, match=r"holds another run \(.*expected the same run again, with"):
        run_pipeline(config, str(run.model_dir), "export")
    assert contents(run.model_dir) == before


def test_the_settings_in_the_folder_are_the_same_run(exported):
    run, _ = exported
    before = contents(run.folder("export"))
    config = load_config("neas_quickstart", [str(run.folder("params.yaml"))])
    run_pipeline(config, str(run.model_dir), "export")
    assert contents(run.folder("export")) == before


def test_what_is_there_is_kept(exported):
    run, reports = exported
    before = contents(run.folder("export"))
    with run.writing():
        assert export(*run.inputs) == list(reports.values())
    assert contents(run.folder("export")) == before


def test_an_export_of_another_model_or_of_other_settings_is_made_again(tmp_path, capsys):
    plain = {"formats": ["tflite"], "parity_examples": 2, "test_examples": 0}
    run = open_run(configured(tmp_path, **plain), str(tmp_path / "run"), strategy())
    path = run.folder("export", "model.tflite")
    report = path.with_name("model.tflite.json")

    def again(why):
        before = path.stat().st_ino
        (found,) = export(*run.inputs)
        said = capsys.readouterr().err
        assert (f"is made again: {why}" in said) == bool(why), said
        assert (path.stat().st_ino != before) == bool(why)
        assert read_json(report) == found
        return found

    with run.writing():
        trained(run)
        (first,) = export(*run.inputs)
        again("")
        trained(run, seed=1)
        assert again("it was made of other weights")["sha256"] != first["sha256"]
        run.config.export.test_examples = 4
        changed = again("its settings were others (test_examples: was 0, is 4)")
        assert changed["accuracy"]["examples"] == 4
        # Made by hand of the same weights: its user wanted it so.
        by_hand = {key: value for key, value in changed.items() if key != "settings"}
        report.write_text(json.dumps(by_hand))
        assert again("") == by_hand
        report.write_text(json.dumps({**by_hand, "quantize": "float16"}))
        again('its settings were others (quantize: was "float16", is "none")')
        # From before reports said so.
        old = {key: value for key, value in changed.items() if key != "weights"}
        report.write_text(json.dumps(old))
        again("its report does not say which weights it was made of")


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"fine_tune_batch": 5000}, "export.fine_tune_batch"),
        ({"fine_tune_epochs": 0.0}, "export.fine_tune_epochs"),
        ({"fine_tune_rate": 1.0}, "export.fine_tune_rate"),
        ({"sparsity": 1.0}, "export.sparsity"),
        ({"calibration_images": 0}, "export.calibration_images"),
    ],
)
def test_settings_are_checked_before_anything_runs(setting, name, tmp_path):
    with pytest.raises(NeasError, match=name):
        open_run(configured(tmp_path, **setting), str(tmp_path / "run"), strategy())
    assert not (tmp_path / "run").exists()


def test_other_formats_do_not_need_the_settings_of_fine_tuning(tmp_path):
    config = configured(tmp_path, formats=["tflite"], fine_tune_batch=5000)
    open_run(config, str(tmp_path / "run"), strategy())


def strategy():
    return tf.distribute.get_strategy()
