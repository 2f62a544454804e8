"""A retraining with a teacher: the loss, what may teach, and a resumed run with the same bits."""

import json
from types import SimpleNamespace

import digits_ensemble
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from scipy.stats import entropy
from tiny_run import TINY
from tiny_training import stopped_after

from neas_tf.common.errors import NeasError
from neas_tf.config.distillation import PATHS, DistillationConfig
from neas_tf.config.parse import load_config
from neas_tf.ensemble import store
from neas_tf.export.formats import export_keras, export_saved_model
from neas_tf.run.context import open_run
from neas_tf.run.parts.teaching import load_teacher, teacher_identity
from neas_tf.run.retrain_stage import check_retrain, retrain
from neas_tf.space.architecture import Architecture
from neas_tf.training.tasks import EnsembleTask

KEY = Architecture(1, (("k3e1", "k5e1", "k3e2"), ("k3e1", "k3e1", "skip"))).key


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """(data, images, mean logits of an ensemble, the same as folder, SavedModel and .keras file)."""
    folder = tmp_path_factory.mktemp("teachers")
    info = digits_ensemble.dataset()
    model, what = digits_ensemble.ensemble(info)
    parts = (what.architecture, what.space, what.class_names, what.normalisation)
    store.save_model(folder / "model", model, *parts)
    export_saved_model(model, what, folder / "saved")
    export_keras(model, what, folder / "m.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)).astype(np.float32)
    images = info.normalisation.apply(pixels)
    return info, images, model.predict(images, verbose=0).mean(1), folder


@pytest.mark.parametrize("kind", ["model", "saved", "m.keras"])
def test_who_can_teach(kind, teachers):
    info, images, logits, folder = teachers
    settings = DistillationConfig(teacher=str(folder / kind))
    teach = load_teacher(settings, info)
    found = tf.function(teach)(tf.constant(images)).numpy()
    np.testing.assert_allclose(found, logits, atol=1e-4)
    digest = teacher_identity(settings, False)["teacher"]
    assert len(digest) == 64 and digest == teacher_identity(settings, True)["teacher"]


def test_probabilities_become_logits(teachers, tmp_path):
    import keras

    info, images, _, _ = teachers
    network = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    )
    network.save(tmp_path / "own.keras")
    teach = load_teacher(DistillationConfig(teacher=str(tmp_path / "own.keras")), info)
    scale, offset = info.normalisation.scale, info.normalisation.offset
    expected = network.predict((images - offset) / np.array(scale), verbose=0)
    np.testing.assert_allclose(tf.nn.softmax(teach(images)), expected, atol=1e-5)


def test_who_cannot_teach(teachers, tmp_path):
    info, _, _, folder = teachers
    (tmp_path / "broken.keras").write_text("no model")
    (tmp_path / "notes.txt").write_text("no model")
    other = {"input_shape": (16, 16, 1)}
    cases = [
        ("broken.keras", {}, "is no Keras model"),
        ("notes.txt", {}, "expected 'paths', the folder of a run, model or SavedModel"),
        ("nowhere", {}, "expected 'paths', the folder of a run, model or SavedModel"),
        (folder / "m.keras", other, r"expected a model of images \(16, 16, 1\)"),
        (folder / "saved", {"num_classes": 7}, r"of shape \(10,\).*expected finite ones of shape"),
        (folder / "model", {"class_names": tuple("abc")}, "has 3 classes, the model 10"),
    ]
    for name, changes, said in cases:
        facts = {name: getattr(info, name) for name in ("num_classes", "input_shape", "name")}
        facts |= {"class_names": info.class_names, "normalisation": info.normalisation, **changes}
        with pytest.raises(NeasError, match=f"^retrain.distillation.teacher: .*{said}"):
            load_teacher(DistillationConfig(teacher=str(tmp_path / name)), SimpleNamespace(**facts))
    assert load_teacher(DistillationConfig(), info) is None
    assert load_teacher(DistillationConfig(teacher=PATHS), info) is None
    assert teacher_identity(DistillationConfig(teacher=PATHS), False) == {}


