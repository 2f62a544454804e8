"""The supernet's layer with operators of every family: stacks, slices, moments, updates."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from reference_evaluation import supernet_logits, supernet_statistics

from neas_tf.architecture import Architecture
from neas_tf.errors import NeasError
from neas_tf.inherit import inherited_ensemble
from neas_tf.operators import Operator
from neas_tf.searchable_layer import SearchableLayer, Stack
from neas_tf.space import SearchSpace
from neas_tf.supernet import Supernet
from tests.mixed_space import MIXED


def images(count=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def supernet():
    model = Supernet(MIXED, 2, seed=3, name="supernet")
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        if len(v.shape) < 3:
            v.assign(v + rng.normal(0, 0.2, v.shape).astype(np.float32))
    return model


PATHS = (
    ("fused_k3e2", "fused_k3e2_se_relu", "uib_s3m5e2", "uib_e2", "k3e4"),
    ("fused_k5e2", "k3e2", "uib_m3e2", "uib_s3e4_se_swish", "uib_s5m3e2"),
)


@pytest.mark.parametrize("split", [0, 3, 5])
def test_slice_equals_the_stand_alone_network(supernet, split):
    rows = (PATHS[0], PATHS[0][:split] + PATHS[1][split:])
    architecture = Architecture(split, rows).check_in(MIXED)
    statistics = supernet_statistics(supernet, architecture, images(8, 5), 8)
    alone = inherited_ensemble(supernet, architecture, statistics)
    np.testing.assert_allclose(
        alone(images(6, 2), training=False).numpy().transpose(1, 0, 2),
        supernet_logits(supernet, architecture, statistics, images(6, 2)),
        atol=1e-4,
    )


def test_stacks_of_a_layer(supernet):
    layer = supernet.searchable[3]
    stacks = {stack.name: [op.name for op in stack.operators] for stack in layer.stacks}
    assert stacks == {
        "e2": ["k3e2", "k5e2"],
        "e4": ["k3e4"],
        "fused_e2": ["fused_k3e2", "fused_k5e2"],
        "fused_e2_se_relu": ["fused_k3e2_se_relu"],
        "uib_sme2": ["uib_s3m5e2", "uib_s5m3e2"],
        "uib_me2": ["uib_m3e2"],
        "uib_se4_se_swish": ["uib_s3e4_se_swish"],
        "uib_e2": ["uib_e2"],
    }
    # start_dw, expand, dw, project at most; widths of the widest operator.
    assert layer.moment_widths == [64, 64, 32, 16]


def test_only_the_drawn_rows_move(supernet):
    layer: SearchableLayer = supernet.searchable[3]
    before = {role: v.numpy() for role, v in layer.roles.items()}
    names = ("uib_s5m3e2", "skip")
    drawn = tf.constant([MIXED.operator_index(n) for n in names])
    x = tf.random.stateless_normal([4, 6, 6, 16], (1, 2))
    _, moments = layer([x, x], drawn, tf.constant(0))
    layer.update_moving(moments, 0.5, drawn)
    moved = {role for role, v in layer.roles.items() if not np.array_equal(v, before[role])}
    expected = {
        f"uib_sme2/{name}_bn/{kind}"
        for name in ("start_dw", "expand", "dw", "project")
        for kind in ("moving_mean", "moving_variance")
    }
    assert moved == expected
    for role in expected:
        np.testing.assert_array_equal(layer.roles[role].numpy()[0], before[role][0])
    for role, v in layer.roles.items():
        v.assign(before[role])


def test_every_variable_has_rows_for_the_optimizer(supernet):
    for layer in supernet.searchable:
        for role, variable in layer.roles.items():
            assert len(layer.row_operators[role]) == variable.shape[0]


def test_weight_of_an_operator(supernet):
    layer = supernet.searchable[3]
    assert layer.weight("uib_s5m3e2", "start_dw/kernel").shape == (5, 5, 16, 1)
    assert layer.weight("fused_k5e2", "expand/kernel").shape == (5, 5, 16, 32)
    rows = layer.roles["uib_sme2/expand/kernel"].numpy()
    np.testing.assert_array_equal(layer.weight("uib_s5m3e2", "expand/kernel"), rows[1])


def test_operators_of_one_stack_must_have_one_structure():
    space = SearchSpace(operators=("k3e4", "k3e6"))
    members = {i: Operator.parse(name) for i, name in enumerate(space.operators)}
    with pytest.raises(NeasError, match="differ in kernel sizes only"):
        Stack.of("both", members, space.layers[0])
