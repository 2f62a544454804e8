"""The supernet's traced step takes the branches that it is told to take."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from mixed_space import MIXED
from official.core import config_definitions as cfg
from tiny_training import SPACE, batch, make_task

from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.switches import safe_switches

STEPS = 6


def losses(space, compiled: bool) -> list[float]:
    """Of some steps with drawn ensembles, in one graph or operation by operation."""
    task = make_task(space=space)
    model = task.build_model()
    config = task.stage.trainer.optimizer_config
    optimizer = task.create_masked_optimizer(model, config, cfg.RuntimeConfig())
    task.draws.fill(0, draws_for_steps(ShrunkSpace.full(space, 2), 3, 0, STEPS))

    def step(images, labels):
        return task.train_step((images, labels), model, optimizer)

    call = tf.function(step) if compiled else step
    return [float(call(*batch(i, space=space))[task.loss]) for i in range(STEPS)]


@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["tiny", "mixed"])
def test_graph_and_eager_steps_agree(space):
    with safe_switches():
        compiled = losses(space, True)
    tf.config.run_functions_eagerly(True)
    try:
        eager = losses(space, False)
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)


def test_options_come_back():
    before = tf.config.optimizer.get_experimental_options()
    with safe_switches():
        inside = tf.config.optimizer.get_experimental_options()
        assert inside["constant_folding"] is inside["arithmetic_optimization"] is False
    after = tf.config.optimizer.get_experimental_options()
    for name in ("constant_folding", "arithmetic_optimization"):
        assert after.get(name, True) == before.get(name, True)
