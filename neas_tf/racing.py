"""Racing: a candidate that will not be among the best `parents` stops before all images are spent.

All candidates of a generation see the same validation batches in the same order. Behind each batch
every candidate is compared, image by image, with the other ongoing ones and with the best of the
generations before, whose results on all images are known. One that at least `parents` of them beat
stops. So at least `parents` candidates always finish, and nothing is random.

The accuracy that counts is the one on all N images, of which n are known: the mean over the n
has the standard error s·√((1 - n/N)/n) of a sample without replacement, 0 when n = N. What the
finished candidates say about an image (the share of them that are right) explains a part of every
other candidate's result on it; so the estimate is regressed on it (a regression estimator), and s
is the standard deviation of what is left, for two ongoing candidates of its difference.

A comparison is decided when the difference exceeds z standard errors, z by Bonferroni over the
looks: in a normal approximation, `error` bounds the chance that a candidate which in the end is no
worse than another is called worse at any look.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable

import numpy as np

from neas_tf.errors import check, check_int, check_share


@dataclasses.dataclass(frozen=True)
class RaceSettings:
    """How a race is run.

    Attributes:
      parents: as many candidates must beat one that stops.
      error: chance that one comparison goes wrong.
    """

    parents: int
    error: float = 0.001

    def __post_init__(self):
        check_int("search.parents", self.parents, 1)
        check_share("search.racing_error", self.error)


class Race:
    """One generation's race.

    Args:
      settings: see there.
      total: N, images altogether.
      looks: how many times `stopped` will be asked at most.
      finished: bool (R, N), which images the best candidates so far are right about; R may be 0.
    """

    def __init__(self, settings: RaceSettings, total: int, looks: int, finished: np.ndarray):
        check_int("search.validation_images", total, 1)
        shape_ok = finished.ndim == 2 and finished.shape[1] == total
        check(shape_ok, "finished", finished.shape, f"a shape (R, {total})")
        self._parents, self._total = settings.parents, total
        self._z = statistics.NormalDist().inv_cdf(1.0 - settings.error / max(1, looks))
        self._accuracies = finished.mean(1)
        # Of an image: the share of finished candidates that are right about it.
        self._ease = finished.mean(0) if len(finished) else np.zeros(total)

    def stopped(self, correct: np.ndarray) -> np.ndarray:
        """Which of the ongoing candidates stop now.

        Args:
          correct: bool (C, n), whether a candidate is right about each of the first n images.

        Returns:
          bool (C,).
        """
        count, n = correct.shape
        if n >= self._total:
            return np.zeros(count, bool)
        estimates, rest, freedom = self._estimates(correct)
        # One more image that speaks against: where nothing differed so far, something still may.
        error = np.sqrt((1.0 - n / self._total) / n)
        covariance = rest @ rest.T / freedom
        variance = np.diag(covariance)
        between = variance[:, None] + variance[None, :] - 2.0 * covariance
        limit = self._z * error * np.sqrt(np.maximum(between, 0.0) + 1.0 / n)
        beaten = (estimates[None, :] - estimates[:, None] > limit).sum(1)
        limit = self._z * error * np.sqrt(variance + 1.0 / n)
        beaten += (self._accuracies[None, :] - estimates[:, None] > limit[:, None]).sum(1)
        return beaten >= self._parents

    def _estimates(self, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """(estimated accuracy on all images, what is unexplained of each result, its freedom)."""
        n = correct.shape[1]
        means = correct.mean(1)
        rest = correct - means[:, None]
        ease = self._ease[:n] - self._ease[:n].mean()
        spread = float(ease @ ease)
        if spread == 0.0 or n < 3:
            return means, rest, max(1, n - 1)
        slopes = rest @ ease / spread
        shift = self._ease.mean() - self._ease[:n].mean()
        return means + slopes * shift, rest - slopes[:, None] * ease[None, :], n - 2


def run_race(
    race: Race, batches: Iterable[tuple[set[int], np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a race over the validation batches.

    Args:
      race: that decides.
      batches: (the candidates still in, bool (count, …, B): what they are right about in one batch,
        the ensemble last in the second axis). Who stops is taken from the set, so that the next
        batch is measured without them.
      count: candidates.

    Returns:
      (bool (count, …, n): all batches together, int (count,): how many images each one saw).
    """
    seen, parts = np.zeros(count, int), []
    correct = np.zeros((count, 1, 0), bool)
    for alive, found in batches:
        parts.append(found)
        correct = np.concatenate(parts, -1)
        ongoing = sorted(alive)
        seen[ongoing] = correct.shape[-1]
        stops = race.stopped(correct[ongoing, -1])
        alive.difference_update(c for c, stop in zip(ongoing, stops, strict=True) if stop)
    return correct, seen
