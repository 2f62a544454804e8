"""MaskedSGD: stock SGD on what was drawn, nothing at all on the rest."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tiny_training import FIRST, SECOND, SPACE, THIRD, codes

from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet import masked_sgd
from neas_tf.supernet.masked_sgd import MaskedSGD
from neas_tf.supernet.model import Supernet, update_rules

ONE = SearchSpace.from_dict(SPACE.to_dict() | {"operators": ["k3e2"], "name": "one"})


def gradients(variables, rules, num_paths, step):
    """Random gradients: of variables with rows, those of the rows that the paths drew."""
    rng = np.random.default_rng([9, step])
    shapes = [
        (num_paths, v.shape[1]) if rule.rows else v.shape
        for v, rule in zip(variables, rules, strict=True)
    ]
    return [tf.constant(rng.standard_normal(shape), tf.float32) for shape in shapes]


def decayed(variable, rule):
    """1 where weight decay reaches a variable."""
    if not rule.rows:
        return np.full(variable.shape, float(variable.name.split(":")[0].endswith("kernel")))
    return np.arange(variable.shape[1])[None] < np.array(rule.decayed)[:, None]


def whole(gradient, rule, drawn, variable):
    """The gradient of all rows of a variable, summed over the paths that drew them."""
    if not rule.rows:
        return gradient.numpy()
    total = np.zeros(variable.shape)
    for own, operator in zip(gradient.numpy(), drawn[:, rule.layer - 1], strict=True):
        if operator in rule.rows:
            total[rule.rows.index(operator)] += own
    return total


def schedule():
    return tf_keras.optimizers.schedules.PolynomialDecay(0.1, 10, 0.0)


def reference_step(value, velocity, gradient, rate, momentum, nesterov):
    """The textbook in NumPy."""
    velocity = momentum * velocity - rate * gradient
    return value + (momentum * velocity - rate * gradient if nesterov else velocity), velocity


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_equals_stock_sgd_where_everything_is_drawn(nesterov, decay):
    ours, theirs = (Supernet(ONE, 1, seed=2, name="supernet") for _ in range(2))
    row = ("k3e2",) * 3
    code = tf.constant(codes(Architecture(1, (row,)), space=ONE)[0])
    rules = update_rules(ours)
    optimizer = MaskedSGD(schedule(), 0.9, nesterov, decay)
    optimizer.watch(ours.trainable_variables, rules, lambda: code, 3)
    stock = tf_keras.optimizers.legacy.SGD(schedule(), 0.9, nesterov)
    for step in range(3):
        values = gradients(ours.trainable_variables, rules, 1, step)
        optimizer.apply_gradients(zip(values, ours.trainable_variables, strict=True))
        # The decay's term, for kernels only. There is one operator, so one row.
        total = [
            g + decay * v * decayed(v, rule).astype(np.float32)
            for g, v, rule in zip(values, theirs.trainable_variables, rules, strict=True)
        ]
        stock.apply_gradients(zip(total, theirs.trainable_variables, strict=True))
    assert optimizer.iterations.numpy() == 3
    for a, b in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7)
        slots = optimizer.get_slot(a, "momentum"), stock.get_slot(b, "momentum")
        np.testing.assert_allclose(slots[0].numpy(), slots[1].numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_rows_follow_their_own_steps_only(nesterov, in_place, monkeypatch):
    """Each row against a NumPy optimizer that sees the steps in which the row was drawn."""
    monkeypatch.setattr(masked_sgd, "cpu_only", lambda: in_place)
    model = Supernet(SPACE, 2, seed=1, name="supernet")
    variables, rules = model.trainable_variables, update_rules(model)
    draws = [FIRST, SECOND, THIRD, FIRST, SECOND]
    current = tf.Variable(codes(FIRST)[0])
    optimizer = MaskedSGD(schedule(), 0.9, nesterov, weight_decay=0.05)
    optimizer.watch(variables, rules, lambda: tf.identity(current), 3)

    @tf.function
    def update(values):
        optimizer.apply_gradients(list(zip(values, variables, strict=True)))

    expected = [(v.numpy().astype(np.float64), np.zeros(v.shape)) for v in variables]
    for step, architecture in enumerate(draws):
        code = codes(architecture)[0]
        current.assign(code)
        values = gradients(variables, rules, 2, step)
        update(values)
        drawn = code[1:].reshape(2, -1)
        for i, (rule, gradient) in enumerate(zip(rules, values, strict=True)):
            value, velocity = expected[i]
            total = whole(gradient, rule, drawn, variables[i])
            if 0 <= rule.layer <= code[0]:
                total = total / 2
            total = total + 0.05 * value * decayed(variables[i], rule)
            moved = reference_step(value, velocity, total, 0.1 * (1 - step / 10), 0.9, nesterov)
            used = [o in drawn[:, rule.layer - 1] for o in rule.rows] if rule.rows else True
            mask = np.reshape(used, [-1] + [1] * (value.ndim - 1))
            expected[i] = tuple(
                np.where(mask, new, old) for new, old in zip(moved, (value, velocity), strict=True)
            )
    for variable, (value, velocity) in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6)
        slot = optimizer.get_slot(variable, "momentum").numpy()
        np.testing.assert_allclose(slot, velocity, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_place", [False, True])
def test_weight_decay_alone_moves_kernels_of_drawn_rows_only(in_place, monkeypatch):
    monkeypatch.setattr(masked_sgd, "cpu_only", lambda: in_place)
    model = Supernet(SPACE, 2, seed=1, name="supernet")
    variables, rules = model.trainable_variables, update_rules(model)
    code = tf.constant(codes(FIRST)[0])
    optimizer = MaskedSGD(0.1, 0.9, weight_decay=0.5)
    optimizer.watch(variables, rules, lambda: code, 3)
    before = [v.numpy() for v in variables]
    zeros = [g * 0.0 for g in gradients(variables, rules, 2, 0)]
    optimizer.apply_gradients(zip(zeros, variables, strict=True))
    drawn = code.numpy()[1:].reshape(2, -1)
    for variable, rule, old in zip(variables, rules, before, strict=True):
        reached = decayed(variable, rule).astype(bool)
        used = [o in drawn[:, rule.layer - 1] for o in rule.rows] if rule.rows else True
        reached &= np.reshape(used, [-1] + [1] * (reached.ndim - 1))
        new = variable.numpy()
        np.testing.assert_allclose(new[reached], old[reached] * 0.95, rtol=1e-6)
        assert new[~reached].tobytes() == old[~reached].tobytes()


def test_slots_exist_before_the_first_step():
    model = Supernet(SPACE, 2, name="supernet")
    optimizer = MaskedSGD(0.1, 0.8, nesterov=True, weight_decay=0.01)
    optimizer.watch(model.trainable_variables, update_rules(model), lambda: None, 3)
    assert all(
        optimizer.get_slot(v, "momentum").shape == v.shape for v in model.trainable_variables
    )


def test_sparse_gradients_are_refused():
    variable = tf.Variable(tf.ones([3, 2]))
    optimizer = MaskedSGD(0.1)
    sparse = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2]))
    with pytest.raises(NotImplementedError, match="dense"):
        optimizer.apply_gradients([(sparse, variable)])
