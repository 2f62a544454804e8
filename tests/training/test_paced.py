"""A training whose length is planned while it runs: its rates, and the same bits when it is resumed."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from tiny_training import FIRST, SPACE, batches, retrain_stage

from neas_tf.common import console
from neas_tf.training.optimizers import create_optimizer, create_slots
from neas_tf.training.paced import CoursePosition, Pace, planned_rate
from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig
from neas_tf.training.time_plan import Course, Pacer, Segment
from neas_tf.training.training_loop import TrainingLoop


def test_rates_follow_the_recipe():
    rate = tf_keras.optimizers.schedules.PolynomialDecay(1.0, 100, 0.0)
    course, position = Course(100, (Segment(10, 40), Segment(20, 26))), CoursePosition()
    planned, found = planned_rate(rate, position), []
    read = tf.function(lambda step: planned(step))  # traced once, as a training step is
    for step in range(course.total + 1):
        position.piece.assign(course.piece(step))
        found.append(float(read(tf.constant(step, tf.int64))))
    expected = [1 - course.recipe_step(step) / 100 for step in range(course.total + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[-1] == pytest.approx(0, abs=1e-5)
    assert planned_rate(rate, None) is rate and planned_rate(0.1, position) == 0.1


class Stopped(Exception):
    pass


DEADLINE = 30.0


def say(course, seconds):
    console.say(f"Plan: {course.total}")


def train(folder, course, clock, stop=None):
    """Trains on a clock that the steps move.

    Args:
      folder, course: of the training.
      clock: steps done → seconds.
      stop: step after whose look it is killed.

    Returns:
      (weights, course); no weights of one that was killed.
    """
    stage, kept = retrain_stage(steps=12, loop=2), []
    tf_keras.backend.experimental.enable_tf_random_generator()
    tf_keras.utils.set_random_seed(5)
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        task = EnsembleTask(EnsembleTaskConfig(), FIRST, SPACE, stage)
        model = task.build_model()

        def save(course):
            kept.append(course)
            if stop is not None and loop.step >= stop:
                raise Stopped

        loop = None
        pacer = Pacer(course, 0.0, DEADLINE, lambda: clock(loop.step if loop else 0), 10_000)
        pace = Pace(pacer, save, lambda values: values, say)
        position = pace.begin()
        optimizer = create_optimizer(
            stage.trainer.optimizer_config,
            cfg.RuntimeConfig(),
            lambda rate: planned_rate(rate, position),
        )
        create_slots(optimizer, model)
        config = cfg.ExperimentConfig(
            task=EnsembleTaskConfig(), trainer=stage.trainer, runtime=cfg.RuntimeConfig()
        )
        parts = (config, task, model, optimizer, batches, folder, 2.0, "retrain")
        loop = TrainingLoop(*parts, paced=True)
        try:
            pace.train(loop, lambda: pace.course.total)
            loop.save()
        except Stopped:
            return None, kept[-1]
        finally:
            loop.close()
        return model.get_weights(), pace.course


def test_a_resumed_training_has_the_same_bits(tmp_path, monkeypatch, capsys):
    """It goes back to its last checkpoint and repeats what was planned after that.

    Its bar has the length that was told last, and none before.
    """
    monkeypatch.setattr(console, "LOG_INTERVAL", 0.0)

    def slower(step):
        return step + max(0.0, step - 8.0)

    whole, course = train(tmp_path / "whole", Course(12), slower)
    told, plan = re.findall(r"(retrain: .*? of|Plan:) (\S+)", capsys.readouterr().err), "?"
    for words, total in told:
        plan = total if words == "Plan:" else plan
        assert total == plan, told
    assert plan == str(course.total) and told[0][1] == "?"
    last = course.segments[-1]
    assert len(course.segments) > 1 and 12 < course.total < DEADLINE and last.step > 8
    _, planned = train(tmp_path / "cut", Course(12), slower, stop=last.step)
    assert planned == course
    resumed, again = train(tmp_path / "cut", planned, lambda step: DEADLINE * step / planned.total)
    assert again == course
    for value, expected in zip(resumed, whole, strict=True):
        assert value.tobytes() == expected.tobytes()
