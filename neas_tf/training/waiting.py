"""How long a training waits for its data, measured inside the traced loop of steps."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf
from official.core import base_trainer

from neas_tf.training.divergence import WatchedLoss


class WaitingTrainer(base_trainer.Trainer):
    """Model Garden's trainer that also tells how long it waits for data, and which step diverged.

    The steps run inside a TensorFlow loop, out of Python's sight, so that the graph itself reads
    the clock before and after it fetches a batch, and where a step ends: the loop asks for the next
    batch while a step still computes, and that is no waiting. No part of checkpoints or metrics.
    """

    def __init__(self, *args: Any, max_loss: float = float("inf"), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._train_loss = WatchedLoss("training_loss", max_loss)
        # Steps of the last loop since the first one with a bad loss.
        self.bad_steps = 0
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._waited, self._ended = (
            tf.Variable(0.0, dtype=tf.float64, trainable=False, aggregation=first) for _ in "we"
        )
        self._began = self._spent = 0.0

    def next_train_inputs(self, iterator: Any) -> Any:
        """The next batch; notes how long it took to come."""
        if self._on_tpu():
            return super().next_train_inputs(iterator)  # the loop runs on the device
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            inputs = super().next_train_inputs(iterator)
        with tf.control_dependencies(tf.nest.flatten(inputs, expand_composites=True)):
            after = tf.timestamp()
        waited = after - tf.maximum(before, self._ended)
        self._waited.assign_add(tf.maximum(waited, tf.zeros_like(waited)))

        # The step begins when the clock has been read: with few threads that would come last.
        def known(tensor: tf.Tensor) -> tf.Tensor:
            with tf.device(tensor.device):
                return tf.identity(tensor)

        with tf.control_dependencies([after]):
            return tf.nest.map_structure(known, inputs, expand_composites=True)

    # Model Garden's step and what it calls branch on settings only: nothing for AutoGraph to convert.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, iterator: Any) -> None:
        """A step; with `runtime.enable_xla` compiled on whatever device there is.

        Model Garden's own compiles on GPUs only.
        """
        self._step(iterator)
        if self._on_tpu():
            return
        # The gradient of what lies next to the images is the last that a step works out.
        weights = [tf.identity(weight) for weight in self.model.trainable_variables[:1]]
        with tf.control_dependencies(weights):
            self._ended.assign(tf.timestamp())

    def _step(self, iterator: Any) -> None:
        runtime = self.config.runtime
        if not runtime.enable_xla or runtime.num_gpus or self._on_tpu():
            super().train_step(iterator)
            return

        def step(inputs: Any) -> None:
            compiled = tf.function(self.task.train_step, jit_compile=True, autograph=False)
            logs = compiled(
                inputs, model=self.model, optimizer=self.optimizer, metrics=self.train_metrics
            )
            self._train_loss.update_state(logs[self.task.loss])
            self.global_step.assign_add(1)

        self.strategy.run(step, args=(self.next_train_inputs(iterator),))

    def _on_tpu(self) -> bool:
        return isinstance(self.strategy, tf.distribute.TPUStrategy)

    def train_loop_begin(self) -> None:
        """Starts the clock of a loop of steps."""
        super().train_loop_begin()
        self._began = time.perf_counter()

    def train_loop_end(self) -> dict[str, Any]:
        """Stops it."""
        self.join()
        self.bad_steps = self._train_loss.bad_steps(self.strategy.num_replicas_in_sync)
        logs = super().train_loop_end()
        self._spent += time.perf_counter() - self._began
        return logs

    def waiting_share(self) -> float:
        """Share of the loops' time since the last call that the steps waited; 0 without a loop."""
        share = float(self._waited.numpy()) / self._spent if self._spent else 0.0
        self._waited.assign(0.0)
        self._spent = 0.0
        return min(1.0, share)
