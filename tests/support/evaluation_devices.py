"""Scores a generation on one and on two logical CPU devices: `python evaluation_devices.py`.

A process of its own, for TensorFlow splits a CPU only before it starts.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tiny_training import SPACE

from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.space.sampling import uniform
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet


def main() -> None:
    """Prints 'equal', or fails."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2, devices
    model, rng = Supernet(SPACE, 2, seed=4, name="supernet"), np.random.default_rng(1)
    for v in model.trainable_variables:
        if len(v.shape) < 3:
            v.assign(v + rng.normal(0, 0.3, v.shape).astype(np.float32))
    images, labels = rng.normal(0, 2, (120, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, 120)
    shrunk = ShrunkSpace.full(SPACE, 2)
    generation = [uniform(shrunk, rng) for _ in range(12)]
    scores = []
    for names in ([None], devices):
        evaluator = CandidateEvaluator(model, images[:24], images, labels, 8, 40, names)
        scores.append(evaluator.evaluate_all(generation))
    used = set()
    for functions in evaluator._functions:  # of the two devices
        with functions.on_device():
            part = functions.operator(2, "k3e4")
            used.add(part.run(tf.ones([1, 8, 8, 8]), part.zeros() + 1.0).device)
    assert len(used) == 2, used
    assert scores[0] == scores[1], scores
    assert len({score.accuracy for score in scores[0]}) > 2
    print("equal")


if __name__ == "__main__":
    main()
