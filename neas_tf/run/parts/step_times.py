"""What trainings and a search cost, in CPU seconds of this process."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf import data
from neas_tf.config.resolve import resolve_steps, retrain_part
from neas_tf.config.settings import NeasConfig
from neas_tf.run.cluster import Cluster
from neas_tf.run.parts.measuring import training_part
from neas_tf.run.parts.spans import draws_of
from neas_tf.run.retrain_stage import chosen_architecture, retrain_loop
from neas_tf.run.search_stage import make_evaluator
from neas_tf.run.supernet_stage import supernet_loop
from neas_tf.space import sampling
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches
from neas_tf.training.rollbacks import OnDivergence
from neas_tf.training.training_loop import TrainingLoop

# Settings, folder of the run (not used), data, space and cluster, as a stage takes them.
Inputs = tuple[NeasConfig, Path, data.DatasetInfo, SearchSpace, Cluster]


def epoch_seconds(
    each: Sequence[Inputs], blocks: int = 7, steps: int = 12
) -> list[tuple[float, ...]]:
    """CPU seconds that an epoch of supernet training takes, of all threads of this process.

    Blocks of steps take turns, so that what else the machine does meets all alike. Tracing is left out.

    Args:
      each: of the runs.
      blocks: measured, of each.
      steps: of a block.

    Returns:
      For each block, the seconds of each run.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(each[0][-1].strategy.scope())
        stack.enter_context(safe_switches())
        loops = [stack.enter_context(_supernet_loop(inputs, blocks, steps)) for inputs in each]
        return _in_turns(loops, blocks, steps)


def retrain_epoch_seconds(inputs: Inputs, blocks: int = 7, steps: int = 12) -> list[float]:
    """The same of an ensemble's training (`retrain.architecture`), block by block."""
    with inputs[-1].strategy.scope(), _retrain_loop(inputs, blocks, steps) as loop:
        return [seconds for (seconds,) in _in_turns([loop], blocks, steps)]


def candidate_seconds(inputs: Inputs, supernet: Supernet, count: int = 12) -> float:
    """CPU seconds in which a search evaluates a candidate: their statistics and their accuracy.

    Args:
      inputs: of the run.
      supernet: trained or not, it takes the same time.
      count: candidates, drawn from the whole space; as many before them are not measured.
    """
    config, _, info, space, cluster = inputs
    full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
    rng = np.random.default_rng(config.seed)
    evaluator = make_evaluator(config, info, supernet, cluster)
    for _ in range(2):
        candidates = [sampling.uniform(full, rng) for _ in range(count)]
        began = time.process_time()
        evaluator.evaluate_all(candidates, lambda share: None)
    return (time.process_time() - began) / count


_Loop = tuple[TrainingLoop, float]  # a training, and its steps of an epoch


def _in_turns(loops: Sequence[_Loop], blocks: int, steps: int) -> list[tuple[float, ...]]:
    result = []
    for _ in range(blocks):
        seconds = []
        for loop, per_epoch in loops:
            began = time.process_time()
            loop.train_to(loop.step + steps, save=False)
            seconds.append((time.process_time() - began) * per_epoch / steps)
        result.append(tuple(seconds))
    return result


def _short(stage: Any, blocks: int, steps: int) -> Any:
    """The settings of a training, for so many blocks after a first one, without a checkpoint between."""
    trainer: Any = stage.trainer
    trainer.train_steps = (blocks + 1) * steps
    trainer.steps_per_loop = trainer.summary_interval = steps
    trainer.checkpoint_interval = trainer.train_steps
    return stage


@contextlib.contextmanager
def _supernet_loop(inputs: Inputs, blocks: int, steps: int) -> Iterator[_Loop]:
    """A supernet's training after its first block; nothing of it is kept."""
    config, _, info, space, _ = inputs
    images = info.sizes[training_part(config)]
    stage = _short(resolve_steps(config.supernet, images, "supernet"), blocks, steps)
    diverging = OnDivergence.of(stage, space.num_classes, "supernet")
    with tempfile.TemporaryDirectory() as folder:
        loop = supernet_loop(config, stage, info, space, Path(folder), diverging, ())
        with contextlib.closing(loop):
            full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
            task = loop.trainer.task
            task.draws.fill(0, draws_of(task, full, config.seed, 0, stage.trainer.train_steps))
            loop.train_to(steps, save=False)
            yield loop, images / stage.batch_size


@contextlib.contextmanager
def _retrain_loop(inputs: Inputs, blocks: int, steps: int) -> Iterator[_Loop]:
    """An ensemble's training after its first block; nothing of it is kept."""
    config, model_dir, info, space, _ = inputs
    images = info.sizes[retrain_part(config.retrain)]
    stage = _short(resolve_steps(config.retrain, images, "retrain"), blocks, steps)
    diverging = OnDivergence.of(stage, space.num_classes, "retrain")
    chosen = chosen_architecture(config, model_dir, space)
    with tempfile.TemporaryDirectory() as folder:
        where = (space, Path(folder), diverging, ())
        loop = retrain_loop(config, stage, info, chosen, *where, begin=lambda model: None)
        with contextlib.closing(loop):
            loop.train_to(steps, save=False)
            yield loop, images / stage.batch_size
