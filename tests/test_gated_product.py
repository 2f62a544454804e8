"""The gate folded into the convolution behind it: the same numbers as without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from neas_tf import gated_product
from neas_tf.operator_program import LayerProgram
from neas_tf.operators import Operator, operator_steps
from neas_tf.searchable_layer import SearchableLayer
from neas_tf.space import LayerSpec

LAYER = LayerSpec(2, 0, 8, 8, 1, (8, 8), (8, 8), ("k3e4", "k5e4", "k3e6"))


def draw(seed, *shape):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), tf.float32)


def test_product_and_gradients_are_those_of_the_gated_map():
    x, gate, kernel, dy = draw(1, 3, 8, 6, 12), draw(2, 3, 12), draw(3, 1, 1, 12, 5), None
    with tf.GradientTape() as tape:
        tape.watch([x, gate, kernel])
        y = tf.nn.conv2d(x * gate[:, None, None, :], kernel, 1, "SAME")
    dy = draw(4, *y.shape)
    np.testing.assert_allclose(gated_product.product(x, gate, kernel), y, rtol=1e-5, atol=1e-5)
    found = gated_product.gradients(x, gate, kernel, dy)
    for ours, theirs in zip(found, tape.gradient(y, [x, gate, kernel], dy), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"c_out": 11}, False),
        ({"kernel": 3}, False),
        ({"stride": 2}, False),
        ({"kind": "depthwise"}, False),
    ],
)
def test_only_1x1_convolutions_of_large_maps(change, expected, monkeypatch):
    squeeze, project = operator_steps(Operator.parse("k3e4"), LAYER)[2:]
    assert (squeeze.kind, project.kind, project.c_out) == ("squeeze_excite", "conv", 8)
    changed = dataclasses.replace(project, **change)
    monkeypatch.setattr(gated_product, "cpu_only", lambda: True)
    assert gated_product.is_worthwhile(squeeze, changed) == expected
    monkeypatch.setattr(gated_product, "cpu_only", lambda: False)
    assert not gated_product.is_worthwhile(squeeze, project)


@pytest.mark.parametrize("operator", LAYER.operators)
def test_a_layer_is_the_same_with_and_without(operator, monkeypatch):
    operators = ("skip", *LAYER.operators)
    layer = SearchableLayer(LAYER, operators, 1, False, True, seed=3, name="layer")
    layer.build((None, 8, 8, 8))
    x, dy = draw(5, 4, 8, 8, 8), draw(6, 4, 8, 8, 8)
    drawn = tf.constant([operators.index(operator)])
    results = []
    for folded in (True, False):
        monkeypatch.setattr(gated_product, "cpu_only", lambda folded=folded: folded)
        program = LayerProgram(layer.shape)  # a new one: the trace depends on the choice
        row = tf.reshape(layer.drawn_rows(drawn), [-1])
        with tf.GradientTape() as tape:
            tape.watch([x, row])
            y, *moments = program(x, row, layer.choice(drawn[0]), None)
        results.append([y, *moments, *tape.gradient(y, [x, row], dy)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)
