import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from digits_ensemble import ARCHITECTURE, SPACE, dataset, ensemble
from mixed_space import MIXED
from small_ensembles import ENSEMBLES, randomise
from small_ensembles import SPACE as SMALL

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble, fold_for_deployment
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, NO_REWRITES
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.checks import expected_convolutions, predict_exported, random_images
from neas_tf.export.flat_graph import FlatLayer, build, flat_layers
from neas_tf.export.images import training_pixels
from neas_tf.export.quantization_aware import (
    _SMALLEST_RANGE,
    quantization_aware,
    quantized_outputs,
)
from neas_tf.export.tflite.conversion import Conversion
from neas_tf.space.architecture import Architecture

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def parts():
    digits = dataset()
    model, info = ensemble(digits)
    fused = fold_for_deployment(
        model,
        ARCHITECTURE,
        SPACE,
        rewrites=MOBILE_REWRITES,
        input_scale=info.normalisation.scale,
    )
    layers = flat_layers(fused, info.normalisation, MOBILE_REWRITES)
    images = training_pixels(digits, 48)
    return layers, images, quantization_aware(layers, SHAPE, images)


def wrappers(network):
    return {w.layer.name: w for w in network.layers if hasattr(w, "quantize_config")}


def test_fake_quantization_stays_near_the_float_graph(parts):
    layers, images, network = parts
    expected = build(layers, SHAPE).predict(images, verbose=0)
    found = network.predict(images, verbose=0)
    assert 0 < np.max(np.abs(found - expected)) < 0.2 * np.max(np.abs(expected))


def test_ranges_begin_at_what_the_maps_reach(parts):
    layers, images, network = parts
    logits = build(layers, SHAPE).predict(images, verbose=0)
    ranges = wrappers(network)["classifier"]._output_quantizer_vars
    low, high = float(ranges["min_var"]), float(ranges["max_var"])
    assert (low, high) == pytest.approx((logits.min(), logits.max()), rel=0.1)


def test_every_channel_of_a_depthwise_kernel_has_a_range(parts):
    layers, _, network = parts
    found = wrappers(network)
    for layer in layers:
        if layer.kind not in ("Conv2D", "DepthwiseConv2D"):
            continue
        kernel = layer.weights[0]
        axis = 2 if layer.kind == "DepthwiseConv2D" else 3
        reach = np.abs(kernel).max(tuple({0, 1, 2, 3} - {axis}))
        ((_, _, ranges),) = found[layer.name]._weight_vars
        np.testing.assert_allclose(ranges["max_var"], reach, rtol=1e-6)
        np.testing.assert_allclose(ranges["min_var"], -reach, rtol=1e-6)


def test_a_range_holds_zero_where_the_map_does_not(parts):
    """Logits of about −1000: padding, and the fake quantization itself, need zero among the values."""
    layers, images, _ = parts
    *_, last = (one for one in layers if one.name == "classifier")
    before = last.weights[1].copy()
    try:
        last.weights[1][:] -= 1000.0
        network = quantization_aware(layers, SHAPE, images)
    finally:
        last.weights[1][:] = before
    ranges = wrappers(network)["classifier"]._output_quantizer_vars
    assert float(ranges["min_var"]) < -900 and float(ranges["max_var"]) == 0.0


def test_a_map_of_nothing_keeps_a_range_in_long_training(parts):
    """Its moving average goes to zero, and with it the steps that biases are held in."""
    *_, network = parts
    wrapper = wrappers(network)["classifier"]
    quantizer, ranges = wrapper._output_quantizers[0], wrapper._output_quantizer_vars
    before = [value.numpy() for value in ranges.values()]
    try:
        ranges["min_var"].assign(0.0)
        ranges["max_var"].assign(_SMALLEST_RANGE)
        step = tf.function(lambda: quantizer(tf.zeros([2, 10]), True, ranges))
        for _ in range(200):
            step()
        assert float(ranges["max_var"] - ranges["min_var"]) >= 0.999 * _SMALLEST_RANGE
        quantizer(tf.fill([2, 10], 5.0), True, ranges)
        assert float(ranges["max_var"]) > _SMALLEST_RANGE, "and follows what comes"
    finally:
        for variable, value in zip(ranges.values(), before, strict=True):
            variable.assign(value)


