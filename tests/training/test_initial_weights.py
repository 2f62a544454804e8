"""Weights that a training starts from: every kind of file gives the same ones, others are refused."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import optimization
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf.common.errors import NeasError
from neas_tf.ensemble import store
from neas_tf.ensemble.model import build_ensemble, model_slots
from neas_tf.export.serving import deployed_model
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.inheritance import weight_of
from neas_tf.supernet.model import Supernet
from neas_tf.training.initial_weights import (
    is_head,
    put_weights,
    read_weights,
    start_supernet,
)
from neas_tf.training.optimizers import create_optimizer, create_slots

ARCHITECTURE = ENSEMBLES["two_paths"]
NAMES = tuple("abcde")
NORMALISATION = {"mean": [0.5] * 3, "std": [0.25] * 3}
OTHER = dataclasses.replace(SPACE, num_classes=7, input_size=(32, 32))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """One ensemble in all forms, its weights by slot, and its folder."""
    folder = tmp_path_factory.mktemp("stored")
    model = build_ensemble(ARCHITECTURE, SPACE, seed=1)
    randomise(model)
    model_folder = folder / "run" / "retrain" / "model"
    store.save_model(model_folder, model, ARCHITECTURE, SPACE, NAMES, NORMALISATION)
    info = store.read_info(model_folder)
    deployed_model(model, info, keras=keras).save(folder / "deployed.keras")
    model.save(folder / "trainable.keras")
    model.save_weights(folder / "tf_keras.weights.h5")
    twin = build_ensemble(ARCHITECTURE, SPACE, keras=keras)
    twin.set_weights(model.get_weights())
    twin.save_weights(folder / "keras.weights.h5")
    (folder / "broken.keras").write_bytes(b"no zip file")
    (folder / "broken.weights.h5").write_bytes(b"no HDF5")
    (folder / "empty").mkdir()
    slots = dict(zip(model_slots(model), model.get_weights(), strict=True))
    return types.SimpleNamespace(folder=folder, slots=slots)


def read(stored, name):
    return read_weights(str(stored.folder / name), "retrain.init", ARCHITECTURE, SPACE)


@pytest.mark.parametrize(
    "name",
    [
        *("run", "run/retrain/model", "trainable.keras"),
        *("tf_keras.weights.h5", "keras.weights.h5", "deployed.keras"),
    ],
)
def test_every_form_gives_the_weights(name, stored):
    found = read(stored, name)
    own = found.fitted(ARCHITECTURE, SPACE, NAMES)
    assert own.keys() == stored.slots.keys()
    for slot, value in stored.slots.items():
        if name == "deployed.keras" and slot.role == "classifier/bias":
            continue  # only their mean is known
        np.testing.assert_allclose(own[slot], value, rtol=1e-6, err_msg=str(slot))
    if name != "deployed.keras":
        assert found.digest == read(stored, "run").digest
    # Other classes and another input size: all but the classifiers, which stay as they are.
    other = found.fitted(ARCHITECTURE, OTHER, tuple("abcdefg"))
    assert own.keys() - other.keys() == {slot for slot in own if is_head(slot)}
    model = build_ensemble(ARCHITECTURE, OTHER, seed=2)
    before = dict(zip(model_slots(model), model.get_weights(), strict=True))
    put_weights(model, other)
    for slot, value in zip(model_slots(model), model.get_weights(), strict=True):
        expected = before[slot] if is_head(slot) else own[slot]
        np.testing.assert_array_equal(value, expected)
    assert "new classifiers" in found.told(other) and "classifiers as well" in found.told(own)


def test_other_class_names_have_new_classifiers(stored):
    other = read(stored, "run").fitted(ARCHITECTURE, SPACE, tuple("fghij"))
    assert not any(map(is_head, other))


WIDER = dataclasses.replace(SPACE, stem_channels=16)
THREE = ENSEMBLES["three_paths"]
CHANGED = Architecture(2, (ARCHITECTURE.paths[0], ("k7e4", "skip", "k5e6", "k3e6")))


@pytest.mark.parametrize(
    "name, architecture, space, words",
    [
        ("missing", ARCHITECTURE, SPACE, ("'", "does not exist", ".keras", "scratch or supernet")),
        ("empty", ARCHITECTURE, SPACE, ("holds no model",)),
        ("broken.keras", ARCHITECTURE, SPACE, ("is no model that can be loaded",)),
        ("broken.weights.h5", ARCHITECTURE, SPACE, ("cannot be read",)),
        ("run/retrain/model/model.json", ARCHITECTURE, SPACE, ("expected a model folder",)),
        ("run", THREE, SPACE, ("holds an ensemble of 2 path(s), expected one of 3",)),
        ("run", CHANGED, SPACE, ("layer 4, path 2: k7e6", "expected k3e6 there")),
        ("tf_keras.weights.h5", CHANGED, SPACE, ("not the weights of architecture",)),
        ("deployed.keras", ARCHITECTURE, WIDER, ("(3, 3, 3, 8) of", "expected (3, 3, 3, 16)")),
    ],
)
def test_what_does_not_fit_is_one_sentence(name, architecture, space, words, stored):
    path = str(stored.folder / name)
    with pytest.raises(NeasError) as error:
        read_weights(path, "retrain.init", architecture, space).fitted(architecture, space, NAMES)
    text = str(error.value)
    assert text.startswith("retrain.init: ") and text.endswith(".") and "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize("zero", [False, True])
def test_a_supernet_takes_what_fits(stored, zero):
    """Gammas too: where a supernet starts from weights, none of those is set to 0."""
    # Layer 3 of the space has no k5e6; its last layer is wider.
    space = dataclasses.replace(SPACE, num_classes=7)
    supernet, fresh = (
        Supernet(space, 2, seed=3, zero_init_residual=zero, name="supernet") for _ in range(2)
    )
    told = start_supernet(supernet, read(stored, "run"), tuple("abcdefg"))
    assert "starts from " in told and "2 of 2 heads" in told and "stem" in told
    taken = {(s.layer, s.operator) for s in stored.slots if s.part == "layer"}
    assert f"{len(taken)} operators in {len({n for n, _ in taken})} of 4 layers" in told
    for slot, value in stored.slots.items():
        if "/moving_" in slot.role:
            continue
        expected = weight_of(fresh, slot) if is_head(slot) else value
        np.testing.assert_array_equal(weight_of(supernet, slot), expected)
    for number, (layer, before) in enumerate(
        zip(supernet.searchable, fresh.searchable, strict=True), 1
    ):
        changed = (layer.rows.numpy() != before.rows.numpy()).any(1)
        own = {space.operator_index(name) for n, name in taken if n == number}
        assert {layer.members[i] for i in np.flatnonzero(changed)} == own
    narrow = dataclasses.replace(
        SPACE, stages=tuple(dataclasses.replace(s, channels=s.channels + 8) for s in SPACE.stages)
    )
    with pytest.raises(NeasError, match=r"no operator of .* fits a layer of space 'small'"):
        start_supernet(Supernet(narrow, 2, name="supernet"), read(stored, "run"), NAMES)
    with pytest.raises(NeasError, match="does not say which ensemble"):
        read_weights(str(stored.folder / "keras.weights.h5"), "supernet.init")


@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adamw"])
def test_a_factor_on_the_trunks_rate_is_a_lower_rate(kind):
    """Not a smaller gradient, which RMSprop and Adam would not notice."""

    def train(rate, factor=None):
        config = optimization.OptimizationConfig(
            {
                # Without the clipping of AdamW, by which all gradients hang together.
                "optimizer": {"type": kind, "adamw": {"gradient_clip_norm": 0.0}},
                "learning_rate": {"type": "constant", "constant": {"learning_rate": rate}},
                "ema": {"average_decay": 0.9},
            }
        )
        layers = [
            tf_keras.layers.Dense(3, name=name, kernel_initializer="ones")
            for name in ("trunk_l01_k3e4_dw", "path1_feature", "path1_classifier")
        ]
        model = tf_keras.Sequential([tf_keras.Input((2,)), *layers])
        optimizer = create_optimizer(config, cfg.RuntimeConfig(), trunk_factor=factor)
        create_slots(optimizer, model)

        @tf.function
        def step():
            gradients = [tf.cos(17.0 * v) + 0.1 * v for v in model.trainable_variables]
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

        for _ in range(3):
            step()
        return {v.name: v.numpy() for v in model.trainable_variables}

    whole, half, both = train(0.1), train(0.05), train(0.1, lambda step: tf.constant(0.5))
    frozen = train(0.1, lambda step: tf.where(step < 3, 0.0, 1.0))
    fresh = train(0.0)
    for name, value in both.items():
        head = "classifier/" in name
        np.testing.assert_allclose(value, (whole if head else half)[name], atol=1e-6)
        np.testing.assert_array_equal(frozen[name], (whole if head else fresh)[name])
