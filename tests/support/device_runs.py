"""Short trainings on logical CPU devices: `python device_runs.py FOLDER REPLICAS`.

A process of its own, for TensorFlow splits a CPU only before it starts, and takes one
group of devices for collective operations in a process.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras
import tiny_training as tiny
from official.core import config_definitions as cfg

STEPS = 5
COPIES = 4


def repeated_batches(first: int, context=None) -> tf.data.Dataset:
    """Global batches [x; x; x; x]: each of 1, 2 or 4 replicas sees the same mixture of images."""
    replicas = context.num_replicas_in_sync if context else 1

    repeats = COPIES // replicas

    def generate():
        for step in range(first, first + tiny.STEPS):
            share = tuple(np.concatenate([part] * repeats) for part in tiny.batch(step, 4))
            yield from [share] * replicas

    return tiny.in_memory(generate())


@functools.cache
def mirrored(replicas: int) -> tf.distribute.Strategy:
    """Replicas on the logical CPUs.

    Always the same object: two strategies in one process would give different collective
    operations the same keys, which TensorFlow refuses.
    """
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("CPU:0")
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def losses(folder: Path) -> list[float]:
    """The loss curve of a training."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


DRAWS = tiny.codes(tiny.FIRST, tiny.SECOND, tiny.FIRST, tiny.THIRD, tiny.SECOND, tiny.FIRST)
supernet = functools.partial(tiny.supernet_loop, make_batches=repeated_batches, draws=DRAWS)


def supernet_curve(folder: Path, replicas: int) -> dict:
    """Trains STEPS steps, which it saves, and one more; checks after each of them what moved."""
    order = (tiny.FIRST, tiny.SECOND, tiny.FIRST, tiny.THIRD, tiny.SECOND)
    with supernet(folder, mirrored(replicas)) as (loop, model):
        before, still = tiny.state_of(model, loop.optimizer), []
        for step, architecture in enumerate(order, 1):
            loop.train_to(step, save=step == STEPS)
            after = tiny.state_of(model, loop.optimizer)
            still.append(tiny.check_only_drawn_moved(model, before, after, architecture))
            before = after
        copies = [v.values for v in model.trainable_variables] if replicas > 1 else []
        for values in copies:
            assert len({value.numpy().tobytes() for value in values}) == 1, "replicas differ"
        np.savez(folder / "state.npz", **_flat(after))
        loop.train_to(STEPS + 1, save=False)
    *curve, following = losses(folder)
    return {"losses": curve, "next_loss": following, "rows_that_rested": still}


def several_draws(folder: Path, replicas: int) -> list[float]:
    """Losses of steps of three draws that learn from the first, with averages of the weights."""
    stage = tiny.supernet_stage()
    stage.draws_per_step, stage.distillation.teacher = 3, "widest"
    stage.trainer.optimizer_config.override({"ema": {"average_decay": 0.9}})
    draws = np.stack([np.roll(DRAWS[:3], step, 0) for step in range(6)])
    with supernet(folder, mirrored(replicas), stage=stage, draws=draws) as (loop, model):
        loop.train_to(3, save=False)
        for v in (*model.trainable_variables, *loop.optimizer._average_weights):
            copies = mirrored(replicas).experimental_local_results(v)
            assert len({value.numpy().tobytes() for value in copies}) == 1, "replicas differ"
    return losses(folder)


def restored(folder: Path) -> dict:
    """Two replicas' checkpoint on one device: the state, and the next step's loss."""
    folder = tiny.killed_behind(STEPS, folder, folder.with_name("restored"))
    saved = dict(np.load(folder / "state.npz"))
    with supernet(folder, mirrored(1)) as (loop, model):
        found = _flat(tiny.state_of(model, loop.optimizer))
        step = loop.step
        loop.train_to(STEPS + 1, save=False)
    return {
        "step": step,
        "largest_difference": max(float(np.abs(saved[n] - found[n]).max()) for n in saved),
        "next_loss": losses(folder)[-1],
    }


def float16(folder: Path) -> dict:
    """Loss scaling, the mask and two replicas together."""
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    runtime = cfg.RuntimeConfig(mixed_precision_dtype="float16")
    try:
        with supernet(folder / "supernet", mirrored(2), runtime=runtime) as (loop, model):
            before = tiny.state_of(model, loop.optimizer)
            loop.train_to(1, save=False)
            after = tiny.state_of(model, loop.optimizer)
            tiny.check_only_drawn_moved(model, before, after, tiny.FIRST)
        with tiny.ensemble_loop(folder / "ensemble", mirrored(2), runtime=runtime) as (loop, _):
            loop.train_to(1, save=False)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    return {"losses": losses(folder / "supernet") + losses(folder / "ensemble")}


def ensemble_resume(folder: Path) -> dict:
    """Retraining with dropout and EMA on two replicas, straight and interrupted."""
    results = []
    for name, begin in (("straight", 0), ("interrupted", 2)):
        if begin:
            tiny.killed_behind(begin, folder / "straight", folder / name)
        with tiny.ensemble_loop(folder / name, mirrored(2)) as (loop, model):
            assert loop.step == begin
            loop.train_to(4)
        results.append([v.numpy() for v in model.trainable_variables])
    different = [not np.array_equal(a, b) for a, b in zip(*results, strict=True)]
    curves = [losses(folder / name) for name in ("straight", "interrupted")]
    return {"different": sum(different), "curves": curves}


def _flat(state: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{kind}/{name}": v for kind, values in state.items() for name, v in values.items()}


def main(folder: Path, replicas: int) -> None:
    """Does everything for so many replicas and writes results.json."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, devices)
    # Tracing is most of the time here.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    results = {"curve": supernet_curve(folder / "curve", replicas)}
    if replicas == 2:
        results["one_device"] = supernet_curve(folder / "one_device", 1)
        results["several_draws"] = [several_draws(folder / f"several{n}", n) for n in (1, 2)]
        results["restored"] = restored(folder / "curve")
        results["float16"] = float16(folder / "float16")
        results["ensemble_resume"] = ensemble_resume(folder / "ensemble")
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
