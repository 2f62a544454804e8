"""The temperature of a retrained ensemble, fitted on the images that its training left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from neas_tf import data
from neas_tf.common import console
from neas_tf.training.accuracy import evaluate
from neas_tf.uncertainty.temperature import fit_temperature

_MOST_LOGITS = 1 << 25  # that a temperature is fitted on


def calibrated_temperature(model: Any, info: data.DatasetInfo, batch_size: int) -> float:
    """The temperature of the ensemble's logits on the part `search`, or the first images of it.

    Raises:
      NeasError: for fewer images than two, or logits that are no finite numbers.
    """
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []

    def seen(_: np.ndarray, truth: np.ndarray, scores: np.ndarray) -> None:
        if sum(map(len, labels)) * info.num_classes < _MOST_LOGITS:
            logits.append(scores[:, -1].astype(np.float32))
            labels.append(truth)

    evaluate(model, info, "search", batch_size, seen)
    fit = fit_temperature(np.concatenate(logits), np.concatenate(labels))
    console.say(
        f"   Temperature {fit.temperature:.3f}, fitted on {fit.examples:,} held-out images: negative "
        f"log-likelihood {fit.before:.4f} without, {fit.after:.4f} with it."
    )
    return fit.temperature
