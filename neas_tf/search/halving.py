"""Successive halving: all candidates of a generation get a look, the better half another one, and so on.

A look is an evaluation with calibration images of its own, and all but the first are on all held-out
images. A candidate's numbers are the means over its looks, so that one that was lucky in the first is
found out. Who gets more looks depends on the whole generation.

K. Jamieson and A. Talwalkar, Non-stochastic best arm identification, 2016.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from neas_tf.search.candidate import Score
from neas_tf.space.architecture import Architecture

Progress = Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class Look:
    """One way to score candidates.

    Attributes:
      evaluate: scores of ensembles, in their order.
      images: held-out images that a score is on.
    """

    evaluate: Callable[[Sequence[Architecture], Progress | None], list[Score]]
    images: int


def halve(
    architectures: Sequence[Architecture],
    looks: Sequence[Callable[[], Look]],
    progress: Progress | None = None,
) -> list[Score]:
    """Scores a generation, the best of it several times.

    Of n candidates ⌈n/2⌉ get a second look, ⌈n/4⌉ a third, by the accuracy so far; ties go to the
    earlier one.

    Args:
      architectures: the candidates.
      looks: one or more, each made when it is needed.
      progress: gets the share done, 0 to 1.

    Returns:
      The scores in the order of the candidates, each with its number of `looks`.
    """
    alive, total = list(range(len(architectures))), 0
    scores: list[Score] = []
    sizes = [-(-len(alive) // 2**i) for i in range(len(looks))]
    for number, make in enumerate(looks):
        look, done = make(), sum(sizes[:number])

        def tell(share: float, done: int = done, own: int = sizes[number]) -> None:
            if progress:
                progress((done + share * own) / sum(sizes))

        if number:
            alive = sorted(alive, key=lambda i: (-scores[i].accuracy, i))[: sizes[number]]
            alive.sort()
        found = look.evaluate([architectures[i] for i in alive], tell)
        if not number:
            scores = [dataclasses.replace(score, looks=1) for score in found]
        else:
            for i, score in zip(alive, found, strict=True):
                scores[i] = _together(scores[i], total, score, look.images)
        total += look.images
    return scores


def _together(before: Score, images: int, last: Score, more: int) -> Score:
    """Means over the looks, weighted by their images."""

    def mean(a: float, b: float) -> float:
        return (images * a + more * b) / (images + more)

    paths = zip(before.path_accuracies, last.path_accuracies, strict=True)
    return Score(
        mean(before.accuracy, last.accuracy),
        tuple(mean(a, b) for a, b in paths),
        numbers={
            name: mean(value, last.numbers[name])
            for name, value in before.numbers.items()
            if name in last.numbers
        },
        looks=(before.looks or 1) + 1,
    )
