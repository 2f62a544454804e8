"""The score of a candidate: exact statistics, and nothing that one leaves to the next."""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
import warm
from mixed_space import MIXED
from reference_evaluation import accuracies, supernet_logits, supernet_statistics
from tiny_training import FIRST, SECOND, SPACE, THIRD, draw, shaken

from neas_tf.common.errors import NeasError
from neas_tf.search.evaluation import CandidateEvaluator, Workers
from neas_tf.search.prefix_tree import PrefixTree
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet import functional
from neas_tf.supernet.inheritance import inherited_ensemble
from neas_tf.supernet.model import Supernet
from neas_tf.uncertainty.measures import disagreement
from neas_tf.uncertainty.temperature import fit_temperature


@pytest.fixture(scope="module")
def model():
    return shaken(Supernet(SPACE, 2, seed=4, name="supernet"))


@pytest.fixture(scope="module")
def evaluator(model):
    # 30 calibration images in batches of 8 leave a rest of 6 out; 50 images make 32 + 18.
    return CandidateEvaluator(
        model, draw(30, 1)[0], *draw(50, 2), calibration_batch=8, batch_size=32
    )


def test_scores_do_not_depend_on_what_was_scored_before(model, evaluator):
    before = [v.numpy() for v in model.variables]
    first = [evaluator.evaluate(a) for a in (FIRST, SECOND, THIRD)]
    logits = evaluator.logits(SECOND)
    again = [evaluator.evaluate(a) for a in (THIRD, FIRST, SECOND)]
    assert again == [first[2], first[0], first[1]]
    assert evaluator.logits(SECOND).tobytes() == logits.tobytes()
    fresh = CandidateEvaluator(model, draw(30, 1)[0], *draw(50, 2), 8, 32)
    assert fresh.evaluate(SECOND) == first[1]
    for old, variable in zip(before, model.variables, strict=True):
        assert old.tobytes() == variable.numpy().tobytes(), variable.name


def test_accuracies_are_those_of_the_stand_alone_ensemble(model, evaluator):
    images, labels = draw(50, 2)
    for architecture in (FIRST, SECOND, THIRD):
        result = evaluator.evaluate(architecture)
        alone = inherited_ensemble(model, architecture, evaluator.statistics(architecture))
        logits = alone(images, training=False).numpy()
        paths = [float(np.mean(logits[:, k].argmax(-1) == labels)) for k in range(2)]
        assert result.path_accuracies == pytest.approx(paths, abs=1e-9)
        expected = float(np.mean(logits.mean(1).argmax(-1) == labels))
        assert result.accuracy == pytest.approx(expected, abs=1e-9)


def test_disagreement_is_that_of_the_logits_whoever_measures_it(model, evaluator):
    """Two processes measure a part each; what one has not measured is zero there."""
    settings = {"calibration_batch": 8, "batch_size": 32, "disagreement": True}
    images, labels = draw(50, 2)
    architectures = [FIRST, SECOND, THIRD]
    found = CandidateEvaluator(model, draw(30, 1)[0], images, labels, **settings)
    scores = found.evaluate_all(architectures)
    for architecture, score in zip(architectures, scores, strict=True):
        logits = evaluator.logits(architecture)
        expected = disagreement(np.swapaxes(logits, 0, 1)).mean()
        assert score.disagreement == pytest.approx(expected) and expected > 0
        assert dataclasses.replace(score, disagreement=None) == evaluator.evaluate(architecture)
    brought = []
    for index in range(2):
        kept = []
        workers = Workers(2, index, lambda bits, kept=kept: kept.append(bits) or bits)
        part = CandidateEvaluator(
            model, draw(30, 1)[0], images, labels, workers=workers, **settings
        )
        part.evaluate_all(architectures)
        brought += kept
    merging = Workers(2, 0, lambda bits: brought[0] | brought[1])
    both = CandidateEvaluator(model, draw(30, 1)[0], images, labels, workers=merging, **settings)
    assert len(brought) == 2 and both.evaluate_all(architectures) == scores


def numpy_norm(batches, gamma, beta):
    """Statistics as the mean over batches of mean and mean square; maps by the batch's own."""
    means = [b.mean((0, 1, 2), dtype=np.float64) for b in batches]
    squares = [(b.astype(np.float64) ** 2).mean((0, 1, 2)) for b in batches]
    mean, variance = np.mean(means, 0), np.mean(squares, 0) - np.mean(means, 0) ** 2
    normalised = [
        (b - m) / np.sqrt(s - m**2 + functional.EPSILON) * gamma + beta
        for b, m, s in zip(batches, means, squares, strict=True)
    ]
    return np.stack([mean, variance]), normalised


