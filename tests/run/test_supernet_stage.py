"""What a shrink measures (paper Eqs. 5 and 7)."""

import types

import numpy as np
import pytest
from tiny_training import SPACE, shaken

from neas_tf.run import supernet_stage
from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet


@pytest.fixture(scope="module")
def model():
    return shaken(Supernet(SPACE, 2, seed=4, name="supernet"))


@pytest.fixture(scope="module")
def functions(model):
    return supernet_stage.forward_functions(model)


@pytest.fixture
def measured(functions, monkeypatch):
    """Images of two batches that differ much, and what is measured on them."""
    rng = np.random.default_rng(0)
    shift = np.repeat([0.0, 4.0], 8)[:, None, None, None]
    images = (rng.normal(0.3, 2.0, (16, 8, 8, 3)) + shift).astype(np.float32)
    labels = rng.integers(0, SPACE.num_classes, 16)
    monkeypatch.setattr(supernet_stage.data, "make_images", lambda *_: (images, labels))

    def measure(**settings):
        chosen = ShrinkSettings(num_samples=4, min_pair_count=1, **settings)
        section = types.SimpleNamespace(images=16, batch_size=8)
        whole = types.SimpleNamespace(search_fraction=0.0)
        config = types.SimpleNamespace(shrink=section, seed=0, data=whole)
        full = ShrunkSpace.full(SPACE, 2)
        return supernet_stage.measure(functions, full, chosen, None, config, 1)

    return types.SimpleNamespace(images=images, labels=labels, measure=measure)


def test_recalculated_statistics_are_those_of_the_search(model, measured):
    found = measured.measure(batch_norm="recalculated")
    evaluator = CandidateEvaluator(model, measured.images, measured.images, measured.labels, 8, 16)
    for code, accuracies in zip(found.architectures, found.accuracies, strict=True):
        architecture = Architecture.from_array(code, SPACE)
        expected = evaluator.evaluate(architecture).path_accuracies
        assert accuracies == pytest.approx(expected, abs=1e-6)


def test_by_default_each_batch_has_its_own_moments(model, measured):
    found, other = measured.measure(), measured.measure(batch_norm="recalculated")
    assert np.array_equal(found.architectures, other.architectures)
    assert not np.allclose(found.distances, other.distances)
    code = found.architectures[0]
    halves = [
        model(measured.images[i : i + 8], code).logits.numpy().argmax(-1)
        == measured.labels[i : i + 8]
        for i in (0, 8)
    ]
    expected = np.mean([half.mean(1) for half in halves], 0)
    assert found.accuracies[0] == pytest.approx(expected, abs=1e-6)