def test_every_weight_is_trained_once(parts):
    layers, _, network = parts
    names = [v.name for v in network.trainable_variables]
    assert len(set(names)) == len(names) == sum(len(layer.weights) for layer in layers)


def layer(name, kind, *inputs):
    return FlatLayer(name, kind, {}, list(inputs), [])


def test_outputs_that_share_a_range_have_none_of_their_own():
    layers = [
        layer("conv", "Conv2D", "image"),
        layer("relu", "ReLU", "conv"),
        layer("pad", "ZeroPadding2D", "relu"),
        layer("left", "Conv2D", "pad"),
        layer("right", "Conv2D", "pad"),
        layer("both", "Concatenate", "left", "right"),
        layer("flat", "Flatten", "both"),
        layer("dense", "Dense", "flat"),
    ]
    assert quantized_outputs(layers) == {"relu", "both", "dense"}


def test_ranges_need_images(parts):
    layers, images, _ = parts
    with pytest.raises(NeasError, match="images"):
        quantization_aware(layers, SHAPE, images[:0])


FAMILIES = Architecture(
    1,
    (
        ("fused_k3e2_se_relu", "fused_k5e2", "uib_s3m5e2", "uib_s3e4_se_swish", "k3e2"),
        ("fused_k3e2_se_relu", "k3e2", "uib_m3e2", "uib_e2", "fused_k3e2"),
    ),
)


@pytest.mark.parametrize(
    ("architecture", "space", "rewrites"),
    [
        (FAMILIES, MIXED, MOBILE_REWRITES),
        (ENSEMBLES["one_path"], SMALL, NO_REWRITES),
    ],
    ids=["families", "plain"],
)
def test_every_operator_becomes_an_integer_graph(architecture, space, rewrites, tmp_path):
    """Without training: the ranges are in the graph from the beginning. Some channels are dead."""
    model = build_ensemble(architecture, space, dtype="float32")
    randomise(model)
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":  # channels of nothing, as pruning leaves some
            kernel, *rest = layer.get_weights()
            kernel[..., :2] = 0
            layer.set_weights([kernel, *rest])
    names = tuple(map(str, range(space.num_classes)))
    info = LoadedInfo(architecture, space, names, Normalisation())
    fused = fold_for_deployment(
        model, architecture, space, rewrites=rewrites, input_scale=info.normalisation.scale
    )
    layers = flat_layers(fused, info.normalisation, rewrites)
    for one in layers:  # layers without effect, as weight decay leaves some: a bias is all
        if one.name.endswith(("se_reduce", "se_expand")):
            kernel, bias = one.weights
            kernel *= 1e-7
            bias[:] = 1e-5 if one.name.endswith("se_reduce") else np.linspace(-4, 4, len(bias))
    *_, last = (one for one in layers if one.kind == "DepthwiseConv2D")
    last.weights[0][:] = 0
    last.weights[1][:] = np.linspace(-4, 4, len(last.weights[1]))
    assert any(one.name.endswith("se_expand") for one in layers)
    images = random_images(space, 16).astype(np.float32)
    network = quantization_aware(layers, (*space.input_size, 3), images)
    conversion = Conversion(info, rewrites, "int8_qat", None, "int8", "int8")
    path = tmp_path / "m.tflite"
    path.write_bytes(conversion.content(model, network))
    found = conversion.describe(path)
    assert found["float_islands"] == {} and "float32" not in found["tensor_types"]
    assert found["xnnpack_partitions"] == 1 and found["not_delegated"] == {}
    convolutions = found["ops"]["CONV_2D"] + found["ops"]["DEPTHWISE_CONV_2D"]
    assert convolutions == expected_convolutions(architecture, space, rewrites)
    expected = network.predict(images, verbose=0)
    logits = predict_exported(path, images)["logits"]
    assert np.max(np.abs(logits - expected)) < 0.1 * np.max(np.abs(expected))
    runner = Interpreter(str(path))
    runner.allocate_tensors()
    for tensor in runner.get_tensor_details():
        if tensor["dtype"] == np.int32 and len(tensor["quantization_parameters"]["scales"]):
            assert np.max(np.abs(runner.get_tensor(tensor["index"]).astype(np.int64))) < 2**31 - 1
