"""The supernet's layer with operators of every family: stacks, slices, moments, updates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from mixed_space import MIXED
from reference_evaluation import by_norm, supernet_logits, supernet_statistics
from tiny_training import shaken

from neas_tf.common.errors import NeasError
from neas_tf.operators import Operator
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet import switches
from neas_tf.supernet.inheritance import inherited_ensemble
from neas_tf.supernet.layer_program import layer_program
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.row_layout import Stack
from neas_tf.supernet.searchable_layer import SearchableLayer, drawn_in, update_moving


def images(count=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def supernet():
    return shaken(Supernet(MIXED, 2, seed=3, name="supernet"), 0.2)


PATHS = (
    ("fused_k3e2", "fused_k3e2_se_relu", "uib_s3m5e2", "uib_e2", "k3e4"),
    ("fused_k5e2", "k3e2", "uib_m3e2", "uib_s3e4_se_swish", "uib_s5m3e2"),
)


@pytest.mark.parametrize("split", [0, 3, 5])
def test_slice_equals_the_stand_alone_network(supernet, split):
    rows = (PATHS[0], PATHS[0][:split] + PATHS[1][split:])
    architecture = Architecture(split, rows).check_in(MIXED)
    statistics = supernet_statistics(supernet, architecture, images(8, 5), 8)
    alone = inherited_ensemble(supernet, architecture, by_norm(supernet, statistics))
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
    assert layer.shape.moment_widths == (64, 64, 32, 16)


def test_only_the_drawn_rows_move(supernet):
    layer: SearchableLayer = supernet.searchable[3]
    rows, before = layer.rows.numpy(), layer.moving.numpy()
    names = ("uib_s5m3e2", "skip")
    drawn = drawn_in([layer], tf.constant([0, *map(MIXED.operator_index, names)]))
    x = tf.random.stateless_normal([4, 6, 6, 16], (1, 2))
    _, moments = layer([x, x], drawn.layers[0])
    update_moving([layer], [moments], drawn, 0.5)
    np.testing.assert_array_equal(layer.rows.numpy(), rows)
    for number, index in enumerate(layer.members):
        moved = not np.array_equal(layer.moving.numpy()[number], before[number])
        assert moved == (index == MIXED.operator_index("uib_s5m3e2"))
    mean = layer.weight("uib_s5m3e2", "expand_bn/moving_mean")
    found = moments[0][0].numpy()[layer.shape.moment_widths[0] :]  # the second one's
    np.testing.assert_allclose(mean, 0.5 * found[: len(mean)], rtol=1e-6)
    layer.moving.assign(before)


def test_what_is_drawn_is_found_for_all_layers_at_once(supernet):
    """Against each layer's own lists; the second path runs nothing before the split."""
    split, num_paths = 3, len(PATHS)
    rows = (PATHS[0], PATHS[0][:split] + PATHS[1][split:])
    code = tf.constant(Architecture(split, rows).check_in(MIXED).to_array(MIXED))
    found = supernet.drawn(code)
    for number, (layer, drawn) in enumerate(zip(supernet.searchable, found.layers, strict=True), 1):
        indices = [MIXED.operator_index(row[number - 1]) for row in rows]
        for k, index in enumerate(indices):
            branch, member = (int(x) for x in drawn.choices[k])
            if k and number <= split and layer.can_share:
                assert branch == len(layer.stacks) + layer.has_skip
            else:
                assert layer.stacks[branch].indices[member] == index
        assert [layer.members[row] for row in drawn.rows.numpy()] == indices
        expected = np.zeros((found.weights.shape[0], num_paths))
        for k, index in enumerate(indices):
            expected[layer.members.index(index), k] = 1 / indices.count(index)
        np.testing.assert_array_equal(found.weights[:, :, number - 1], expected)
        np.testing.assert_array_equal(found.moves[:, number - 1], expected.any(1))


