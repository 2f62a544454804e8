"""Fine-tuning of a trained ensemble for a smaller format: pruning, quantization-aware training.

Both run on Model Garden's trainer and resume from where they were stopped. A folder holds one
fine-tuning: `fine_tuning.json` says what its result depends on, and other settings are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import optimization

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError, check, check_int, check_share
from neas_tf.common.files import write_json_atomic
from neas_tf.common.folder_lock import lock_folder, sweep_part
from neas_tf.config.resolve import resolve_steps
from neas_tf.config.settings import RetrainConfig, StageTrainerConfig
from neas_tf.ensemble.model import build_ensemble, fold_for_deployment, trunk_variables
from neas_tf.ensemble.rewrites import Rewrites
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.fine_tuning_folder import FORMAT, IDENTITY_FILE, check_identity
from neas_tf.export.flat_graph import flat_layers
from neas_tf.export.images import check_same_classes, training_pixels
from neas_tf.export.pruning import (
    is_prunable,
    sparsity_report,
    unwrapped,
    with_pruning,
    without_pruning,
)
from neas_tf.export.quantization_aware import quantization_aware
from neas_tf.training import checkpoints
from neas_tf.training.optimizers import create_slots
from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig
from neas_tf.training.training_loop import TrainingLoop

# Settings of the data that change what the training sees, besides which images there are.
_AUGMENTATION = (
    *("augment", "crop_padding", "flip", "cutout", "crop_area", "auto_augment", "rand_augment"),
    *("rand_augment_magnitude", "center_crop_fraction", "shuffle_buffer"),
)
_LOOP = 20  # steps between two looks at the progress
_LOOPS_A_CHECKPOINT = 5


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """How to fine-tune, and on what.

    Attributes:
      data: opened, with the augmentation of the retraining.
      folder: of checkpoints and TensorBoard events; each kind has a folder of its own in it.
      epochs: passes over the training images.
      rate: learning rate at the beginning; it falls to 0 along a cosine. 0 takes the kind's own.
      batch_size: images a step.
      seed: draws order and augmentation of the images.
      label_smoothing: of the targets, as in the retraining.
      calibration_images: training images on which the ranges of int8 are first measured.
      set_aside: whether another fine-tuning in the folder is moved out of the way, not refused.
    """

    data: data.DatasetInfo
    folder: Path
    epochs: float = 2.0
    rate: float = 0.0
    batch_size: int = 128
    seed: int = 0
    label_smoothing: float = 0.0
    calibration_images: int = 256
    set_aside: bool = False

    def __post_init__(self):
        check(self.epochs > 0, "fine_tune_epochs", self.epochs, "more than 0")
        check(0 <= self.rate < 1, "fine_tune_rate", self.rate, "0 (the default) or a rate below 1")
        check_int("fine_tune_batch", self.batch_size, 1)
        check_int("fine_tune_seed", self.seed, 0, (1 << 31) - 2)
        check_int("calibration_images", self.calibration_images, 1)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning made.

    Attributes:
      model: pruning: the ensemble in its trainable form; otherwise the flat graph with fake
        quantization, pixels to mean logits.
      report: of an export.
    """

    model: Any
    report: dict[str, Any]


class PruningTask(EnsembleTask):
    """Retraining's step, on a model whose layers carry the wrappers of pruning."""

    def use(self, pruned: Any, plain: Any) -> None:
        """Scales the trunk's gradients as retraining does; `plain` is the model without wrappers."""
        shared = {v.ref() for v in trunk_variables(plain)}
        names = {n.name for n in plain.layers if any(v.ref() in shared for v in n.variables)}
        trunk = {
            variable.ref()
            for layer in pruned.layers
            if unwrapped(layer).name in names
            for variable in layer.trainable_variables
        }
        self._scales = [
            1.0 / self.num_paths if variable.ref() in trunk else 1.0
            for variable in pruned.trainable_variables
        ]


class QuantizationTask(EnsembleTask):
    """Cross-entropy of the mean logits of a flat graph; kernels' zeros can be kept."""

    def use(self, keep: list[tf.Tensor | None]) -> None:
        """Takes a mask for each trainable variable, None where all of it is trained."""
        self.num_paths, self._keep = 1, keep

    def train_step(self, inputs, model, optimizer, metrics=None):
        """One step on (pixels (B, H, W, C), labels (B,))."""
        images, labels = inputs
        with tf.GradientTape() as tape:
            logits = model(images, training=True)[tf.newaxis]  # (1, B, classes)
            loss = self.build_losses(labels, logits)
        variables = model.trainable_variables
        gradients = [
            gradient if keep is None else gradient * keep
            for gradient, keep in zip(tape.gradient(loss, variables), self._keep, strict=True)
        ]
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        if metrics:
            self.process_metrics(metrics, labels, logits)
        return {self.loss: loss}


