import dataclasses

import keras
import numpy as np
import pytest
import tf_keras
from small_ensembles import ENSEMBLES, NEAS_L, NEAS_S, SPACE, images, randomise

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.model import (
    build_ensemble,
    fold_for_deployment,
    model_slots,
    trunk_variables,
    weight_slots,
)
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

every_ensemble = pytest.mark.parametrize("architecture", ENSEMBLES.values(), ids=ENSEMBLES)
PAPER = SearchSpace()


def build(architecture, seed=0, **options):
    model = build_ensemble(architecture, SPACE, **options)
    randomise(model, seed)
    return model


def count_macs(model) -> int:
    total = 0
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D", "Dense"):
            positions = np.prod(layer.output.shape[1:3]) if kind != "Dense" else 1
            total += int(positions) * int(np.prod(layer.weights[0].shape))
    return total


def conv(x, kernel, stride=1, depthwise=False):
    """NumPy reference with k//2 zeros on each side; kernel (k, k, in, out or 1)."""
    k = kernel.shape[0]
    pad = k // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]  # (b, h', w', in, k, k)
    if depthwise:
        return np.einsum("bhwcij,ijc->bhwc", windows, kernel[..., 0])
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


def swish(x):
    return x / (1 + np.exp(-x))


class Reference:
    """The ensemble's sub-layers in NumPy, with the weights of a model."""

    def __init__(self, model):
        self.weights = {layer.name: layer.get_weights() for layer in model.layers}

    def bn(self, x, name):
        gamma, beta, mean, variance = self.weights[name]
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def se(self, x, prefix):
        reduce, expand = self.weights[f"{prefix}_se_reduce"], self.weights[f"{prefix}_se_expand"]
        gate = np.maximum(conv(x.mean((1, 2), keepdims=True), reduce[0]) + reduce[1], 0)
        return x * np.clip(conv(gate, expand[0]) + expand[1] + 3, 0, 6) / 6

    def dw(self, x, prefix, stride):
        x = conv(x, self.weights[f"{prefix}_dw"][0], stride, depthwise=True)
        return self.se(swish(self.bn(x, f"{prefix}_dw_bn")), prefix)

    def mbconv(self, x, prefix, stride):
        y = swish(self.bn(conv(x, self.weights[f"{prefix}_expand"][0]), f"{prefix}_expand_bn"))
        y = conv(self.dw(y, prefix, stride), self.weights[f"{prefix}_project"][0])
        y = self.bn(y, f"{prefix}_project_bn")
        return x + y if y.shape == x.shape else y

    def trunk(self, x):
        x = swish(self.bn(conv(x, self.weights["stem_conv"][0], 2), "stem_bn"))
        y = conv(self.dw(x, "block", 1), self.weights["block_pw"][0])
        return x + self.bn(y, "block_pw_bn")

    def head(self, x, k):
        x = swish(self.bn(conv(x, self.weights[f"path{k}_head_conv"][0]), f"path{k}_head_bn"))
        kernel, bias = self.weights[f"path{k}_feature"]
        x = swish(conv(x.mean((1, 2), keepdims=True), kernel) + bias)[:, 0, 0]
        kernel, bias = self.weights[f"path{k}_classifier"]
        return x @ kernel + bias


def test_equals_a_numpy_reference_with_symmetric_padding_at_stride_two():
    model, x = build(ENSEMBLES["two_paths"]), images()
    reference = Reference(model)
    trunk = reference.mbconv(reference.trunk(x), "trunk_l01_k7e4", 2)
    one = reference.mbconv(trunk, "path1_l03_k3e4", 2)
    two = reference.mbconv(trunk, "path2_l03_k5e6", 2)
    two = reference.mbconv(two, "path2_l04_k7e6", 1)
    expected = np.stack([reference.head(one, 1), reference.head(two, 2)], 1)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    names = {layer.name for layer in model.layers}
    # Sides 24 × 20, 12 × 10 and 6 × 5: not both odd, so that SAME would pad at the end only.
    assert {"stem_conv_pad", "trunk_l01_k7e4_dw_pad", "path1_l03_k3e4_dw_pad"} <= names


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_stride_two_sees_the_same_pixels_whether_sides_are_odd_or_even(size, kernel):
    space = dataclasses.replace(SPACE, input_size=(size, size), stem_kernel=kernel)
    model = build_ensemble(ENSEMBLES["one_path"], space)
    layer = model.get_layer("stem_conv")
    x = images(space)
    stem = tf_keras.Model(model.input, layer.output)(x)
    np.testing.assert_allclose(stem, conv(x, layer.get_weights()[0], 2), atol=1e-5)


