"""Finds objects in a picture and draws their boxes, with class names and scores.

neas detect predict --model=detector.tflite --image=street.jpg --output=boxes.png
neas detect predict --model_dir=RUN --image=street.jpg --output=boxes.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from neas_tf.common import command_line
from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.data.reading.pictures import head, orientation
from neas_tf.detection.deployment.running import class_names, finder
from neas_tf.detection.pictures.drawing import check_name, draw, read_picture, write_picture
from neas_tf.detection.pictures.labels import names_of_run
from neas_tf.detection.pictures.letterbox import letterbox

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model", None, "What neas detect export wrote: .tflite file or SavedModel.")
    flags.DEFINE_string("model_dir", None, "Instead: folder of a run, its last checkpoint.")
    flags.DEFINE_string("image", None, "A picture: JPEG or PNG.")
    flags.DEFINE_string("output", None, "Where the picture with boxes goes.")
    flags.DEFINE_string(
        "labels", None, "Text file, a class name a line; default: the export's or the run's."
    )
    flags.DEFINE_float("score_threshold", 0.3, "Boxes below it are not drawn.", 0, 1)
    flags.DEFINE_integer("threads", 1, "Threads of a TFLite file.", 1)
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command_line.quiet_exit_code("detection.predict", lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    command_line.flags_only(argv)
    if bool(FLAGS.model) == bool(FLAGS.model_dir):
        raise NeasError("Give either --model or --model_dir.")
    for name in ("image", "output"):
        check(bool(FLAGS[name].value), name, FLAGS[name].value, "a path")
    check_local_path("output", FLAGS.output)
    output = Path(resolve_user_path(FLAGS.output))
    check_name(output)
    image = resolve_user_path(FLAGS.image)
    picture = read_picture(image)
    if FLAGS.model:
        model = Path(resolve_user_path(FLAGS.model))
        names = class_names(model, FLAGS.labels)
        found = finder(model, FLAGS.threads)(picture)
    else:
        model_dir = resolve_user_path(FLAGS.model_dir)
        found, names = _of_run(model_dir, picture, FLAGS.labels)
    _warn(image, names)
    keep = np.asarray(found["scores"]) >= FLAGS.score_threshold
    found = {key: np.asarray(value)[keep] for key, value in found.items()}
    write_picture(output, draw(picture, names=names, **found))
    rows = listed(found, names)
    if FLAGS.format == "json":
        print(json.dumps({"output": str(output), "detections": rows}, indent=2))
        return
    for row in rows:
        top, left, bottom, right = row["box"]
        print(f"{row['score']:.3f}  {row['name']:16} y {top:g}–{bottom:g}, x {left:g}–{right:g}")
    print(f"{len(rows)} boxes in {output}")


def listed(found: dict[str, np.ndarray], names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections as plain values, the best first."""
    rows = []
    for box, number, score in zip(found["boxes"], found["classes"], found["scores"], strict=True):
        name = names[int(number)] if int(number) < len(names) else str(int(number))
        rows.append(
            {
                "name": name,
                "class": int(number),
                "score": round(float(score), 4),
                "box": [round(float(v), 1) for v in box],
            }
        )
    return rows


def _warn(image: str, names: Sequence[str]) -> None:
    """Says what may surprise in the result."""
    turned = orientation(head(image))
    if turned != 1:
        print(
            f"warning: {image!r} is taken as it is stored; EXIF orientation {turned} is not "
            "applied.",
            file=sys.stderr,
        )
    if not names:
        print("warning: the run keeps no class names; --labels gives them.", file=sys.stderr)


def _of_run(
    model_dir: str, picture: np.ndarray, labels: str | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What the Keras model of a run finds, and the names of its classes where they are known."""
    print("Starting TensorFlow …", file=sys.stderr, flush=True)
    import tensorflow as tf

    from neas_tf.detection.deployment.running import trimmed
    from neas_tf.detection.deployment.serving import Detector, load_detector

    model, config = load_detector(model_dir)
    names = names_of_run(model_dir, config.task.model.num_classes, labels)
    detector = Detector(model, config.task)
    image, place = letterbox(picture, detector.inside, detector.frame)
    outputs = detector.detect(tf.constant(image[None]))
    found = trimmed({name: value.numpy() for name, value in outputs.items()})
    return {**found, "boxes": place.to_picture(found["boxes"])}, names


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
