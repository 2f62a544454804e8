"""The supernet's training step in TensorFlow: a worker of `benchmarks.supernet_step`.

    python -m benchmarks.supernet_worker CASE (float32 | mixed_bfloat16)

What is timed is the project's own `SupernetTask.train_step` with the optimizer that the supernet's
stage makes, in one `tf.function`, on a batch in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.supernet_cases import CASES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, Case, batch
from benchmarks.workers import peak_memory_gb, serve
from neas_tf.space.search_space import SearchSpace, Stage

_SIZE, _CHANNELS, _BATCH = 28, 256, 16  # of the convolution that shows what the machine can do


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


class Trainer:
    """A supernet, its optimizer and one traced step.

    Args:
      space, num_paths: what is trained.
      codes: the draw table, int32 (n, 1 + K·d).
    """

    def __init__(self, space: SearchSpace, num_paths: int, codes: np.ndarray):
        import tensorflow as tf
        from official.core import config_definitions as cfg

        from neas_tf.config.resolve import resolve_steps
        from neas_tf.config.settings import SupernetConfig
        from neas_tf.training.tasks import SupernetTask, SupernetTaskConfig

        stage = SupernetConfig(weight_decay=WEIGHT_DECAY)
        optimizer = stage.trainer.optimizer_config
        optimizer.optimizer.sgd.momentum = MOMENTUM
        optimizer.learning_rate.polynomial.initial_learning_rate = LEARNING_RATE
        stage = resolve_steps(stage, 1_000_000, "supernet")
        self.task = SupernetTask(SupernetTaskConfig(), space, num_paths, stage, len(codes))
        self.model = self.task.build_model()
        self.optimizer = self.task.create_masked_optimizer(
            self.model, stage.trainer.optimizer_config, cfg.RuntimeConfig()
        )
        self.task.draws.fill(0, codes)

        @tf.function
        def step(images, labels):
            return self.task.train_step((images, labels), self.model, self.optimizer)

        self.traced = step

    def reset(self) -> None:
        """Back to the initial weights, and no momentum."""
        for variable, new in zip(self.model.weights, self.task.build_model().weights, strict=True):
            variable.assign(new)
        for slot in self.optimizer.variables():
            slot.assign(np.zeros(slot.shape, slot.dtype.as_numpy_dtype))

    def step(self, index: int, images, labels) -> float:
        """Trains on the ensemble with that place in the draw table; returns the loss."""
        self.optimizer.iterations.assign(index)
        return float(self.traced(images, labels)[self.task.loss])


def own_space(
    space: SearchSpace, code: np.ndarray, num_paths: int
) -> tuple[SearchSpace, np.ndarray]:
    """The space of nothing but one ensemble's operators, one layer a stage, and the ensemble in it.

    Layers that all paths skip are left out.
    """
    split, rows = int(code[0]), np.reshape(code[1:], (num_paths, -1))
    names = [tuple(space.operators[i] for i in sorted(set(column))) for column in rows.T.tolist()]
    kept = [m for m, found in enumerate(names) if found != ("skip",)]
    stages = tuple(Stage(space.layers[m].c_out, 1, space.layers[m].stride, names[m]) for m in kept)
    split = sum(m < split for m in kept)
    own = dataclasses.replace(space, stages=stages, min_split=split, max_split=split)
    return own, np.array([split, *rows[:, kept].ravel()], np.int32)


@contextlib.contextmanager
def constant_choices() -> Iterator[None]:
    """Traces only the branch of a `tf.switch_case` that its index, known by then, takes.

    Functions inside the one that is traced (by `get_concrete_function`, which goes on) become part of
    it, for an index that is handed to one must be known there, too.
    """
    import tensorflow as tf

    original = tf.switch_case
    eager = tf.config.functions_run_eagerly()

    def chosen(branch_index, branch_fns, *args, **kwargs):
        return list(branch_fns)[min(_constant(branch_index), len(branch_fns) - 1)]()

    tf.switch_case = chosen
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(eager)
        tf.switch_case = original


def _constant(tensor) -> int:
    """The value of a tensor that is computed from constants in a graph."""
    import tensorflow as tf

    if hasattr(tensor, "numpy"):
        return int(tensor)
    whole = tensor.graph.as_graph_def()
    part = tf.compat.v1.graph_util.extract_sub_graph(whole, [tensor.op.name])
    with tf.Graph().as_default() as graph:
        (found,) = tf.import_graph_def(part, return_elements=[tensor.name], name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return int(session.run(found))


def traced_alone(case: Case, code: np.ndarray) -> Trainer:
    """The same code for one ensemble: its operators only, chosen when it is traced."""
    import tensorflow as tf

    space, own = own_space(case.space, code, case.num_paths)
    trainer = Trainer(space, case.num_paths, own[None])
    trainer.task.draws.at = lambda step: tf.constant(own)
    images, labels = map(tf.constant, batch(case))
    with constant_choices():
        trainer.traced = trainer.traced.get_concrete_function(images, labels)
    trainer.step(0, images, labels)
    return trainer


def limit() -> Callable[[], Any]:
    """A large float32 1×1 convolution: what one core can do."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((_BATCH, _SIZE, _SIZE, _CHANNELS), np.float32))
    kernel = tf.constant(rng.standard_normal((1, 1, _CHANNELS, _CHANNELS), np.float32))
    call = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    call()
    return call


