"""Finds the step at which a training diverges, and trains on more slowly after a rollback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.training.checkpoints import drop_newest, latest_step
from neas_tf.training.optimizers import unscaled
from neas_tf.training.rollbacks import (
    OnDivergence,
    Rollback,
    add_rollback,
    rate_factor,
    read_rollbacks,
)


class Diverged(NeasError):
    """A loss or weights that cannot be trained on with; nothing of it is in a checkpoint.

    Attributes:
      step: the first bad one, 1-based.
      reason: what is bad, with the architecture that the step trained.
    """

    def __init__(self, step: int, reason: str):
        super().__init__(f"training diverged at step {step:,}: {reason}.")
        self.step, self.reason = step, reason


class WatchedLoss(tf_keras.metrics.Mean):
    """The mean loss of a loop of steps, which also counts the steps since it went bad.

    The steps run inside a TensorFlow loop, out of Python's sight.
    """

    def __init__(self, name: str, limit: float):
        super().__init__(name, dtype=tf.float32)
        self._limit = limit
        self._bad = self.add_weight("bad", initializer="zeros")

    def update_state(self, values, sample_weight=None):
        """Adds a step's loss."""
        loss = tf.cast(values, tf.float32)
        bad = tf.logical_not(tf.math.is_finite(loss)) | (loss > self._limit)
        later = bad | (self._bad > 0.0)
        with tf.control_dependencies([self._bad.assign_add(tf.cast(later, tf.float32))]):
            return super().update_state(values, sample_weight)

    def bad_steps(self, replicas: int) -> int:
        """How many steps there were since the first bad one, that included; 0 without any.

        It is alike on all workers. A NaN reaches the other replicas one step later.
        """
        return -int(-float(self._bad.numpy()) // replicas)


class Watch:
    """What a training loop looks at after every loop of steps.

    Args:
      settings: what is bad.
      drawn: the architecture that a step (0-based) trains, in words.
    """

    def __init__(
        self, settings: OnDivergence | None = None, drawn: Callable[[int], str] | None = None
    ):
        self.settings = settings or OnDivergence()
        self._drawn = drawn
        self._finite: Callable[[], tf.Tensor] | None = None
        self._variables: list[tf.Variable] = []

    def check_loss(self, first: int, last: int, bad: int, loss: float) -> None:
        """Raises `Diverged` when the loss of the loop (first, last] was bad in its last steps."""
        if not bad:
            return
        step = max(first + 1, last - bad + 1)
        limit = self.settings.max_loss
        kinds = [] if tf.math.is_finite(loss) else ["not finite"]
        kinds += [f"above {limit:,.4g}"] if limit < float("inf") else []
        raise Diverged(step, f"its loss is {' or '.join(kinds)}{self._words(step)}")

    def check_weights(self, model: tf_keras.Model, optimizer: Any, last: int) -> None:
        """Raises `Diverged` when a weight or a slot of the optimizer is not finite."""
        if self._finite is None:
            self._variables = _floats(model, optimizer)
            # On a TPU every operation outside of a function is a program of its own; elsewhere a graph
            # of all variables takes longer to trace than hundreds of looks at them.
            tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
            self._finite = tf.function(self._flags, autograph=False) if tpu else self._flags
        flags = self._finite().numpy()
        if not flags.all():
            name = self._variables[int(flags.argmin())].name
            raise Diverged(last, f"it left {name!r} not finite{self._words(last)}")

    def _flags(self) -> tf.Tensor:
        """bool (n,): which of the variables are finite."""
        return tf.stack([tf.reduce_all(tf.math.is_finite(v)) for v in self._variables])

    def _words(self, step: int) -> str:
        return f" (architecture {self._drawn(step - 1)})" if self._drawn else ""


def reduced_rate(rate: Any, rollbacks: Sequence[Rollback]) -> Any:
    """A learning rate, number or schedule, after rollbacks; itself where there were none."""
    return _ReducedRate(rate, tuple(rollbacks)) if rollbacks else rate


class _ReducedRate(tf_keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate: Any, rollbacks: tuple[Rollback, ...]):
        super().__init__()
        self._rate, self._rollbacks = rate, rollbacks

    def __call__(self, step: Any) -> tf.Tensor:
        rate = self._rate(step) if callable(self._rate) else self._rate
        rate, at = tf.convert_to_tensor(rate, tf.float32), tf.cast(step, tf.int64)
        factor = tf.constant(1.0)
        for to in sorted({entry.to for entry in self._rollbacks}):
            factor = tf.where(at >= to, tf.constant(rate_factor(self._rollbacks, to)), factor)
        return rate * factor

    def get_config(self) -> dict[str, Any]:
        """Keras configuration."""
        return {"rate": self._rate, "rollbacks": self._rollbacks}


def train_or_go_back(
    train: Callable[[tuple[Rollback, ...]], Any],
    stage: str,
    folder: Path,
    settings: OnDivergence,
    is_chief: bool,
    barrier: Callable[[], None],
) -> Any:
    """Trains a stage; goes back to its last checkpoint when it diverges and may do so.

    Going back is what a resumed run does: everything is made again and starts where the folder's
    newest checkpoint stands. When that has not helped, the checkpoint before it is the next.

    Args:
      train: makes model and optimizer and trains, given the rollbacks so far.
      stage: its name, for messages.
      folder: of its checkpoints.
      settings: of the stage.
      is_chief, barrier: of the run.

    Raises:
      NeasError: when it diverges and must stop.
    """
    while True:
        before = read_rollbacks(folder)
        try:
            return train(before)
        except Diverged as error:
            barrier()  # all workers have read the record
            good = latest_step(folder)
            where = (
                f"{stage}: {str(error).rstrip('.')}; the last good "
                f"checkpoint is that of step {good:,} in {str(folder)!r}"
            )
            if not settings.roll_back:
                raise NeasError(
                    f"{where}. Lower the learning rate in another folder, or continue from there with "
                    f"{stage}.on_divergence=rollback."
                ) from None
            if len(before) >= settings.most:
                raise NeasError(
                    f"{where}, after {len(before)} rollbacks of {stage}.max_rollbacks = "
                    f"{settings.most}."
                ) from None
            if before and before[-1].to == good:
                # The state of that checkpoint leads here at any rate. A run that is killed before
                # the record is written comes back to this point.
                good = _older(folder, is_chief, barrier)
            if is_chief:
                console.say(
                    f"   Diverged at step {error.step:,}: {error.reason}. Goes back to step "
                    f"{good:,} with {settings.factor:g} times the learning rate (rollback "
                    f"{len(before) + 1} of at most {settings.most})."
                )
                rollback = Rollback(error.step, good, settings.factor, error.reason)
                add_rollback(folder, rollback)
            barrier()


def _older(folder: Path, is_chief: bool, barrier: Callable[[], None]) -> int:
    if is_chief and latest_step(folder):
        drop_newest(folder)
    barrier()
    return latest_step(folder)


def _floats(model: tf_keras.Model, optimizer: Any) -> list[tf.Variable]:
    """Weights and the optimizer's variables, this process' first copy of each.

    Running statistics are left out: what spoils them spoils the loss of the same step.
    """
    inner = unscaled(optimizer)
    found = list(model.trainable_variables)
    for part in (inner, getattr(inner, "_optimizer", None)):
        values = getattr(part, "variables", ())
        found += values() if callable(values) else values
    local = tf.distribute.get_strategy().experimental_local_results
    unique = {id(v): local(v)[0] for v in found if v.dtype.is_floating}
    return list(unique.values())
