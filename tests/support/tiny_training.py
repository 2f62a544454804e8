"""A supernet and an ensemble small enough to train in tests, and their training loops."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import optimization

from neas_tf.config.settings import RetrainConfig, SupernetConfig
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.training.checkpoints import drop_newest, latest_step
from neas_tf.training.optimizers import create_slots
from neas_tf.training.tasks import (
    EnsembleTask,
    EnsembleTaskConfig,
    SupernetTask,
    SupernetTaskConfig,
)
from neas_tf.training.training_loop import TrainingLoop

SPACE = SearchSpace.from_dict(
    {
        "name": "tiny",
        "input_size": 8,
        "num_classes": 4,
        "stem_channels": 8,
        "stem_stride": 1,
        "block_channels": 0,
        "stages": [[8, 2, 1], [16, 1, 2]],
        "operators": ["k3e2", "k5e2", "k3e4", "skip"],
        "min_split": 1,
        "max_split": 3,
        "head_channels": 16,
        "feature_channels": 12,
    }
)
# Layer 1 is always shared; between them the three use every operator of layers 2 and 3 but some.
FIRST = Architecture(1, (("k3e2", "k5e2", "k3e4"), ("k3e2", "skip", "k3e2")))
SECOND = Architecture(2, (("k3e4", "k3e4", "k5e2"), ("k3e4", "k3e4", "k3e4")))
THIRD = Architecture(3, (("k5e2", "skip", "k3e2"), ("k5e2", "skip", "k3e2")))


def optimizer_config(
    rate: float = 0.1, momentum: float = 0.9, nesterov: bool = True, ema: float = 0.0
) -> optimization.OptimizationConfig:
    """SGD with a rate that changes from step to step."""
    config = {
        "optimizer": {"type": "sgd", "sgd": {"momentum": momentum, "nesterov": nesterov}},
        "learning_rate": {
            "type": "polynomial",
            "polynomial": {
                "initial_learning_rate": rate,
                "end_learning_rate": 0.0,
                "power": 1.0,
                "decay_steps": 20,
            },
        },
        "warmup": {"type": None},
    }
    if ema:
        config["ema"] = {"average_decay": ema, "trainable_weights_only": False}
    return optimization.OptimizationConfig(config)


def configure(stage: Any, steps: int, loop: int, optimizer: Any) -> Any:
    """Sets a stage's trainer."""
    trainer = stage.trainer
    trainer.optimizer_config, trainer.train_steps = optimizer, steps
    trainer.steps_per_loop = trainer.summary_interval = trainer.checkpoint_interval = loop
    trainer.validation_interval = steps
    return stage


def supernet_stage(
    steps: int = 6, loop: int = 1, weight_decay: float = 0.01, **optimizer: Any
) -> SupernetConfig:
    """Settings of supernet training."""
    stage = SupernetConfig(weight_decay=weight_decay, label_smoothing=0.1)
    return configure(stage, steps, loop, optimizer_config(**optimizer))


def retrain_stage(steps: int = 6, loop: int = 1) -> RetrainConfig:
    """Settings of retraining with dropout and EMA."""
    stage = RetrainConfig(weight_decay=0.01, dropout=0.3, batch_norm_momentum=0.9)
    return configure(stage, steps, loop, optimizer_config(ema=0.9))


def make_task(
    stage: SupernetConfig | None = None, space: SearchSpace = SPACE, num_paths: int = 2, **kwargs
) -> SupernetTask:
    """The supernet's task."""
    stage = stage or supernet_stage()
    return SupernetTask(
        SupernetTaskConfig(), space, num_paths, stage, stage.trainer.train_steps, **kwargs
    )


def codes(*architectures: Architecture, space: SearchSpace = SPACE) -> np.ndarray:
    """Rows for the draw table."""
    return np.stack([a.check_in(space).to_array(space) for a in architectures])


STEPS = 64  # more than any test takes, and than is fetched ahead


def batch(step: int, size: int = 8, space: SearchSpace = SPACE) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a step."""
    rng = np.random.default_rng([77, step])
    shape = (size, *space.input_size, space.input_channels)
    images = rng.standard_normal(shape).astype(np.float32)
    return images, rng.integers(0, space.num_classes, size).astype(np.int32)


def batches(first: int, context: Any = None, size: int = 8) -> tf.data.Dataset:
    """Batches from a step on; several replicas get equal shares."""
    replicas = context.num_replicas_in_sync if context else 1
    return in_memory(
        share
        for step in range(first, first + STEPS)
        for share in zip(*(np.split(part, replicas) for part in batch(step, size)), strict=True)
    )


def in_memory(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tf.data.Dataset:
    """A data set of these batches.

    Not out of a generator: with one thread, what prefetches for several devices and what takes down
    such a data set wait for each other's hold of the interpreter, up to twenty seconds a time.
    """
    images, labels = (np.stack(part) for part in zip(*batches, strict=True))
    return tf.data.Dataset.from_tensor_slices((images, labels))


@contextlib.contextmanager
def supernet_loop(
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
    stage: SupernetConfig | None = None,
    make_batches: Callable[..., tf.data.Dataset] = batches,
    runtime: cfg.RuntimeConfig | None = None,
    draws: np.ndarray | None = None,
) -> Iterator[tuple[TrainingLoop, Supernet]]:
    """The supernet on Model Garden's trainer, with its first draw table filled."""
    stage, runtime = stage or supernet_stage(), runtime or cfg.RuntimeConfig()
    with (strategy or tf.distribute.OneDeviceStrategy("CPU:0")).scope():
        task = make_task(stage)
        model = task.build_model()
        optimizer = task.create_masked_optimizer(model, stage.trainer.optimizer_config, runtime)
        if draws is None:
            full = ShrunkSpace.full(SPACE, 2)
            draws = draws_for_steps(full, 3, 0, stage.trainer.train_steps)
        task.draws.fill(0, draws)
        config = cfg.ExperimentConfig(
            task=SupernetTaskConfig(), trainer=stage.trainer, runtime=runtime
        )
        loop = TrainingLoop(config, task, model, optimizer, make_batches, folder, 2.0, "supernet")
        try:
            yield loop, model
        finally:
            loop.close()


