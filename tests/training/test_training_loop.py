"""A training that was interrupted ends as one that was not, to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import (
    SPACE,
    ensemble_loop,
    killed_behind,
    make_task,
    retrain_stage,
    state_of,
    supernet_loop,
    supernet_stage,
)

from neas_tf.common.errors import NeasError
from neas_tf.run.parts.spans import train_span
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.optimizers import take_averages
from neas_tf.training.training_loop import MetricsLog


def lines(folder):
    return (folder / "metrics.jsonl").read_text()


def test_supernet_resumes_exactly(tmp_path):
    states = []
    for name, begin in (("straight", 0), ("interrupted", 4)):
        if begin:
            killed_behind(begin, tmp_path / "straight", tmp_path / name)
        with supernet_loop(tmp_path / name, stage=supernet_stage(6)) as (loop, model):
            assert loop.step == loop.first_step == begin
            loop.train_to(6)
        states.append(state_of(model, loop.optimizer))
    for kind, values in states[0].items():
        for name, value in values.items():
            assert value.tobytes() == states[1][kind][name].tobytes(), f"{kind} of {name}"
    assert lines(tmp_path / "straight") == lines(tmp_path / "interrupted")
    steps = [json.loads(line)["step"] for line in lines(tmp_path / "straight").splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert latest_step(tmp_path / "straight") == 6


def test_retraining_with_dropout_and_average_resumes_exactly(tmp_path):
    """In a folder, too, whose name TensorFlow reads as a pattern."""
    tmp_path = tmp_path / "rate[0.1]"
    results = []
    for name, begin in (("straight", 0), ("interrupted", 4)):
        if begin:
            killed_behind(begin, tmp_path / "straight", tmp_path / name)
        with ensemble_loop(tmp_path / name, stage=retrain_stage(6)) as (loop, model):
            assert loop.step == begin
            loop.train_to(6)
        optimizer = loop.optimizer
        slots = [optimizer.get_slot(v, "average").numpy() for v in model.variables]
        momentum = [
            optimizer._optimizer.get_slot(v, "momentum").numpy() for v in model.trainable_variables
        ]
        weights = model.get_weights()
        with tf.distribute.OneDeviceStrategy("CPU:0").scope():
            take_averages(optimizer)
        results.append([*slots, *momentum, *weights, *model.get_weights()])
    for i, (a, b) in enumerate(zip(*results, strict=True)):
        assert a.tobytes() == b.tobytes(), i
    assert lines(tmp_path / "straight") == lines(tmp_path / "interrupted")


def test_dropout_changes_from_step_to_step_and_with_the_restored_state(tmp_path):
    """Without the generator's state in the checkpoint the test above would prove nothing."""
    with ensemble_loop(tmp_path) as (loop, model):
        loop.train_to(1)
        keys = [name for name, _ in tf.train.list_variables(str(tmp_path)) if "generator" in name]
        a, b = (model(np.ones((2, 8, 8, 3), np.float32), training=True).numpy() for _ in range(2))
    assert keys
    assert not np.array_equal(a, b)


def test_lines_behind_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 6}\n{"ste')
    MetricsLog(path, 4).append({"step": 5})
    assert [json.loads(s)["step"] for s in path.read_text().splitlines()] == [2, 4, 5]


@pytest.mark.parametrize(("begin", "expected"), [(0, [4, 8, 11]), (3, [4, 8, 11]), (4, [8, 11])])
def test_draw_tables_end_at_the_same_steps_wherever_a_run_begins(begin, expected):
    """Otherwise a resumed run would log at other steps than an uninterrupted one."""

    class Loop:
        def __init__(self):
            self.step, self.stops = begin, []

        def train_to(self, step, save):
            self.stops.append((step, save))
            self.step = step

    loop = Loop()
    task = make_task(supernet_stage(4))
    train_span(loop, task, ShrunkSpace.full(SPACE, 2), 11, seed=0)
    assert [stop for stop, _ in loop.stops] == expected
    assert [save for _, save in loop.stops] == [False] * (len(expected) - 1) + [True]


@pytest.mark.parametrize(
    "name,words", [("train", "TensorBoard events: "), ("ckpt-3_temp", "checkpoint: ")]
)
def test_what_cannot_be_written_is_one_sentence(tmp_path, name, words):
    """A file lies where TensorFlow wants a folder."""
    (tmp_path / name).write_text("in the way")
    with (
        ensemble_loop(tmp_path, stage=retrain_stage(6, loop=3)) as (loop, _),
        pytest.raises(NeasError, match="last whole checkpoint is that of step 0") as error,
    ):
        loop.train_to(6)
    assert str(error.value).startswith(words) and "{{" not in str(error.value)


def test_checkpoints_lie_at_the_same_steps_wherever_a_run_begins(tmp_path):
    """A rollback goes to one of them, and must be the same in a run that was killed before."""
    stage = supernet_stage(12)
    stage.trainer.checkpoint_interval = 4
    found = []
    for name, begin in (("straight", 0), ("interrupted", 5)):
        if begin:
            killed_behind(begin, tmp_path / "straight", tmp_path / name)
        with supernet_loop(tmp_path / name, stage=stage) as (loop, _):
            assert loop.step == begin
            loop.train_to(12)
        found.append(sorted(path.name for path in (tmp_path / name).glob("ckpt-*.index")))
    assert found[0] == found[1] == ["ckpt-12.index", "ckpt-5.index", "ckpt-9.index"]
