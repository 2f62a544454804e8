"""A tiny detector on Model Garden's trainer: steps, COCO metrics, resume, initial weights."""

import json

import pytest
import tensorflow as tf
from official.core import task_factory, train_lib
from small_detection import make_coco, tiny_config

from neas_tf.detection.pictures import evaluations
from neas_tf.detection.task import NeasRetinaNetTask


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(coco, tmp_path_factory):
    """The folder of a run of two steps, with an evaluation behind them."""
    folder = tmp_path_factory.mktemp("run")
    runner = start(coco, folder, "train_and_eval", 2)
    assert int(runner.trainer.global_step) == 0
    runner.run()
    return folder


def start(coco, folder, mode, steps):
    config = tiny_config(coco)
    config.trainer.train_steps = steps
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        task = task_factory.get_task(config.task, logging_dir=str(folder))
    assert isinstance(task, NeasRetinaNetTask)
    return train_lib.OrbitExperimentRunner(strategy, task, mode, config, str(folder))


def test_two_steps_and_an_evaluation_of_every_picture(finished, coco):
    (row,) = evaluations.read(finished)
    assert row["step"] == 2
    assert row["annotations"] == f"{coco}/instances.json"
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl"} <= set(row["metrics"])
    assert all(-1 <= value <= 1 for value in row["metrics"].values())
    assert json.loads((finished / "best_ckpt" / "info.json").read_text())["AP"] >= -1


def test_a_run_goes_on_at_the_right_step(finished, coco):
    runner = start(coco, finished, "train", 3)
    assert int(runner.trainer.global_step) == int(runner.trainer.optimizer.iterations) == 2
    runner.run()
    assert int(runner.trainer.global_step) == 3
    assert tf.train.latest_checkpoint(str(finished)).endswith("ckpt-3")


def test_any_input_size_is_padded_to_the_pyramids_stride(coco):
    config = tiny_config(coco)
    config.task.model.input_size = [40, 70, 3]
    task = NeasRetinaNetTask(config.task)
    images, labels = next(iter(task.build_inputs(config.task.train_data)))
    assert images.shape[1:] == (64, 96, 3)
    model = task.build_model()
    assert tuple(model.backbone.output_specs["3"]) == (None, 8, 12, 8)
    outputs = model(images, training=True)
    loss, *_ = task.build_losses(outputs, labels)
    assert bool(tf.math.is_finite(loss))


def test_a_frozen_backbone_has_no_gradients(coco):
    config = tiny_config(coco, freeze_backbone=True)
    model = NeasRetinaNetTask(config.task).build_model()
    names = {id(v) for v in model.backbone.weights}
    assert names and not names & {id(v) for v in model.trainable_variables}
