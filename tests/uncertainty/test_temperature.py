"""Temperature scaling: the best one is found, kept with the model, and never sees the test."""

import json

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from sklearn.metrics import log_loss
from tiny_run import TINY

from neas_tf import data
from neas_tf.commands.evaluate import evaluate_folder, format_text
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json
from neas_tf.config.parse import load_config
from neas_tf.ensemble.store import RUN_MODEL, load_model, read_info
from neas_tf.run import retrain_stage
from neas_tf.run.context import open_run
from neas_tf.space.architecture import Architecture
from neas_tf.uncertainty.temperature import MOST, check_examples, fit_temperature

KEY = Architecture(1, (("k3e1", "k5e1", "k3e2"), ("k3e1", "k3e1", "skip"))).key


def test_the_best_temperature_is_found(rng):
    sure = 3 * rng.normal(size=(4_000, 5))
    shares = softmax(sure, -1)
    labels = (rng.random((4_000, 1)) > shares.cumsum(-1)).sum(-1)
    for factor in (0.4, 1.0, 2.5):
        fit = fit_temperature(factor * sure, labels)
        assert fit.temperature == pytest.approx(factor, rel=0.06)
        assert fit.before == pytest.approx(log_loss(labels, softmax(factor * sure, -1)))
        for other in (0.98, 1.02):
            scaled = softmax(factor * sure / (other * fit.temperature), -1)
            assert fit.after < log_loss(labels, scaled)


def test_answers_without_an_error_stay_inside_the_bounds():
    fit = fit_temperature(np.eye(3), np.arange(3))
    assert fit.temperature == pytest.approx(1 / MOST, rel=1e-3)
    assert fit_temperature(np.eye(3), np.arange(3)[::-1]).temperature > 1


def test_what_cannot_be_fitted():
    with pytest.raises(NeasError, match="with 1 held-out image, expected 2 or more"):
        check_examples(1)
    with pytest.raises(NeasError, match="with no held-out images, expected 2 or more"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(NeasError, match="no finite numbers"):
        fit_temperature(np.full((3, 3), np.nan), np.arange(3))


def opened(folder, override, **sections):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    changes = {"retrain": {"architecture": KEY, "epochs": 1.0} | override, **sections}
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], changes)
    return open_run(config, str(folder / "run"), tf.distribute.OneDeviceStrategy("CPU:0"))


@pytest.mark.parametrize("fraction, said", [(0.0, "no held-out images"), (0.0008, "1 held-out")])
def test_too_few_held_out_images_are_refused_before_any_work(fraction, said, tmp_path):
    with pytest.raises(NeasError, match=f"retrain.calibrate: received true with {said}"):
        opened(tmp_path, {"calibrate": True}, data={"search_fraction": fraction})
    assert not (tmp_path / "run").exists()


def test_a_retraining_leaves_the_held_out_images_out(tmp_path, monkeypatch, capsys):
    parts = []
    make = data.make_dataset

    def noted(info, part, *arguments, **settings):
        parts.append(part)
        return make(info, part, *arguments, **settings)

    monkeypatch.setattr(data, "make_dataset", noted)
    run = opened(tmp_path, {"calibrate": True})
    with run.writing():
        retrain_stage.retrain(*run.inputs)
    assert parts == ["supernet", "search", "test"]
    model, info = load_model(tmp_path / "run" / RUN_MODEL)
    images, labels = data.make_arrays(run.info, "search", 0, 0)
    fit = fit_temperature(np.mean(model.predict(images, verbose=0), 1), labels)
    assert info.temperature == pytest.approx(fit.temperature, rel=0.01)
    assert f"fitted on {len(labels)} held-out images" in capsys.readouterr().err
    found = read_json(tmp_path / "run/retrain/uncertainty.json")
    assert found["temperature"] == info.temperature
    tested, labels = data.make_arrays(run.info, "test", 0, 0)
    logits = np.mean(model.predict(tested, verbose=0), 1)
    expected = log_loss(labels, softmax(np.float64(logits) / info.temperature, -1))
    assert found["calibrated"]["nll"] == pytest.approx(expected, rel=1e-4)
    result = evaluate_folder(tmp_path / "run" / RUN_MODEL, run.config.data, 100)
    text = format_text(result)
    assert result["uncertainty"]["calibrated"]["nll"] == pytest.approx(expected, rel=1e-4)
    assert text.count("%") == 8 and f"T = {info.temperature:.3f}" in text
    # Another setting would be another training.
    with pytest.raises(NeasError, match=r"retrain\.calibrate: was true, is false"):
        other = opened(tmp_path, {})
        retrain_stage.check_retrain(*other.inputs, alone=True)


def test_a_damaged_temperature_is_refused(tmp_path):
    from small_ensembles import ENSEMBLES, SPACE

    from neas_tf.ensemble.model import build_ensemble
    from neas_tf.ensemble.store import MODEL_FILE, save_model

    architecture = ENSEMBLES["one_path"]
    model = build_ensemble(architecture, SPACE)
    scale = {"mean": [0.5] * 3, "std": [0.5] * 3}
    save_model(tmp_path / "m", model, architecture, SPACE, "abcde", scale, 1.5)
    assert read_info(tmp_path / "m").temperature == 1.5
    path = tmp_path / "m" / MODEL_FILE
    for wrong in (0, -1, "warm", True):
        path.write_text(json.dumps({**json.loads(path.read_text()), "temperature": wrong}))
        with pytest.raises(NeasError, match=r"model\.json temperature"):
            read_info(tmp_path / "m")
