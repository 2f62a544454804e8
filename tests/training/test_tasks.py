"""A training step of the supernet and of an ensemble, directly and on Model Garden's trainer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from tiny_training import (
    FIRST,
    SECOND,
    SPACE,
    THIRD,
    batch,
    check_only_drawn_moved,
    codes,
    ensemble_loop,
    make_task,
    state_of,
    supernet_loop,
    supernet_stage,
)

from neas_tf.common.errors import NeasError
from neas_tf.supernet.model import update_rules
from neas_tf.training.tasks import DrawTable

DRAWN = (FIRST, SECOND, FIRST, THIRD)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Four steps on the trainer: the state before and after each, and the lines of metrics."""
    folder = tmp_path_factory.mktemp("trained")
    with supernet_loop(folder, draws=codes(*DRAWN)) as (loop, model):
        states = [state_of(model, loop.optimizer)]
        for step in range(1, 5):
            loop.train_to(step, save=False)
            states.append(state_of(model, loop.optimizer))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return model, states, [json.loads(line) for line in lines]


def test_step_on_the_trainer_moves_only_what_was_drawn(trained):
    """Weights, momentum and statistics; after several draws, too (method section 4)."""
    model, states, _ = trained
    for i, architecture in enumerate(DRAWN):
        # Momentum is not zero from the second step on: it must rest all the same.
        assert check_only_drawn_moved(model, states[i], states[i + 1], architecture) > 10
    assert check_only_drawn_moved(model, states[0], states[4], FIRST, SECOND, THIRD) > 0


def test_direct_step_equals_the_trainer_and_counts_the_loss_of_all_paths(trained):
    _, (_, expected, *_), (line, *_) = trained
    task = make_task()
    model = task.build_model()
    optimizer = task.create_masked_optimizer(
        model, task.stage.trainer.optimizer_config, cfg.RuntimeConfig()
    )
    task.draws.fill(0, codes(FIRST))
    images, labels = batch(0)
    output = model(images, tf.constant(codes(FIRST)[0]))
    logs = task.train_step((images, labels), model, optimizer)
    log_p = tf.nn.log_softmax(output.logits).numpy()
    smooth = 0.9 * np.eye(4)[labels] + 0.1 / 4
    losses = -(smooth[None] * log_p).sum(-1).mean(1)
    np.testing.assert_allclose(logs[task.loss], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(line["loss"], losses.mean(), rtol=1e-5)
    found = state_of(model, optimizer)
    for kind, values in expected.items():
        for name, value in values.items():
            np.testing.assert_allclose(found[kind][name], value, rtol=1e-4, atol=1e-5)


def test_classes_weigh_what_they_are_told_in_the_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, SPACE.num_classes)).astype(np.float32)  # (K, B, classes)
    labels = np.array([0, 1, 1, 2, 0, 2])
    weights = np.linspace(0, 2, SPACE.num_classes).astype(np.float32)
    task = make_task()
    smoothing = task.stage.label_smoothing
    target = np.eye(SPACE.num_classes)[labels] * (1 - smoothing) + smoothing / SPACE.num_classes
    each = -(target * tf.nn.log_softmax(logits).numpy()).sum(-1)  # (K, B)
    assert float(task.build_losses(labels, logits)) == pytest.approx(each.mean(1).sum(), rel=1e-5)
    task.class_weights = weights
    expected = (each * weights[labels]).mean(1).sum()
    assert float(task.build_losses(labels, logits)) == pytest.approx(expected, rel=1e-5)


def test_running_statistics_move_towards_the_moments():
    task = make_task()
    model = task.build_model()
    code = tf.constant(codes(FIRST)[0])
    output = model(batch(0)[0], code)
    model.update_moving(output.moments, model.drawn(code))
    stem = output.moments["stem"]["bn"].numpy()
    roles = model.stem.roles
    np.testing.assert_allclose(roles["bn/moving_mean"].numpy(), 0.1 * stem[0], atol=1e-6)
    np.testing.assert_allclose(roles["bn/moving_variance"].numpy(), 0.9 + 0.1 * stem[1], atol=1e-6)
    # Layer 3: path 1 drew k3e4, path 2 k3e2 (row 0 of its group).
    layer, moments = model.searchable[2], output.moments["layers"][2]
    for path, prefix, width in ((0, "e4", 32), (1, "e2", 16)):
        found = layer.weight(f"k3{prefix}", "expand_bn/moving_mean")
        np.testing.assert_allclose(found, 0.1 * moments[path].numpy()[0, :width], atol=1e-6)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"ema": {"average_decay": 1.0}}, r"ema.average_decay: received 1.0, expected .* 0 and 1"),
        ({"ema": {"average_decay": 0.9, "trainable_weights_only": False}}, "expected true"),
        ({"optimizer": {"type": "adam"}}, "'sgd'"),
    ],
)
def test_optimizers_that_a_supernet_cannot_have(replace, message):
    stage = supernet_stage()
    stage.trainer.optimizer_config.override(replace)
    task = make_task(stage)
    with pytest.raises(NeasError, match=message):
        task.create_masked_optimizer(
            task.build_model(), stage.trainer.optimizer_config, cfg.RuntimeConfig()
        )


