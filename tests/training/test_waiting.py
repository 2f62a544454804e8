"""The share of a training's time that it waits for data."""

from __future__ import annotations

import time

import pytest
import tensorflow as tf
from official.core import config_definitions as cfg
from tiny_training import FIRST, batches, codes, make_task, supernet_stage

from neas_tf.training.tasks import SupernetTaskConfig
from neas_tf.training.waiting import WaitingTrainer


@pytest.fixture
def make_trainer():
    def make(dataset, in_graph_loop):
        stage = supernet_stage(4, loop=2)
        stage.trainer.train_tf_while_loop = in_graph_loop
        task = make_task(stage)
        model, runtime = task.build_model(), cfg.RuntimeConfig()
        optimizer = task.create_masked_optimizer(model, stage.trainer.optimizer_config, runtime)
        task.draws.fill(0, codes(*[FIRST] * 4))
        config = cfg.ExperimentConfig(
            task=SupernetTaskConfig(), trainer=stage.trainer, runtime=runtime
        )
        arguments = {"train": True, "evaluate": False, "train_dataset": dataset}
        return WaitingTrainer(config, task, model, optimizer, **arguments)

    return make


@pytest.mark.parametrize("in_graph_loop", [True, False])
def test_each_fetch_is_timed_once_and_shares_begin_anew(make_trainer, monkeypatch, in_graph_loop):
    """With a clock in the graph that ticks at every look, and one in Python that does, too."""
    ticks, now = tf.Variable(0.0, dtype=tf.float64), [0.0]

    def look():
        now[0] += 40.0
        return now[0]

    monkeypatch.setattr(tf, "timestamp", lambda: ticks.assign_add(3.0).read_value())
    monkeypatch.setattr(time, "perf_counter", look)
    trainer = make_trainer(batches(0), in_graph_loop)
    assert trainer.waiting_share() == 0.0
    trainer.train(tf.constant(2))
    assert trainer.waiting_share() == pytest.approx(2 * 3.0 / 40.0)
    trainer.train(tf.constant(1))
    assert trainer.waiting_share() == pytest.approx(3.0 / 40.0)
    assert trainer.waiting_share() == 0.0
    assert int(trainer.global_step.numpy()) == 3


def test_waiting_is_seen_where_the_data_are_slow(make_trainer):
    """Steps take as long in both, so that an order is safe to ask for; no bound on times."""
    waits = []
    for seconds in (0.0, 0.3):
        dataset = batches(0).map(
            lambda x, y, s=seconds: (
                tf.numpy_function(lambda v, s=s: (time.sleep(s), v)[1], [x], x.dtype),
                y,
            )
        )
        trainer = make_trainer(
            dataset.map(lambda x, y: (tf.ensure_shape(x, (8, 8, 8, 3)), y)), True
        )
        trainer.train(tf.constant(1))
        trainer.waiting_share()
        trainer.train(tf.constant(3))
        waits.append(float(trainer._waited.numpy()))
    assert waits[1] > waits[0]


def test_steps_that_compute_do_not_wait(make_trainer):
    """Of data in memory; a share near 1 says that the clock was read when the step was done."""
    one = tf.data.Dataset.from_tensors(next(iter(batches(0))))
    trainer = make_trainer(one.cache().repeat(), True)
    trainer.train(tf.constant(1))
    trainer.waiting_share()
    trainer.train(tf.constant(3))
    assert 0.0 < trainer.waiting_share() < 0.5
