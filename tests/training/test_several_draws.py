"""A step of several draws against a dense optimizer with masks that sees the summed plain gradients."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions as cfg
from scipy.special import softmax
from scipy.stats import entropy
from tiny_training import (
    FIRST,
    SECOND,
    SPACE,
    THIRD,
    batch,
    check_only_drawn_moved,
    codes,
    killed_behind,
    make_task,
    state_of,
    supernet_loop,
    supernet_stage,
)

from neas_tf.config.distillation import ENSEMBLE, WIDEST
from neas_tf.run.parts.spans import drawn, draws_of
from neas_tf.space.architecture import Architecture
from neas_tf.space.balanced_draws import balanced_draws
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import update_rules

# Two draws with other split points share operators, two rest in the first step.
STEPS = ((FIRST, SECOND, FIRST), (THIRD, FIRST, SECOND), (SECOND, SECOND, THIRD))
RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05


def stage_of(draws=3, teacher="", **optimizer):
    stage = supernet_stage(6, weight_decay=DECAY, **optimizer)
    stage.draws_per_step = draws
    stage.distillation.teacher, stage.distillation.weight = teacher, 0.3
    return stage


def made(stage, rows):
    task = make_task(stage)
    model = task.build_model()
    optimizer = task.create_masked_optimizer(
        model, stage.trainer.optimizer_config, cfg.RuntimeConfig()
    )
    task.draws.fill(0, rows)
    return task, model, optimizer


def labels_loss(logits, labels):
    """Σ over paths of the mean cross-entropy with smoothed labels."""
    target = np.eye(4)[labels] * 0.9 + 0.1 / 4
    return -tf.reduce_sum(tf.reduce_mean(target[None] * tf.nn.log_softmax(logits), 1))


def plain_gradients(model, images, labels, architecture):
    """Dense gradients of all variables by the tape, of the whole `rows` of a layer."""
    with tf.GradientTape() as tape:
        output = model(images, tf.constant(codes(architecture)[0]))
        loss = labels_loss(output.logits, labels)
    gradients = tape.gradient(loss, model.trainable_variables)
    return float(loss), [
        np.zeros(v.shape) if g is None else tf.convert_to_tensor(g).numpy()
        for g, v in zip(gradients, model.trainable_variables, strict=True)
    ]


@pytest.mark.parametrize("traced", [False, True])
def test_it_is_one_update_with_the_sum_of_all_gradients(traced):
    """m ← μm − r(Σg + wd·w), Nesterov w ← w + μm − r(Σg + wd·w); the trunk's g are halved draw by draw."""
    task, model, optimizer = made(stage_of(), np.stack([codes(*step) for step in STEPS]))
    step = lambda images, labels: task.train_step((images, labels), model, optimizer)[task.loss]  # noqa: E731
    run = tf.function(step, autograph=False) if traced else step
    rules = update_rules(model)
    for number, draws in enumerate(STEPS):
        images, labels = batch(number)
        before = state_of(model, optimizer)
        losses, sums = [], [np.zeros(v.shape) for v in model.trainable_variables]
        for architecture in draws:
            loss, gradients = plain_gradients(model, images, labels, architecture)
            losses.append(loss)
            for total, rule, gradient in zip(sums, rules, gradients, strict=True):
                total += gradient / (2 if 0 <= rule.layer <= architecture.split_point else 1)
        told = run(tf.constant(images), tf.constant(labels))
        assert float(told) == pytest.approx(np.mean(losses) / 2, rel=1e-5)
        after = state_of(model, optimizer)
        rate = RATE * (1 - number / 20)
        for v, rule, total in zip(model.trainable_variables, rules, sums, strict=True):
            value, velocity = before["weights"][v.name], before["momentum"][v.name]
            reach = np.full(v.shape, float(v.name.split(":")[0].endswith("kernel")))
            mask = np.ones(v.shape, bool)
            if rule.rows:
                reach = np.arange(v.shape[1])[None] < np.array(rule.decayed)[:, None]
                used = {
                    SPACE.operator_index(path[rule.layer - 1]) for a in draws for path in a.paths
                }
                mask = np.array([o in used for o in rule.rows])[:, None] & mask
            total = total + DECAY * value * reach
            moved = MOMENTUM * velocity - rate * total
            expected = value + MOMENTUM * moved - rate * total
            found = after["momentum"][v.name], after["weights"][v.name]
            for new, wanted, old in zip(found, (moved, expected), (velocity, value), strict=True):
                np.testing.assert_allclose(new[mask], wanted[mask], rtol=2e-4, atol=2e-5)
                assert new[~mask].tobytes() == old[~mask].tobytes()
        assert check_only_drawn_moved(model, before, after, *draws) > 0
    assert int(optimizer.iterations) == len(STEPS)


