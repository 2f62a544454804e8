"""Works out what a configuration leaves open: sizes from the data, steps from the epochs."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TypeVar

from neas_tf.common.errors import NeasError, check, fail
from neas_tf.config.parse import apply_override
from neas_tf.config.settings import NeasConfig, RetrainConfig, StageConfig, search_space
from neas_tf.cost.space_fitting import AUTO, fit_space
from neas_tf.data import DatasetInfo
from neas_tf.space.search_space import SearchSpace

S = TypeVar("S", bound=StageConfig)
_SCHEDULES = ("polynomial", "cosine")


def resolve_space(config: NeasConfig, info: DatasetInfo) -> SearchSpace:
    """Fills the space's input shape and classes from the data, and checks what is given."""
    height, width, channels = info.input_shape
    space = config.space
    if not space.input_size:
        space.input_size = [height, width]
    if not space.input_channels:
        space.input_channels = channels
    if not space.num_classes:
        space.num_classes = info.num_classes
    if space.scale == AUTO:
        _fit(config)
    result = search_space(space)
    shape = (*result.input_size, result.input_channels)
    check(shape == info.input_shape, "space.input_size", shape, f"the data's {info.input_shape}")
    check(
        result.num_classes == info.num_classes,
        "space.num_classes",
        result.num_classes,
        f"the data's {info.num_classes} classes",
    )
    return result


def _fit(config: NeasConfig) -> None:
    """Replaces `space` by one that fits the search's bounds."""
    space, search = config.space, config.search
    given = {"macs": search.max_macs, "params": search.max_params}
    bounds = {metric: value for metric, value in given.items() if value}
    if not bounds:
        fail("space.scale", AUTO, "search.max_macs or search.max_params beside it")
    fit = fit_space(
        (space.input_size[0], space.input_size[1]),
        space.input_channels,
        space.num_classes,
        config.num_paths,
        bounds,
        config.heterogeneous,
    )
    settings = {**fit.space.to_dict(), "activation": space.activation, "scale": "fitted"}
    apply_override(config, {"space": settings})


def retrain_part(retrain: RetrainConfig) -> str:
    """The part of the data that the found ensemble is trained on."""
    return "supernet" if retrain.calibrate else "train"


def resolve_steps(stage: S, examples: int, field: str) -> S:
    """A copy of a stage whose trainer has steps where it had zeros.

    Args:
      stage: supernet or retrain.
      examples: images of one epoch.
      field: the stage's name, for messages.

    Raises:
      NeasError: for a batch larger than the data or no training at all.
    """
    stage = copy.deepcopy(stage)
    check(
        0 < stage.batch_size <= examples,
        f"{field}.batch_size",
        stage.batch_size,
        f"1 to {examples}, the images of the stage",
    )
    trainer, per_epoch = stage.trainer, examples / stage.batch_size
    if not trainer.train_steps:
        trainer.train_steps = round(stage.epochs * per_epoch)
    if trainer.train_steps < 1:
        raise NeasError(f"{field}.epochs: received {stage.epochs}, expected more than 0.")
    epoch = max(1, math.ceil(per_epoch))
    trainer.steps_per_loop = trainer.steps_per_loop or max(1, min(100, epoch // 2))
    # Orbit wants the summary interval to be a multiple of the loop.
    trainer.summary_interval = trainer.summary_interval or trainer.steps_per_loop
    trainer.checkpoint_interval = trainer.checkpoint_interval or max(epoch, trainer.steps_per_loop)
    trainer.validation_interval = trainer.validation_interval or trainer.train_steps
    schedule = trainer.optimizer_config.learning_rate
    warmup = trainer.optimizer_config.warmup
    if schedule.type in _SCHEDULES and not schedule.get().decay_steps:
        schedule.get().decay_steps = trainer.train_steps
    if warmup.type is None and stage.warmup_epochs:
        warmup.type = "linear"
        warmup.linear.warmup_learning_rate = 0.0
        warmup.linear.warmup_steps = 0
    if warmup.type == "linear" and not warmup.linear.warmup_steps:
        steps = round(stage.warmup_epochs * per_epoch)
        if steps:
            warmup.linear.warmup_steps = min(steps, trainer.train_steps)
        else:
            warmup.type = None
    return stage


def shrink_boundaries(every_epochs: float, epochs_to_steps: float, total: int) -> list[int]:
    """Steps after which the space shrinks: every so many epochs, the last one included."""
    if every_epochs <= 0:
        return []
    interval = every_epochs * epochs_to_steps
    # Each boundary is rounded by itself, so that the last one is not lost after the end.
    steps = {max(1, round(i * interval)) for i in range(1, int(total / interval) + 2)}
    return sorted(step for step in steps if step <= total)


# Settings of `data` that a stage may override.
OF_A_STAGE = ("augment", "auto_augment", "rand_augment", "cutout")


def with_augmentation(info: DatasetInfo, stage: StageConfig) -> DatasetInfo:
    """The data with what a stage overrides of their augmentation."""
    changes = {name: getattr(stage, name) for name in OF_A_STAGE if getattr(stage, name)}
    if not changes:
        return info
    config = info.config.replace(**changes)
    config.check()
    return dataclasses.replace(info, config=config)
