"""The score of a candidate: exact statistics, and nothing that one leaves to the next."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import FIRST, SECOND, SPACE, THIRD

from neas_tf import functional
from neas_tf.errors import NeasError
from neas_tf.evaluation import CandidateEvaluator
from neas_tf.inherit import inherited_ensemble
from neas_tf.supernet import Supernet


@pytest.fixture(scope="module")
def model():
    model = Supernet(SPACE, 2, seed=4, name="supernet")
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        if len(v.shape) < 3:
            v.assign(v + rng.normal(0, 0.3, v.shape).astype(np.float32))
    return model


def draw(count, seed):
    rng = np.random.default_rng(seed)
    images = rng.normal(0.3, 2.0, (count, 8, 8, 3)).astype(np.float32)
    return images, rng.integers(0, 4, count)


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
