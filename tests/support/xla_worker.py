"""What XLA compiles when the supernet trains, is measured and is searched; prints it as JSON.

    XLA_FLAGS=--xla_dump_to=FOLDER python tests/support/xla_worker.py FOLDER

A process of its own: XLA reads where to write its programs once, before the first one. Each file
`*before_optimizations.txt` in FOLDER is one compilation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg

from neas_tf.config.settings import SupernetConfig
from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.shrinking.diversity import path_distances
from neas_tf.space.architecture import Architecture
from neas_tf.space.balanced_draws import balanced_draws
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches
from neas_tf.training.tasks import SupernetTask, SupernetTaskConfig

DRAWS, STEPS, BATCH = 20, 8, 4
MBCONV = ["k3e2", "k5e2", "k3e4", "skip"]
MIXED = ["k3e2", "k5e2", "fused_k3e2", "fused_k5e2", "uib_s3m5e2_se_swish", "skip"]


def space_of(operators: list[str]) -> SearchSpace:
    """Two layers, of which the first keeps its shape and the second has a stride."""
    return SearchSpace.from_dict(
        {
            "name": "toy",
            "input_size": 8,
            "num_classes": 4,
            "stem_channels": 8,
            "stem_stride": 1,
            "block_channels": 8,
            "stages": [[8, 1, 1], [16, 1, 2]],
            "operators": operators,
            "min_split": 0,
            "max_split": 2,
            "head_channels": 16,
            "feature_channels": 12,
        }
    )


def some_images(count: int) -> np.ndarray:
    """Normalised images (count, 8, 8, 3)."""
    return np.random.default_rng(1).normal(size=(count, 8, 8, 3)).astype(np.float32)


class Programs:
    """Counts what XLA has compiled since the last look."""

    def __init__(self, folder: Path):
        self._folder, self._seen = folder, 0

    def new(self) -> int:
        """Programs since the last call."""
        found = len(list(self._folder.glob("*before_optimizations.txt")))
        self._seen, before = found, self._seen
        return found - before


def train(
    operators: list[str], num_paths: int, precision: str, how: str, draws: int = 1
) -> dict[str, list]:
    """Losses of the steps; `how` is plain, compiled, or compiled in a loop of a strategy."""
    tf_keras.mixed_precision.set_global_policy(precision)
    space = space_of(operators)
    full, stage = ShrunkSpace.full(space, num_paths), SupernetConfig()
    stage.draws_per_step = draws
    codes = draws_for_steps(full, 0, 0, DRAWS)
    if draws > 1:
        codes = balanced_draws(full, 0, 0, DRAWS, draws)
        stage.zero_init_residual, stage.distillation.teacher = True, "widest"
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        task = SupernetTask(SupernetTaskConfig(), space, num_paths, stage, DRAWS)
        model = task.build_model()
        config = stage.trainer.optimizer_config
        config.learning_rate.type, config.learning_rate.constant.learning_rate = "constant", 0.05
        optimizer = task.create_masked_optimizer(model, config, cfg.RuntimeConfig())
    task.draws.fill(0, codes)
    data = tf.constant(some_images(BATCH)), tf.constant([0, 1, 2, 3])

    def step(images, labels):
        return task.train_step((images, labels), model, optimizer)[task.loss]

    if how == "loop":
        compiled = tf.function(step, jit_compile=True, autograph=False)

        @tf.function(autograph=False)
        def run():
            losses = tf.TensorArray(tf.float32, DRAWS)
            return tf.while_loop(
                lambda i, _: i < DRAWS,
                lambda i, found: (i + 1, found.write(i, strategy.run(compiled, data))),
                (0, losses),
            )[1].stack()

        losses = run().numpy().tolist()
    else:
        jit = True if how == "compiled" else None
        traced = tf.function(step, jit_compile=jit, autograph=False)
        losses = [float(strategy.run(traced, data)) for _ in range(DRAWS)]
    moving = [float(tf.reduce_sum(tf.abs(layer.moving))) for layer in model.searchable]
    tf_keras.mixed_precision.set_global_policy("float32")
    return {"losses": losses, "moving": moving}


def measured(jit: bool | None) -> list:
    """Distances and accuracies of the draws, as a shrink measures them."""
    space = space_of(MBCONV)
    model = Supernet(space, 2, seed=3)
    images, labels = tf.constant(some_images(BATCH)), tf.constant([0, 1, 2, 3], tf.int64)

    @tf.function(jit_compile=jit, autograph=False)
    def forward(architecture):
        output = model(images, architecture)
        again = model(images, architecture, output.moments)
        hits = tf.equal(tf.argmax(again.logits, -1), labels[None])
        return path_distances(output.features), tf.reduce_sum(again.logits), hits

    codes = draws_for_steps(ShrunkSpace.full(space, 2), 5, 0, DRAWS)
    return [[part.numpy().tolist() for part in forward(tf.constant(code))] for code in codes]


def scores(xla: bool, look) -> dict:
    """Scores of two generations of the same operators in other orders."""
    space = space_of(MBCONV)
    model = Supernet(space, 2, seed=3)
    images = some_images(16)
    evaluator = CandidateEvaluator(model, images, images, np.arange(16) % 4, 8, 8, xla=xla)
    found, programs = [], []
    for seed in (0, 1):
        codes = draws_for_steps(ShrunkSpace.full(space, 2), seed, 0, DRAWS)
        generation = [Architecture.from_array(code, space) for code in codes]
        found += [score.accuracy for score in evaluator.evaluate_all(generation)]
        programs.append(look.new())
    return {"scores": found, "programs": programs}


def main(folder: str) -> None:
    """Runs all cases."""
    look, result = Programs(Path(folder)), {}
    cases = {
        "one path": (MBCONV, 1, "float32", "compiled"),
        "mixed families": (MIXED, 2, "float32", "compiled"),
        "three paths": (MBCONV, 3, "float32", "loop"),
        "bfloat16": (MBCONV, 2, "mixed_bfloat16", "compiled"),
        "several draws": (MBCONV, 2, "float32", "compiled", 3),
    }
    with safe_switches():
        for name, (operators, num_paths, precision, how, *draws) in cases.items():
            plain = train(operators, num_paths, precision, "plain", *draws)
            look.new()
            compiled = train(operators, num_paths, precision, how, *draws)
            result[name] = {"plain": plain, "compiled": compiled, "programs": look.new()}
        plain = measured(None)
        look.new()
        result["measure"] = {"plain": plain, "compiled": measured(True), "programs": look.new()}
        plain = scores(False, look)
        result["search"] = {"plain": plain, "compiled": scores(True, look)}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