@every_ensemble
def test_shapes_names_parameters_and_macs(architecture):
    model = build_ensemble(architecture, SPACE)
    assert model.output_shape == (None, architecture.num_paths, SPACE.num_classes)
    cost = CostTable(SPACE).cost(architecture)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == cost.params
    assert count_macs(model) == cost.macs
    names = [layer.name for layer in model.layers]
    for number, operator in enumerate(architecture.shared, 1):
        prefix = f"trunk_l{number:02d}_{operator}"
        assert names.count(f"{prefix}_expand") == (operator != "skip")
    for k, row in enumerate(architecture.paths, 1):
        for number in range(architecture.split_point + 1, 5):
            operator = row[number - 1]
            assert names.count(f"path{k}_l{number:02d}_{operator}_dw") == (operator != "skip")


@pytest.mark.parametrize(("official", "params"), [(NEAS_S, 8_657_656), (NEAS_L, 12_444_832)])
def test_published_networks_have_their_parameters_and_macs(official, params):
    architecture = Architecture.from_official(official)
    model = build_ensemble(architecture, PAPER)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == params
    assert count_macs(model) == CostTable(PAPER).cost(architecture).macs


@every_ensemble
def test_slots_stand_in_the_order_of_the_weights(architecture):
    model = build_ensemble(architecture, SPACE)
    slots = weight_slots(architecture, SPACE)
    assert list(slots) == model_slots(model)
    assert len(slots) == len(set(slots)) == len(model.weights)
    for slot, weight in zip(slots, model.weights, strict=True):
        name = weight.name.split(":")[0].replace("depthwise_kernel", "kernel")
        assert name.endswith(slot.role), (slot, name)
        if slot.part == "layer":
            assert f"_l{slot.layer:02d}_{slot.operator}_" in name
            assert architecture.paths[slot.path][slot.layer - 1] == slot.operator
            shared = slot.layer <= architecture.split_point
            assert name.startswith("trunk_" if shared else f"path{slot.path + 1}_")
        elif slot.part == "head":
            assert name.startswith(f"path{slot.path + 1}_")
        else:
            assert name.startswith(f"{slot.part}_")


@every_ensemble
def test_keras_3_twin_has_the_same_weights_and_outputs(architecture):
    model = build(architecture)
    twin = build_ensemble(architecture, SPACE, keras=keras)
    assert [w.shape for w in twin.weights] == [tuple(w.shape) for w in model.weights]
    assert model_slots(twin) == model_slots(model)
    twin.set_weights(model.get_weights())
    x = images()
    np.testing.assert_allclose(twin(x), model(x), atol=2e-6)
    folded = fold_for_deployment(model, architecture, SPACE, keras=keras)
    np.testing.assert_allclose(folded(x), np.mean(model(x), axis=1), atol=1e-5)


@every_ensemble
def test_fused_form_gives_the_mean_of_the_logits(architecture):
    model, x = build(architecture), images()
    fused = fold_for_deployment(model, architecture, SPACE)
    assert fused.output_shape == (None, SPACE.num_classes)
    np.testing.assert_allclose(fused(x), np.mean(model(x), axis=1), atol=1e-5)
    assert sum(type(layer).__name__ == "Dense" for layer in fused.layers) == 1
    assert not any("Dropout" in type(layer).__name__ for layer in fused.layers)


def test_other_outputs():
    architecture, x = ENSEMBLES["two_paths"], images()
    model = build(architecture)
    mean = build_ensemble(architecture, SPACE, outputs="mean")
    mean.set_weights(model.get_weights())
    np.testing.assert_allclose(mean(x), np.mean(model(x), axis=1), atol=1e-6)
    features = build_ensemble(architecture, SPACE, outputs="features")
    assert features.output_shape == (None, 2, SPACE.feature_channels)
    maps = build_ensemble(architecture, SPACE, outputs="maps")
    assert maps.output_shape == [(None, 3, 3, 16)] * 2


