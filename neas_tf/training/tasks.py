"""Model Garden tasks: what one training step of the supernet and of an ensemble does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import base_task, task_factory
from official.core import config_definitions as cfg
from official.modeling import optimization, performance

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation, network_input
from neas_tf.config.distillation import ENSEMBLE, WIDEST
from neas_tf.config.settings import RetrainConfig, SupernetConfig
from neas_tf.ensemble.model import build_ensemble, trunk_variables
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet.masked_sgd import MaskedSGD
from neas_tf.supernet.model import Supernet, update_rules
from neas_tf.training import optimizers as averaging
from neas_tf.training.divergence import reduced_rate
from neas_tf.training.parts.lessons import distilled
from neas_tf.training.rollbacks import Rollback


@dataclasses.dataclass
class SupernetTaskConfig(cfg.TaskConfig):
    """Key of the task registry; the content comes with the task's arguments."""

    name: str = "neas_supernet"


@dataclasses.dataclass
class EnsembleTaskConfig(cfg.TaskConfig):
    """Key of the task registry; the content comes with the task's arguments."""

    name: str = "neas_ensemble"


class DrawTable(tf.Module):
    """The architectures of the coming steps, drawn outside the graph, the same on all replicas.

    Args:
      capacity: steps that the table holds.
      width: 1 + K·d.
      draws: D, ensembles a step; what a step has is (D, width) then, or (width,) where D is 1.
    """

    def __init__(self, capacity: int, width: int, draws: int = 1):
        super().__init__()
        self.capacity = capacity
        shape = [capacity, width] if draws == 1 else [capacity, draws, width]
        # int64: GPUs have no int32 variables.
        self.rows = tf.Variable(tf.zeros(shape, tf.int64), trainable=False)
        self.first = tf.Variable(0, dtype=tf.int64, trainable=False)

    def fill(self, first_step: int, draws: np.ndarray) -> None:
        """Holds the draws (n ≤ capacity, …) of the steps from `first_step` on."""
        rows = np.zeros(self.rows.shape, np.int64)
        rows[: len(draws)] = draws
        self.rows.assign(rows)
        self.first.assign(first_step)

    def at(self, step: tf.Tensor) -> tf.Tensor:
        """int32 (width,) or (D, width): what a step trains."""
        index = tf.cast(step, tf.int64) - tf.convert_to_tensor(self.first)
        return tf.cast(tf.gather(tf.convert_to_tensor(self.rows), index), tf.int32)


class _ClassificationTask(base_task.Task):
    """K logits an image: loss Σ_i CE(path i) (section 3.4), accuracy of paths and ensemble."""

    def __init__(
        self,
        params,
        stage: SupernetConfig | RetrainConfig,
        num_paths: int,
        class_weights: np.ndarray | None = None,
        normalisation: Normalisation | None = None,
        **kwargs,
    ):
        super().__init__(params, **kwargs)
        self.stage, self.num_paths, self.class_weights = stage, num_paths, class_weights
        self.normalisation = normalisation

    def build_inputs(self, params, input_context=None):
        """Unused: the stages hand their datasets to the trainer."""
        raise NotImplementedError("The stage passes train_dataset to the trainer.")

    def build_losses(self, labels, model_outputs, aux_losses=None) -> tf.Tensor:
        """Σ over the paths of the mean cross-entropy. Labels (B,), logits (K, B, classes).

        With `class_weights` (classes,), each image's is multiplied by the weight of its class.
        """
        logits = tf.cast(model_outputs, tf.float32)
        target = tf.one_hot(labels, logits.shape[-1])
        smoothing = self.stage.label_smoothing
        target = target * (1.0 - smoothing) + smoothing / logits.shape[-1]
        target = tf.broadcast_to(target, tf.shape(logits))
        loss = tf.nn.softmax_cross_entropy_with_logits(target, logits)
        if self.class_weights is not None:
            loss *= tf.gather(tf.constant(self.class_weights), labels)
        return tf.reduce_sum(tf.reduce_mean(loss, 1))

    def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
        """Mean accuracy of each path, and of the ensemble."""
        names = [f"accuracy_{k + 1}" for k in range(self.num_paths)] + ["ensemble_accuracy"]
        return [tf_keras.metrics.Mean(name) for name in names]

    def process_metrics(self, metrics, labels, model_outputs, **kwargs) -> None:
        """Updates the metrics with logits (K, B, classes)."""
        logits = tf.cast(model_outputs, tf.float32)
        for metric, values in zip(
            metrics, [*tf.unstack(logits), tf.reduce_mean(logits, 0)], strict=True
        ):
            metric.update_state(tf.cast(tf.argmax(values, -1, labels.dtype) == labels, tf.float32))

    def _gradients(self, tape, loss, variables, optimizer) -> list[tf.Tensor]:
        """Dense gradients of the replica's share of the global loss."""
        scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        gradients = tape.gradient(loss, variables)
        # IndexedSlices would differ in shape from replica to replica.
        gradients = [
            tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
            for g, v in zip(gradients, variables, strict=True)
        ]
        return optimizer.get_unscaled_gradients(gradients) if scaled else gradients

    @staticmethod
    def _replica_loss(loss, optimizer):
        loss = loss / tf.distribute.get_strategy().num_replicas_in_sync
        if isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer):
            loss = optimizer.get_scaled_loss(loss)
        return loss