@contextlib.contextmanager
def ensemble_loop(
    folder: Path,
    strategy: tf.distribute.Strategy | None = None,
    stage: RetrainConfig | None = None,
    runtime: cfg.RuntimeConfig | None = None,
) -> Iterator[tuple[TrainingLoop, tf_keras.Model]]:
    """An ensemble on Model Garden's trainer, as the retraining stage makes it."""
    stage, runtime = stage or retrain_stage(), runtime or cfg.RuntimeConfig()
    tf_keras.backend.experimental.enable_tf_random_generator()
    tf_keras.utils.set_random_seed(5)
    with (strategy or tf.distribute.OneDeviceStrategy("CPU:0")).scope():
        task = EnsembleTask(EnsembleTaskConfig(), FIRST, SPACE, stage)
        model = task.build_model()
        optimizer = task.create_optimizer(stage.trainer.optimizer_config, runtime)
        create_slots(optimizer, model)
        config = cfg.ExperimentConfig(
            task=EnsembleTaskConfig(), trainer=stage.trainer, runtime=runtime
        )
        loop = TrainingLoop(config, task, model, optimizer, batches, folder, 2.0, "retrain")
        try:
            yield loop, model
        finally:
            loop.close()


def killed_behind(step: int, folder: Path, copy: Path) -> Path:
    """A copy of a training's folder as it was when the checkpoint of a step was the newest."""
    shutil.copytree(folder, copy)
    while latest_step(copy) > step:
        drop_newest(copy)
    assert latest_step(copy) == step
    return copy


def state_of(model: Supernet, optimizer: Any) -> dict[str, dict[str, np.ndarray]]:
    """Weights, momentum and running statistics of the supernet by variable name."""
    trainable = model.trainable_variables
    moving = [v for v in model.non_trainable_variables if "/moving" in v.name]
    return {
        "weights": {v.name: v.numpy() for v in trainable},
        "momentum": {v.name: optimizer.get_slot(v, "momentum").numpy() for v in trainable},
        "statistics": {v.name: v.numpy() for v in moving},
    }


def row_operators(model: Supernet) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Variable name → (layer, operator of each row) for all that have rows."""
    return {
        variable.name: (number, layer.members)
        for number, layer in enumerate(model.searchable, 1)
        for variable in (layer.rows, layer.moving)
    }


def check_only_drawn_moved(model, before, after, *architectures: Architecture) -> int:
    """Asserts that drawn rows moved, and others kept every bit; returns how many were still.

    A row holds all weights of an operator, some of which may rest by chance (a dead ReLU).
    """
    rows, still = row_operators(model), 0
    for kind, values in before.items():
        for name, old in values.items():
            new = after[kind][name]
            if name not in rows:
                assert not np.array_equal(old, new), f"{kind} of {name} stood still"
                continue
            layer, operators = rows[name]
            drawn = {SPACE.operator_index(row[layer - 1]) for a in architectures for row in a.paths}
            for row, operator in enumerate(operators):
                if operator not in drawn:
                    assert old[row].tobytes() == new[row].tobytes(), f"{kind} of {name}[{row}]"
                    still += 1
                else:
                    assert not np.array_equal(old[row], new[row]), f"{kind} of {name}[{row}]"
    return still


def shaken(model, deviation=0.3):
    """The same supernet, whose gammas, betas and biases are not all alike then."""
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        if len(v.shape) < 3:
            v.assign(v + rng.normal(0, deviation, v.shape).astype(np.float32))
    return model


def draw(count, seed, size=8):
    """Images and labels, made up."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0.3, 2.0, (count, size, size, 3)).astype(np.float32)
    return images, rng.integers(0, 4, count)


class Killed(Exception):
    """What ends a training in `stopped_after`."""


@contextlib.contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """Within it a training ends once it has done more than so many steps, and it must get there."""
    progress = TrainingLoop._progress

    def fail_later(self: TrainingLoop, output: Any) -> Any:
        if self.step > step:
            raise Killed
        return progress(self, output)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingLoop, "_progress", fail_later)
        yield
