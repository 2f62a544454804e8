"""Measures of uncertainty: against their definitions written out, scikit-learn and SciPy."""

import itertools

import numpy as np
import pytest
import synthetic_run
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import log_loss, roc_auc_score

from neas_tf.common.errors import NeasError
from neas_tf.uncertainty.measures import (
    BINS,
    Uncertainty,
    disagreement,
    expected_calibration_error,
    log_softmax,
    read_uncertainty,
    risk_coverage,
    rows_of,
)


def draw(rng, paths=2, n=300, classes=4):
    """(labels, logits (n, K + 1, classes)) of paths that are mostly right."""
    labels = rng.integers(classes, size=n)
    logits = 2 * rng.normal(size=(n, paths, classes)) + 2 * np.eye(classes)[labels][:, None]
    return labels, np.concatenate([logits, logits.mean(1, keepdims=True)], 1)


def test_measures_are_their_definitions(rng):
    labels, logits = draw(rng)
    found = Uncertainty(2, temperature=2.0)
    for part in (slice(0, 130), slice(130, 300)):
        found.add(labels[part], logits[part])
    value = found.to_dict()
    assert value["examples"] == 300 and value["bins"] == 15
    rows = [*value["paths"], value["ensemble"], value["calibrated"]]
    scaled = np.concatenate([logits, logits[:, -1:] / 2.0], 1)
    for row, own in zip(rows, np.swapaxes(scaled, 0, 1), strict=True):
        shares = softmax(own, -1)
        right, sure = shares.argmax(-1) == labels, shares.max(-1)
        assert row["accuracy"] == right.mean()
        assert row["nll"] == pytest.approx(log_loss(labels, shares, labels=range(4)))
        assert row["brier"] == pytest.approx(((shares - np.eye(4)[labels]) ** 2).sum(-1).mean())
        ece = 0.0
        for b in range(15):
            inside = (sure > b / 15) & (sure <= (b + 1) / 15)
            if inside.any():
                ece += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
        assert row["ece"] == pytest.approx(ece)
        assert row["auroc"] == pytest.approx(roc_auc_score(~right, -sure))
        order = np.argsort(-sure)
        risks = [(~right[order[:i]]).mean() for i in range(1, 301)]
        assert row["aurc"] == pytest.approx(np.mean(risks))
        for coverage, risk in row["risk_coverage"]:
            assert risk == pytest.approx(risks[round(300 * coverage) - 1], abs=1e-6)
        assert len(row["risk_coverage"]) == 100 and row["risk_coverage"][-1][0] == 1
    assert value["calibrated"]["accuracy"] == value["ensemble"]["accuracy"]
    assert list(rows_of(value)) == ["path 1", "path 2", "ensemble", "ensemble, T = 2.000"]


@pytest.mark.parametrize("paths", [2, 3])
def test_disagreement_is_the_mutual_information(rng, paths):
    labels, logits = draw(rng, paths)
    shares = softmax(logits[:, :paths], -1)
    mean = shares.mean(1)
    expected = entropy(mean, axis=-1) - entropy(shares, axis=-1).mean(1)
    found = disagreement(logits[:, :paths])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    if paths == 2:
        jensen = jensenshannon(shares[:, 0], shares[:, 1], axis=-1) ** 2
        np.testing.assert_allclose(found, jensen, atol=1e-12)
    test = Uncertainty(paths)
    test.add(labels, logits)
    right = logits[:, -1].argmax(-1) == labels
    told = test.to_dict()["disagreement"]
    assert told["auroc"] == pytest.approx(roc_auc_score(~right, expected))
    assert told["mean_right"] == pytest.approx(expected[right].mean())
    assert told["mean_wrong"] == pytest.approx(expected[~right].mean())
    # Paths that are sure of different classes disagree by ln K, though logits are far apart.
    apart = 1e4 * np.eye(paths)[None]
    assert disagreement(apart)[0] == pytest.approx(np.log(paths))


def test_equal_confidences_take_every_order_alike():
    sure, right = np.array([0.9, 0.5, 0.5, 0.5]), np.array([True, False, True, True])
    orders = [risk_coverage(np.array([0.9, 0.6, 0.5, 0.4]), right[[0, *order]])
              for order in itertools.permutations((1, 2, 3))]  # fmt: skip
    np.testing.assert_allclose(risk_coverage(sure, right), np.mean(orders, 0))


def test_calibration_error_of_the_extremes():
    sure = np.array([1.0, 1.0, 0.0, 1 / BINS])
    assert expected_calibration_error(sure, np.array([True, True, False, False])) == pytest.approx(
        1 / BINS / 4
    )
    large = np.array([[1e5, 0.0, -1e5]])
    np.testing.assert_allclose(log_softmax(large), scipy_log_softmax(large, -1))


def test_one_path_and_tests_without_errors():
    found = Uncertainty(1)
    found.add(np.array([0, 1]), np.array([[[3.0, 0.0]] * 2, [[0.0, 2.0]] * 2]))
    value = found.to_dict()
    assert value["disagreement"] is None and value["ensemble"]["auroc"] is None
    assert value["ensemble"]["aurc"] == 0 == value["ensemble"]["risk_coverage"][-1][1]


def test_logits_that_are_no_numbers_leave_a_whole_file(tmp_path):
    found = Uncertainty(2)
    logits = np.full((2, 3, 3), np.nan)
    logits[1] = np.inf
    found.add(np.array([1, 2]), logits)
    value = found.to_dict()
    assert value["ensemble"]["nll"] is None and value["disagreement"]["auroc"] is None
    synthetic_run.write_json(tmp_path / "uncertainty.json", value)
    assert read_uncertainty(tmp_path / "uncertainty.json") == value


@pytest.mark.parametrize(
    "change",
    [
        {"format": "neas-uncertainty/2"},
        {"examples": 0},
        {"paths": []},
        {"ensemble": {"accuracy": "high"}},
        {"calibrated": []},
        {"disagreement": {"auroc": float}},
    ],
    ids=str,
)
def test_damaged_files_are_refused(change, tmp_path, rng):
    value = synthetic_run.uncertainty(2, rng)
    path = tmp_path / "uncertainty.json"
    synthetic_run.write_json(path, value)
    assert read_uncertainty(path)["examples"] == 2_000
    change = {k: {"auroc": "x"} if k == "disagreement" else v for k, v in change.items()}
    synthetic_run.write_json(path, {**value, **change})
    with pytest.raises(NeasError, match=rf"uncertainty\.{next(iter(change))}"):
        read_uncertainty(path)
