"""What the search asks of a candidate: accuracy as in the paper, or another number of the same pass.

One forward pass gives them all; each is recorded whatever the fitness is. With z the mean of the K
paths' logits (the ensemble's output, Eq. 1) and y the label, means over the held-out images in nats:

- log_likelihood: ln softmax(z)_y;
- log_likelihood_calibrated: ln softmax(z / T)_y with the one T that is best for the candidate;
- log_likelihood_mixture: ln of the mean over the paths of softmax(z_k)_y.

Accuracies of ensembles of one space differ by little more than what chance does on a few thousand
images; log-likelihood also sees how sure the ensemble is, and so needs fewer.

*How T is found.* The log-likelihood is summed at 17 inverse temperatures β = 1/T, 2^(1/4) apart from
1/4 to 4, and is concave in β: the best T is that of the quartic in ln β through the best of them and
four neighbours. So no logits are kept, and what several processes found adds up. exp(2βz) is
exp(βz)², so that four exponentials are taken instead of 17.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from neas_tf.uncertainty.measures import log_softmax

ACCURACY, RANKS, HALVING = "accuracy", "ranks", "halving"
LOG_LIKELIHOOD = "log_likelihood"
CALIBRATED, MIXTURE = "log_likelihood_calibrated", "log_likelihood_mixture"
LIKELIHOODS = (LOG_LIKELIHOOD, CALIBRATED, MIXTURE)
FITNESSES = (ACCURACY, *LIKELIHOODS, RANKS, HALVING)
TEMPERATURE = "temperature"
NUMBERS = (*LIKELIHOODS, TEMPERATURE)  # of a candidate besides its accuracies
# Inverse temperatures; the middle one is 1.
BETAS = 2.0 ** (np.arange(-8, 9) / 4)
SUMS = 1 + len(BETAS)
_OCTAVE = 4  # places in BETAS from β to 2·β
# Of five neighbours in BETAS: the places between them, and what makes values there of theirs.
_NODES = 5
_PLACES = np.linspace(0, _NODES - 1, 401)
_BETWEEN = np.vander(_PLACES, _NODES) @ np.linalg.inv(np.vander(np.arange(float(_NODES))))
_WORST = -1e300  # finite, for a front's distances


class Scored(Protocol):
    """What a fitness is made of: a candidate, or its score."""

    @property
    def accuracy(self) -> float:
        """Of the ensemble."""

    @property
    def numbers(self) -> Mapping[str, float]:
        """Those of `NUMBERS` that are known."""

    @property
    def looks(self) -> int | None:
        """How often it was evaluated, where that may be several times."""


def fitness_values(candidates: Sequence[Scored], fitness: str) -> np.ndarray:
    """The fitness of each of some candidates, float64 (n,); the largest is the best.

    A number that a candidate lacks (of an older search, or not finite) is the worst.
    `ranks` is the mean of the ranks by accuracy and by log-likelihood among these candidates, and
    `halving` puts who was looked at more often first, then the accuracy.
    """
    accuracies = np.array([c.accuracy for c in candidates], np.float64)
    if fitness == HALVING:
        return accuracies + [2.0 * (c.looks or 1) for c in candidates]
    if fitness == ACCURACY or not len(accuracies):
        return accuracies
    name = LOG_LIKELIHOOD if fitness == RANKS else fitness
    values = np.array([c.numbers.get(name, _WORST) for c in candidates], np.float64)
    if fitness == RANKS:
        from scipy.stats import rankdata

        return (rankdata(accuracies) + rankdata(values)) / 2
    return values


def likelihood_sums(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sums over a batch, float64 (SUMS,): of the mixture, then of the mean logits at `BETAS`.

    Args:
      logits: (K, B, classes).
      labels: (B,).
    """
    images = np.arange(len(labels))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        paths = log_softmax(logits)[:, images, labels]
        sums = [float((np.logaddexp.reduce(paths, 0) - np.log(len(paths))).sum())]
        mean = logits.mean(0, dtype=np.float64)
        shifted = mean - mean.max(-1, keepdims=True)
        own, grid = shifted[images, labels], np.empty(len(BETAS))
        for first in range(_OCTAVE):
            shares = np.exp(BETAS[first] * shifted)
            for place in range(first, len(BETAS), _OCTAVE):
                grid[place] = (BETAS[place] * own - np.log(shares.sum(-1))).sum()
                np.square(shares, out=shares)
    return np.array([*sums, *grid])


def numbers_of(sums: np.ndarray, images: int) -> dict[str, float]:
    """`NUMBERS` of a candidate from its sums (SUMS,) over so many images, those that are finite.

    A temperature needs two images: without them there is none, and nothing calibrated.
    """
    mixture, *grid = (sums / images).tolist()
    found = {LOG_LIKELIHOOD: grid[len(BETAS) // 2], MIXTURE: mixture}
    if images > 1 and np.isfinite(grid).all():
        found[TEMPERATURE], found[CALIBRATED] = _best_temperature(grid)
    return {name: found[name] for name in NUMBERS if name in found and np.isfinite(found[name])}


def _best_temperature(grid: Sequence[float]) -> tuple[float, float]:
    """T, and the log-likelihood there."""
    first = min(max(int(np.argmax(grid)) - 2, 0), len(grid) - _NODES)
    values = _BETWEEN @ np.array(grid[first : first + _NODES])
    best = int(np.argmax(values))
    beta = BETAS[first] * 2.0 ** (_PLACES[best] / _OCTAVE)
    return float(1 / beta), float(values[best])