def test_beside_an_accelerator_choices_are_made_on_the_host(supernet, monkeypatch):
    monkeypatch.setattr(switches, "accelerated", lambda: True)
    places = []

    @tf.function(autograph=False)
    def look(code):
        with tf.device("GPU:0"):  # traced only
            places.extend(supernet.drawn(code).layers)
        return code

    look.get_concrete_function(tf.TensorSpec([1 + 2 * MIXED.num_layers], tf.int32))
    for drawn in places:
        integers = [number for choice in drawn.choices for number in choice]
        assert {x.device.rpartition("device:")[2] for x in integers} == {"CPU:0"}
        assert {x.dtype for x in integers} == {tf.int32}
        assert drawn.rows.device.endswith("GPU:0")
        assert drawn.rows.dtype == tf.int64  # int32 would stay in host memory


def test_every_row_has_an_operator_and_every_weight_a_place(supernet):
    for layer in supernet.searchable:
        assert len(layer.members) == layer.rows.shape[0] == layer.moving.shape[0]
        for stack in layer.stacks:
            places = sorted(stack.places.values(), key=lambda place: place.offset)
            # Each begins at the first multiple of 64 bytes behind the one before.
            ends = [0] + [-(-(place.offset + place.size) // 16) * 16 for place in places]
            assert [place.offset for place in places] == ends[:-1]
            assert ends[-1] == stack.width <= layer.rows.shape[1]
            assert all(p.role.endswith("kernel") == (p.offset < stack.decayed) for p in places)


def test_weight_of_an_operator(supernet):
    layer = supernet.searchable[3]
    assert layer.weight("uib_s5m3e2", "start_dw/kernel").shape == (5, 5, 16, 1)
    assert layer.weight("fused_k5e2", "expand/kernel").shape == (5, 5, 16, 32)
    row = layer.rows.numpy()[layer.members.index(MIXED.operator_index("uib_s5m3e2"))]
    place = next(s for s in layer.stacks if s.name == "uib_sme2").places["expand/kernel"]
    expected = row[place.offset : place.offset + place.size].reshape(1, 1, 16, 32)
    np.testing.assert_array_equal(layer.weight("uib_s5m3e2", "expand/kernel"), expected)


def test_layers_of_equal_shape_share_their_graphs(supernet):
    shapes = [layer.shape for layer in supernet.searchable]
    for one, other in itertools.combinations(shapes, 2):
        same = layer_program(one) is layer_program(other)
        assert same == (one == other)
    assert len(set(map(id, map(layer_program, shapes)))) < len(shapes)


@pytest.mark.parametrize("operator", MIXED.operators)
def test_written_out_gradient_equals_that_of_the_tape(supernet, operator):
    """By the input and by the row, against the library's own differentiation of the forward pass."""
    layer = next(x for x in supernet.searchable if operator in x.spec.operators)
    program = layer_program(layer.shape)
    (drawn,) = drawn_in([layer], tf.constant([0, MIXED.operator_index(operator)])).layers
    x = tf.random.stateless_normal([4, *layer.spec.in_size, layer.spec.c_in], (3, 4))
    row = tf.gather(layer.rows, drawn.rows)[0]
    weights = tf.random.stateless_normal([4, *layer.shape.out_shape], (5, 6))

    def gradients(run):
        with tf.GradientTape() as tape:
            tape.watch([x, row])
            y = run()
            loss = tf.reduce_sum(y * weights)
        return y, tape.gradient(loss, [x, row], unconnected_gradients="zero")

    (choice,) = drawn.choices
    nothing = [tf.zeros([0] * 4), tf.zeros([0, 0])]
    expected_y, expected = gradients(lambda: program._run(x, row, choice, nothing, None)[0][0])
    found_y, found = gradients(lambda: program(x, row, choice, None)[0])
    np.testing.assert_allclose(found_y, expected_y, rtol=1e-5, atol=1e-5)
    for ours, tapes in zip(found, expected, strict=True):
        scale = float(tf.reduce_max(tf.abs(tapes))) or 1.0
        np.testing.assert_allclose(ours / scale, tapes / scale, atol=2e-5)


def test_operators_of_one_stack_must_have_one_structure():
    space = SearchSpace(operators=("k3e4", "k3e6"))
    members = {i: Operator.parse(name) for i, name in enumerate(space.operators)}
    with pytest.raises(NeasError, match="differ in kernel sizes only"):
        Stack.of("both", members, space.layers[0])
