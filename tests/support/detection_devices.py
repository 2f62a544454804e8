"""Two steps on two logical CPU devices: `python detection_devices.py FOLDER`.

A process of its own, for TensorFlow splits a CPU only before it starts. Both replicas see the
same pictures, so that they must find the same loss.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from small_detection import make_coco, tiny_config

from neas_tf.detection.task import NeasRetinaNetTask

STEPS = 2


def main(folder: Path) -> None:
    """Trains, and writes what was found to results.json."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Tracing is most of the time here.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    config = tiny_config(make_coco(folder / "coco"), losses={"l2_weight_decay": 1e-4})
    config.task.model.norm_activation.use_sync_bn = True
    config.trainer.optimizer_config.warmup.type = None  # it would begin with a rate of 0
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    task = NeasRetinaNetTask(config.task)
    with strategy.scope():
        model = task.build_model()
        optimizer = task.create_optimizer(config.trainer.optimizer_config, config.runtime)
    data = task.build_inputs(config.task.train_data)
    twice = data.map(lambda *batch: tf.nest.map_structure(lambda x: tf.concat([x, x], 0), batch))
    batches = iter(strategy.experimental_distribute_dataset(twice.take(STEPS)))

    @tf.function
    def step(inputs):
        return strategy.run(lambda x: task.train_step(x, model, optimizer)["loss"], (inputs,))

    losses = []
    for _ in range(STEPS):
        found = strategy.experimental_local_results(step(next(batches)))
        losses.append([float(loss) for loss in found])
    different = [
        v.name
        for v in model.trainable_variables
        if len({value.numpy().tobytes() for value in v.values}) > 1
    ]
    result = {"losses": losses, "different": different, "step": int(optimizer.iterations.numpy())}
    (folder / "results.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
