"""Trainings that really diverge: the step is found, nothing bad is saved, and they go back."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import TINY
from tiny_training import (
    STEPS,
    batch,
    ensemble_loop,
    in_memory,
    retrain_stage,
    supernet_loop,
    supernet_stage,
)

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.run import supernet_stage as stage_module
from neas_tf.run.context import open_run
from neas_tf.run.supernet_stage import train_supernet
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.divergence import Diverged, reduced_rate
from neas_tf.training.rollbacks import Rollback, read_rollbacks


def bad_batches(bad: int, value: float):
    """Batches of which that of one step (0-based) holds a bad pixel."""

    def make(first, context=None):
        def generate():
            for step in range(first, first + STEPS):
                images, labels = batch(step)
                if step == bad:
                    images[0, 0, 0, 0] = value
                yield images, labels

        return in_memory(generate())

    return make


@pytest.mark.parametrize("loop_steps", [1, 2, 4])
def test_a_bad_batch_names_its_step(tmp_path, loop_steps):
    stage = supernet_stage(8, loop=loop_steps)
    words = "training diverged at step 6: its loss is not finite"
    batches = bad_batches(5, np.nan)
    with (
        supernet_loop(tmp_path, stage=stage, make_batches=batches) as (loop, _),
        pytest.raises(Diverged, match=words),
    ):
        loop.train_to(8)
    assert latest_step(tmp_path) == 5 // loop_steps * loop_steps
    steps = [json.loads(s)["step"] for s in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(loop_steps, 6, loop_steps))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The loss of a step knows nothing of what the step does to the weights."""
    with ensemble_loop(tmp_path, stage=retrain_stage(6)) as (loop, model):
        factor = tf.Variable(1.0, trainable=False)
        apply = loop.optimizer.apply_gradients

        def poisoned(pairs, **kwargs):
            (gradient, variable), *rest = pairs
            return apply([(gradient * factor, variable), *rest], **kwargs)

        loop.optimizer.apply_gradients = poisoned
        loop.train_to(2)
        factor.assign(np.inf)
        with pytest.raises(Diverged, match=r"step 3: .*not finite"):
            loop.train_to(6)
        name = model.trainable_variables[0].name
        assert not np.isfinite(model.trainable_variables[0].numpy()).all(), name
    assert latest_step(tmp_path) == 2


def test_reduced_rate():
    assert reduced_rate(0.1, ()) == 0.1
    rate = reduced_rate(
        0.1, (Rollback(9, 4, 0.5, ""), Rollback(8, 4, 0.5, ""), Rollback(9, 6, 0.1, ""))
    )
    found = [float(rate(tf.constant(step, tf.int64))) for step in (0, 3, 4, 5, 6, 7)]
    assert found == pytest.approx([0.1, 0.1, 0.025, 0.025, 0.0025, 0.0025])
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    assert float(reduced_rate(schedule, (Rollback(1, 0, 0.5, ""),))(5)) == pytest.approx(0.25)


RATE = "supernet.trainer.optimizer_config.learning_rate.polynomial.initial_learning_rate=1.0e+6"
# Goes back once: 0.1 is a rate that it trains with.
BACK = f"{RATE},supernet.on_divergence=rollback,supernet.rollback_rate_factor=1.0e-7"
SMALLER = {
    **TINY,
    "space": TINY["space"] | {"stages": [[8, 1, 1], [12, 1, 2]], "max_split": 2},
    "shrink": TINY["shrink"] | {"remove": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(json.dumps(SMALLER))
    return str(path)


def train(tiny, folder, override):
    run = open_run(
        load_config("neas_quickstart", [tiny], override), str(folder), tf.distribute.get_strategy()
    )
    with run.writing():
        return train_supernet(*run.inputs)


def test_a_huge_learning_rate_stops_with_a_sentence(tiny, tmp_path):
    with pytest.raises(NeasError) as error:
        train(tiny, tmp_path / "run", RATE)
    text = str(error.value)
    assert text.startswith("supernet: training diverged at step ") and "\n" not in text
    for words in ("its loss is", "(architecture s", "last good checkpoint is that of step 0 in",
                  "supernet.on_divergence=rollback"):  # fmt: skip
        assert words in text
    assert not list((tmp_path / "run" / "supernet").glob("ckpt*"))


def test_too_many_rollbacks(tiny, tmp_path):
    override = f"{RATE},supernet.on_divergence=rollback,supernet.rollback_rate_factor=0.9"
    with pytest.raises(NeasError, match=r"after 1 rollbacks of supernet.max_rollbacks = 1"):
        train(tiny, tmp_path / "run", f"{override},supernet.max_rollbacks=1")
    assert len(read_rollbacks(tmp_path / "run" / "supernet")) == 1


def test_a_rollback_is_resumed_exactly(tiny, tmp_path, monkeypatch, capsys):
    """Stopped by the divergence, then behind the record of the rollback, then at a shrink."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    shrunk = train(tiny, whole, BACK)
    assert "Goes back to step 0 with 1e-07 times the learning rate" in capsys.readouterr().err
    with pytest.raises(NeasError, match="on_divergence=rollback"):
        train(tiny, stopped, RATE)  # the same folder may go on the other way
    for name in ("console.say", "measure"):
        with monkeypatch.context() as patch:
            if name == "measure":
                patch.setattr(stage_module, "measure", _interrupt)
            else:
                from neas_tf.training import divergence

                add = divergence.add_rollback

                def record(*arguments, add=add):
                    add(*arguments)
                    raise KeyboardInterrupt

                patch.setattr(divergence, "add_rollback", record)
            with pytest.raises(KeyboardInterrupt):
                train(tiny, stopped, BACK)
    assert train(tiny, stopped, BACK) == shrunk
    for name in ("supernet/rollbacks.json", "supernet/metrics.jsonl", "shrink/shrink_02.json"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name
    assert len(read_rollbacks(whole / "supernet")) >= 1
    values = []
    for folder in (whole, stopped):
        reader = tf.train.load_checkpoint(str(folder / "supernet" / "ckpt-40"))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith("model/")]
        values.append({n: reader.get_tensor(n) for n in names})
    for name, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][name], err_msg=name)
        assert value.dtype.kind != "f" or np.isfinite(value).all()


def _interrupt(*arguments, **kwargs):
    raise KeyboardInterrupt
