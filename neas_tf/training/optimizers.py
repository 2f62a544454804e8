"""Model Garden's moving average of weights, also under loss scaling and several replicas."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import optimization, performance
from official.modeling.optimization import ema_optimizer

from neas_tf.common.errors import NeasError, check

_CLASSIFIER = re.compile(r"(?:.*/)?path\d+_classifier/")


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
    trunk_factor: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Any:
    """The optimizer of a config: base, then moving average, then loss scaling where asked for.

    Args:
      config: of the optimizer.
      runtime: says whether losses are scaled.
      adjust: may put another learning rate, number or schedule, in the place of the config's.
      trunk_factor: step → factor on the learning rate of everything but the classifiers.
    """
    factory = optimization.OptimizerFactory(config)
    optimizer = factory.build_optimizer(adjust(factory.build_learning_rate()))
    if trunk_factor is not None:
        averaged = isinstance(optimizer, optimization.ExponentialMovingAverage)
        _scale_trunk(optimizer._optimizer if averaged else optimizer, trunk_factor)
    if isinstance(optimizer, optimization.ExponentialMovingAverage):
        optimizer = _averaging(optimizer._optimizer, config.ema)
    if runtime is None:
        return optimizer
    return performance.configure_optimizer(
        optimizer,
        use_float16=runtime.mixed_precision_dtype == "float16",
        loss_scale=runtime.loss_scale,
    )


def with_averages(
    optimizer: Any, config: optimization.EMAConfig | None, model: tf_keras.Model
) -> Any:
    """The optimizer with averages of a model's weights beside it; itself without a config."""
    if config is None:
        return optimizer
    averaging = _averaging(optimizer, config)
    averaging.shadow_copy(model)
    return averaging


def _averaging(optimizer: Any, config: optimization.EMAConfig) -> MovingAverage:
    return MovingAverage(optimizer, **{k: v for k, v in config.as_dict().items() if k != "name"})


def _scale_trunk(optimizer: Any, factor: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Has an optimizer use a lower learning rate for all variables but the classifiers'.

    The rate itself is lowered, not the gradient, which RMSprop and Adam would scale up again.
    """
    apply, decayed = optimizer._resource_apply_dense, optimizer._decayed_lr

    def apply_slower(gradient: tf.Tensor, variable: Any, apply_state: Any = None) -> Any:
        if _CLASSIFIER.match(variable.name):
            return apply(gradient, variable, apply_state=apply_state)
        own: dict[Any, Any] = {}
        key = variable.device, variable.dtype.base_dtype
        slower = tf.cast(factor(optimizer.iterations), key[1])
        optimizer._decayed_lr = lambda dtype: decayed(dtype) * slower
        try:
            own[key] = {}
            optimizer._prepare_local(*key, own)
            return apply(gradient, variable, apply_state=own)
        finally:
            optimizer._decayed_lr = decayed

    optimizer._resource_apply_dense = apply_slower


def check_trunk_factor(config: optimization.OptimizationConfig, field: str) -> None:
    """Raises `NeasError` for an optimizer whose rate cannot differ from variable to variable."""
    optimizer = optimization.OptimizerFactory(config).build_optimizer(0.1)
    if isinstance(optimizer, optimization.ExponentialMovingAverage):
        optimizer = optimizer._optimizer
    if not isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        raise NeasError(
            f"{field}: has one learning rate for all weights with optimizer "
            f"{config.optimizer.type!r}, expected sgd, rmsprop, adam, adamw, lamb, lars or adagrad."
        )


def check_supernet_optimizer(config: optimization.OptimizationConfig) -> None:
    """Raises unless the optimizer can keep still what was not drawn: SGD, averages beside it."""
    field = "supernet.trainer.optimizer_config"
    if config.optimizer.type != "sgd":
        raise NeasError(
            f"{field}.optimizer.type: received {config.optimizer.type!r}, expected 'sgd' "
            "(only what was drawn may move)."
        )
    if config.ema is None:
        return
    decay, whole = config.ema.average_decay, config.ema.trainable_weights_only
    check(0 < decay < 1, f"{field}.ema.average_decay", decay, "a number between 0 and 1")
    only = "true: running statistics are recalculated for every ensemble"
    check(whole, f"{field}.ema.trainable_weights_only", whole, only)


def create_slots(optimizer: Any, model: tf_keras.Model) -> None:
    """Makes an optimizer's slots before the first trace: several replicas need that."""
    inner = unscaled(optimizer)
    if isinstance(inner, optimization.ExponentialMovingAverage):
        inner.shadow_copy(model)
    inner._create_all_weights(model.trainable_variables)


def take_averages(optimizer: Any) -> None:
    """Puts the averages, where the optimizer has some, into the model. Needs a strategy's scope."""
    inner = unscaled(optimizer)
    if not isinstance(inner, optimization.ExponentialMovingAverage):
        return
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        inner.swap_weights()
        return
    # Its arithmetic, rounding included, without its graph, which takes seconds to trace.
    for average, weight in zip(inner._average_weights, inner._model_weights, strict=True):
        weight.assign((average + weight) - weight)


@contextlib.contextmanager
def averages_in_place(optimizer: Any) -> Iterator[None]:
    """Within it the model holds the averages, where the optimizer has some; after it its weights, to the bit.

    Needs a strategy's scope. Swapping, as Model Garden does, would round the weights.
    """
    inner = unscaled(optimizer)
    if not isinstance(inner, optimization.ExponentialMovingAverage):
        yield
        return
    local = tf.distribute.get_strategy().experimental_local_results
    weights, averages = inner._model_weights, inner._average_weights
    before = [local(weight)[0].numpy() for weight in weights]
    try:
        for weight, average in zip(weights, averages, strict=True):
            weight.assign(local(average)[0].numpy())
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)


def unscaled(optimizer: Any) -> Any:
    """The optimizer inside a loss-scaling one, or itself."""
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    return optimizer.inner_optimizer if scaled else optimizer
