"""A retraining that starts from weights: from the supernet's exactly, frozen at first, resumed exactly."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import TINY
from tiny_training import stopped_after

from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_json_atomic
from neas_tf.config.parse import load_config
from neas_tf.ensemble import store
from neas_tf.ensemble.model import build_ensemble
from neas_tf.run.context import open_run
from neas_tf.run.identity import Identity, bounds_of
from neas_tf.run.pipeline import run_pipeline
from neas_tf.run.retrain_stage import check_retrain, retrain
from neas_tf.run.search_stage import make_evaluator
from neas_tf.run.supernet_stage import check_supernet, load_supernet
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet

KEY = Architecture(1, (("k3e1", "k5e1", "k3e2"), ("k3e1", "k3e1", "skip"))).key


def settings(folder, override=None):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], override or {})
    return config


def opened(folder, name, override):
    """A run that trains a given ensemble; `override` is of its retraining."""
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    config = settings(folder, {"retrain": {"architecture": KEY} | override})
    return open_run(config, str(folder / name), strategy)


def give_trained_supernet(run):
    """A run's folder with a whole supernet, whose weights are fresh."""
    model = Supernet(run.space, 2, momentum=0.9, seed=5, name="supernet")
    with run.writing():
        bounds = {"budget": bounds_of(run.config, run.table)}
        Identity("supernet", run.config, run.model_dir, run.info).record(bounds, True)
        checkpoint = tf.train.Checkpoint(model=model)
        manager = tf.train.CheckpointManager(checkpoint, str(run.folder("supernet")), 1)
        manager.save(checkpoint_number=40)
        write_json_atomic(run.folder("shrink", "alive.json"), run.full.to_dict())