@pytest.mark.parametrize("num_paths", [2, 3])
def test_the_loss_is_its_equation(num_paths, rng):
    logits = rng.normal(size=(num_paths, 6, 4)).astype(np.float32)
    told = rng.normal(size=(6, 4)).astype(np.float32)
    for teacher in (PATHS, "model"):
        settings = DistillationConfig(teacher=teacher, weight=0.3, temperature=2.5)
        teach = None if teacher == PATHS else lambda images: tf.constant(told)
        task = SimpleNamespace(
            stage=SimpleNamespace(distillation=settings), _teacher=teach, num_paths=num_paths
        )
        shares = softmax(logits / 2.5, -1)
        given = [
            softmax(told / 2.5, -1) if teach else np.delete(shares, k, 0).mean(0)
            for k in range(num_paths)
        ]
        apart = sum(entropy(q, p, axis=-1).mean() for q, p in zip(given, shares, strict=True))
        with tf.GradientTape() as tape:
            x = tf.Variable(logits)
            loss = EnsembleTask._distilled(task, tf.constant(5.0), x, None)
        assert float(loss) == pytest.approx(0.7 * 5 + 0.3 * 2.5**2 * apart, rel=1e-5)
        # No gradient reaches a path through what it teaches: Σ over classes of w·T·(p − q)/B.
        slope = 0.3 * 2.5 * (shares - np.stack(given)) / 6
        np.testing.assert_allclose(tape.gradient(loss, x), slope, atol=1e-5)
    plain = SimpleNamespace(stage=SimpleNamespace(distillation=DistillationConfig()))
    assert EnsembleTask._distilled(plain, 5.0, None, None) == 5.0


def opened(folder, name, teacher, **sections):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    short = {"epochs": 0.3, "warmup_epochs": 0.0}
    short["trainer"] = {"steps_per_loop": 3, "checkpoint_interval": 3}
    lessons = {"teacher": str(teacher), "weight": 0.7}
    retraining = {"architecture": KEY, "distillation": lessons, **short}
    config = load_config(
        "neas_quickstart", [str(folder / "tiny.yaml")], {"retrain": retraining, **sections}
    )
    return open_run(config, str(folder / name), tf.distribute.OneDeviceStrategy("CPU:0"))


def test_a_resumed_retraining_has_the_same_bits(teachers, tmp_path):
    info, _, _, folder = teachers
    whole, cut = (opened(tmp_path, name, folder / "model") for name in ("whole", "cut"))
    with whole.writing():
        retrain(*whole.inputs)
    with cut.writing(), stopped_after(3):
        retrain(*cut.inputs)
    with cut.writing():
        retrain(*cut.inputs)
    weights = [
        store.weights_content(store.load_model(tmp_path / name / store.RUN_MODEL)[0])
        for name in ("whole", "cut")
    ]
    assert store.weights_digest(weights[0]) == store.weights_digest(weights[1])
    identity = json.loads((tmp_path / "whole/retrain/identity.json").read_text())
    assert identity["retrain"]["distillation"]["teacher"] == "stored weights"
    # Another teacher is another training; the same one elsewhere is not.
    model, what = digits_ensemble.ensemble(info, seed=1)
    parts = (what.architecture, what.space, what.class_names, what.normalisation)
    store.save_model(tmp_path / "other", model, *parts)
    with pytest.raises(NeasError, match=r"holds another run \(teacher: was"):
        check_retrain(*opened(tmp_path, "whole", tmp_path / "other").inputs, alone=True)
    (folder / "model").rename(folder / "moved")
    check_retrain(*opened(tmp_path, "whole", folder / "moved").inputs, alone=True)
    (folder / "moved").rename(folder / "model")


def test_settings_that_cannot_teach(tmp_path):
    one = Architecture(1, (("k3e1", "k5e1", "k3e2"),)).key
    base = {"architecture": KEY}
    for lessons, said in (
        ({"weight": 1.5}, "weight: received 1.5, expected a number from 0 to 1"),
        ({"temperature": 0.0}, "temperature: received 0.0, expected a number above 0"),
        ({"teacher": "paths"}, "teacher: received 'paths', expected 2 paths or more"),
    ):
        changes = {"retrain": {**base, "distillation": lessons}}
        if "teacher" in lessons:
            changes["retrain"]["architecture"] = one
        (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
        config = load_config("neas_quickstart", [str(tmp_path / "tiny.yaml")], changes)
        with pytest.raises(NeasError, match=rf"retrain\.distillation\.{said}"):
            open_run(config, str(tmp_path / "run"), tf.distribute.OneDeviceStrategy("CPU:0"))
    assert not (tmp_path / "run").exists()
