"""What supernet training costs under several settings, measured in turn."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neas_tf import data
from neas_tf.config.resolve import resolve_steps
from neas_tf.config.settings import NeasConfig
from neas_tf.run.cluster import Cluster
from neas_tf.run.parts.measuring import training_part
from neas_tf.run.parts.spans import draws_of
from neas_tf.run.supernet_stage import supernet_loop
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
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
        loops = [stack.enter_context(_loop(inputs, blocks, steps)) for inputs in each]
        result = []
        for _ in range(blocks):
            seconds = []
            for loop, per_epoch in loops:
                began = time.process_time()
                loop.train_to(loop.step + steps, save=False)
                seconds.append((time.process_time() - began) * per_epoch / steps)
            result.append(tuple(seconds))
    return result


@contextlib.contextmanager
def _loop(inputs: Inputs, blocks: int, steps: int) -> Iterator[tuple[TrainingLoop, float]]:
    """A training after its first block, and its steps of an epoch; nothing of it is kept."""
    config, _, info, space, _ = inputs
    stage = resolve_steps(config.supernet, info.sizes[training_part(config)], "supernet")
    trainer: Any = stage.trainer
    trainer.train_steps = (blocks + 1) * steps
    trainer.steps_per_loop = trainer.summary_interval = steps
    trainer.checkpoint_interval = trainer.train_steps
    diverging = OnDivergence.of(stage, space.num_classes, "supernet")
    with tempfile.TemporaryDirectory() as folder:
        loop = supernet_loop(config, stage, info, space, Path(folder), diverging, ())
        try:
            full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
            task = loop.trainer.task
            task.draws.fill(0, draws_of(task, full, config.seed, 0, trainer.train_steps))
            loop.train_to(steps, save=False)
            yield loop, info.sizes[training_part(config)] / stage.batch_size
        finally:
            loop.close()
