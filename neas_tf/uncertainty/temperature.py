"""One temperature for an ensemble's logits, fitted on held-out images (Guo et al., 2017).

Probabilities become softmax(logits / T). T is the one number that minimises the negative
log-likelihood, which is convex in 1/T; the order of the classes, and so the accuracy, stays.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neas_tf.common.errors import NeasError
from neas_tf.uncertainty.measures import log_softmax

MOST = 20.0  # T lies in 1/MOST … MOST: without an error, or by chance answers, there is no best one
FEWEST = 2  # images


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted temperature.

    Attributes:
      temperature: T.
      examples: images that it was fitted on.
      before, after: their mean negative log-likelihood without and with it, in nats.
    """

    temperature: float
    examples: int
    before: float
    after: float


def check_examples(count: int, field: str = "retrain.calibrate", received: str = "true") -> None:
    """Raises `NeasError` where there are too few held-out images for a temperature."""
    if count < FEWEST:
        raise NeasError(
            f"{field}: received {received} with {count or 'no'} held-out image{'s' * (count != 1)}, "
            f"expected {FEWEST} or more for a temperature (data.search_fraction)."
        )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Fit:
    """Fits T to logits (n, classes) and labels (n,).

    Raises:
      NeasError: for fewer images than two, or logits that are no finite numbers.
    """
    from scipy.optimize import minimize_scalar

    check_examples(len(labels))
    if not np.isfinite(logits).all():
        raise NeasError("temperature: the logits of the held-out images are no finite numbers.")

    def loss(log_inverse: float) -> float:
        logs = log_softmax(np.exp(log_inverse) * logits)
        return -float(np.mean(np.take_along_axis(logs, labels[:, None], -1)))

    reach = np.log(MOST)
    found = minimize_scalar(loss, bounds=(-reach, reach), method="bounded", options={"xatol": 1e-6})
    return Fit(float(np.exp(-found.x)), len(labels), loss(0.0), float(found.fun))
