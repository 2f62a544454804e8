"""The number of a candidate that the search looked at, as charts and tables show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.search.candidate import Candidate
from neas_tf.search.fitness import (
    ACCURACY,
    CALIBRATED,
    HALVING,
    LIKELIHOODS,
    LOG_LIKELIHOOD,
    MIXTURE,
    RANKS,
)

NAMES = {
    ACCURACY: "accuracy",
    LOG_LIKELIHOOD: "log-likelihood",
    CALIBRATED: "calibrated log-likelihood",
    MIXTURE: "log-likelihood of the paths' mixture",
    RANKS: "ranks by accuracy and log-likelihood",
    HALVING: "accuracy with further looks at the best",
}


@dataclasses.dataclass(frozen=True)
class Quality:
    """What the vertical axis of the candidates is: accuracy, or a log-likelihood in nats.

    Attributes:
      fitness: accuracy, or the log-likelihood that the search asked for.
    """

    fitness: str = ACCURACY

    @property
    def field(self) -> str:
        """Its name in the rows of candidates."""
        return "a" if self.fitness == ACCURACY else self.fitness

    @property
    def words(self) -> dict[str, str]:
        """What the page needs: `field` of the rows, `name`, and `form`, how it is written."""
        return {"field": self.field, "name": self.name, "form": self.form}

    @property
    def name(self) -> str:
        """In words."""
        return NAMES[self.fitness]

    @property
    def form(self) -> str:
        """How the page writes it."""
        return "percent" if self.fitness == ACCURACY else ""

    def axis(self) -> Any:
        """Altair's axis of it."""
        import altair as alt

        if self.fitness == ACCURACY:
            return style.percent_axis("accuracy in the search")
        return alt.Axis(title=f"{self.name} in the search (nats)")

    def of(self, candidate: Candidate) -> float:
        """A candidate's."""
        if self.fitness == ACCURACY:
            return candidate.accuracy
        return candidate.numbers[self.fitness]


BY_ACCURACY = Quality()


def quality_of(fitness: str, candidates: Sequence[Candidate]) -> Quality:
    """Of a search by `fitness`: accuracy where that orders candidates only beside each other, or is unknown."""
    known = fitness in LIKELIHOODS and all(fitness in c.numbers for c in candidates)
    return Quality(fitness) if known else BY_ACCURACY


def progress(quality: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Best quality, and mean of the `top` best, among the first 1, 2, …, n candidates; (n,) each.

    The mean is NaN until `top` candidates were scored.
    """
    best = np.maximum.accumulate(quality)
    mean = np.full(len(quality), np.nan)
    kept: list[float] = []
    for i, value in enumerate(quality.tolist()):
        kept = sorted([*kept, value], reverse=True)[:top]
        if len(kept) == top:
            mean[i] = sum(kept) / top
    return best, mean
