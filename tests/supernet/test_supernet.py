"""The K-path supernet: what it computes, and what a step may change."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from reference_evaluation import by_norm, supernet_logits, supernet_statistics

from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.inheritance import inherited_ensemble
from neas_tf.supernet.model import Supernet, update_rules

SPACE = SearchSpace.from_dict(
    {
        "name": "tiny",
        "input_size": 12,
        "num_classes": 4,
        "stem_channels": 8,
        "stem_stride": 1,
        "block_channels": 8,
        "stages": [[8, 2, 1], [16, 2, 2], [16, 1, 1]],
        "operators": ["k3e2", "k3e4", "k5e2", "k7e4", "skip"],
        "min_split": 1,
        "max_split": 5,
        "head_channels": 16,
        "feature_channels": 12,
    }
)


def make(num_paths=2, heterogeneous=True, seed=0):
    return Supernet(SPACE, num_paths, heterogeneous=heterogeneous, seed=seed, name="supernet")


def images(count=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 12, 12, 3)).astype(np.float32)


def shake(model, seed=1):
    """Random gamma, beta and biases, which start at one and zero."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        if len(v.shape) < 3:
            v.assign(v + rng.normal(0, 0.2, v.shape).astype(np.float32))


@pytest.mark.parametrize("num_paths", [1, 2, 3])
def test_supernet_slice_equals_the_stand_alone_ensemble(num_paths):
    model = make(num_paths)
    shake(model)
    full = ShrunkSpace.full(SPACE, num_paths)
    rng = np.random.default_rng(num_paths)
    chosen = [uniform(full, rng) for _ in range(3)]
    assert len({a.key for a in chosen}) == 3
    for architecture in chosen:
        statistics = supernet_statistics(model, architecture, images(16, 5), 8)
        expected = supernet_logits(model, architecture, statistics, images(6, 2))
        alone = inherited_ensemble(model, architecture, by_norm(model, statistics))
        found = alone(images(6, 2), training=False).numpy().transpose(1, 0, 2)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("split", [1, 5])
def test_slice_at_both_ends_of_the_split_range(split):
    model = make()
    shake(model)
    first = ("k3e4", "skip", "k5e2", "k7e4", "k3e2")
    second = first[:split] + ("k7e4", "k3e2", "k3e4", "skip")[: 5 - split]
    architecture = Architecture(split, (first, second)).check_in(SPACE)
    statistics = supernet_statistics(model, architecture, images(8), 8)
    alone = inherited_ensemble(model, architecture, by_norm(model, statistics))
    np.testing.assert_allclose(
        alone(images(5), training=False).numpy().transpose(1, 0, 2),
        supernet_logits(model, architecture, statistics, images(5)),
        atol=1e-4,
    )


def test_traced_once_for_all_architectures():
    model = make()
    traces = []

    @tf.function
    def forward(x, architecture):
        traces.append(1)
        return model(x, architecture).logits

    full, rng = ShrunkSpace.full(SPACE, 2), np.random.default_rng(0)
    outputs = [
        forward(images(), tf.constant(uniform(full, rng).to_array(SPACE))).numpy() for _ in range(6)
    ]
    assert len(traces) == 1
    assert not np.allclose(outputs[0], outputs[1])


def test_shared_layers_are_computed_once_and_paths_agree_there():
    model = make()
    row = ("k3e4", "skip", "k5e2", "k7e4", "k3e2")
    code = Architecture(5, (row, row)).to_array(SPACE)
    features = model(images(), tf.constant(code)).features.numpy()
    np.testing.assert_array_equal(features[0], features[1])


def test_rules_name_every_trainable_variable():
    model = make()
    rules = update_rules(model)
    assert len(rules) == len(model.trainable_variables)
    for rule, variable in zip(rules, model.trainable_variables, strict=True):
        assert bool(rule.rows) == (rule.layer > 0)
        if rule.rows:
            assert variable.shape[0] == len(rule.rows)


def test_gradient_into_the_trunk_is_divided_by_the_paths():
    """Scaling weight gradients equals dividing the gradient that enters the trunk."""
    model = make()
    first = ("k3e4", "k3e2", "k5e2", "k7e4", "k3e2")
    second = ("k3e4", "k3e2", "k3e4", "k3e2", "k7e4")
    architecture = Architecture(2, (first, second)).check_in(SPACE)
    code = tf.constant(architecture.to_array(SPACE))
    rules = update_rules(model)

    def entering(k):
        """Gradients when what enters the trunk is divided by k, by hand."""
        with tf.GradientTape() as tape:
            x, _ = model.stem(images())
            maps = [x, x]
            for m, (layer, drawn) in enumerate(
                zip(model.searchable, model.drawn(code).layers, strict=True)
            ):
                if m == 2:  # Layers 1 and 2 are shared.
                    maps = [x / k + tf.stop_gradient(x - x / k) for x in maps]
                maps, _ = layer(maps, drawn)
            loss = sum(
                tf.reduce_sum(head(x)[0] ** 2) for head, x in zip(model.heads, maps, strict=True)
            )
        return [
            tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(
                tape.gradient(loss, model.trainable_variables),
                model.trainable_variables,
                strict=True,
            )
        ]

    for rule, raw, expected in zip(rules, entering(1.0), entering(2.0), strict=True):
        np.testing.assert_allclose(
            raw * rule.gradient_scale(code, 2), expected, rtol=1e-4, atol=1e-4
        )


def test_alive_combinations_survive_the_checkpoint(tmp_path):
    model = make()
    shrunk = ShrunkSpace.full(SPACE, 2)
    assert model.shrunk() == shrunk
    shrunk = shrunk.without(3, ("k3e2", "k3e4")).without(5, ("k7e4", "skip"))
    model.set_shrunk(shrunk)
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    other = make(seed=3)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert other.shrunk() == shrunk


def test_same_seed_same_weights():
    model = make(seed=7)
    again = make(seed=7)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    other = make(seed=8)
    assert not np.allclose(model.stem.roles["conv/kernel"], other.stem.roles["conv/kernel"])


def test_bfloat16_policy_keeps_logits_and_moments_in_float32():
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = make()
        row = ("k3e4", "k3e2", "k5e2", "k7e4", "k3e2")
        output = model(images(), tf.constant(Architecture(5, (row, row)).to_array(SPACE)))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert output.logits.dtype == tf.float32
    assert output.features.dtype == tf.bfloat16
    assert {m.dtype for m in tf.nest.flatten(output.moments)} == {tf.float32}
