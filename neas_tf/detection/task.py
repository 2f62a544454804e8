"""Model Garden's RetinaNet task; added are checks, NEAS weights and a record of evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras
from absl import logging
from official.core import task_factory
from official.vision.modeling import factory
from official.vision.ops import preprocess_ops
from official.vision.tasks import retinanet

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import literal_path
from neas_tf.detection import config as configs
from neas_tf.detection.backbone import build_neas  # noqa: F401 (registers the backbone)
from neas_tf.detection.initialising import check_modules, find_checkpoint, load_backbone
from neas_tf.detection.pictures.evaluations import record


def padded_size(config: configs.NeasRetinaNetTask) -> tuple[int, int]:
    """(height, width) of the images that the network sees.

    Model Garden's parser pads them to multiples of the coarsest level's stride, after a resize
    to `model.input_size`, unless `parser.pad` is off.
    """
    size = list(config.model.input_size[:2])
    if not config.train_data.parser.pad:
        return tuple(size)
    return tuple(preprocess_ops.compute_padded_size(size, 2**config.model.max_level))


def regularizer(config: configs.NeasRetinaNetTask) -> Any:
    """λ/2 · |w|² of every kernel, as Model Garden means `l2_weight_decay`; None without."""
    decay = config.losses.l2_weight_decay
    return tf_keras.regularizers.l2(decay / 2.0) if decay else None


@task_factory.register_task_cls(configs.NeasRetinaNetTask)
class NeasRetinaNetTask(retinanet.RetinaNetTask):
    """See Model Garden's `RetinaNetTask`."""

    def build_model(self) -> tf_keras.Model:
        """Builds the detector for the padded size, so that `input_size` may be any."""
        config = self.task_config
        shape = [None, *padded_size(config), config.model.input_size[2]]
        model = factory.build_retinanet(
            input_specs=tf_keras.layers.InputSpec(shape=shape),
            model_config=config.model,
            l2_regularizer=regularizer(config),
        )
        if config.freeze_backbone:
            model.backbone.trainable = False
        return model

    def initialize(self, model: tf_keras.Model) -> None:
        """Loads `init_checkpoint`: a NEAS classifier or a TensorFlow checkpoint.

        Raises:
          NeasError: when there is none, or a weight of the parts asked for is missing in it.
        """
        config = self.task_config
        if not config.init_checkpoint:
            return
        found = find_checkpoint(config.init_checkpoint)
        if isinstance(found, Path):
            check_modules(config.init_checkpoint_modules)
            info = load_backbone(model.backbone, found)
            if info.normalisation != Normalisation():
                logging.warning(
                    "%s was trained with other normalised images (%s) than Model Garden's "
                    "detectors have.",
                    found,
                    info.normalisation.to_dict(),
                )
            return
        # Model Garden reads the setting itself, and TensorFlow takes a name for a pattern.
        self._task_config = config.replace(init_checkpoint=literal_path(found))
        try:
            super().initialize(model)
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:160]
            raise NeasError(
                f"task.init_checkpoint: {found!r} does not hold every weight of "
                f"{config.init_checkpoint_modules!r} of this detector ({reason})."
            ) from None
        finally:
            self._task_config = config

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: Any = None) -> dict:
        """COCO's metrics, which also go to `evaluations.json` in the model_dir."""
        logs = super().reduce_aggregated_logs(aggregated_logs, global_step)
        if self.logging_dir:
            data = self.task_config.validation_data
            record(
                Path(self.logging_dir),
                step=0 if global_step is None else int(global_step),
                metrics={
                    k: float(v) for k, v in logs.items() if not hasattr(v, "ndim") or not v.ndim
                },
                annotations=self.task_config.annotation_file or "",
                records=str(data.input_path or data.tfds_name),
            )
        return logs
