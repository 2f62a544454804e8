"""Averages of a supernet's weights: their equation, exact resume, and who works with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from official.core import config_definitions as cfg
from tiny_run import TINY
from tiny_training import FIRST, SECOND, THIRD, codes, killed_behind, supernet_loop, supernet_stage

from neas_tf.config.parse import load_config
from neas_tf.run import supernet_stage as stage_module
from neas_tf.run.context import open_run
from neas_tf.run.supernet_stage import load_supernet, train_supernet
from neas_tf.training.optimizers import averages_in_place, unscaled

DRAWN = (FIRST, SECOND, FIRST, THIRD, THIRD, SECOND)
DECAY = 0.6


def with_average(steps=6):
    stage = supernet_stage(steps)
    stage.trainer.optimizer_config.override({"ema": {"average_decay": DECAY}})
    return stage


def averages(model, optimizer):
    return [unscaled(optimizer).get_slot(v, "average").numpy() for v in model.trainable_variables]


def test_they_are_means_over_the_last_steps_of_all_rows(tmp_path):
    """d = min(0.6, (1 + t) / (10 + t)) after step t; a row that waits goes towards where it stands."""
    with supernet_loop(tmp_path, stage=with_average(), draws=codes(*DRAWN)) as (loop, model):
        expected = [np.zeros(v.shape) for v in model.trainable_variables]
        for step in range(1, 7):
            loop.train_to(step, save=False)
            decay = min(DECAY, (1 + step) / (10 + step))
            expected = [
                decay * a + (1 - decay) * v.numpy()
                for a, v in zip(expected, model.trainable_variables, strict=True)
            ]
            for a, b in zip(averages(model, loop.optimizer), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        # Layer 1 drew k3e2, k3e4, k3e2, k5e2, k5e2, k3e4: k3e2 rests since step 3, and its average
        # has moved since, towards the weight, which has not.
        row = model.searchable[0].members.index(0)
        gap = unscaled(loop.optimizer).get_slot(model.searchable[0].rows, "average")[row]
        assert np.abs(gap - model.searchable[0].rows[row]).max() > 1e-4


def test_training_is_the_same_with_them(tmp_path):
    found = []
    for name, stage in (("without", supernet_stage(4)), ("with", with_average(4))):
        with supernet_loop(tmp_path / name, stage=stage) as (loop, model):
            loop.train_to(4, save=False)
            found.append([v.numpy().tobytes() for v in model.trainable_variables])
    assert found[0] == found[1]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_they_resume_exactly(tmp_path, precision):
    runtime = cfg.RuntimeConfig(mixed_precision_dtype=precision)
    states = []
    for name, begin in (("straight", 0), ("interrupted", 4)):
        if begin:
            killed_behind(begin, tmp_path / "straight", tmp_path / name)
        with supernet_loop(tmp_path / name, stage=with_average(), runtime=runtime) as (loop, model):
            assert loop.step == begin
            loop.train_to(6)
        weights = [v.numpy() for v in model.trainable_variables]
        states.append([v.tobytes() for v in (*averages(model, loop.optimizer), *weights)])
    assert states[0] == states[1]


def test_the_weights_come_back_to_the_bit(tmp_path):
    with supernet_loop(tmp_path, stage=with_average()) as (loop, model):
        loop.train_to(3, save=False)
        before = [v.numpy() for v in model.trainable_variables]
        own = averages(model, loop.optimizer)
        assert any(not np.array_equal(a, b) for a, b in zip(before, own, strict=True))
        with pytest.raises(KeyError), averages_in_place(loop.optimizer):
            for v, average in zip(model.trainable_variables, own, strict=True):
                assert v.numpy().tobytes() == average.tobytes()
            raise KeyError
        for v, value in zip(model.trainable_variables, before, strict=True):
            assert v.numpy().tobytes() == value.tobytes()


def opened(folder, name):
    config = {**TINY, "supernet": {**TINY["supernet"]}}
    config["supernet"]["trainer"] = {
        **TINY["supernet"]["trainer"],
        "optimizer_config": {"ema": {"average_decay": DECAY}},
    }
    (folder / "tiny.yaml").write_text(json.dumps(config))
    loaded = load_config("neas_quickstart", [str(folder / "tiny.yaml")])
    return open_run(loaded, str(folder / name), tf.distribute.OneDeviceStrategy("CPU:0"))


def test_shrinks_and_the_search_see_them(tmp_path, monkeypatch):
    run, seen = opened(tmp_path, "run"), []
    measure = stage_module.measure

    def watched(functions, *arguments):
        seen.append(live[-1][0].trainable_variables[0].numpy())
        return measure(functions, *arguments)

    live = []
    loops = stage_module.TrainingLoop

    def loop_of(experiment, task, model, optimizer, *arguments, **options):
        live.append((model, optimizer))
        return loops(experiment, task, model, optimizer, *arguments, **options)

    monkeypatch.setattr(stage_module, "measure", watched)
    monkeypatch.setattr(stage_module, "TrainingLoop", loop_of)
    with run.writing():
        train_supernet(*run.inputs)
    ((model, optimizer),) = live
    loaded = load_supernet(run.config, run.model_dir, run.space)
    own = averages(model, optimizer)
    assert len(seen) == 2  # the second shrink comes after the last step
    np.testing.assert_array_equal(seen[-1], own[0])
    for found, average in zip(loaded.trainable_variables, own, strict=True):
        np.testing.assert_allclose(found, average, atol=1e-6)
    assert any(
        np.abs(v - average).max() > 1e-3
        for v, average in zip(model.trainable_variables, own, strict=True)
    )
