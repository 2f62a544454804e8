"""`zero_init_residual`: what a residual connection passes begins as the identity, nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from mixed_space import MIXED
from official.core import config_definitions as cfg
from tiny_training import FIRST, batch, codes, make_task, supernet_stage

from neas_tf.operators import Operator, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet

# Layers of the space that keep their shape; every family is in one of them.
KEEPING = (1, 2, 4, 5)


@pytest.fixture(scope="module")
def supernets():
    """A supernet as it always began, and one with zero gammas."""
    return [
        Supernet(MIXED, 2, seed=3, zero_init_residual=zero, name="supernet")
        for zero in (False, True)
    ]


def test_only_the_last_gamma_of_what_a_residual_connection_passes_differs(supernets):
    plain, zero = supernets
    assert tuple(s.number for s in MIXED.layers if s.keeps_shape) == KEEPING
    seen = set()
    for spec, before, layer in zip(MIXED.layers, plain.searchable, zero.searchable, strict=True):
        for index in layer.members:
            name = MIXED.operators[index]
            stack = next(s for s in layer.stacks if index in s.indices)
            # The last step of every family is the projection; its place does not depend on the stack.
            last = operator_steps(Operator.parse(name), spec)[-1].role
            assert last == "project"
            for role in stack.places:
                old, new = before.weight(name, role), layer.weight(name, role)
                if role == "project_bn/gamma" and spec.number in KEEPING:
                    assert (old == 1.0).all() and (new == 0.0).all()
                    seen.add(name)
                else:
                    assert old.tobytes() == new.tobytes(), (spec.number, name, role)
    assert seen == set(MIXED.operators) - {"skip"}
    for part in ("stem", "heads"):
        for old, new in zip(
            tf.nest.flatten(getattr(plain, part)), tf.nest.flatten(getattr(zero, part)), strict=True
        ):
            assert all(
                np.array_equal(a, b)
                for a, b in zip(old.get_weights(), new.get_weights(), strict=True)
            )


@pytest.mark.parametrize("number", KEEPING)
def test_every_operator_begins_as_the_identity(supernets, number):
    """Whatever stands in a layer that keeps its shape, the maps are those of skip."""
    images = np.random.default_rng(1).normal(size=(4, 12, 12, 3)).astype(np.float32)

    def maps(supernet, name):
        row = ["skip", "skip", "k3e4", "skip", "skip"]
        row[number - 1] = name
        code = Architecture(5, (tuple(row),) * 2).check_in(MIXED).to_array(MIXED)
        return supernet(images, tf.constant(code)).features.numpy()

    plain, zero = supernets
    bare = maps(zero, "skip")
    for name in MIXED.layers[number - 1].operators:
        np.testing.assert_array_equal(maps(zero, name), bare)
        assert name == "skip" or np.abs(maps(plain, name) - bare).max() > 0.1


def test_the_first_step_opens_the_gammas_of_what_was_drawn():
    """By hand: with γ = 0 the drawn γ moves by −rate · (1 + μ) · its gradient, and no other γ moves."""
    stage = supernet_stage(weight_decay=0.0)
    stage.zero_init_residual = True
    task = make_task(stage)
    model = task.build_model()
    optimizer = task.create_masked_optimizer(
        model, stage.trainer.optimizer_config, cfg.RuntimeConfig()
    )
    task.draws.fill(0, codes(FIRST))
    images, labels = batch(0)
    code = tf.constant(codes(FIRST)[0])
    with tf.GradientTape() as tape:
        loss = task.build_losses(labels, model(images, code).logits)
    (gradient,) = tape.gradient(loss, [model.searchable[1].rows])
    gradient = tf.convert_to_tensor(gradient).numpy()
    task.train_step((images, labels), model, optimizer)
    layer = model.searchable[1]  # FIRST splits after layer 1 and has k5e2 and skip in layer 2
    place = layer.stacks[0].places["project_bn/gamma"]
    row = layer.members.index(task.space.operator_index("k5e2"))
    step = gradient[row, place.offset : place.offset + 8]
    assert np.abs(step).max() > 1e-4
    # Nesterov's first step: m = −0.1 g, w += 0.9 m − 0.1 g.
    np.testing.assert_allclose(layer.weight("k5e2", "project_bn/gamma"), -0.19 * step, rtol=1e-4)
    assert (layer.weight("k3e2", "project_bn/gamma") == 0.0).all()
    assert (layer.weight("k3e4", "project_bn/gamma") == 0.0).all()
