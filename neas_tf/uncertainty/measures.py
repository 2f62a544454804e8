"""How well an ensemble's probabilities and its paths' disagreement say when it is wrong.

With p = softmax(logits), label y, confidence c = max p over n images:

- negative log-likelihood: −mean ln p_y, in nats;
- Brier score (Brier, 1950): mean Σ_j (p_j − [j = y])², from 0 to 2;
- expected calibration error (Naeini et al., 2015; Guo et al., 2017): Σ_b |B_b| / n ·
  |accuracy(B_b) − mean c in B_b| over 15 bins of equal width of c;
- risk-coverage (El-Yaniv and Wiener, 2010): the share of errors among the i images with the largest
  c, at coverage i / n; its area is the mean over i (Geifman et al., 2019). Of images with
  equal c each order is as likely: their errors are spread evenly;
- disagreement of K paths: D = (1/K) Σ_k KL(p_k ‖ p̄), p̄ = (1/K) Σ_k p_k, in nats, 0 to ln K
  (Lakshminarayanan et al., 2017). It equals H(p̄) − (1/K) Σ_k H(p_k), the mutual information of
  class and path (Houlsby et al., 2011), and for K = 2 the Jensen-Shannon divergence;
- AUROC: the chance that an error has a larger score (1 − c, or D) than a right answer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_int, is_number
from neas_tf.common.files import read_json

FORMAT = "neas-uncertainty/1"
UNCERTAINTY_FILE = "retrain/uncertainty.json"
BINS = 15
MAX_POINTS = 100  # of a risk-coverage curve, as stored
MEASURES = ("accuracy", "nll", "ece", "brier", "aurc", "auroc")
DISAGREEMENT = ("mean_right", "mean_wrong", "auroc")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """ln softmax over the last axis, in float64; NaN where logits are no finite numbers."""
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def disagreement(path_logits: np.ndarray) -> np.ndarray:
    """D of each image in nats, (n,), from logits (n, K, classes)."""
    logs = log_softmax(path_logits)
    shares = np.exp(logs)
    mean = np.log(np.maximum(shares.mean(1, keepdims=True), np.finfo(float).tiny))
    return np.maximum(np.where(shares > 0, shares * (logs - mean), 0.0).sum(-1).mean(1), 0.0)


def expected_calibration_error(confidences: np.ndarray, right: np.ndarray) -> float:
    """Of confidences in 0..1 and whether each answer is right, both (n,); bins are (a, b]."""
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    bins = np.searchsorted(edges, confidences, side="left")
    surplus = np.bincount(bins, right - confidences, BINS)
    return float(np.abs(surplus).sum() / len(right))


def risk_coverage(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Risk (n,) at coverages 1/n, 2/n, …, 1."""
    values, place = np.unique(-confidences, return_inverse=True)
    sizes = np.bincount(place, minlength=len(values))
    errors = np.bincount(place, ~right, minlength=len(values)) / sizes
    counts = np.arange(1, len(right) + 1)
    return np.cumsum(np.repeat(errors, sizes)) / counts


def error_auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    """AUROC of scores (n,) for errors; None where all answers are right, or all wrong."""
    from sklearn.metrics import roc_auc_score

    if right.all() or not right.any() or not np.isfinite(scores).all():
        return None
    return float(roc_auc_score(~right, scores))


class Uncertainty:
    """Collects the batches of a test; keeps five numbers an image and member.

    Args:
      num_paths: K.
      temperature: of the ensemble's calibration, whose logits are divided by it for `calibrated`.
    """

    def __init__(self, num_paths: int, temperature: float | None = None):
        self.num_paths, self.temperature = num_paths, temperature
        self._right: list[np.ndarray] = []
        self._members: list[np.ndarray] = []
        self._disagreement: list[np.ndarray] = []

    def add(self, labels: np.ndarray, logits: np.ndarray) -> None:
        """Takes labels (b,) and logits (b, K + 1, classes), those of the ensemble last."""
        self._right.append(logits.argmax(-1) == labels[:, None])
        if self.temperature is not None:
            logits = np.concatenate([logits, logits[:, -1:] / self.temperature], 1)
        logs = log_softmax(logits)
        shares = np.exp(logs)
        at = labels[:, None, None]
        own = np.take_along_axis(shares, at, -1)[..., 0]
        nll = -np.take_along_axis(logs, at, -1)[..., 0]
        brier = (shares**2).sum(-1) - 2 * own + 1
        self._members.append(np.stack([shares.max(-1), nll, brier]))
        if self.num_paths > 1:
            self._disagreement.append(disagreement(logits[:, : self.num_paths]))

    def to_dict(self, part: str = "test") -> dict[str, Any]:
        """JSON form `neas-uncertainty/1`.

        `paths` (K rows), `ensemble` and, with a temperature, `calibrated` have `MEASURES` and the
        curve `risk_coverage` as [coverage, risk]; `disagreement` has `DISAGREEMENT`, the AUROC for
        errors of the ensemble, and is None for one path. A measure without a finite value is None.
        """
        right = np.concatenate(self._right)
        members = np.concatenate(self._members, 1)
        rows = [_row(members[:, :, k], right[:, k]) for k in range(self.num_paths + 1)]
        value: dict[str, Any] = {
            "format": FORMAT,
            "part": part,
            "examples": len(right),
            "bins": BINS,
            "paths": rows[:-1],
            "ensemble": rows[-1],
            "disagreement": None,
        }
        if self.num_paths > 1:
            scores, fine = np.concatenate(self._disagreement), right[:, -1]
            value["disagreement"] = {
                "mean_right": _mean(scores[fine]),
                "mean_wrong": _mean(scores[~fine]),
                "auroc": error_auroc(scores, fine),
            }
        if self.temperature is not None:
            row = _row(members[:, :, -1], right[:, -1])
            value |= {"temperature": self.temperature, "calibrated": row}
        return value