def test_one_draw_twice_moves_as_the_sum_says():
    """Without momentum and decay, two equal draws move exactly twice as far as one."""
    moves = []
    for draws in (1, 2):
        stage = stage_of(draws, momentum=0.0, nesterov=False)
        stage.weight_decay = 0.0
        rows = codes(FIRST) if draws == 1 else codes(FIRST, FIRST)[None]
        task, model, optimizer = made(stage, rows)
        before = [v.numpy() for v in model.trainable_variables]
        task.train_step(batch(0), model, optimizer)
        moves.append(
            [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
        )
    for one, two in zip(*moves, strict=True):
        np.testing.assert_allclose(two, 2 * one, rtol=1e-3, atol=1e-6)


def shares(logits, heat=2.0):
    return softmax(np.asarray(logits, np.float64) / heat, -1)


@pytest.mark.parametrize("teacher", [ENSEMBLE, WIDEST])
def test_the_loss_with_a_teacher_is_its_equation(teacher):
    """(1 − w) CE + w T² Σ_k KL(q ‖ p_k), q of the draw's own mean of logits, or of the first draw's."""
    stage = stage_of(3, teacher)
    task, model, optimizer = made(stage, codes(*STEPS[0])[None])
    images, labels = batch(0)
    logits = [model(images, tf.constant(row)).logits.numpy() for row in codes(*STEPS[0])]
    expected = 0.0
    for i, own in enumerate(logits):
        plain = float(labels_loss(own, labels))
        source = own if teacher == ENSEMBLE else logits[0]
        q = shares(source.mean(0))
        apart = sum(entropy(q, p, axis=-1).mean() for p in shares(own))
        weight = 0.0 if teacher == WIDEST and i == 0 else 0.3
        expected += (1 - weight) * plain + weight * 4.0 * apart
    found = task.train_step((images, labels), model, optimizer)[task.loss]
    assert float(found) == pytest.approx(expected / 3 / 2, rel=1e-5)


def test_no_gradient_reaches_the_teacher():
    """The ensemble's mean is a constant: the classifier's bias moves by (1 − w)(p − y) + w T (p_T − q)."""
    stage = stage_of(1, ENSEMBLE, momentum=0.0, nesterov=False)
    stage.weight_decay = 0.0
    task, model, optimizer = made(stage, codes(FIRST))
    images, labels = batch(0)
    logits = model(images, tf.constant(codes(FIRST)[0])).logits.numpy()
    bias = model.heads[1].roles["classifier/bias"]
    before = bias.numpy()
    task.train_step((images, labels), model, optimizer)
    target = np.eye(4)[labels] * 0.9 + 0.1 / 4
    slope = 0.7 * (shares(logits[1], 1.0) - target)
    slope += 0.3 * 2.0 * (shares(logits[1]) - shares(logits.mean(0)))
    np.testing.assert_allclose(bias.numpy() - before, -RATE * slope.mean(0), rtol=1e-3, atol=1e-6)


def test_running_statistics_move_once_for_each_draw():
    stage = stage_of(2)
    task, model, optimizer = made(stage, codes(FIRST, THIRD)[None])
    moments = [
        model(batch(0)[0], tf.constant(row)).moments["stem"]["bn"].numpy()
        for row in codes(FIRST, THIRD)
    ]
    task.train_step(batch(0), model, optimizer)
    expected = 0.9 * 0.1 * moments[0][0] + 0.1 * moments[1][0]
    np.testing.assert_allclose(model.stem.roles["bn/moving_mean"], expected, atol=1e-5)


def test_several_draws_resume_exactly_and_are_told(tmp_path):
    """On the trainer, with zero gammas, averages, a sandwich and the widest as the teacher."""
    states, rows = [], None
    for name, begin in (("straight", 0), ("interrupted", 4)):
        stage = stage_of(3, WIDEST)
        stage.zero_init_residual = stage.sandwich = True
        stage.trainer.optimizer_config.override({"ema": {"average_decay": 0.9}})
        if begin:
            killed_behind(begin, tmp_path / "straight", tmp_path / name)
        rows = draws_of(make_task(stage), ShrunkSpace.full(SPACE, 2), 3, 0, 6)
        with supernet_loop(tmp_path / name, stage=stage, draws=rows) as (loop, model):
            assert loop.step == begin
            loop.train_to(6)
            words = drawn(loop.trainer.task, 5)
        values = [*model.weights, *loop.optimizer._average_weights]
        states.append([v.numpy().tobytes() for v in values])
    assert states[0] == states[1]
    assert words == ", ".join(Architecture.from_array(row, SPACE).key for row in rows[5])
    lines = [
        (tmp_path / name / "metrics.jsonl").read_text() for name in ("straight", "interrupted")
    ]
    assert lines[0] == lines[1]
    last = json.loads(lines[0].splitlines()[-1])
    assert 0 < last["loss"] < 10 and 0 <= last["ensemble_accuracy"] <= 1


def test_draws_of_a_step_follow_the_settings():
    full = ShrunkSpace.full(SPACE, 2)
    several = draws_of(make_task(stage_of(4)), full, 3, 2, 5)
    assert np.array_equal(several, balanced_draws(full, 3, 2, 5, 4))
    assert draws_of(make_task(stage_of(1)), full, 3, 2, 5).shape == (5, 7)