def silu(x):
    return x / (1 + np.exp(-x))


def test_statistics_against_numpy(model, evaluator):
    """Stem and the first two norms of layer 1; the pass behind them uses the batch's moments."""
    statistics = evaluator.statistics(FIRST)  # layer 1 is k3e2: row 0 of its group.
    roles = model.stem.roles
    images = draw(30, 1)[0][:24].reshape(3, 8, 8, 8, 3)
    maps = [functional.convolution(tf.constant(b), roles["conv/kernel"]).numpy() for b in images]
    expected, maps = numpy_norm(maps, roles["bn/gamma"].numpy(), roles["bn/beta"].numpy())
    np.testing.assert_allclose(statistics["stem"]["bn"], expected, rtol=1e-4, atol=1e-4)

    weights = functools.partial(model.searchable[0].weight, "k3e2")
    kernel = weights("expand/kernel")[0, 0]
    maps = [silu(b) @ kernel for b in maps]
    gamma, beta = weights("expand_bn/gamma"), weights("expand_bn/beta")
    expected, maps = numpy_norm(maps, gamma, beta)
    found = np.asarray(statistics["layers"][0][0][0])[:, : len(kernel[0])]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    kernel = tf.constant(weights("dw/kernel"))
    maps = [functional.depthwise(tf.constant(silu(b), tf.float32), kernel).numpy() for b in maps]
    expected, _ = numpy_norm(maps, weights("dw_bn/gamma"), weights("dw_bn/beta"))
    found = np.asarray(statistics["layers"][0][0][1])[:, : kernel.shape[2]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_shared_layers_have_one_set_of_statistics(evaluator):
    statistics = evaluator.statistics(THIRD)
    for first, second in zip(*zip(*statistics["layers"], strict=True), strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_refuses_to_measure_on_nothing(model):
    with pytest.raises(NeasError, match="validation_images"):
        CandidateEvaluator(model, draw(8, 1)[0], *draw(0, 2))
    with pytest.raises(NeasError, match="calibration_images"):
        CandidateEvaluator(model, draw(0, 1)[0], *draw(8, 2))


# Both ends of the split range, one path as another's beginning, skips and equal trunks.
EQUAL_ROWS = Architecture(1, (FIRST.paths[1], FIRST.paths[0]))
ONLY_SKIPS = Architecture(2, (("k3e2", "skip", "k3e4"), ("k3e2", "skip", "k5e2")))
GENERATION = (FIRST, SECOND, EQUAL_ROWS, THIRD, ONLY_SKIPS)


def test_a_generation_scores_as_each_alone(model, evaluator):
    """To the bit, in any order; every batch counts, the smaller last one too."""
    assert len(PrefixTree(GENERATION).nodes) < sum(len(PrefixTree([a]).nodes) for a in GENERATION)
    alone = [evaluator.evaluate(a) for a in GENERATION]
    assert evaluator.evaluate_all(GENERATION) == alone
    assert evaluator.evaluate_all(GENERATION[::-1]) == alone[::-1]
    assert len({(a.accuracy, *a.path_accuracies) for a in alone}) > 1
    assert evaluator.evaluate_all([]) == []


@pytest.mark.parametrize(
    ("space", "num_paths"),
    [(SPACE, 1), (SPACE, 2), (SPACE, 3), (MIXED, 2)],
    ids=lambda value: getattr(value, "name", f"{value} paths"),
)
def test_scores_are_those_of_the_supernet_s_own_graph(space, num_paths):
    """Each candidate by itself through `Supernet.call`, as it is trained."""
    model, size = shaken(Supernet(space, num_paths, seed=4, name="supernet")), space.input_size[0]
    shrunk, rng = ShrunkSpace.full(space, num_paths, heterogeneous=False), np.random.default_rng(2)
    found = [uniform(shrunk, rng) for _ in range(4)]
    for split in (space.min_split, space.max_split):
        row = found[0].paths[0]
        rows = tuple(row[:split] + a.paths[0][split:] for a in found[:num_paths])
        found.append(Architecture(split, rows).check_in(space))
    assert any("skip" in row for a in found for row in a.paths)
    calibration, (images, labels) = draw(20, 3, size)[0], draw(26, 4, size)
    evaluator = CandidateEvaluator(model, calibration, images, labels, 8, 10)
    for architecture, result in zip(found, evaluator.evaluate_all(found), strict=True):
        statistics = supernet_statistics(model, architecture, calibration, 8)
        logits = supernet_logits(model, architecture, statistics, images)
        np.testing.assert_allclose(evaluator.logits(architecture), logits, atol=1e-4)
        expected = accuracies(logits, labels)
        assert result.accuracy == pytest.approx(expected.accuracy, abs=1e-6)
        assert result.path_accuracies == pytest.approx(expected.path_accuracies, abs=1e-6)


def test_each_layer_is_computed_once_a_batch(model, evaluator, monkeypatch):
    """What the tree promises is what runs: 3 calibration batches and 2 of the accuracy."""
    functions, runs = evaluator._functions[0], []
    operator = functions.operator

    def counted(number, name):
        part = operator(number, name)
        return dataclasses.replace(
            part,
            recalculate=lambda *a: runs.append("recalculate") or part.recalculate(*a),
            run=lambda *a: runs.append("run") or part.run(*a),
        )

    monkeypatch.setattr(functions, "operator", counted)
    evaluator.evaluate_all(GENERATION)
    nodes = len(PrefixTree(GENERATION).nodes) - 1
    assert runs == ["recalculate"] * 3 * nodes + ["run"] * 2 * nodes


def test_progress_rises_to_the_whole(evaluator):
    shares = []
    evaluator.evaluate_all(GENERATION, shares.append)
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] == 1.0
    assert len(shares) > 30


def test_likelihoods_are_those_of_the_logits(evaluator):
    """Over 50 images in batches of 32 and 18, by scipy."""
    labels, images = draw(50, 2)[1], np.arange(50)
    for architecture, score in zip(GENERATION, evaluator.evaluate_all(GENERATION), strict=True):
        logits = evaluator.logits(architecture).astype(float)
        mean = logits.mean(0)
        own = scipy.special.log_softmax(mean, -1)[images, labels].mean()
        mixture = np.log(scipy.special.softmax(logits, -1).mean(0)[images, labels]).mean()
        fit = fit_temperature(mean, labels)
        assert score.numbers["log_likelihood"] == pytest.approx(own, abs=1e-9)
        assert score.numbers["log_likelihood_mixture"] == pytest.approx(mixture, abs=1e-9)
        calibrated = score.numbers["log_likelihood_calibrated"]
        assert own <= calibrated <= -fit.after + 1e-6  # T from 1/4 to 4 here, to 20 there
        if 0.25 < fit.temperature < 4:
            assert calibrated == pytest.approx(-fit.after, abs=1e-4)
            assert score.numbers["temperature"] == pytest.approx(fit.temperature, rel=0.01)


def test_another_look_is_an_evaluator_of_its_own(model, evaluator):
    before = evaluator.evaluate(SECOND)
    other = evaluator.another_look(draw(30, 7)[0], *draw(40, 8))
    assert other.images == 40 and other._functions is evaluator._functions
    fresh = CandidateEvaluator(model, draw(30, 7)[0], *draw(40, 8), 8, 32)
    assert other.evaluate(SECOND) == fresh.evaluate(SECOND) != before
    assert evaluator.evaluate(SECOND) == before
    with pytest.raises(NeasError, match="validation_images"):
        evaluator.another_look(draw(30, 7)[0], *draw(0, 8))


def test_workers_share_the_candidates(model):
    """Each of two processes measures its own; together they know all, as one alone does."""
    arguments = (model, draw(30, 1)[0], *draw(50, 2), 8, 32)
    parts = [[], []]
    for index in range(2):  # what each one contributes
        own = Workers(2, index, lambda found, i=index: parts[i].append(found) or found)
        CandidateEvaluator(*arguments, workers=own).evaluate_all(GENERATION)
    assert len(parts[0]) == 1  # they meet once, not after every batch
    assert all(first.any() and second.any() for first, second in zip(*parts, strict=True))
    assert not any((first & second).any() for first, second in zip(*parts, strict=True))
    merged = iter([first | second for first, second in zip(*parts, strict=True)])
    both = CandidateEvaluator(*arguments, workers=Workers(2, 0, lambda found: next(merged)))
    assert both.evaluate_all(GENERATION) == CandidateEvaluator(*arguments).evaluate_all(GENERATION)
    # More workers than candidates: some have nothing to do.
    idle = Workers(9, 8, lambda found: np.zeros_like(found))
    assert CandidateEvaluator(*arguments, workers=idle).evaluate_all([FIRST])[0].accuracy == 0.0


def test_devices_share_the_candidates():
    """Two logical CPU devices, in a process of its own; to the bit what one device finds."""
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    script = Path(__file__).parents[1] / "support" / "evaluation_devices.py"
    done = subprocess.run(
        [warm.python(), str(script)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split()[-1] == "equal"