def test_trunk_variables_are_all_that_paths_share():
    model = build_ensemble(ENSEMBLES["two_paths"], SPACE)
    shared = {v.name for v in trunk_variables(model)}
    assert shared == {v.name for v in model.trainable_weights if not v.name.startswith("path")}
    assert "stem_conv/kernel:0" in shared and "trunk_l01_k7e4_project_bn/gamma:0" in shared


def test_mixed_precision_gives_float32_logits():
    model = build_ensemble(ENSEMBLES["two_paths"], SPACE, dtype="mixed_bfloat16")
    assert model(images()).dtype == "float32"
    assert model.get_layer("trunk_l01_k7e4_expand").compute_dtype == "bfloat16"
    assert all(w.dtype == "float32" for w in model.weights)
    fused = fold_for_deployment(model, ENSEMBLES["two_paths"], SPACE)
    assert fused.get_layer("stem_conv").compute_dtype == "float32"


def test_round_trips_through_a_file(tmp_path):
    model = build(ENSEMBLES["two_paths"], drop_path=0.2)
    model.save(tmp_path / "model.keras")
    again = tf_keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images()), model(images()))
    assert model_slots(again) == model_slots(model)


def test_dropout_and_drop_path_act_in_training_only():
    space = dataclasses.replace(SPACE, stages=SPACE.stages[:1], max_split=2)
    architecture = Architecture(2, (("k3e4", "k5e4"),))
    model = build_ensemble(architecture, space, dropout=0.5, drop_path=0.9)
    randomise(model)
    rates = {x.name: x.rate for x in model.layers if "Dropout" in type(x).__name__}
    assert rates == {"trunk_l02_k5e4_drop_path": 0.9, "path1_dropout": 0.5}
    x = images(space)
    np.testing.assert_array_equal(model(x), model(x))
    assert np.abs(model(x, training=True) - model(x, training=True)).max() > 0


@every_ensemble
def test_dropout_rates_do_not_change_the_order_of_the_weights(architecture):
    one = build_ensemble(architecture, SPACE, dropout=0.0)
    two = build_ensemble(architecture, SPACE, dropout=0.1, drop_path=0.2, outputs="mean")
    assert model_slots(one) == model_slots(two)


@pytest.mark.parametrize("module", [tf_keras, keras], ids=["tf_keras", "keras"])
def test_drop_path_drops_whole_images(module):
    from neas_tf.ensemble.layers import LayerFactory

    make = LayerFactory(module)
    x = module.Input((2, 2, 3))
    model = module.Model(x, make.dropout(x, "drop", 0.5, (None, 1, 1, 1)))
    y = np.array(model(np.ones((64, 2, 2, 3), np.float32), training=True)).reshape(64, -1)
    assert np.all(y == y[:, :1]) and set(np.unique(y)) == {0.0, 2.0}


def test_a_seed_makes_initial_weights_reproducible():
    one, two, other = (build_ensemble(ENSEMBLES["two_paths"], SPACE, seed=s) for s in (3, 3, 4))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])
    # Paths begin differently.
    first, second = (one.get_layer(f"path{k}_head_conv").get_weights()[0] for k in (1, 2))
    assert not np.array_equal(first, second)


def test_a_space_without_the_fixed_block():
    space = dataclasses.replace(SPACE, block_channels=0, stem_stride=1)
    model = build_ensemble(ENSEMBLES["two_paths"], space)
    assert not any(layer.name.startswith("block_") for layer in model.layers)
    assert count_macs(model) == CostTable(space).cost(ENSEMBLES["two_paths"]).macs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "logit"}, "Did you mean 'logits'"),
        ({"outputs": "maps", "deploy": True}, "outputs"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(NeasError, match=message):
        build_ensemble(ENSEMBLES["two_paths"], SPACE, **options)


def test_a_foreign_architecture_is_refused():
    model = build_ensemble(ENSEMBLES["two_paths"], SPACE)
    with pytest.raises(NeasError, match="layers"):
        build_ensemble(ENSEMBLES["two_paths"], PAPER)
    with pytest.raises(NeasError, match="architecture"):
        fold_for_deployment(model, ENSEMBLES["all_shared"], SPACE)