LIMIT_MACS = _BATCH * _SIZE * _SIZE * _CHANNELS * _CHANNELS


def main(name: str, precision: str) -> None:
    """Serves the steps of a case."""
    case, state, marks = CASES[name], {}, Marks()
    marks.set("python")

    def setup(codes: list[list[int]], threads: int) -> dict[str, Any]:
        import tensorflow as tf

        marks.set("tensorflow")
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        import tf_keras

        from neas_tf.supernet.grappler import safe_switches
        from neas_tf.training import tasks  # noqa: F401 (with Model Garden)

        marks.set("project")
        safe_switches().__enter__()  # for as long as the process lives, as in the stage
        tf_keras.mixed_precision.set_global_policy(precision)
        state["data"] = tuple(map(tf.constant, batch(case)))
        state["codes"] = np.array(codes, np.int32)
        state["trainer"] = Trainer(case.space, case.num_paths, state["codes"])
        marks.set("built")
        step(0)
        marks.set("first_step")
        return {"marks": marks, "tensorflow": tf.__version__}

    def step(index: int) -> float:
        return state["trainer"].step(index, *state["data"])

    def trace_alone(index: int) -> None:
        state["alone", index] = traced_alone(case, state["codes"][index])

    def step_alone(index: int) -> float:
        return state["alone", index].step(0, *state["data"])

    def forget_alone(index: int) -> None:
        del state["alone", index]

    def limit_run(count: int) -> float:
        """GMAC/s."""
        if "limit" not in state:
            state["limit"] = limit()
        begin = time.process_time()
        for _ in range(count):
            state["limit"]()
        return count * LIMIT_MACS / (time.process_time() - begin) / 1e9

    def curve(steps: int, data_dir: str) -> list[float]:
        """Losses (mean over the paths) of a training from the initial weights."""
        import tensorflow as tf

        state["trainer"].reset()
        return [
            state["trainer"].step(i % len(state["codes"]), tf.constant(x), tf.constant(y))
            for i, (x, y) in enumerate(_batches(case, steps, data_dir))
        ]

    handlers = (setup, step, trace_alone, step_alone, forget_alone, limit_run, curve)
    serve({h.__name__: h for h in handlers} | {"memory": peak_memory_gb})


def _batches(case: Case, steps: int, data_dir: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """CIFAR-10's first training batches, or random ones without a folder."""
    if not data_dir:
        yield from (batch(case, step) for step in range(steps))
        return
    from neas_tf import data

    config = data.DataConfig(source="tfds", name="cifar10", data_dir=data_dir, augment="crop_flip")
    info = data.load(config)
    dataset = data.make_dataset(info, "train", case.batch_size, training=True, seed=0)
    yield from dataset.take(steps).as_numpy_iterator()


if __name__ == "__main__":
    main(*sys.argv[1:])