def _row(numbers: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Of confidence, likelihood and Brier score (3, n) of one member, and its right answers (n,)."""
    confidences, nll, brier = numbers
    row: dict[str, Any] = {"accuracy": float(right.mean()), "nll": _mean(nll)}
    if not np.isfinite(confidences).all():
        return row | dict.fromkeys(MEASURES[2:]) | {"risk_coverage": []}
    risks, n = risk_coverage(confidences, right), len(right)
    kept = np.unique(np.round(np.linspace(0, n - 1, min(n, MAX_POINTS))).astype(int))
    return row | {
        "ece": expected_calibration_error(confidences, right),
        "brier": _mean(brier),
        "aurc": float(risks.mean()),
        "auroc": error_auroc(-confidences, right),
        "risk_coverage": [[round((i + 1) / n, 6), round(float(risks[i]), 6)] for i in kept],
    }


def _mean(values: np.ndarray) -> float | None:
    mean = float(np.mean(values)) if len(values) else math.nan
    return mean if math.isfinite(mean) else None


def read_uncertainty(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads the JSON form.

    Raises:
      NeasError: when the file is absent, damaged or of another form.
    """
    value = read_json(path, "uncertainty")
    check(isinstance(value, Mapping), "uncertainty", value, "a JSON object")
    check(value.get("format") == FORMAT, "uncertainty.format", value.get("format"), FORMAT)
    check_int("uncertainty.examples", value.get("examples"), 1)
    paths = value.get("paths")
    check(isinstance(paths, list) and bool(paths), "uncertainty.paths", paths, "a row a path")
    named = [("paths", row) for row in paths] + [("ensemble", value.get("ensemble"))]
    if "calibrated" in value:
        named.append(("calibrated", value["calibrated"]))
        check(is_number(value.get("temperature")), "uncertainty.temperature", value, "a number")
    for name, row in named:
        _check_numbers(f"uncertainty.{name}", row, MEASURES)
        curve = row.get("risk_coverage")
        check(isinstance(curve, list), f"uncertainty.{name}.risk_coverage", curve, "a list")
        for point in curve:
            fits = isinstance(point, list) and len(point) == 2 and all(map(is_number, point))
            check(fits, f"uncertainty.{name}.risk_coverage", point, "[coverage, risk]")
    if value.get("disagreement") is not None:
        _check_numbers("uncertainty.disagreement", value["disagreement"], DISAGREEMENT)
    return value


def _check_numbers(field: str, row: Any, names: Sequence[str]) -> None:
    check(isinstance(row, Mapping), field, row, "a JSON object")
    for name in names:
        number = row.get(name)
        check(number is None or is_number(number), f"{field}.{name}", number, "a number or null")


def rows_of(value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of the JSON form by name: path 1, …, ensemble, perhaps ensemble at T = ….."""
    rows = {f"path {k}": row for k, row in enumerate(value["paths"], 1)}
    rows["ensemble"] = value["ensemble"]
    if "calibrated" in value:
        rows[f"ensemble, T = {value['temperature']:.3f}"] = value["calibrated"]
    return rows


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row's numbers as text, in the order of `COLUMNS`."""
    return [
        "–"
        if row[name] is None
        else f"{row[name]:.4f}"
        if name != "accuracy"
        else f"{row[name]:.2%}"
        for name in MEASURES
    ]


COLUMNS = ("accuracy", "NLL", "ECE", "Brier", "AURC", "AUROC")  # of `cells`
