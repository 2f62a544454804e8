"""Detectors as files: SavedModel and TFLite, each compared with the Keras model first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from neas_tf.common.errors import NeasError, check, unknown_name
from neas_tf.common.files import temporary_folder, told, write_bytes_atomic, write_json_atomic
from neas_tf.common.paths import literal_path
from neas_tf.detection.deployment.quantizing import quantize_network
from neas_tf.detection.deployment.running import finder, frame_runner
from neas_tf.detection.deployment.serving import Detector, keras_detections
from neas_tf.detection.pictures.letterbox import letterbox
from neas_tf.detection.pictures.matching import compare
from neas_tf.ensemble.store import library_versions
from neas_tf.export.artifacts import (
    FORMAT,
    SIGNATURE,
    check_ending,
    check_output,
    labels_file,
    put_in_place,
    report_file,
)
from neas_tf.export.tflite.inspection import inspect
from neas_tf.export.tflite.metadata import VALUE, TensorNote, with_metadata

QUANTIZATIONS = ("none", "float16", "dynamic", "int8")
# So near to the threshold, or to the last place of a picture whose places are all taken, it is a
# matter of rounding whether a box is found; such boxes are not asked for.
_MARGIN = 1e-3


def export(
    model: Any,
    task: Any,
    output: Path,
    *,
    quantize: str = "none",
    pictures: Sequence[np.ndarray],
    calibration: Sequence[np.ndarray] = (),
    names: Sequence[str],
    score_threshold: float | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a detector: a `.tflite` file where the output is named so, else a SavedModel.

    Args:
      model: Model Garden's `RetinaNetModel`.
      task: settings of the run.
      output: file or folder; the report and the class names lie beside it.
      pictures, calibration: RGB uint8 (h, w, 3), for the comparison and for the ranges of int8.
      names: of the classes, by id.
      score_threshold: boxes below it are dropped in the graph; None takes the run's.

    Returns:
      The report, with what `matching.compare` found under `parity`.

    Raises:
      NeasError: when the output must not be replaced, or an unquantized graph finds other boxes.
    """
    lite = output.suffix == ".tflite"
    check_format(output, quantize, bool(calibration))
    check_output(output, overwrite)
    classes = task.model.num_classes
    check(len(names) == classes, "labels", len(names), f"{classes} names")
    detector = Detector(model, task, score_threshold=score_threshold)
    # The Keras model drops what the graph drops.
    generator = model.detection_generator.get_config()
    generator["pre_nms_score_threshold"] = detector.threshold
    if generator["nms_version"] not in ("batched", "v1", "v2"):
        generator["nms_version"] = "batched"
    frames = [letterbox(p, detector.inside, detector.frame) for p in pictures]
    expected = keras_detections(model, detector, [frame for frame, _ in frames])
    labels = "".join(f"{name}\n" for name in names)
    with told(f"export {str(output)!r}"), temporary_folder(output) as folder:
        new = folder / output.name
        found: dict[str, Any] = {}
        if lite:
            saved = folder / "fixed"
            detector.save(str(saved), fixed=True)
            shots = [letterbox(p, detector.inside, detector.frame)[0] for p in calibration]
            content = _described(_convert(saved, quantize, shots), detector, labels)
            write_bytes_atomic(new, content)
            run = frame_runner(new)
            rows = [run(frame) for frame, _ in frames]
            found = inspect(new)
        else:
            detector.save(str(new), fixed=False)
            rows, expected = _in_pictures(detector, new, pictures, frames, expected)
        exact = quantize in ("none", "float16")
        parity = compare(
            expected,
            rows,
            least_iou=0.99 if exact else 0.5,
            least_score=detector.threshold + _MARGIN,
            places=detector.places,
            margin=_MARGIN,
        )
        if quantize == "none" and parity["matched"] < parity["boxes"]:
            raise NeasError(
                f"export {str(output)!r}: it finds {parity['matched']} of the Keras model's "
                f"{parity['boxes']} boxes; nothing was written."
            )
        report = _describe(detector, output, new, quantize, parity, found)
        put_in_place(new, output, report, labels)
    return report


def check_format(output: Path, quantize: str, has_calibration: bool) -> None:
    """Refuses combinations that make no sense, before anything is loaded."""
    if quantize not in QUANTIZATIONS:
        unknown_name("quantize", quantize, QUANTIZATIONS)
    lite = output.suffix == ".tflite"
    check_ending(output, "tflite" if lite else "saved_model")
    check(lite or quantize == "none", "quantize", quantize, "none but for a .tflite file")
    if quantize == "int8" and not has_calibration:
        raise NeasError("quantize: int8 needs pictures that the ranges are measured on.")


def _convert(saved: Path, quantize: str, calibration: Sequence[np.ndarray]) -> bytes:
    """A SavedModel with a fixed frame as the content of a TFLite file."""
    converter = tf.lite.TFLiteConverter.from_saved_model(
        literal_path(saved), signature_keys=[SIGNATURE]
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        converter.representative_dataset = lambda: ({"image": f[None]} for f in calibration)
    try:
        return quantize_network(converter) if quantize == "int8" else converter.convert()
    except (ValueError, RuntimeError, ConverterError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"quantize={quantize}: the converter failed ({reason}).") from None


def _described(content: bytes, detector: Detector, labels: str) -> bytes:
    """The file with TFLite's metadata and the names of the classes, by id and line, inside."""
    notes = {
        "image": TensorNote(
            "Pixels, as they are; the picture in the upper left corner of the frame.",
            range=(0.0, 255.0),
            image=(*detector.frame, 3),
        ),
        "boxes": TensorNote("Upper edge, left, lower, right, in pixels of the frame."),
        "classes": TensorNote("Ids of the classes: lines of the label file from 0.", labels=VALUE),
        "scores": TensorNote("Probability of the class.", range=(0.0, 1.0)),
        "num_detections": TensorNote("How many of the places hold a box."),
    }
    return with_metadata(content, "NEAS detector", "Object detector.", notes, labels)


def _in_pictures(detector, new, pictures, frames, expected):
    """Both sides in pixels of the pictures, for a graph that scales them itself."""
    report = {"kind": "detector_saved_model", "inside": detector.inside, "frame": detector.frame}
    write_json_atomic(report_file(new), report)
    find = finder(new)
    report_file(new).unlink()
    back = [
        {**row, "boxes": place.to_picture(row["boxes"])}
        for row, (_, place) in zip(expected, frames, strict=True)
    ]
    return [find(picture) for picture in pictures], back


def _describe(detector, output, new, quantize, parity, found) -> dict[str, Any]:
    size = sum(
        p.stat().st_size for p in ([new] if new.is_file() else new.rglob("*")) if p.is_file()
    )
    return {
        "format": FORMAT,
        "file": output.name,
        "kind": "detector_tflite" if new.is_file() else "detector_saved_model",
        "quantize": quantize,
        "bytes": size,
        "labels": labels_file(output).name,
        "signature": SIGNATURE,
        "inside": list(detector.inside),
        "frame": list(detector.frame),
        "score_threshold": detector.threshold,
        "parity": parity,
        "versions": library_versions("tensorflow", "tf-keras", "ai-edge-litert", "numpy"),
        **found,
    }