SHORT = {
    "init": "supernet",
    "epochs": 0.3,  # 7 steps, of which 3 are frozen
    "warmup_epochs": 0.0,
    "freeze_epochs": 0.15,
    "trunk_rate_factor": 0.5,
    "trainer": {"steps_per_loop": 3, "checkpoint_interval": 3},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that start from the same supernet; the second one was interrupted at step 3."""
    base = tmp_path_factory.mktemp("starting")
    whole, cut = (opened(base, name, SHORT) for name in ("whole", "cut"))
    for run in (whole, cut):
        give_trained_supernet(run)
        check_retrain(*run.inputs, alone=True)
    with whole.writing():
        retrain(*whole.inputs)
    with cut.writing(), stopped_after(3):
        retrain(*cut.inputs)
    return base, whole, cut


def initial(run):
    chosen = Architecture.from_key(KEY)
    path = run.folder("retrain", "initial.weights.h5")
    return store.load_weights(chosen, run.space, path)


def test_it_starts_where_the_search_measured(runs):
    _, run, _ = runs
    evaluator = make_evaluator(
        run.config, run.info, load_supernet(run.config, run.model_dir, run.space), run.cluster
    )
    expected = evaluator.logits(Architecture.from_key(KEY))
    images = run.info.normalisation.apply(evaluator._images)
    found = initial(run)(images, training=False)
    np.testing.assert_allclose(np.transpose(found, (1, 0, 2)), expected, atol=2e-4)


def test_only_the_classifiers_train_while_it_is_frozen(runs):
    _, run, cut = runs
    model = build_ensemble(Architecture.from_key(KEY), run.space)
    path = str(cut.folder("retrain", "ckpt-3"))
    tf.train.Checkpoint(model=model).restore(path).expect_partial()
    for now, before in zip(
        model.trainable_variables, initial(cut).trainable_variables, strict=True
    ):
        assert np.array_equal(now, before) != ("classifier" in now.name), now.name


def test_a_resumed_run_has_the_same_bits(runs):
    _, whole, cut = runs
    with cut.writing():
        retrain(*cut.inputs)
    digests = [
        store.weights_digest(run.folder("retrain", "model", store.WEIGHTS_FILE))
        for run in (whole, cut)
    ]
    assert digests[0] == digests[1]
    assert digests[0] != store.weights_digest(whole.folder("retrain", "initial.weights.h5"))


@pytest.mark.parametrize(
    "change",
    [{"init": "scratch", "freeze_epochs": 0.0, "trunk_rate_factor": 1.0}, {"freeze_epochs": 0.05}],
)
def test_the_folder_is_of_this_start(change, runs):
    base, *_ = runs
    run = opened(base, "whole", SHORT | change)
    with pytest.raises(NeasError, match="retrain"):
        check_retrain(*run.inputs, alone=True)


def test_a_record_of_before_means_scratch(runs, tmp_path):
    base, *_ = runs
    run = opened(tmp_path, "run", {"epochs": 0.3})
    path = run.folder("retrain", "identity.json")
    identity = Identity("retrain", run.config, run.model_dir, run.info)
    with run.writing():
        identity.record({"architecture": KEY}, True)
    value = json.loads(path.read_text())
    for name in ("init", "freeze_epochs", "trunk_rate_factor"):
        del value["retrain"][name]
    path.write_text(json.dumps(value))
    check_retrain(*run.inputs, alone=True)
    other = opened(tmp_path, "run", {"epochs": 0.3, "init": str(base / "whole")})
    with pytest.raises(NeasError, match=r"retrain\.init"):
        check_retrain(*other.inputs, alone=True)


def test_a_supernets_record_of_before_means_the_recipe_of_before(tmp_path):
    def with_recipe(change):
        config = settings(tmp_path, {"retrain": {"architecture": KEY}, "supernet": change})
        return open_run(config, str(tmp_path / "run"), tf.distribute.OneDeviceStrategy("CPU:0"))

    run = with_recipe({})
    give_trained_supernet(run)
    path = run.folder("supernet", "identity.json")
    value = json.loads(path.read_text())
    for name in ("zero_init_residual", "draws_per_step", "sandwich", "distillation"):
        del value["supernet"][name]
    path.write_text(json.dumps(value))
    check_supernet(*run.inputs)
    for change, words in (
        ({"zero_init_residual": True}, "zero_init_residual: was false, is true"),
        ({"draws_per_step": 2}, "draws_per_step: was 1, is 2"),
        ({"distillation": {"teacher": "ensemble"}}, "teacher: was"),
        ({"trainer": {"optimizer_config": {"ema": {"average_decay": 0.9}}}}, "ema"),
    ):
        with pytest.raises(NeasError, match=words):
            check_supernet(*with_recipe(change).inputs)


@pytest.mark.parametrize(
    "override, stage, words",
    [
        ({"retrain": {"init": "supernet"}}, "retrain", "holds no finished search"),
        ({"retrain": {"init": "supernet", "architecture": True}}, "all", "no finished supernet"),
        (
            {"retrain": {"init": "gone", "architecture": True}},
            "all",
            "'gone', which does not exist",
        ),
        ({"retrain": {"init": "gone"}}, "all", "yet to be found"),
        ({"retrain": {"init": ""}}, "all", "retrain.init: received ''"),
        ({"retrain": {"freeze_epochs": 1}}, "all", "fresh weights must train"),
        ({"retrain": {"init": "supernet", "freeze_epochs": 9}}, "all", "at most the 2.004 of"),
        ({"retrain": {"init": "supernet", "trunk_rate_factor": -1}}, "all", "from 0 to 1"),
        ({"supernet": {"init": "gone"}}, "all", "supernet.init: received 'gone'"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(override, stage, words, tmp_path):
    if override.get("retrain", {}).get("architecture"):
        override = {"retrain": override["retrain"] | {"architecture": KEY}}
    with pytest.raises(NeasError) as error:
        run_pipeline(settings(tmp_path, override), str(tmp_path / "run"), stage)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_supernet_that_fits_nothing_is_refused_before_any_work(tmp_path, runs):
    base, *_ = runs
    stored = str(base / "whole")
    override = {"supernet": {"init": stored}, "space": {"stem_channels": 12}}
    config = settings(tmp_path, override | {"search": {"max_macs": 0}})
    config.space.stages = [type(s)(channels=20, layers=1, stride=1) for s in config.space.stages]
    config.space.max_split = 2
    run = open_run(config, str(tmp_path / "run"), tf.distribute.get_strategy())
    with pytest.raises(NeasError, match="no operator of"):
        check_supernet(*run.inputs)
