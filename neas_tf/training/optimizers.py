"""Model Garden's moving average of weights, also under loss scaling and several replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import optimization, performance
from official.modeling.optimization import ema_optimizer


class MovingAverage(optimization.ExponentialMovingAverage):
    """Model Garden's average, which a loss-scaling optimizer (float16) can wrap."""

    def apply_gradients(self, grads_and_vars, name=None, experimental_aggregate_gradients=True):
        """Applies gradients and moves the averages.

        Args:
          grads_and_vars: pairs of gradient and variable.
          name: of the operation.
          experimental_aggregate_gradients: False where they are already summed over the replicas,
            as loss scaling does.
        """
        result = self._optimizer.apply_gradients(
            grads_and_vars,
            name=name,
            experimental_aggregate_gradients=experimental_aggregate_gradients,
        )
        ema_optimizer.maybe_merge_call(self.update_average, tf.distribute.get_strategy())
        return result


def create_optimizer(
    config: optimization.OptimizationConfig,
    runtime: cfg.RuntimeConfig | None = None,
    adjust: Callable[[Any], Any] = lambda rate: rate,
) -> Any:
    """The optimizer of a config: base, then moving average, then loss scaling where asked for.

    `adjust` may put another learning rate, number or schedule, in the place of the config's.
    """
    factory = optimization.OptimizerFactory(config)
    optimizer = factory.build_optimizer(adjust(factory.build_learning_rate()))
    if isinstance(optimizer, optimization.ExponentialMovingAverage):
        settings = {k: v for k, v in config.ema.as_dict().items() if k != "name"}
        optimizer = MovingAverage(optimizer._optimizer, **settings)
    if runtime is None:
        return optimizer
    return performance.configure_optimizer(
        optimizer,
        use_float16=runtime.mixed_precision_dtype == "float16",
        loss_scale=runtime.loss_scale,
    )


def create_slots(optimizer: Any, model: tf_keras.Model) -> None:
    """Makes an optimizer's slots before the first trace: several replicas need that."""
    inner = unscaled(optimizer)
    if isinstance(inner, optimization.ExponentialMovingAverage):
        inner.shadow_copy(model)
    inner._create_all_weights(model.trainable_variables)


def take_averages(optimizer: Any) -> None:
    """Puts the averages, where the optimizer has some, into the model. Needs a strategy's scope."""
    inner = unscaled(optimizer)
    if isinstance(inner, optimization.ExponentialMovingAverage):
        inner.swap_weights()


def unscaled(optimizer: Any) -> Any:
    """The optimizer inside a loss-scaling one, or itself."""
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    return optimizer.inner_optimizer if scaled else optimizer
