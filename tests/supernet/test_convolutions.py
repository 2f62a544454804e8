"""Convolutions whose gradients are written out: the same numbers as the library's own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from neas_tf.supernet import convolutions, functional


def draw(seed, *shape):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), tf.float32)


def library(function, x, kernel, dy, *, stride):
    """Result and gradients of a plain call, differentiated by the tape."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = function(x, kernel, stride)
    return y, tape.gradient(y, [x, kernel], dy)


@pytest.mark.parametrize("size", [(9, 9), (4, 4), (1, 1), (2, 5), (8, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_depthwise(size, stride, kernel):
    x, weights = draw(1, 3, *size, 6), draw(2, kernel, kernel, 6, 1)
    dy = draw(3, 3, *(-(-side // stride) for side in size), 6)
    y, expected = library(convolutions.convolve_channels, x, weights, dy, stride=stride)
    assert y.shape == dy.shape
    found = convolutions.depthwise_gradients(x, weights, stride, dy)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolution(stride, kernel):
    x, weights = draw(1, 3, 7, 8, 6), draw(2, kernel, kernel, 6, 5)
    dy = draw(3, 3, *(-(-side // stride) for side in (7, 8)), 5)
    y, expected = library(convolutions.convolve, x, weights, dy, stride=stride)
    # Symmetric padding, by hand.
    pad = kernel // 2
    padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    np.testing.assert_allclose(
        y, tf.nn.conv2d(padded, weights, stride, "VALID"), rtol=1e-4, atol=1e-4
    )
    found = convolutions.convolution_gradients(x, weights, stride, dy)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["depthwise", "convolution"])
def test_the_tape_takes_the_written_out_gradients(name):
    x = draw(1, 2, 8, 8, 6)
    weights = draw(2, 5, 5, 6, 1 if name == "depthwise" else 4)
    dy = draw(3, 2, 8, 8, 6 if name == "depthwise" else 4)
    _, found = library(getattr(functional, name), x, weights, dy, stride=1)
    expected = getattr(convolutions, f"{name}_gradients")(x, weights, 1, dy)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_stays_bfloat16(stride):
    x, weights = tf.cast(draw(1, 2, 8, 8, 6), tf.bfloat16), draw(2, 5, 5, 6, 1)
    dy = tf.cast(draw(3, 2, 8 // stride, 8 // stride, 6), tf.bfloat16)
    found = convolutions.depthwise_gradients(x, weights, stride, dy)
    exact = convolutions.depthwise_gradients(
        tf.cast(x, tf.float32), weights, stride, tf.cast(dy, tf.float32)
    )
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == tf.bfloat16
        np.testing.assert_allclose(
            tf.cast(ours, tf.float32), theirs, atol=0.05 * float(tf.reduce_max(tf.abs(theirs)))
        )


def test_unknown_sizes():
    """Detectors and evaluators trace for any batch, some for any size."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 6])])
    def gradient(x):
        y, pull = draw(2, 5, 5, 6, 1), tf.ones_like(x)
        return convolutions.depthwise_gradients(x, y, 1, pull)

    x = draw(1, 2, 4, 4, 6)
    expected = convolutions.depthwise_gradients(x, draw(2, 5, 5, 6, 1), 1, tf.ones_like(x))
    for ours, theirs in zip(gradient(x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
