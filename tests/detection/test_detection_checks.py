"""Experiments as recipes, and what is refused before a run: one sentence each."""

import json
import re
import subprocess

import pytest
import warm
from official.core import exp_factory
from small_detection import ENSEMBLE, SPACE, make_coco, settings, tiny_config
from small_ensembles import randomise

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import project_file
from neas_tf.detection.checks import check_experiment, load_experiment
from neas_tf.detection.experiments import NAMES
from neas_tf.detection.initialising import find_checkpoint, load_backbone
from neas_tf.detection.task import NeasRetinaNetTask, padded_size
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import RUN_MODEL, save_model
from neas_tf.space.architecture import Architecture


def test_the_papers_recipe():
    config = exp_factory.get_exp_config("neas_retinanet_coco_paper")
    task, trainer = config.task, config.trainer
    epoch = 118_287 // 32
    assert task.train_data.global_batch_size == 32
    assert trainer.train_steps == 12 * epoch
    rate = trainer.optimizer_config.learning_rate.stepwise
    assert rate.boundaries == [8 * epoch, 11 * epoch]
    assert rate.values == [0.04, 0.004, 0.0004]
    assert trainer.optimizer_config.optimizer.sgd.momentum == 0.9
    assert task.losses.l2_weight_decay == 1e-4
    assert padded_size(task) == (896, 1408)
    assert task.model.backbone.neas.architecture == "neas_s"


