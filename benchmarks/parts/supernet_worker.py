"""The supernet's training step in TensorFlow: a worker of `benchmarks.supernet_step`.

    python -m benchmarks.parts.supernet_worker CASE

What is timed is the project's own `SupernetTask.train_step` with the optimizer that the supernet's
stage makes, in one `tf.function`, on a batch in memory.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.parts.supernet_cases import (
    CASES,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Case,
    batch,
)
from benchmarks.parts.workers import peak_memory_gb, serve

_SIZE, _CHANNELS, _BATCH = 28, 256, 16  # of the convolution that shows what the machine can do
LIMIT_MACS = _BATCH * _SIZE * _SIZE * _CHANNELS * _CHANNELS


class Marks(dict):
    """Seconds since the process began, by name, on the clock and of the processor."""

    def set(self, name: str) -> None:
        """Notes that something is done now."""
        self[name] = {"wall": time.time() - _process_start(), "cpu": time.process_time()}


def _process_start() -> float:
    with open("/proc/self/stat", encoding="utf-8") as stream:
        ticks = int(stream.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime", encoding="utf-8") as stream:
        uptime = float(stream.read().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def make_step(
    case: Case, codes: np.ndarray, strategy: Any = None, xla: bool = False
) -> dict[str, Any]:
    """Trains a case's supernet on the ensemble with a number in `codes`, int32 (n, 1 + K·d).

    Args:
      case: what is trained.
      codes: the drawn ensembles.
      strategy: of distribution, whose scope this is called in; None for none.
      xla: whether XLA compiles the step.

    Returns:
      `step`, (number, images, labels) → loss; `traced`, its `tf.function`; `model`.
    """
    import tensorflow as tf
    from official.core import config_definitions as cfg

    from neas_tf.config.resolve import resolve_steps
    from neas_tf.config.settings import SupernetConfig
    from neas_tf.training.tasks import SupernetTask, SupernetTaskConfig

    stage = SupernetConfig(weight_decay=WEIGHT_DECAY)
    settings = stage.trainer.optimizer_config
    settings.optimizer.sgd.momentum = MOMENTUM
    settings.learning_rate.polynomial.initial_learning_rate = LEARNING_RATE
    stage = resolve_steps(stage, 1_000_000, "supernet")
    task = SupernetTask(SupernetTaskConfig(), case.space, case.num_paths, stage, len(codes))
    model = task.build_model()
    optimizer = task.create_masked_optimizer(
        model, stage.trainer.optimizer_config, cfg.RuntimeConfig()
    )
    task.draws.fill(0, codes)
    run = strategy.run if strategy else lambda call, data: call(*data)
    traced = tf.function(
        lambda *data: run(lambda *own: task.train_step(own, model, optimizer), data),
        jit_compile=xla or None,
    )

    def step(number: int, images, labels) -> float:
        optimizer.iterations.assign(number)
        return float(traced(images, labels)[task.loss])

    return {"step": step, "traced": traced, "model": model}


def limit() -> Callable[[], Any]:
    """A large float32 1×1 convolution: what one core can do."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((_BATCH, _SIZE, _SIZE, _CHANNELS), np.float32))
    kernel = tf.constant(rng.standard_normal((1, 1, _CHANNELS, _CHANNELS), np.float32))
    call = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    call()
    return call


def main(name: str) -> None:
    """Serves the steps of a case."""
    case, state, marks = CASES[name], dict[str, Any](), Marks()
    marks.set("python")

    def setup(codes: list[list[int]], threads: int) -> dict[str, Any]:
        import tensorflow as tf

        marks.set("tensorflow")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        from neas_tf.supernet.switches import safe_switches
        from neas_tf.training import tasks  # noqa: F401 (with Model Garden)

        marks.set("project")
        safe_switches().__enter__()  # for as long as the process lives, as in the stage
        state["data"] = tuple(map(tf.constant, batch(case)))
        state.update(make_step(case, np.array(codes, np.int32)))
        marks.set("built")
        step(0)
        marks.set("first_step")
        state["limit"] = limit()
        return {"marks": marks, "tensorflow": tf.__version__}

    def step(index: int) -> float:
        return state["step"](index, *state["data"])

    def limit_run(count: int) -> float:
        """GMAC/s."""
        begin = time.process_time()
        for _ in range(count):
            state["limit"]()
        return count * LIMIT_MACS / (time.process_time() - begin) / 1e9

    serve({"setup": setup, "step": step, "limit_run": limit_run, "memory": peak_memory_gb})


if __name__ == "__main__":
    main(*sys.argv[1:])
