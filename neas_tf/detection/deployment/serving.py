"""A trained detector as one graph: pixels in, boxes out, with non-maximum suppression inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from official.core import config_definitions as cfg
from official.vision.ops import anchor, box_ops
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import literal_path
from neas_tf.config.parse import load_file
from neas_tf.detection import config as configs
from neas_tf.detection.checks import PARAMS
from neas_tf.detection.initialising import newest_checkpoint
from neas_tf.detection.pictures.letterbox import FILL
from neas_tf.detection.task import NeasRetinaNetTask, padded_size
from neas_tf.export.artifacts import SIGNATURE

CANDIDATES = 1000
ANCHOR_UNIT = 4096.0  # a power of two; float32 is exact up to frames of 4096 pixels
OUTPUTS = ("boxes", "classes", "scores", "num_detections")


def read_config(model_dir: str) -> cfg.ExperimentConfig:
    """The settings that a run wrote into its folder.

    Raises:
      NeasError: when it holds no run of a detector.
    """
    path = os.path.join(model_dir, PARAMS)
    if not os.path.isfile(path):
        raise NeasError(f"model_dir: {model_dir!r} holds no {PARAMS} of a run.")
    config = cfg.ExperimentConfig(task=configs.NeasRetinaNetTask())
    try:
        config.override(load_file(path), is_strict=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"model_dir: {path!r} is not that of a detector ({reason}).") from None
    return config


def load_detector(model_dir: str, checkpoint: str = "") -> tuple[Any, cfg.ExperimentConfig]:
    """Model Garden's `RetinaNetModel` with the weights of a run, and the run's settings.

    Args:
      model_dir: of the run.
      checkpoint: prefix or folder of a checkpoint; '' takes the run's last.

    Raises:
      NeasError: when there is no checkpoint, or it is another model's.
    """
    config = read_config(model_dir)
    path = checkpoint or model_dir
    found = newest_checkpoint(path)
    if not found:
        raise NeasError(f"checkpoint: {path!r} holds none; train first.")
    model = NeasRetinaNetTask(config.task).build_model()
    try:
        status = tf.train.Checkpoint(model=model, **model.checkpoint_items).read(
            literal_path(found)
        )
        status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NeasError(f"checkpoint: {found!r} is not that of the detector ({reason}).") from None
    return model, config


class Detector:
    """What is exported; every operation in it exists in TFLite.

    Suppression is by class, as in training's evaluation, but looks at the best `candidates`
    pairs of anchor and class only, so that its cost does not grow with the image.

    Attributes:
      inside: (height, width) that a picture may fill.
      frame: (height, width) of the network's input.
      threshold: of the scores.
      places: how many boxes it finds in a picture, at most.
      anchors: int32 (anchors, 4), in 1/`ANCHOR_UNIT` pixels of the frame.
    """

    def __init__(
        self,
        model: Any,
        task: configs.NeasRetinaNetTask,
        *,
        candidates: int = CANDIDATES,
        max_detections: int | None = None,
        score_threshold: float | None = None,
    ):
        """Takes the thresholds of the run's `detection_generator` where none are given."""
        generator, pyramid = task.model.detection_generator, task.model
        self.model = model
        self.inside: tuple[int, int] = tuple(pyramid.input_size[:2])
        self.frame = padded_size(task)
        self._classes = pyramid.num_classes
        self._weights = generator.box_coder_weights
        self._iou = generator.nms_iou_threshold
        self.places = max_detections or generator.max_num_detections
        self._candidates = candidates
        self.threshold = (
            generator.pre_nms_score_threshold if score_threshold is None else score_threshold
        )
        boxes = anchor.Anchor(
            min_level=pyramid.min_level,
            max_level=pyramid.max_level,
            num_scales=pyramid.anchor.num_scales,
            aspect_ratios=pyramid.anchor.aspect_ratios,
            anchor_size=pyramid.anchor.anchor_size,
            image_size=self.frame,
        ).multilevel_boxes
        self._levels = [str(n) for n in range(pyramid.min_level, pyramid.max_level + 1)]
        rows = [np.reshape(boxes[level], (-1, 4)) for level in self._levels]
        # As integers: float16 and int8 files round every float table, which would move the boxes
        # by an eighth of a pixel or by whole ones.
        self.anchors = np.round(np.concatenate(rows) * ANCHOR_UNIT).astype(np.int32)

    def raw(self, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The network: a frame (1, h, w, 3) in 0..255 to codes (anchors, 4) and class logits."""
        normal = Normalisation()
        x = frame * tf.constant(normal.scale) + tf.constant(normal.offset)
        features = self.model.backbone(x, training=False)
        logits, codes, _ = self.model.head(self.model.decoder(features, training=False))
        logits = [tf.reshape(logits[level], (-1, self._classes)) for level in self._levels]
        codes = [tf.reshape(codes[level], (-1, 4)) for level in self._levels]
        return tf.cast(tf.concat(codes, 0), tf.float32), tf.cast(tf.concat(logits, 0), tf.float32)

    def detect(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detections in a frame.

        Args:
          image: float32 (1, height, width, 3) in 0..255; the picture in the upper left corner,
            the mean colour elsewhere (`neas_tf.detection.pictures.letterbox`).

        Returns:
          `boxes` (1, n, 4) as y1, x1, y2, x2 in pixels of the frame, `classes` int32 (1, n),
          `scores` (1, n), the best first, and `num_detections` int32 (1,); zeros after them.
        """
        codes, logits = self.raw(image)
        scores = tf.sigmoid(logits[:, 1:])  # (anchors, classes), without the background
        width = self._classes - 1
        total = len(self.anchors)
        _, best = tf.math.top_k(tf.reduce_max(scores, axis=1), min(self._candidates, total))
        anchors = tf.cast(tf.gather(tf.constant(self.anchors), best), tf.float32) / ANCHOR_UNIT
        boxes = box_ops.decode_boxes(tf.gather(codes, best), anchors, weights=self._weights)
        limit = tf.constant([*self.inside, *self.inside], tf.float32)
        boxes = tf.clip_by_value(boxes, 0.0, limit)  # (candidates, 4)
        pairs = tf.reshape(tf.gather(scores, best), (-1,))  # (candidates · classes,)
        values, index = tf.math.top_k(pairs, min(self._candidates, total * width))
        row, classes = index // width, index % width
        boxes = tf.gather(boxes, row)
        # Each class has a tile of its own on a square of tiles, so that no boxes of two classes
        # overlap and one suppression serves all. A square keeps the numbers, hence float32's
        # rounding, small.
        side = int(np.ceil(np.sqrt(width)))
        tile = float(max(self.inside) + 1)
        shift = tf.cast(tf.stack([classes // side, classes % side], 1), tf.float32) * tile
        # The operation itself: the library's function is loops, which do not convert when frozen.
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes + tf.concat([shift, shift], 1),
            scores=values,
            max_output_size=self.places,
            iou_threshold=self._iou,
            score_threshold=self.threshold,
            pad_to_max_output_size=True,
        )
        real = tf.range(self.places) < count
        weight = tf.cast(real, tf.float32)
        return {
            "boxes": (tf.gather(boxes, kept) * weight[:, None])[None],
            "classes": ((tf.gather(classes, kept) + 1) * tf.cast(real, tf.int32))[None],
            "scores": (tf.gather(values, kept) * weight)[None],
            "num_detections": tf.reshape(count, (1,)),
        }

    def detect_picture(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Like `detect`, for a uint8 picture (1, any height, any width, 3), in its own pixels."""
        size = tf.cast(tf.shape(image)[1:3], tf.float32)
        inside = tf.constant(self.inside, tf.float32)
        scaled = tf.maximum(tf.round(size * tf.reduce_min(inside / size)), 1.0)
        resized = tf.image.resize(tf.cast(image, tf.float32), tf.cast(scaled, tf.int32))
        fill = tf.constant(FILL)
        frame = tf.image.pad_to_bounding_box(resized - fill, 0, 0, *self.frame) + fill
        found = self.detect(tf.ensure_shape(frame, (1, *self.frame, 3)))
        scale = tf.tile(scaled / size, (2,))
        boxes = found["boxes"] / scale
        return {**found, "boxes": tf.minimum(boxes, tf.tile(size, (2,)))}

    def save(self, folder: str, *, fixed: bool) -> None:
        """Writes a SavedModel with its weights as constants.

        Its signature is `detect` where the frame is `fixed` (for TFLite), else `detect_picture`.
        """
        if fixed:
            call, spec = self.detect, tf.TensorSpec((1, *self.frame, 3), tf.float32, "image")
        else:
            call, spec = self.detect_picture, tf.TensorSpec((1, None, None, 3), tf.uint8, "image")

        def rows(image: tf.Tensor) -> list[tf.Tensor]:
            found = call(image)
            return [found[name] for name in OUTPUTS]

        traced = tf.function(rows, input_signature=[spec]).get_concrete_function()
        # Constants, for Keras' own saving traces every layer once more: minutes.
        frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False)
        module = tf.Module()
        module.serve = tf.function(
            lambda image: dict(zip(OUTPUTS, frozen(image), strict=True)), input_signature=[spec]
        )
        # Swish brings a gradient of its own, which a frozen graph cannot be saved with.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, {SIGNATURE: module.serve}, options)


def keras_detections(model: Any, detector: Detector, frames: Sequence[np.ndarray]) -> list[dict]:
    """What the Keras model itself finds, with Model Garden's own decoding and suppression.

    `nms_version` must be `batched`, `v1` or `v2`; frames are float32 (height, width, 3) in 0..255.
    Returns per frame `boxes`, `classes` and `scores`, in pixels of the frame.
    """
    result = []
    for frame in frames:
        image = tf.constant(Normalisation().apply(frame)[None])
        shape = tf.constant([detector.inside], tf.float32)
        outputs = model(image, image_shape=shape, training=False)
        count = int(outputs["num_detections"][0])
        keys = ("boxes", "classes", "scores")
        result.append({k: outputs[f"detection_{k}"][0, :count].numpy() for k in keys})
    return result
