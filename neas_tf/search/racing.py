"""Racing: a candidate that will not be among the best `parents` stops before all images are spent.

All candidates of a generation see the same validation batches in the same order. After each batch
every candidate is compared with the other ongoing ones, image by image, and with the best of the
generations before, whose results on all images are known. One that at least `parents` of them beat
stops. So at least `parents` candidates always finish. Nothing depends on chance but the order of
the images, which is drawn from a fixed seed.

*What is estimated.* The accuracy that counts is the one on all N images. The finished candidates
vote on each image: where all are right, or all wrong, hardly any candidate differs; where they
disagree, candidates do. Images are stratified by that vote, and strata are sampled without
replacement at rates that go with their size and spread (Neyman's allocation). The estimate is
Σ_h W_h·ȳ_h, its variance Σ_h W_h²·(1 - n_h/N_h)·s_h²/n_h, 0 when all images are seen. For two
ongoing candidates s_h is that of their difference. Without finished candidates there is one
stratum.

*When a comparison is decided.* When the difference exceeds z standard errors, z by Bonferroni over
the looks: in a normal approximation, `error` bounds the chance that a candidate which in the end is
no worse than another is called worse at any look.

*What it saves.* Over a supernet of digits, 1.31 times the validation work at an error of 0.001 and 1.38
at 0.01, with the same winner in ten of ten searches; half of it would need candidates that differ by
more than the images' sampling error (docs/benchmarks.md#racing).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable

import numpy as np

from neas_tf.common.errors import check, check_int, check_share

_SEED = 0x2ACE
# Upper ends of the strata by the share of finished candidates that are right.
_VOTES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0 - 1e-9, 1.0)
_FIRST = 4  # images of every stratum that come before all others


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
      batch: images between two looks.
      finished: bool (R, N), which images the best candidates so far are right about; R may be 0.

    Attributes:
      order: int (N,), in which the images are to be shown.
    """

    def __init__(self, settings: RaceSettings, total: int, batch: int, finished: np.ndarray):
        check_int("search.validation_images", total, 1)
        check_int("search.batch_size", batch, 1)
        shape_ok = finished.ndim == 2 and finished.shape[1] == total
        check(shape_ok, "finished", finished.shape, f"a shape (R, {total})")
        self._parents, self._total = settings.parents, total
        looks = max(1, -(-total // batch) - 1)
        self._z = statistics.NormalDist().inv_cdf(1.0 - settings.error / looks)
        self._accuracies = finished.mean(1)
        votes = finished.mean(0) if len(finished) else np.ones(total)
        strata = np.searchsorted(_VOTES, votes)
        self.order = _order(strata, votes, len(finished))
        self._strata = strata[self.order]
        self._sizes = np.bincount(strata, minlength=len(_VOTES))

    def estimates(self, correct: np.ndarray) -> np.ndarray:
        """Accuracies on all images: (…,) from bool (…, n) on the first n of `order`."""
        return correct @ self._weights(correct.shape[-1])

    def stopped(self, correct: np.ndarray) -> np.ndarray:
        """Which of the ongoing candidates stop now, bool (C,).

        `correct` is bool (C, n): whether a candidate is right about each of the first n of `order`.
        """
        count, n = correct.shape
        strata, seen = self._strata[:n], np.bincount(self._strata[:n], minlength=len(_VOTES))
        if n >= self._total or ((seen < 2) & (seen < self._sizes)).any():
            return np.zeros(count, bool)  # the end, or a stratum of which too little is known
        # Each stratum's share in the variance of an estimate, by squared deviation of an image.
        rest = (self._sizes / self._total) ** 2 * (1.0 - seen / np.maximum(1, self._sizes))
        scale = rest / np.maximum(1, seen * (seen - 1))
        correct = correct.astype(float)
        means = (correct @ np.eye(len(_VOTES))[strata]) / np.maximum(1, seen)
        residuals = (correct - means[:, strata]) * np.sqrt(scale)[strata]
        covariance = residuals @ residuals.T
        # As if one image more had spoken against: where nothing differed yet, something may.
        floor = float((rest / np.maximum(1, seen) ** 2).sum())
        variance = np.diag(covariance)
        between = np.maximum(variance[:, None] + variance[None, :] - 2.0 * covariance, 0.0)
        estimates = self.estimates(correct)
        limit = self._z * np.sqrt(between + floor)
        beaten = (estimates[None, :] - estimates[:, None] > limit).sum(1)
        limit = self._z * np.sqrt(variance + floor)
        beaten += (self._accuracies[None, :] - estimates[:, None] > limit[:, None]).sum(1)
        return beaten >= self._parents

    def _weights(self, n: int) -> np.ndarray:
        """What each of the first n images counts: they add up to 1."""
        seen = np.bincount(self._strata[:n], minlength=len(_VOTES))
        stands_for = np.where(seen > 0, self._sizes / np.maximum(1, seen), 0.0)
        weights = stands_for[self._strata[:n]]
        return weights / weights.sum()


def _order(strata: np.ndarray, votes: np.ndarray, voters: int) -> np.ndarray:
    """Every stratum in random order, taken at a rate of its own."""
    shuffled = np.random.default_rng(_SEED).permutation(len(strata))
    turn = np.zeros(len(strata))
    for stratum in np.unique(strata):
        members = shuffled[strata[shuffled] == stratum]
        # The chance to be right there, by Laplace's rule from the finished candidates.
        chance = (votes[members].mean() * voters + 1.0) / (voters + 2.0)
        places = np.arange(len(members))
        turn[members] = np.where(places < _FIRST, 0.0, places + 1.0)
        turn[members] /= len(members) * np.sqrt(chance * (1.0 - chance))
    return shuffled[np.argsort(turn[shuffled], kind="stable")]


def run_race(
    race: Race, batches: Iterable[tuple[set[int], np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a race over the validation batches.

    Args:
      batches: (the candidates still in, bool (count, …, B): what they are right about in one batch
        of `race.order`, the ensemble last in the second axis). Who stops is taken from the set, so
        that the next batch is measured without them.

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