def prune(model: Any, info: LoadedInfo, tuning: FineTuning, sparsity: float) -> FineTuned:
    """Trains an ensemble on while its smallest weights become zero; the model is left as it is.

    `sparsity` is the share of zeros in each pruned kernel.

    Raises:
      NeasError: for settings out of range, or a folder that holds another fine-tuning.
    """
    check_share("sparsity", sparsity)
    stage = _stage(tuning, 1e-3)
    identity = _begin("pruned", model, info, tuning, stage, {"sparsity": sparsity})
    # Statistics of the batches must forget those of the unpruned network before the end.
    momentum = 1.0 - min(0.5, max(0.01, 10.0 / stage.trainer.train_steps))
    plain = build_ensemble(
        info.architecture,
        info.space,
        dropout=0.0,
        batch_norm_momentum=momentum,
        dtype="float32",
    )
    plain.set_weights(model.get_weights())
    pruned = with_pruning(plain, sparsity, stage.trainer.train_steps)
    task = PruningTask(EnsembleTaskConfig(), info.architecture, info.space, stage)
    task.use(pruned, plain)
    steps = _train(identity, task, pruned, tuning, stage, lambda images: images)
    without_pruning(pruned, plain)
    kernels = [
        (n.name, n.get_weights()[0]) for n in map(unwrapped, pruned.layers) if is_prunable(n)
    ]
    count = sum(int(np.prod(v.shape)) for v in plain.trainable_variables)
    found = {"target": sparsity, **sparsity_report(kernels, count)}
    return FineTuned(plain, {"pruning": found, "pruning_fine_tuning": steps})


def quantize(
    model: Any,
    info: LoadedInfo,
    tuning: FineTuning,
    rewrites: Rewrites,
    keep_zeros: bool = False,
    outputs: str = "logits",
) -> FineTuned:
    """Trains the deployed form of an ensemble with int8's rounding in it.

    Batch normalisation is folded beforehand, so that what is trained is what the device runs. The model
    is left as it is; with `keep_zeros` zeros of the kernels stay zeros, for a pruned model. `outputs`
    are those of `fold_for_deployment`.

    Raises:
      NeasError: for settings out of range, or a folder that holds another fine-tuning.
    """
    stage = _stage(tuning, 2e-5)
    extra = {"rewrites": rewrites.to_dict(), "calibration_images": tuning.calibration_images}
    extra |= {} if outputs == "logits" else {"outputs": outputs}
    kind = "pruned_int8_qat" if keep_zeros else "int8_qat"
    identity = _begin(kind, model, info, tuning, stage, extra)
    network = begin_quantization(model, info, tuning, rewrites, outputs=outputs)
    task = QuantizationTask(EnsembleTaskConfig(), info.architecture, info.space, stage)
    variables = network.trainable_variables
    masks = [
        tf.cast(v != 0, tf.float32) if keep_zeros and len(v.shape) > 1 else None for v in variables
    ]
    task.use(masks)
    steps = _train(identity, task, network, tuning, stage, tuning.data.normalisation.undo)
    return FineTuned(network, {"fine_tuning": steps})


def begin_quantization(
    model: Any,
    info: LoadedInfo,
    tuning: FineTuning,
    rewrites: Rewrites,
    batch_size: int | None = None,
    outputs: str = "logits",
) -> Any:
    """The flat graph with fake quantization before any training."""
    shape = (*info.space.input_size, info.space.input_channels)
    images = training_pixels(tuning.data, tuning.calibration_images, tuning.seed)
    fused = fold_for_deployment(
        model,
        info.architecture,
        info.space,
        rewrites=rewrites,
        input_scale=info.normalisation.scale,
        outputs=outputs,
    )
    layers = flat_layers(fused, info.normalisation, rewrites)
    return quantization_aware(layers, shape, images, batch_size=batch_size)


