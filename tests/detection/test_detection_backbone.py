"""The backbone: shapes, merged levels, names of the classifier, freezing, regularisation."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.configs import common
from official.vision.modeling.backbones import factory
from small_detection import ENSEMBLE, SPACE
from small_ensembles import images, randomise

from neas_tf.commands.convert_torch import model_from, read_checkpoint
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.detection.backbone import NeasBackboneModel, architecture_and_space
from neas_tf.detection.config import Backbone, NeasBackbone
from neas_tf.detection.initialising import load_backbone
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import save_model
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

# K = 3 in the paper's space: C3 from the trunk, C4 and C5 behind the split.
TRUNK = [
    "k3e4",
    "skip",
    "k5e4",
    "skip",
    "k3e4",
    "k3e4",
    "skip",
    "k5e6",
    "k7e4",
    "k3e4",
    "skip",
    "skip",
]
PATHS = [
    f"{name} skip skip skip {name} skip skip skip".split() for name in ("k3e4", "k5e4", "k3e6")
]
THREE = Architecture(12, tuple((*TRUNK, *path) for path in PATHS), "three")
PAPER = SearchSpace()


def build(architecture, size, space=PAPER, **options):
    return NeasBackboneModel(architecture, dataclasses.replace(space, input_size=size), **options)


@pytest.mark.parametrize("size", [(640, 640), (416, 672)], ids=str)
@pytest.mark.parametrize("name", ["neas_s", "neas_m", "neas_l", "three"])
def test_shapes_of_the_levels(name, size):
    architecture = THREE if name == "three" else load_architecture(name)
    model = build(architecture, size)
    expected = {
        level: (None, size[0] >> int(level), size[1] >> int(level), channels)
        for level, channels in (("3", 40), ("4", 112), ("5", 160))
    }
    assert {k: tuple(v) for k, v in model.output_specs.items()} == expected
    assert {k: tuple(v.shape) for k, v in model.output.items()} == expected


def test_odd_sizes_round_up():
    model = build(THREE, (97, 130))
    assert [tuple(s[1:3]) for s in model.output_specs.values()] == [(13, 17), (7, 9), (4, 5)]
    maps = model(tf.zeros((1, 97, 130, 3)))
    assert {k: v.shape[1:] for k, v in maps.items()} == {
        k: v[1:] for k, v in model.output_specs.items()
    }


@pytest.fixture(scope="module")
def classifier():
    model = build_ensemble(ENSEMBLE, SPACE, outputs="maps")
    randomise(model)
    return model


def copied(classifier, backbone):
    weights = {layer.name: layer.get_weights() for layer in classifier.layers}
    for layer in backbone.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name])
    return backbone


def one_path(k: int, classifier):
    """Path k as an ensemble of its own, with the classifier's weights."""
    architecture = Architecture(ENSEMBLE.split_point, (ENSEMBLE.paths[k],))
    model = build_ensemble(architecture, SPACE, outputs="maps")
    weights = {layer.name: layer.get_weights() for layer in classifier.layers}
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights[layer.name.replace("path1_", f"path{k + 1}_")])
    prefix = "trunk_l02" if ENSEMBLE.paths[k][2] == "skip" else "path1_l03"
    inner = [layer.name for layer in model.layers if layer.name.startswith(prefix)][-1]
    return tf_keras.Model(model.input, [model.get_layer(inner).output, *model.outputs])


@pytest.mark.parametrize("merge", ["mean", "sum", "concat"])
def test_merged_levels_are_those_of_the_paths_computed_separately(merge, classifier):
    backbone = build(ENSEMBLE, SPACE.input_size, SPACE, merge=merge, min_level=2)
    found = copied(classifier, backbone)(images(SPACE))
    paths = [one_path(k, classifier)(images(SPACE)) for k in range(3)]
    rule = {
        "mean": lambda maps: np.mean(maps, 0),
        "sum": lambda maps: np.sum(maps, 0),
        "concat": lambda maps: np.concatenate(maps, -1),
    }[merge]
    assert set(found) == {"2", "3", "4"}
    for position, level in enumerate(("3", "4")):
        expected = rule([maps[position].numpy() for maps in paths])
        assert np.std(expected) > 0.01
        np.testing.assert_allclose(found[level], expected, atol=1e-4)
        assert tuple(backbone.output_specs[level])[1:] == expected.shape[1:]


def test_the_coarsest_level_is_the_classifiers(classifier):
    backbone = copied(classifier, build(ENSEMBLE, SPACE.input_size, SPACE))
    expected = np.mean([m.numpy() for m in classifier(images(SPACE))], 0)
    np.testing.assert_allclose(backbone(images(SPACE))["4"], expected, atol=1e-5)


