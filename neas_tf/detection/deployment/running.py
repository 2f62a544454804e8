"""Runs an exported detector on a picture; a TFLite file needs no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json
from neas_tf.common.paths import literal_path
from neas_tf.detection.pictures.labels import read_labels
from neas_tf.detection.pictures.letterbox import letterbox
from neas_tf.export.artifacts import SIGNATURE, labels_file, report_file
from neas_tf.export.tflite.inspection import interpreter

KEYS = ("boxes", "classes", "scores")
# From a picture, RGB uint8 (h, w, 3), to its detections in its own pixels.
Finder = Callable[[np.ndarray], dict[str, np.ndarray]]


def read_report(model: Path) -> dict[str, Any]:
    """The report beside an exported detector.

    Raises:
      NeasError: when there is none of a detector.
    """
    if not model.exists():
        raise NeasError(f"model: nothing is at {str(model)!r}.")
    report = read_json(report_file(model), "model")
    if not isinstance(report, dict) or not str(report.get("kind", "")).startswith("detector_"):
        raise NeasError(f"model: {str(model)!r} is no exported detector.")
    return report


def class_names(model: Path, labels: str | None = None) -> list[str]:
    """Names by class id, from the file beside an exported detector, or from one that is given.

    Raises:
      NeasError: when the file cannot be read, or the given one has another number of names.
    """
    beside = labels_file(model)
    if not labels:
        return read_labels(str(beside))
    names = read_labels(labels)
    if beside.is_file():
        count = len(read_labels(str(beside)))
        expected = f"{count} names, the first that of the background"
        check(len(names) == count, "labels", f"{len(names)} names", expected)
    return names


def trimmed(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A graph's outputs for one picture, without the zeros after the last detection."""
    count = int(np.ravel(outputs["num_detections"])[0])
    return {key: np.asarray(outputs[key])[0, :count] for key in KEYS}


def frame_runner(path: str | os.PathLike[str], threads: int = 1) -> Finder:
    """What runs a TFLite detector on frames, float32 (height, width, 3) in 0..255."""
    runner = interpreter(path, threads=threads).get_signature_runner(SIGNATURE)
    return lambda frame: trimmed(runner(image=np.asarray(frame, np.float32)[None]))


def finder(model: Path, threads: int = 1) -> Finder:
    """What finds boxes in pictures: a `.tflite` file or SavedModel folder with its report beside it."""
    report = read_report(model)
    if report["kind"] == "detector_saved_model":
        return _saved_model(model)
    run = frame_runner(model, threads)
    inside, frame = (tuple(report[key]) for key in ("inside", "frame"))

    def find(picture: np.ndarray) -> dict[str, np.ndarray]:
        image, place = letterbox(picture, inside, frame)
        found = run(image)
        return {**found, "boxes": place.to_picture(found["boxes"])}

    return find


def _saved_model(model: Path) -> Finder:
    import tensorflow as tf

    loaded = tf.saved_model.load(literal_path(model))
    serve = loaded.signatures[SIGNATURE]

    def find(picture: np.ndarray, _keeps_variables_alive=loaded) -> dict[str, np.ndarray]:
        outputs = serve(image=tf.constant(picture[None]))
        return trimmed({name: value.numpy() for name, value in outputs.items()})

    return find