def _stage(tuning: FineTuning, rate: float) -> RetrainConfig:
    """Model Garden's trainer for a fine-tuning: Adam, no warm-up, a cosine down to 0."""
    cosine = {"initial_learning_rate": tuning.rate or rate, "decay_steps": 0}
    optimizer = optimization.OptimizationConfig(
        {
            "optimizer": {"type": "adam"},
            "learning_rate": {"type": "cosine", "cosine": cosine},
            "warmup": {"type": None},
        }
    )
    stage = RetrainConfig(
        epochs=tuning.epochs,
        warmup_epochs=0.0,
        batch_size=tuning.batch_size,
        weight_decay=0.0,
        label_smoothing=tuning.label_smoothing,
        dropout=0.0,
        trainer=StageTrainerConfig(optimizer_config=optimizer),
    )
    images = tuning.data.sizes["train"]
    steps = round(tuning.epochs * images / tuning.batch_size)
    trainer = stage.trainer
    trainer.steps_per_loop = max(1, min(_LOOP, steps // 10))
    trainer.checkpoint_interval = _LOOPS_A_CHECKPOINT * trainer.steps_per_loop
    trainer.max_to_keep = 1
    return resolve_steps(stage, images, "fine_tune")


def _begin(
    kind: str,
    model: Any,
    info: LoadedInfo,
    tuning: FineTuning,
    stage: RetrainConfig,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """What the result depends on; refuses a folder, or classes, of something else before any work."""
    check_same_classes(tuning.data, info)
    learning_rate = stage.trainer.optimizer_config.learning_rate.get()
    config = tuning.data.config.as_dict()
    identity = {
        "format": FORMAT,
        "kind": kind,
        "epochs": tuning.epochs,
        "steps": stage.trainer.train_steps,
        "batch_size": tuning.batch_size,
        "rate": learning_rate.initial_learning_rate,
        "seed": tuning.seed,
        "label_smoothing": tuning.label_smoothing,
        **extra,
        "architecture": info.architecture.key,
        "weights": _digest(model),
        "data": {
            "name": tuning.data.name,
            "images": tuning.data.sizes["train"],
            "shape": tuning.data.input_shape,
            "normalisation": tuning.data.normalisation.to_dict(),
            **{name: config[name] for name in _AUGMENTATION},
        },
    }
    identity = json.loads(json.dumps(identity))  # as it is read back
    check_identity(tuning.folder / kind, identity, tuning.set_aside)
    return identity


def _train(
    identity: Mapping[str, Any],
    task: EnsembleTask,
    network: Any,
    tuning: FineTuning,
    stage: RetrainConfig,
    prepare: Callable[[tf.Tensor], tf.Tensor],
) -> dict[str, Any]:
    """Trains `network`, or what is left of it, and says how."""
    kind, trainer = identity["kind"], stage.trainer
    folder = tuning.folder / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeasError(f"fine_tune_dir: {str(folder)!r} cannot be made ({error}).") from None
    with lock_folder(folder):
        write_json_atomic(folder / IDENTITY_FILE, identity)
        tf_keras.utils.set_random_seed(tuning.seed)
        runtime = cfg.RuntimeConfig(mixed_precision_dtype="float32")
        optimizer = task.create_optimizer(trainer.optimizer_config, runtime)
        create_slots(optimizer, network)

        def batches(first: int, context: Any) -> tf.data.Dataset:
            made = data.make_dataset(
                tuning.data,
                "train",
                tuning.batch_size,
                training=True,
                seed=tuning.seed + 2,  # retraining has seed + 1
                start_step=first,
                drop_remainder=True,
                input_context=context,
            )
            return made.map(lambda images, labels: (prepare(images), labels))

        console.say(
            f"   Fine-tuning ({kind}): {trainer.train_steps:,} steps of {tuning.batch_size}, "
            f"rate {identity['rate']:g}, in {folder}"
        )
        sweep_part(folder)
        checkpoints.settle(folder)
        loop = TrainingLoop(
            cfg.ExperimentConfig(task=EnsembleTaskConfig(), trainer=trainer, runtime=runtime),
            task,
            network,
            optimizer,
            batches,
            folder,
            tuning.data.sizes["train"] / tuning.batch_size,
            kind,
        )
        try:
            with data.failures():
                loop.train_to(trainer.train_steps)
        finally:
            loop.close()
    return {name: identity[name] for name in ("epochs", "steps", "batch_size", "rate", "seed")}


def _digest(model: Any) -> str:
    """SHA-256 of a model's weights."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