def test_model_gardens_recipe_but_for_the_backbone():
    ours = exp_factory.get_exp_config("neas_retinanet_coco").as_dict()
    theirs = exp_factory.get_exp_config("retinanet_resnetfpn_coco").as_dict()
    assert ours["trainer"]["optimizer_config"] == theirs["trainer"]["optimizer_config"]
    assert ours["trainer"]["train_steps"] == theirs["trainer"]["train_steps"]
    for part in ("anchor", "decoder", "head", "input_size", "num_classes", "norm_activation"):
        assert ours["task"]["model"][part] == theirs["task"]["model"][part], part
    for part in ("losses", "train_data"):
        assert ours["task"][part] == theirs["task"][part], part


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "overlay", [None, "mobilenet_v2", "mobilenet_v3", "mobilenet_v4", "efficientnet_b0"]
)
def test_every_experiment_takes_every_baseline(name, overlay):
    files = [project_file("configs", "detection", f"{overlay}.yaml")] if overlay else []
    config = load_experiment(name, files, "")
    kind = config.task.model.backbone.type
    assert kind == (overlay or "neas").split("_")[0]


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of a run with a retrained ensemble, and its model."""
    folder = tmp_path_factory.mktemp("classifier")
    model = build_ensemble(ENSEMBLE, SPACE)
    randomise(model)
    save_model(folder / RUN_MODEL, model, ENSEMBLE, SPACE, list("abcde"), Normalisation())
    return folder, model


def refusal(coco, overrides, mode="train_and_eval", folder="nowhere"):
    config = tiny_config(coco)
    config.override({"task": overrides}, is_strict=True)
    with pytest.raises(NeasError) as caught:
        check_experiment(config, mode, str(folder))
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 400
    return text


def test_a_good_experiment_passes(coco, tmp_path, classifier):
    config = tiny_config(coco, init_checkpoint=str(classifier[0]))
    check_experiment(config, "train_and_eval", str(tmp_path))


BAD = {
    "no level 1": ({"model": {"min_level": 1}}, "task.model.min_level: received 1, but .* levels"),
    "handed on too late": (
        {"model": {"min_level": 2}},
        "neas.min_level: received 3, expected at most task.model.min_level, which is 2",
    ),
    "no records": (
        {"train_data": {"input_path": "nowhere/train*"}},
        "task.train_data.input_path: no file matches 'nowhere/train",
    ),
    "no name of records": (
        {"validation_data": {"input_path": ""}},
        "task.validation_data.input_path: received nothing",
    ),
    "no annotations": ({"annotation_file": "nowhere.json"}, "task.annotation_file: .*nowhere.json"),
    "no checkpoint": (
        {"init_checkpoint": "nowhere/at/all"},
        "task.init_checkpoint: received 'nowhere/at/all'",
    ),
    "size": ({"model": {"input_size": [64, 64]}}, r"task.model.input_size: received \[64, 64\]"),
    "unpadded": (
        {
            "model": {"input_size": [48, 64, 3]},
            "train_data": {"parser": {"pad": False}},
            "validation_data": {"parser": {"pad": False}},
        },
        "multiples of 32",
    ),
    "levels upside down": ({"model": {"max_level": 2}}, "task.model.max_level: received 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_one_sentence(name, coco):
    overrides, message = BAD[name]
    assert re.search(message, refusal(coco, overrides))


def test_evaluation_alone_needs_no_training_records(coco):
    config = tiny_config(coco, train_data={"input_path": "nowhere*"})
    check_experiment(config, "eval", "nowhere")


def test_a_checkpoint_of_another_architecture(coco, classifier):
    folder, _ = classifier
    other = Architecture(4, (("k5e4", "k3e4", "k3e4", "k5e4"),) * 2, "other")
    text = refusal(
        coco,
        {
            "init_checkpoint": str(folder),
            "model": {"backbone": {"neas": {"architecture": other.key}}},
        },
    )
    assert "holds the weights of" in text and ENSEMBLE.key in text and other.key in text
    text = refusal(coco, {"init_checkpoint": str(folder), "init_checkpoint_modules": "all"})
    assert "init_checkpoint_modules: received 'all'" in text
    text = refusal(
        coco, {"init_checkpoint": str(folder), "model": {"backbone": {"type": "mobilenet"}}}
    )
    assert "but the backbone is 'mobilenet'" in text


def test_a_folder_of_another_model(coco, tmp_path):
    import tensorflow as tf

    tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    config = tiny_config(coco)
    (tmp_path / "params.yaml").write_text(json.dumps(config.as_dict()))
    check_experiment(config, "train", str(tmp_path))
    config.task.model.detection_generator.max_num_detections = 3
    check_experiment(config, "train", str(tmp_path))
    config.task.model.head.num_filters = 16
    with pytest.raises(NeasError, match=r"another task\.model\.head\.num_filters"):
        check_experiment(config, "train", str(tmp_path))


def test_every_weight_of_the_backbone_is_found(coco, classifier):
    folder, model = classifier
    task = NeasRetinaNetTask(tiny_config(coco, init_checkpoint=str(folder)).task)
    detector = task.build_model()
    head = [w.numpy() for w in detector.head.weights]
    task.initialize(detector)
    sources = {layer.name: layer.get_weights() for layer in model.layers}
    loaded = 0
    for layer in [layer for layer in detector.backbone.layers if layer.weights]:
        for found, expected in zip(layer.get_weights(), sources[layer.name], strict=True):
            assert (found == expected).all()
            loaded += 1
    assert loaded == len(detector.backbone.weights) > 100
    assert all((a == b.numpy()).all() for a, b in zip(head, detector.head.weights, strict=True))


def test_a_space_with_other_widths(coco, classifier, tmp_path):
    import dataclasses

    from neas_tf.space.search_space import Stage

    wide = dataclasses.replace(SPACE, stages=(*SPACE.stages[:-1], Stage(24, 1, 2)))
    model = build_ensemble(ENSEMBLE, wide)
    save_model(tmp_path / RUN_MODEL, model, ENSEMBLE, wide, list("abcde"), Normalisation())
    backbone = NeasRetinaNetTask(tiny_config(coco).task).build_model().backbone
    before = [w.numpy() for w in backbone.weights]
    with pytest.raises(NeasError, match="whose stages are not those"):
        load_backbone(backbone, find_checkpoint(str(tmp_path)))
    assert all((a == b.numpy()).all() for a, b in zip(before, backbone.weights, strict=True))


def test_a_tensorflow_checkpoint_that_lacks_weights(coco, tmp_path):
    import tensorflow as tf

    path = tf.train.Checkpoint(backbone=tf.train.Checkpoint(x=tf.Variable(1.0))).save(
        str(tmp_path / "ckpt")
    )
    task = NeasRetinaNetTask(tiny_config(coco, init_checkpoint=path).task)
    with pytest.raises(NeasError, match="does not hold every weight of 'backbone'"):
        task.initialize(task.build_model())


@pytest.mark.parametrize("name", ["ckpt-1", ""])
def test_a_tensorflow_checkpoint_in_a_folder_that_looks_like_a_pattern(name, coco, tmp_path):
    import tensorflow as tf

    folder = tmp_path / "rate[0.1]"
    source = NeasRetinaNetTask(tiny_config(coco).task).build_model()
    randomise(source.backbone)
    tf.train.Checkpoint(backbone=source.backbone).save(str(folder / "ckpt"))
    config = tiny_config(coco, init_checkpoint=str(folder / name))
    check_experiment(config, "train", str(tmp_path / "run"))
    task = NeasRetinaNetTask(config.task)
    model = task.build_model()
    task.initialize(model)
    for one, other in zip(model.backbone.weights, source.backbone.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()
    assert task.task_config.init_checkpoint == str(folder / name)


def test_a_folder_says_architecture_and_space(coco, classifier):
    config = tiny_config(coco)
    config.task.model.backbone.neas.architecture = str(classifier[0])
    config.task.model.backbone.neas.space.override({"stages": []})
    backbone = NeasRetinaNetTask(config.task).build_model().backbone
    assert backbone.architecture == ENSEMBLE and backbone.space.stages == SPACE.stages


def test_unknown_keys_and_experiments(tmp_path):
    with pytest.raises(NeasError, match="Did you mean 'neas_retinanet_coco'"):
        load_experiment("neas_retinanet_cocoo", (), "")
    with pytest.raises(NeasError, match=r"task\.model\.backbone\.neas\.merge"):
        load_experiment(NAMES[0], (), "task.model.backbone.neas.merge=3")
    with pytest.raises(NeasError, match="Did you mean 'frozen_layers'"):
        load_experiment(NAMES[0], (), "task.model.backbone.neas.frozen_layer=3")
    with pytest.raises(NeasError, match=r"neas\.space\.stages: received \[\[24, 4, 2\]\]"):
        load_experiment(NAMES[0], (), "task.model.backbone.neas.space.stages=[[24,4,2]]")


def test_the_command_ends_with_2_and_writes_nothing(coco, tmp_path):
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings(coco)))
    done = subprocess.run(
        [
            *(warm.python(), "-m", "detection.train", "--experiment=neas_retinanet_coco_mini"),
            *("--mode=train", f"--model_dir={tmp_path / 'run'}"),
            *(
                f"--config_file={tmp_path / 'tiny.yaml'}",
                "--params_override=task.model.min_level=1",
            ),
        ],
        cwd=project_file(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "detection.train: task.model.min_level: received 1" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
