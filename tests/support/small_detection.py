"""A small detector, and a small COCO of drawn pictures, for the tests of `detection`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from official.core import exp_factory
from official.vision.data import tfrecord_lib

import neas_tf.detection.experiments
import neas_tf.detection.task  # noqa: F401 (registers)
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

# Levels 2 to 4; three paths behind layer 2.
SPACE = SearchSpace(
    name="detector",
    input_size=(64, 64),
    num_classes=5,
    stem_channels=8,
    block_channels=8,
    stages=(Stage(8, 1, 2), Stage(8, 2, 2), Stage(16, 1, 2)),
    operators=("k3e4", "k5e4", "skip"),
    min_split=0,
    max_split=4,
    head_channels=16,
    feature_channels=24,
)
ENSEMBLE = Architecture(
    2,
    (
        ("k3e4", "k3e4", "k3e4", "k5e4"),
        ("k3e4", "k3e4", "skip", "k3e4"),
        ("k3e4", "k3e4", "k5e4", "k3e4"),
    ),
)
CLASSES = 4  # ids 1 to 3


def settings(folder: Path, **task) -> dict:
    """Overrides that make `neas_retinanet_coco_mini` tiny and let it read `make_coco(folder)`."""
    space = {
        key: value
        for key, value in SPACE.to_dict().items()
        if key not in ("input_size", "num_classes")
    }
    data = {"input_path": f"{folder}/train*", "global_batch_size": 2, "shuffle_buffer_size": 2}
    return {
        "task": {
            "annotation_file": f"{folder}/instances.json",
            "model": {
                "num_classes": CLASSES,
                "input_size": [64, 64, 3],
                "max_level": 5,
                "backbone": {"neas": {"architecture": ENSEMBLE.key, "space": space}},
                "decoder": {"fpn": {"num_filters": 8}},
                "head": {"num_convs": 1, "num_filters": 8},
                "detection_generator": {"max_num_detections": 10},
            },
            "train_data": data,
            "validation_data": data,
            **task,
        },
        "trainer": {
            "train_steps": 2,
            "validation_interval": 2,
            "steps_per_loop": 1,
            "summary_interval": 1,
            "checkpoint_interval": 1,
        },
    }


def tiny_config(folder: Path, **task):
    """The experiment with these settings."""
    config = exp_factory.get_exp_config("neas_retinanet_coco_mini")
    config.override(settings(folder, **task), is_strict=True)
    return config


def picture(number: int, size: tuple[int, int] = (48, 60)) -> tuple[np.ndarray, list, list]:
    """A grey picture with two coloured squares: pixels, boxes (x, y, w, h), class ids."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 130, (*size, 3)).astype(np.uint8)
    boxes, classes = [], []
    for _ in range(2):
        side = int(rng.integers(16, 28))
        x, y = (int(rng.integers(0, n - side)) for n in (size[1], size[0]))
        kind = int(rng.integers(1, CLASSES))
        pixels[y : y + side, x : x + side] = np.eye(3, dtype=np.uint8)[kind - 1] * 255
        boxes.append([x, y, side, side])
        classes.append(kind)
    return pixels, boxes, classes


def make_coco(folder: Path, count: int = 3) -> Path:
    """Writes pictures, TFRecords as Model Garden's tool makes them, and annotations."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    with tf.io.TFRecordWriter(f"{folder}/train-00000-of-00001.tfrecord") as writer:
        for number in range(1, count + 1):
            pixels, boxes, classes = picture(number)
            height, width = pixels.shape[:2]
            data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            (folder / f"{number}.png").write_bytes(data)
            features = tfrecord_lib.image_info_to_feature_dict(
                height, width, f"{number}.png", number, data, "png"
            )
            corners = [
                (x / width, (x + w) / width, y / height, (y + h) / height) for x, y, w, h in boxes
            ]
            for i, side in enumerate(("xmin", "xmax", "ymin", "ymax")):
                features[f"image/object/bbox/{side}"] = tfrecord_lib.convert_to_feature(
                    [corner[i] for corner in corners]
                )
            add = tfrecord_lib.convert_to_feature
            features["image/object/class/label"] = add(classes)
            features["image/object/is_crowd"] = add([0] * len(classes))
            features["image/object/area"] = add([float(w * h) for *_, w, h in boxes], "float_list")
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
            images.append({"id": number, "height": height, "width": width})
            for box, kind in zip(boxes, classes, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": kind,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": i, "name": name} for i, name in enumerate(("red", "green", "blue"), 1)]
    value = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(value))
    return folder
