"""Supernet slice = stand-alone ensemble = SavedModel = TFLite, for ensembles drawn at random.

K = 1, 2, 3; split points at both ends and between; skips in the trunk and in the paths; with the
rewrites for mobile, and for each K without them too.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, NO_REWRITES
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.checks import predict_exported, random_images
from neas_tf.export.formats import export_saved_model, export_tflite
from neas_tf.operators import SKIP
from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.inheritance import inherited_ensemble
from neas_tf.supernet.model import Supernet

TOLERANCE = 1e-4
SPACES = {
    "paper": SearchSpace(
        name="paper_chain",
        input_size=(12, 10),
        num_classes=5,
        stem_channels=8,
        stem_stride=1,
        block_channels=8,
        stages=(Stage(8, 2, 1), Stage(16, 1, 2)),
        operators=("k3e2", "k7e2", "k5e3", "skip"),
        min_split=0,
        max_split=3,
        head_channels=16,
        feature_channels=12,
    ),
    "mixed": SearchSpace.from_dict(
        {
            "name": "mixed_chain",
            "input_size": [12, 10],
            "num_classes": 5,
            "stem_channels": 8,
            "stem_stride": 1,
            "block_channels": 0,
            "stages": [[8, 2, 1], [16, 1, 2]],
            "operators": ["k3e2", "fused_k3e2", "uib_s3m7e2_se_swish", "uib_e2", "skip"],
            "min_split": 0,
            "max_split": 3,
            "head_channels": 16,
            "feature_channels": 12,
        }
    ),
}
NORMALISATION = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
# (space, K, split point): both ends of its range and between.
CASES = [
    ("paper", 1, 0),
    ("paper", 1, 3),
    ("paper", 2, 0),
    ("paper", 2, 3),
    ("paper", 3, 0),
    ("paper", 3, 1),
    ("paper", 3, 3),
    ("mixed", 2, 1),
]
# Of each space and K one is exported without the rewrites too.
PLAIN = [("paper", 1, 0), ("paper", 2, 3), ("paper", 3, 1), ("mixed", 2, 1)]


@functools.cache
def ensemble(name: str, num_paths: int, split: int) -> Architecture:
    """The first of the method's own random draws that splits there and skips a layer.

    In the mixed space it also has every operator.
    """
    rng = np.random.default_rng([20210707, num_paths, split])
    shrunk = ShrunkSpace.full(SPACES[name], num_paths)
    while True:
        found = uniform(shrunk, rng)
        behind = [row[split:] for row in found.paths]
        skips = SKIP in found.shared or any(SKIP in row for row in behind)
        different = split == SPACES[name].num_layers or len(set(behind)) == num_paths
        complete = name == "paper" or operators(found) == set(SPACES[name].operators)
        if found.split_point == split and skips and different and complete:
            return found


def operators(architecture: Architecture) -> set[str]:
    return {operator for row in architecture.paths for operator in row}


def test_the_cases_are_what_the_module_says():
    drawn = [ensemble(*case) for case in CASES]
    assert {a.num_paths for a in drawn} == {1, 2, 3}
    assert any(SKIP in a.shared for a in drawn)
    assert any(SKIP in row[a.split_point :] for a in drawn for row in a.paths)
    for name, space in SPACES.items():
        own = [a for case, a in zip(CASES, drawn, strict=True) if case[0] == name]
        assert set().union(*map(operators, own)) == set(space.operators)
    splits = {split for name, _, split in CASES if name == "paper"}
    space = SPACES["paper"]
    assert {space.min_split, space.max_split} == {0, space.num_layers} <= splits


@functools.cache
def evaluator(name: str, num_paths: int) -> CandidateEvaluator:
    """A supernet with random weights, and the images that the chain is compared on."""
    space = SPACES[name]
    supernet = Supernet(space, num_paths, seed=7, name="supernet")
    rng = np.random.default_rng(num_paths)
    for variable in supernet.trainable_variables:
        if len(variable.shape) < 3:  # biases, gammas and betas, which begin at 0 and 1
            noise = rng.normal(0, 0.3, variable.shape).astype(np.float32)
            variable.assign(variable + noise)
    calibration = NORMALISATION.apply(random_images(space, 16, seed=1))
    images = NORMALISATION.apply(pixels(name))
    return CandidateEvaluator(supernet, calibration, images, np.zeros(len(images)), 8)


def pixels(name: str) -> np.ndarray:
    return random_images(SPACES[name], 6, seed=2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-K{case[1]}-s{case[2]}")
def test_one_function_from_the_supernet_to_the_device(case, tmp_path):
    name, num_paths, split = case
    space, architecture, score = SPACES[name], ensemble(*case), evaluator(name, num_paths)
    statistics = score.statistics(architecture)
    sliced = score.logits(architecture)  # (K, n, classes)
    assert np.std(sliced, axis=1).min() > 10 * TOLERANCE  # the images differ: there is something
    if split < space.num_layers or num_paths == 1:
        others = [np.abs(a - b).max() for i, a in enumerate(sliced) for b in sliced[:i]]
        assert all(difference > 10 * TOLERANCE for difference in others)

    alone = inherited_ensemble(score.supernet, architecture, statistics)
    images = pixels(name)
    logits = alone(NORMALISATION.apply(images), training=False).numpy()  # (n, K, classes)
    np.testing.assert_allclose(logits.swapaxes(0, 1), sliced, atol=TOLERANCE, rtol=0)

    expected = sliced.mean(0)
    classes = tuple(map(str, range(space.num_classes)))
    info = LoadedInfo(architecture, space, classes, NORMALISATION)
    folder = tmp_path / "saved_model"
    export_saved_model(alone, info, folder, images=images)
    exported = predict_exported(folder, images)["logits"]
    np.testing.assert_allclose(exported, expected, atol=TOLERANCE, rtol=0)
    exports = {"mobile": MOBILE_REWRITES} | ({"plain": NO_REWRITES} if case in PLAIN else {})
    for label, rewrites in exports.items():
        path = tmp_path / f"{label}.tflite"
        export_tflite(alone, info, path, images=images, rewrites=rewrites)
        exported = predict_exported(path, images)["logits"]
        np.testing.assert_allclose(exported, expected, atol=TOLERANCE, rtol=0)