@task_factory.register_task_cls(SupernetTaskConfig)
class SupernetTask(_ClassificationTask):
    """One step: the drawn ensemble's loss, gradients and updates (docs/method.md, Supernet training).

    Args:
      params: the registry's key.
      space, num_paths, heterogeneous, stage, seed: what is trained and how.
      **kwargs: `class_weights`, float32 (classes,) of the loss; None weighs all the same; and
        `normalisation` of images that come as pixels.
      capacity: steps that one draw table holds.
    """

    def __init__(
        self,
        params: SupernetTaskConfig,
        space: SearchSpace,
        num_paths: int,
        stage: SupernetConfig,
        capacity: int,
        heterogeneous: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(params, stage, num_paths, **kwargs)
        self.space, self.heterogeneous, self.seed = space, heterogeneous, seed
        width = 1 + num_paths * space.num_layers
        self.draws = DrawTable(capacity, width, stage.draws_per_step)

    def build_model(self) -> Supernet:
        """The supernet with fresh weights."""
        model = Supernet(
            self.space,
            self.num_paths,
            heterogeneous=self.heterogeneous,
            momentum=self.stage.batch_norm_momentum,
            seed=self.seed,
            zero_init_residual=self.stage.zero_init_residual,
            name="supernet",
        )
        self._rules = update_rules(model)
        return model

    def create_masked_optimizer(
        self,
        model: Supernet,
        config: optimization.OptimizationConfig,
        runtime: cfg.RuntimeConfig,
        rollbacks: Sequence[Rollback] = (),
        adjust: Callable[[Any], Any] = lambda rate: rate,
    ) -> tf_keras.optimizers.legacy.Optimizer:
        """Masked SGD with Model Garden's learning-rate schedule, lower after rollbacks; has slots.

        With `ema` an average of all weights goes beside it. That of an operator that waits moves as
        well, towards its weight, which does not: all averages are means over the same last steps.

        `adjust` may put another rate, number or schedule, in the place of the config's.
        """
        averaging.check_supernet_optimizer(config)
        sgd = config.optimizer.get()
        rate = optimization.OptimizerFactory(config).build_learning_rate()
        rate = reduced_rate(adjust(rate), rollbacks)
        optimizer = MaskedSGD(rate, sgd.momentum, sgd.nesterov, self.stage.weight_decay)
        optimizer.watch(
            model.trainable_variables,
            self._rules,
            lambda: self.draws.at(optimizer.iterations),
            self.space.num_layers,
        )
        return performance.configure_optimizer(
            averaging.with_averages(optimizer, config.ema, model),
            use_float16=runtime.mixed_precision_dtype == "float16",
            loss_scale=runtime.loss_scale,
        )

    # No control flow of Python to convert, which would take most of the time to the first step.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, inputs, model, optimizer, metrics=None):
        """One step on (pixels uint8 or normalised images (B, H, W, C), labels (B,)) of this replica."""
        images, labels = network_input(inputs[0], self.normalisation), inputs[1]
        table = self.draws.at(optimizer.iterations)
        if self.stage.draws_per_step == 1:
            drawn = model.drawn(table)
            loss, output, gradients = self._one_draw(images, labels, table, drawn, model, optimizer)
            logits = output.logits
        else:
            loss, logits, gradients = self._all_draws(images, labels, table, model, optimizer)
            labels = tf.tile(labels, [self.stage.draws_per_step])
        optimizer.apply_gradients(list(zip(gradients, model.trainable_variables, strict=True)))
        if self.stage.draws_per_step == 1:
            model.update_moving(output.moments, drawn)
        if metrics:
            self.process_metrics(metrics, labels, logits)
        return {self.loss: loss / self.num_paths}

    def _one_draw(self, images, labels, architecture, drawn, model, optimizer, widest=None):
        """Loss, output, and gradients by the variables, of those with rows by the drawn rows.

        `widest`, with that teacher: what the first draw of the step answers, (B, classes), and
        whether this draw learns from it, 1.0 or 0.0.
        """
        rows = model.drawn_rows(drawn)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            output = model(images, architecture, rows=rows, drawn=drawn)
            loss = self._with_lessons(labels, output.logits, widest)
            replica_loss = self._replica_loss(loss, optimizer)
        gathered = {id(layer.rows): own for layer, own in zip(model.searchable, rows, strict=True)}
        sources = [gathered.get(id(v), v) for v in model.trainable_variables]
        return loss, output, self._gradients(tape, replica_loss, sources, optimizer)

    def _with_lessons(self, labels, logits, widest) -> tf.Tensor:
        loss, settings = self.build_losses(labels, logits), self.stage.distillation
        if settings.teacher == ENSEMBLE:
            return distilled(loss, logits, self._answer(logits), settings)
        if settings.teacher == WIDEST:
            return distilled(loss, logits, widest[0], settings, widest[1])
        return loss

    def _answer(self, logits: tf.Tensor) -> tf.Tensor:
        """softmax(ensemble / T) of logits (K, B, classes): what a draw's ensemble teaches, (B, classes)."""
        return tf.nn.softmax(tf.reduce_mean(logits, 0) / self.stage.distillation.temperature)

    def _all_draws(self, images, labels, table, model, optimizer):
        """D draws (D, 1 + K·d) one after the other, so that the memory and the graph are those of one.

        Returns:
          Mean loss of the draws; logits (K, D·B, classes); gradients added up, of the variables with
          rows those of all rows that were drawn, (D·K, row width).
        """
        count, variables = self.stage.draws_per_step, model.trainable_variables
        with_rows = [bool(rule.rows) for rule in self._rules]
        batch = images.shape[0] or tf.shape(images)[0]
        classes = self.space.num_classes
        # One array for each variable with rows, and one for the logits.
        shapes = [
            [self.num_paths, v.shape[1]] for v, own in zip(variables, with_rows, strict=True) if own
        ]
        shapes.append([self.num_paths, images.shape[0], classes])
        arrays = [tf.TensorArray(tf.float32, count, element_shape=shape) for shape in shapes]
        sums = [tf.zeros_like(v) for v, own in zip(variables, with_rows, strict=True) if not own]

        def draw(i, total, answer, sums, arrays):
            architecture = tf.gather(table, i)
            drawn, learns = model.drawn(architecture), tf.cast(i > 0, tf.float32)
            loss, output, gradients = self._one_draw(
                images, labels, architecture, drawn, model, optimizer, (answer, learns)
            )
            model.update_moving(output.moments, drawn)
            answer = tf.where(i > 0, answer, self._answer(output.logits))
            whole = [g for g, own in zip(gradients, with_rows, strict=True) if not own]
            found = [g for g, own in zip(gradients, with_rows, strict=True) if own]
            sums = [a + b for a, b in zip(sums, whole, strict=True)]
            found.append(output.logits)
            arrays = [array.write(i, own) for array, own in zip(arrays, found, strict=True)]
            return i + 1, total + loss, answer, sums, arrays

        state = (tf.constant(0), tf.constant(0.0), tf.zeros([batch, classes]), sums, arrays)
        _, total, _, sums, arrays = tf.while_loop(
            lambda i, *_: i < count, draw, state, parallel_iterations=1, maximum_iterations=count
        )
        *rows, logits = [array.stack() for array in arrays]
        flat = iter([tf.reshape(g, [-1, g.shape[-1]]) for g in rows])
        whole = iter(sums)
        gradients = [next(flat if own else whole) for own in with_rows]
        logits = tf.reshape(tf.transpose(logits, [1, 0, 2, 3]), [self.num_paths, -1, classes])
        return total / count, logits, gradients


@task_factory.register_task_cls(EnsembleTaskConfig)
class EnsembleTask(_ClassificationTask):
    """Training of one ensemble (docs/method.md, Retraining): trunk gradient divided by K.

    Args:
      params: the registry's key.
      architecture, space, stage: what is trained and how.
      teacher: normalised images (B, H, W, C) → logits (B, classes) that `stage.distillation` speaks
        of; None where it has none, or the paths teach each other.
      **kwargs: `class_weights`, float32 (classes,) of the loss; None weighs all the same; and
        `normalisation` of images that come as pixels.
    """

    def __init__(
        self,
        params: EnsembleTaskConfig,
        architecture: Architecture,
        space: SearchSpace,
        stage: RetrainConfig,
        seed: int = 0,
        teacher: Callable[[tf.Tensor], tf.Tensor] | None = None,
        **kwargs: Any,
    ):
        super().__init__(params, stage, architecture.num_paths, **kwargs)
        self._teacher = teacher
        self.architecture, self.space, self.seed = architecture, space, seed

    @classmethod
    def create_optimizer(cls, optimizer_config, runtime_config=None, dp_config=None):
        """Model Garden's optimizer, whose moving average also works under loss scaling."""
        if dp_config is not None:
            raise NeasError("differential_privacy_config: expected null.")
        return averaging.create_optimizer(optimizer_config, runtime_config)

    def build_model(self) -> tf_keras.Model:
        """The stand-alone ensemble with fresh weights."""
        model = build_ensemble(
            self.architecture,
            self.space,
            dropout=self.stage.dropout,
            batch_norm_momentum=self.stage.batch_norm_momentum,
        )
        # Keras leaves dropout's generators out of checkpoints; as an attribute they are in.
        generators = (getattr(layer, "_random_generator", None) for layer in model.layers)
        states = [getattr(random, "_generator", None) for random in generators]
        model.dropout_generators = [state for state in states if state is not None]
        trunk = {v.ref() for v in trunk_variables(model)}
        self._scales = [
            1.0 / self.num_paths if v.ref() in trunk else 1.0 for v in model.trainable_variables
        ]
        return model

    def _distilled(self, loss: tf.Tensor, logits: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        """`distilled` towards the teacher, or for each path the mean of the other paths' softmax(logits / T).

        Hinton et al., 2015; Anil et al., 2018.
        """
        settings = self.stage.distillation
        if not settings.teacher:
            return loss
        heat = settings.temperature
        if self._teacher is None:
            shares = tf.exp(tf.nn.log_softmax(tf.cast(logits, tf.float32) / heat))
            target = (tf.reduce_sum(shares, 0) - shares) / (self.num_paths - 1)
        else:
            target = tf.nn.softmax(self._teacher(images) / heat)
        return distilled(loss, logits, target, settings)

    # No control flow of Python to convert, which would take most of the time to the first step.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, inputs, model, optimizer, metrics=None):
        """One step on (pixels uint8 or normalised images (B, H, W, C), labels (B,)) of this replica."""
        images, labels = network_input(inputs[0], self.normalisation), inputs[1]
        with tf.GradientTape() as tape:
            logits = tf.transpose(model(images, training=True), [1, 0, 2])
            loss = self._distilled(self.build_losses(labels, logits), logits, images)
            replica_loss = self._replica_loss(loss, optimizer)
        variables = model.trainable_variables
        gradients = self._gradients(tape, replica_loss, variables, optimizer)
        # Aggregation sums over the replicas: each brings its share of the decay.
        decay = self.stage.weight_decay / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = [
            g * scale + (decay * v if len(v.shape) > 1 else 0.0)
            for g, v, scale in zip(gradients, variables, self._scales, strict=True)
        ]
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        if metrics:
            self.process_metrics(metrics, labels, logits)
        return {self.loss: loss / self.num_paths}
