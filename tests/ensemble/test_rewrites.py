import dataclasses
import itertools

import keras as keras3
import numpy as np
import pytest
import tf_keras
from hypothesis import given
from hypothesis import strategies as st
from small_ensembles import ENSEMBLES, SPACE, images, randomise

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.layers import LayerFactory
from neas_tf.ensemble.model import build_ensemble, fold_for_deployment
from neas_tf.ensemble.rewrites import (
    MAX_TAPS,
    MOBILE_REWRITES,
    NO_REWRITES,
    Rewrites,
    deployed_weights,
    depthwise_parts,
    folded_depthwise,
    input_constants,
    part_name,
    source_of_part,
)
from neas_tf.space.architecture import Architecture


@given(
    st.sampled_from([1, 3, 5, 7, 9, 11, 13, 27]),
    st.sampled_from([1, 2, 3]),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_parts_hold_every_row_that_meets_a_pixel_once(kernel, stride, size):
    parts = depthwise_parts(kernel, stride, size)
    if kernel not in (7, 9, 11) or stride == 3:
        assert parts == ()
        return
    rows = [row for part in parts for row in part.rows]
    assert len(rows) == len(set(rows)) and kernel // 2 in rows
    assert all(len(part.rows) * kernel <= MAX_TAPS for part in parts)
    last = (size[0] - 1) // stride * stride
    useful = {r for r in range(kernel) if r - kernel // 2 < size[0] and last + r >= kernel // 2}
    assert useful <= set(rows)
    assert all(part.rows == tuple(range(part.rows[0], part.rows[-1] + 1)) for part in parts)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(28, 28), (9, 12), (7, 7), (4, 5), (3, 3), (2, 2), (1, 1)])
@pytest.mark.parametrize("kernel", [7, 9, 11])
def test_the_sum_of_the_parts_is_the_convolution(kernel, stride, size, rng):
    def model(rewrites):
        make = LayerFactory(tf_keras, rewrites=rewrites)
        image = tf_keras.Input((*size, 6))
        return tf_keras.Model(image, make.depthwise(image, "x_dw", kernel, stride))

    whole, split = model(NO_REWRITES), model(Rewrites(depthwise=True))
    randomise(whole)
    weights = deployed_weights(
        [layer.name for layer in split.layers if layer.weights] + ["classifier"],
        {layer.name: layer.get_weights() for layer in whole.layers if layer.weights}
        | {"path1_classifier": [np.zeros((2, 2)), np.zeros(2)]},
        Rewrites(depthwise=True),
        1e-5,
    )
    for layer in split.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    x = rng.standard_normal((2, *size, 6)).astype(np.float32)
    np.testing.assert_allclose(split(x), whole(x), atol=1e-5, rtol=1e-5)
    assert not any("BatchNorm" in type(layer).__name__ for layer in split.layers)


ALL = [Rewrites(*flags) for flags in itertools.product((False, True), repeat=3) if any(flags)]


@pytest.mark.parametrize("architecture", ENSEMBLES.values(), ids=ENSEMBLES)
def test_rewritten_ensembles_give_the_same_logits(architecture):
    model = build_ensemble(architecture, SPACE)
    randomise(model)
    x = images()
    expected = np.mean(model(x), axis=1)
    for rewrites in ALL if architecture.num_paths == 2 else [MOBILE_REWRITES]:
        scale = np.array([0.5, 2.0, 1.5], np.float32)
        fused = fold_for_deployment(
            model, architecture, SPACE, rewrites=rewrites, input_scale=scale
        )
        pixels = x / scale if rewrites.normalisation else x
        np.testing.assert_allclose(fused(pixels), expected, atol=1e-5)
        kernels = [
            layer.kernel_size for layer in fused.layers if type(layer).__name__ == "DepthwiseConv2D"
        ]
        assert any(np.prod(k) > MAX_TAPS for k in kernels) == (
            not rewrites.depthwise and "k7" in architecture.key
        )
    twin = fold_for_deployment(
        model, architecture, SPACE, keras=keras3, rewrites=Rewrites(depthwise=True, gates=True)
    )
    np.testing.assert_allclose(twin(x), expected, atol=1e-5)


@pytest.mark.parametrize("side", [32, 33, 47])
def test_7x7_at_both_strides_and_odd_sizes(side):
    space = dataclasses.replace(SPACE, input_size=(side, side + 3))
    if side == 33:
        architecture = Architecture(1, (("k9e4", "k11e4", "k9e4", "skip"),))
        space = dataclasses.replace(space, operators=("k9e4", "k11e4", "skip"))
    else:
        architecture = Architecture(
            1, (("k7e4", "k7e6", "k7e4", "k7e6"), ("k7e4", "k3e4", "k7e6", "skip"))
        )
    model = build_ensemble(architecture, space)
    randomise(model)
    fused = fold_for_deployment(model, architecture, space, rewrites=Rewrites(depthwise=True))
    x = images(space)
    np.testing.assert_allclose(fused(x), np.mean(model(x), axis=1), atol=1e-5)


def test_the_normalisation_in_front_of_a_stem_that_holds_its_scale(rng):
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    constants = normalisation.scale, normalisation.offset
    pixels = rng.uniform(0, 255, (2, 4, 6, 3))
    scale, offset = input_constants(*constants, 6, NO_REWRITES)
    np.testing.assert_allclose(pixels * scale + offset, normalisation.apply(pixels), atol=1e-5)
    scale, offset = input_constants(*constants, 6, MOBILE_REWRITES)
    assert scale == 1.0 and np.shape(offset) == (6, 3)  # a whole row: one long sum for XNNPACK
    result = (pixels + offset) * normalisation.scale
    np.testing.assert_allclose(result, normalisation.apply(pixels), atol=1e-5)


def test_names_of_parts():
    part = depthwise_parts(7, 1, (14, 14))[1]
    name = part_name("path2_l17_k7e6_dw", part)
    assert source_of_part(name) == ("path2_l17_k7e6_dw", list(part.rows))
    assert source_of_part("path2_l17_k7e6_dw") is None
    assert source_of_part("path2_l17_k7e6_dw_bn") is None


def test_folding_takes_the_batch_normalisation_in(rng):
    kernel = rng.standard_normal((3, 3, 4, 1))
    gamma, beta, mean = rng.standard_normal((3, 4))
    variance = rng.uniform(0.5, 2, 4)
    folded, bias = folded_depthwise(kernel, [gamma, beta, mean, variance], 1e-5)
    y = kernel.sum((0, 1, 3))  # of an image of ones
    expected = (y - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(folded.sum((0, 1, 3)) + bias, expected, atol=1e-5)


def test_rewrites_belong_to_the_deployed_form():
    with pytest.raises(NeasError, match="rewrites"):
        build_ensemble(ENSEMBLES["two_paths"], SPACE, rewrites=MOBILE_REWRITES)