def test_draw_table_gives_each_step_its_architecture():
    table, rows = DrawTable(4, 7), codes(FIRST, SECOND, THIRD)
    table.fill(10, rows)
    for i in range(3):
        np.testing.assert_array_equal(table.at(tf.constant(10 + i, tf.int64)), rows[i])
    table.fill(13, rows[:1])
    np.testing.assert_array_equal(table.at(tf.constant(13, tf.int64)), rows[0])


@pytest.mark.parametrize("loop_of", [supernet_loop, ensemble_loop])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(tmp_path, precision, loop_of):
    runtime = cfg.RuntimeConfig(mixed_precision_dtype=precision)
    tf_keras.mixed_precision.set_global_policy(f"mixed_{precision}")
    try:
        with loop_of(tmp_path, runtime=runtime) as (loop, model):
            before = [v.numpy() for v in model.trainable_variables]
            loop.train_to(2, save=False)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    scaled = isinstance(loop.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (precision == "float16")
    assert int(loop.optimizer.iterations.numpy()) == 2
    lines = [json.loads(s) for s in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 10 for line in lines)
    assert all(v.dtype == tf.float32 for v in model.trainable_variables)
    assert (
        sum(
            not np.array_equal(a, b) for a, b in zip(before, model.trainable_variables, strict=True)
        )
        > len(before) // 3
    )
    assert all(np.all(np.isfinite(v.numpy())) for v in model.weights)


def test_skipped_steps_of_loss_scaling_keep_count_and_weights():
    """An overflow leaves weights and momentum alone; the next step has the next architecture."""
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        task = make_task(supernet_stage())
        model = task.build_model()
        runtime = cfg.RuntimeConfig(mixed_precision_dtype="float16")
        optimizer = task.create_masked_optimizer(
            model, task.stage.trainer.optimizer_config, runtime
        )
        task.draws.fill(0, codes(FIRST, SECOND))
        start = state_of(model, optimizer)
        infinite = [
            tf.fill([2, v.shape[1]] if rule.rows else v.shape, np.inf)
            for v, rule in zip(model.trainable_variables, update_rules(model), strict=True)
        ]
        scale = float(optimizer.loss_scale)
        optimizer.apply_gradients(list(zip(infinite, model.trainable_variables, strict=True)))
        assert float(optimizer.loss_scale) == scale / 2
        for kind, values in state_of(model, optimizer).items():
            for name, value in values.items():
                assert value.tobytes() == start[kind][name].tobytes()
        assert int(optimizer.iterations.numpy()) == 1
        np.testing.assert_array_equal(task.draws.at(optimizer.iterations), codes(SECOND)[0])
        task.train_step(batch(1), model, optimizer)
        after = state_of(model, optimizer)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert check_only_drawn_moved(model, start, after, SECOND) > 10


def test_gradient_of_the_ensembles_trunk_is_divided_by_the_paths():
    """One step of plain SGD against gradients by hand."""
    from tiny_training import optimizer_config, retrain_stage

    from neas_tf.ensemble.model import trunk_variables
    from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig

    stage = retrain_stage()
    stage.dropout = 0.0
    task = EnsembleTask(EnsembleTaskConfig(), FIRST, SPACE, stage)
    model = task.build_model()
    config = optimizer_config(momentum=0.0, nesterov=False)
    optimizer = task.create_optimizer(config, cfg.RuntimeConfig())
    images, labels = batch(0)
    start = model.get_weights()
    with tf.GradientTape() as tape:
        logits = tf.transpose(model(images, training=True), [1, 0, 2])
        loss = task.build_losses(labels, logits)
    raw = tape.gradient(loss, model.trainable_variables)
    model.set_weights(start)
    before = [v.numpy() for v in model.trainable_variables]
    task.train_step((images, labels), model, optimizer)
    trunk = {v.ref() for v in trunk_variables(model)}
    assert 0 < len(trunk) < len(before)
    for v, old, g in zip(model.trainable_variables, before, raw, strict=True):
        decay = 0.01 * old if v.shape.rank > 1 else 0.0
        g = np.asarray(tf.convert_to_tensor(g)) / (2 if v.ref() in trunk else 1)
        np.testing.assert_allclose(v.numpy(), old - 0.1 * (g + decay), rtol=1e-4, atol=1e-6)
