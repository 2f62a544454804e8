"""How long a training may be, planned from the time that its steps take.

A recipe gives the whole course of a training: warm-up, learning rates and shrinks over so many
*recipe steps*. Under a time limit the same course runs over as many steps as there is time for.
`Course` says which recipe step a real step stands for. It is a chain of segments, each of which
spreads what is left of the recipe evenly over the steps that are left: when the machine becomes
slower, a new segment passes through the rest faster, so that the learning rate is annealed by the
end all the same. Everything follows from the step and the list of segments, which is in the run's
folder; a resumed run repeats it whatever the clock says.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable

# However much time there is, a training is at most so many times as long as its recipe, or so many epochs if that is
# more: short recipes gain by far more than four times their length (62.8 % after 24 epochs of 10,000 images of
# CIFAR-10, some 70 % after 40 and more), and a long limit on little data has an end.
MOST_STRETCH, MOST_EPOCHS = 4.0, 300.0
# Of a stage's time: how much it may be off before its length is planned again.
_LATE, _EARLY = 0.02, 0.06
# Of a stage's time, between two looks at the clock.
_LOOK = 0.025
# Of a stage's time, over which the speed is measured.
_WINDOW = 0.08
# The first steps: those that are traced, then those that the first plan is made of.
_TRACED, _TIMED = 1, 4


def most_steps(recipe: int, per_epoch: float) -> int:
    """The most steps a training may have.

    Args:
      recipe: steps of the recipe.
      per_epoch: steps of an epoch.
    """
    return int(max(MOST_STRETCH * recipe, MOST_EPOCHS * per_epoch))


@dataclasses.dataclass(frozen=True)
class Segment:
    """From a step on, a training is to end after another number of steps.

    Attributes:
      step: steps done when it was planned.
      total: steps altogether, from then on.
    """

    step: int
    total: int


@dataclasses.dataclass(frozen=True)
class Course:
    """Which recipe step a step of a training stands for.

    Attributes:
      recipe: steps of the recipe.
      segments: in their order; without any, the training is the recipe.
    """

    recipe: int
    segments: tuple[Segment, ...] = ()

    @property
    def total(self) -> int:
        """Steps of the training, as it is planned now."""
        return self.segments[-1].total if self.segments else self.recipe

    def pieces(self) -> list[tuple[int, float, float]]:
        """(first step, its recipe step, recipe steps a step) of each stretch of the training."""
        result = [(0, 0.0, 1.0)]
        for segment in self.segments:
            at = self._at(result[-1], segment.step)
            left = max(1, segment.total - segment.step)
            result.append((segment.step, at, (self.recipe - at) / left))
        return result

    def piece(self, step: int) -> tuple[int, float, float]:
        """The piece that the step after `step` done ones is in."""
        return max((p for p in self.pieces() if p[0] <= step), key=lambda piece: piece[0])

    def recipe_step(self, step: int) -> float:
        """Recipe steps that are done after so many steps."""
        return self._at(self.piece(step), step)

    def steps_until(self, recipe_step: float) -> int:
        """The first number of steps after which so much of the recipe is done; at most `total`."""
        pieces = self.pieces()
        ends = [first for first, _, _ in pieces[1:]] + [self.total]
        for (first, at, slope), end in zip(pieces, ends, strict=True):
            if self._at((first, at, slope), end) >= recipe_step - 1e-6:
                steps = math.ceil((recipe_step - at) / slope - 1e-6) if slope else 0
                return min(end, first + max(0, steps))
        return self.total

    def next_change(self, step: int) -> int:
        """The next step at which another segment begins, or the total."""
        return min((s.step for s in self.segments if s.step > step), default=self.total)

    @staticmethod
    def _at(piece: tuple[int, float, float], step: int) -> float:
        first, at, slope = piece
        return at + (step - first) * slope


class Pacer:
    """Decides, from one look at the clock to the next, how many steps a training will have.

    Args:
      course: as far as it is planned; of a resumed training it has segments.
      begin, deadline: of the stage, in seconds of the run's working time.
      now: the run's working time in seconds.
      most: steps that the training may have, however much time there is.
      after: seconds of work that the stage has to do besides its steps, from a step on (shrinks).
    """

    def __init__(
        self,
        course: Course,
        begin: float,
        deadline: float,
        now: Callable[[], float],
        most: int,
        after: Callable[[int], float] = lambda step: 0.0,
    ):
        self.course, self._now, self._most, self._after = course, now, most, after
        self.begin, self.deadline = begin, deadline
        self._first: tuple[int, float] | None = None
        self._looks: collections.deque[tuple[int, float]] = collections.deque()
        self.traced = 0.0
        self._session_began = now()

    @property
    def step_seconds(self) -> float | None:
        """Of late; None before enough steps of this session were measured."""
        if len(self._looks) < 2:
            return None
        (first, begin), (last, end) = self._looks[0], self._looks[-1]
        return max(1e-9, (end - begin) / (last - first))

    def restart(self) -> None:
        """Another graph is about to be traced, and the steps may have gone back."""
        self._first = None
        self._looks.clear()

    def next_look(self, step: int) -> int:
        """Up to which step to train before `look` is called."""
        if self._first is None:
            end = step + _TRACED
        elif (seconds := self.step_seconds) is None:
            end = step + _TIMED
        else:
            end = step + max(1, int(_LOOK * (self.deadline - self.begin) / seconds))
        return min(end, self.course.next_change(step), self.course.total)

    def pause(self, seconds: float) -> None:
        """Tells of seconds since the last look that no step took."""
        self._looks = collections.deque((s, t + seconds) for s, t in self._looks)

    def look(self, step: int) -> bool:
        """Measures, and plans again where that is due; returns whether it did.

        Args:
          step: steps done.
        """
        now = self._now()
        if self._first is None:
            self._first = (step, now)
            self.traced = now - self._session_began
            self._looks.append((step, now))
            return False
        self._looks.append((step, now))
        window = _WINDOW * (self.deadline - self.begin)
        while len(self._looks) > 2 and now - self._looks[1][1] >= window:
            self._looks.popleft()
        if any(segment.step > step for segment in self.course.segments):
            return False  # what was planned there counts, whoever repeats it
        seconds = self.step_seconds
        assert seconds is not None
        left = self.course.total - step
        if left <= 0:
            return False
        spare = self.deadline - now - self._after(step)
        off = left * seconds - spare
        length = self.deadline - self.begin
        planned = bool(self.course.segments)
        if planned and -_EARLY * length <= off <= _LATE * length:
            return False
        total = step + max(1, int(spare / seconds))
        total = min(total, max(step + 1, self._most))
        if planned and total == self.course.total:
            return False
        kept = tuple(s for s in self.course.segments if s.step < step)
        self.course = dataclasses.replace(self.course, segments=(*kept, Segment(step, total)))
        return True
