"""How well a latency table predicts: the fit on whole ensembles, and errors on other ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neas_tf.common.errors import check

# A slope beyond these is noise of the few ensembles it comes from.
_LEAST, _MOST = 0.5, 2.0


def fit_scale(sums: Sequence[float], measured: Sequence[float]) -> tuple[float, float]:
    """Fits measured ≈ scale · sum + constant, with the least squares of relative errors.

    Args:
      sums: added-up entries of each ensemble.
      measured: latency of each, in the same unit.

    Returns:
      (scale, constant). The constant is 0 where the ensembles are too few or too alike for both;
      (1, 0) without any.
    """
    x, y = _pairs(sums, measured)
    if not len(x):
        return 1.0, 0.0
    columns = np.stack([x, np.ones_like(x)], axis=1) / y[:, None]
    if len(x) >= 3 and np.ptp(x) > 1e-3 * x.mean():
        scale, constant = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)[0]
        if _LEAST < scale < _MOST:
            return float(scale), float(constant)
    return float(np.sum(columns[:, 0]) / np.sum(columns[:, 0] ** 2)), 0.0


def relative_errors(predicted: Sequence[float], measured: Sequence[float]) -> np.ndarray:
    """|predicted / measured - 1| of each, float64 (n,)."""
    x, y = _pairs(predicted, measured)
    return np.abs(x / y - 1.0)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's τ-b: agreement of two orders, -1..1; None where one of them orders nothing."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    upper = np.triu_indices(len(x), 1)
    dx, dy = (np.sign(v[:, None] - v[None])[upper] for v in (x, y))
    scale = np.sqrt(np.sum(dx != 0) * np.sum(dy != 0))
    return float(np.sum(dx * dy) / scale) if scale else None


def _pairs(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, float), np.asarray(b, float)
    same = x.ndim == 1 and x.shape == y.shape
    check(same, "latencies", (x.shape, y.shape), "two lists of equal length")
    check(bool(np.all(y > 0)), "measured latencies", y.tolist(), "positive numbers")
    return x, y
