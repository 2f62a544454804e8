"""A supernet's training from one shrink to the next, whose ensembles are drawn beforehand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from neas_tf.config.settings import SupernetConfig
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.extremes import widest_and_narrowest
from neas_tf.run.cluster import agree_on_draws
from neas_tf.run.parts.pacing import SupernetPace
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.balanced_draws import balanced_draws
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.training.tasks import SupernetTask
from neas_tf.training.training_loop import TrainingLoop


def drawn(task: SupernetTask, step: int) -> str:
    """The architectures that a step (0-based) of the draw table trains."""
    rows = task.draws.rows[step - int(task.draws.first.numpy())].numpy()
    each = rows.reshape(-1, rows.shape[-1])
    return ", ".join(Architecture.from_array(row, task.space).key for row in each)


def draws_of(
    task: SupernetTask, shrunk: ShrunkSpace, seed: int, first: int, count: int
) -> np.ndarray:
    """What the steps from `first` on train, int32 (count, 1 + K·d) or (count, D, 1 + K·d)."""
    stage = task.stage
    assert isinstance(stage, SupernetConfig)
    if stage.draws_per_step == 1:
        return sampling.draws_for_steps(shrunk, seed, first, count)
    extremes = widest_and_narrowest(shrunk, CostTable(task.space)) if stage.sandwich else None
    return balanced_draws(shrunk, seed, first, count, stage.draws_per_step, extremes)


def train_span(loop: TrainingLoop, task: SupernetTask, shrunk: ShrunkSpace, end: int, seed: int):
    """Trains to a step; the architectures of the steps are drawn beforehand, as a table."""
    capacity = task.draws.capacity
    while (first := loop.step) < end:
        # Whole multiples, so that a resumed run has its logging intervals where they were.
        stop = min(end, (first // capacity + 1) * capacity)
        task.draws.fill(first, draws_of(task, shrunk, seed, first, stop - first))
        agree_on_draws(tf.distribute.get_strategy(), task.draws.rows, first)
        loop.train_to(stop, save=stop == end)


def train_paced(
    loop: TrainingLoop,
    task: SupernetTask,
    shrunk: ShrunkSpace,
    end: Callable[[], int],
    seed: int,
    pace: SupernetPace,
) -> None:
    """The same to a step that moves while it trains, as the plan does."""
    capacity = task.draws.capacity
    while (first := loop.step) < end():
        stop = min(first + 2 * (end() - first), (first // capacity + 1) * capacity)
        task.draws.fill(first, draws_of(task, shrunk, seed, first, stop - first))
        agree_on_draws(tf.distribute.get_strategy(), task.draws.rows, first)
        pace.train(loop, lambda stop=stop: min(stop, end()))  # type: ignore[misc]
    loop.save()