def test_one_path_merges_nothing():
    architecture = Architecture(2, ENSEMBLE.paths[:1])
    model = build(architecture, (32, 32), SPACE, merge="concat")
    assert not [layer for layer in model.layers if layer.name.startswith("level")]


@pytest.mark.parametrize("frozen", [-1, 0, 2, 3])
def test_frozen_layers(frozen):
    model = build(ENSEMBLE, (32, 32), SPACE, frozen_layers=frozen)
    stuck = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    names = {layer.name for layer in model.layers if layer.weights}
    fixed = {n for n in names if n.startswith(("stem_", "block_"))}
    numbered = {n for n in names if any(f"_l{i:02d}_" in n for i in range(1, frozen + 1))}
    assert stuck == (set() if frozen < 0 else fixed | numbered)
    image = images(dataclasses.replace(SPACE, input_size=(32, 32)))
    bn = model.get_layer("stem_bn")
    before = bn.moving_mean.numpy()
    model(image, training=True)
    assert np.array_equal(before, bn.moving_mean.numpy()) == (frozen >= 0)


def test_weight_decay_is_that_of_the_dense_convolutions():
    model = build(
        ENSEMBLE, (32, 32), SPACE, kernel_regularizer=tf_keras.regularizers.l2(0.5), seed=1
    )
    kernels = [layer.kernel for layer in model.layers if type(layer) is tf_keras.layers.Conv2D]
    assert len(model.losses) == len(kernels) > 20
    expected = sum(0.5 * float(tf.reduce_sum(k**2)) for k in kernels)
    assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_sync_bn_momentum_and_drop_path_arrive():
    model = build(ENSEMBLE, (32, 32), SPACE, norm_momentum=0.7, synchronized=True, drop_path=0.4)
    norms = [layer for layer in model.layers if "BatchNorm" in type(layer).__name__]
    assert {layer.momentum for layer in norms} == {0.7}
    assert all(layer.synchronized for layer in norms)
    rates = {layer.name: layer.rate for layer in model.layers if layer.name.endswith("_drop_path")}
    # Only layer 3 of 4 keeps its shape, and in path 2 it is a skip.
    assert sorted(rates) == ["path1_l03_k3e4_drop_path", "path3_l03_k5e4_drop_path"]
    assert list(rates.values()) == pytest.approx([0.3, 0.3])


def test_model_garden_builds_it_by_name():
    config = Backbone(neas=NeasBackbone(architecture="neas_s"))
    model = factory.build_backbone(
        tf_keras.layers.InputSpec(shape=[None, 64, 96, 3]),
        config,
        common.NormActivation(use_sync_bn=False, norm_momentum=0.9),
        tf_keras.regularizers.l2(1e-4),
    )
    assert isinstance(model, NeasBackboneModel) and model.losses
    assert tuple(model.output_specs["5"]) == (None, 2, 3, 160)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge": "max"}, "merge: unknown name 'max'"),
        ({"drop_path": 1.0}, "drop_path: received 1.0"),
        ({"frozen_layers": 5}, "frozen_layers: received 5"),
        ({"min_level": 5}, r"min_level: received 5, but .* has the levels"),
    ],
)
def test_bad_values(options, message):
    with pytest.raises(NeasError, match=message):
        build(ENSEMBLE, (32, 32), SPACE, **options)


def test_an_architecture_of_another_space():
    with pytest.raises(NeasError, match="neas_s"):
        architecture_and_space(NeasBackbone(architecture="neas_s", space=_space_config(SPACE)))


def _space_config(space):
    from neas_tf.config.settings import SpaceConfig

    config = SpaceConfig()
    config.override(space.to_dict())
    return config


def test_a_converted_checkpoints_trunk_gives_the_authors_c5(shared_dir, tmp_path):
    """The golden checkpoint, through the model folder that `convert_torch` writes."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    golden = shared_dir / "golden"
    if not golden.is_dir():
        pytest.skip("no golden checkpoint: ../shared/golden is missing")
    architecture = load_architecture("neas_s")
    weights = read_checkpoint(golden / "neas_s_random.pth.tar", architecture, PAPER)
    classifier = model_from(weights, architecture, PAPER)
    names = [str(i) for i in range(PAPER.num_classes)]
    save_model(tmp_path / "m", classifier, architecture, PAPER, names, Normalisation())
    backbone = build(architecture, (224, 224))
    load_backbone(backbone, tmp_path / "m")
    wanted = np.load(golden / "neas_s_random.npz")
    found = backbone(wanted["normalised"])["5"].numpy()
    limit = 1e-4 * np.abs(wanted["trunk"]).max()  # the maps reach 65
    np.testing.assert_allclose(found, wanted["trunk"], atol=limit)
