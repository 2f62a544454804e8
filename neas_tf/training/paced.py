"""A training whose length is planned while it runs (`time_plan`): rates, loops and who decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from neas_tf.training.time_plan import Course, Pacer, Segment
from neas_tf.training.training_loop import TrainingLoop


class CoursePosition(tf.Module):
    """Which recipe step a step stands for, inside the graph. Made in the strategy's scope."""

    def __init__(self):
        super().__init__()
        self.piece = tf.Variable([0.0, 0.0, 1.0], trainable=False, dtype=tf.float32)

    def recipe_step(self, step: Any) -> tf.Tensor:
        """float32: recipe steps done after `step` steps."""
        first, at, slope = tf.unstack(tf.convert_to_tensor(self.piece))
        return at + (tf.cast(step, tf.float32) - first) * slope


def planned_rate(rate: Any, position: CoursePosition | None) -> Any:
    """A learning rate, number or schedule, over the recipe's steps; itself without a plan."""
    return rate if position is None or not callable(rate) else _PlannedRate(rate, position)


class _PlannedRate(tf_keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: Any, position: CoursePosition):
        super().__init__()
        self._rate, self._position = rate, position

    def __call__(self, step: Any) -> tf.Tensor:
        return self._rate(self._position.recipe_step(step))

    def get_config(self) -> dict[str, Any]:
        """Keras configuration."""
        return {"rate": self._rate}


class Pace:
    """Trains span by span, and looks at the clock between them.

    All workers call it alike; the chief decides.

    Args:
      pacer: of the stage.
      save: writes the course into the run's folder, before anything is trained by it.
      agree: integers of this worker → the chief's.
      say: tells of a new plan: (course, seconds a step).
    """

    def __init__(
        self,
        pacer: Pacer,
        save: Callable[[Course], None],
        agree: Callable[[Sequence[int]], Sequence[int]],
        say: Callable[[Course, float], None] = lambda course, seconds: None,
    ):
        self.pacer, self._save, self._agree, self._say = pacer, save, agree, say
        self.position: CoursePosition | None = None

    @property
    def course(self) -> Course:
        """As it is planned now."""
        return self.pacer.course

    def begin(self) -> CoursePosition:
        """What a new optimizer's schedule and factors follow; call it in the strategy's scope."""
        self.pacer.restart()
        self.position = CoursePosition()
        return self.position

    def train(self, loop: TrainingLoop, end: Callable[[], int]) -> None:
        """Trains until `end()` steps are done, which may change on the way; does not save."""
        assert self.position is not None
        if self.course.segments:
            loop.set_total(self.course.total)
        while (step := loop.step) < end():
            self.position.piece.assign(self.course.piece(step))
            (stop,) = self._agree([self.pacer.next_look(step)])
            loop.train_to(min(end(), stop), save=False)
            self._look(loop)

    def _look(self, loop: TrainingLoop) -> None:
        changed = self.pacer.look(loop.step)
        newest = self.course.segments[-1] if self.course.segments else Segment(0, 0)
        step, total = self._agree([newest.step, newest.total])
        if total and (step, total) != (newest.step, newest.total):
            kept = tuple(s for s in self.course.segments if s.step < step)
            segments = (*kept, Segment(int(step), int(total)))
            self.pacer.course = Course(self.course.recipe, segments)
        self._save(self.course)
        if self.course.segments:
            loop.set_total(self.course.total)
        if changed:  # the bar below what is said is drawn again, with the new length
            self._say(self.course, self.pacer.step_seconds or 0.0)
