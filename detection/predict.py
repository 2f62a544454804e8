"""Finds objects in a picture and draws their boxes, with class names and scores.

python -m detection.predict --model=detector.tflite --image=street.jpg --output=boxes.png
python -m detection.predict --model_dir=RUN --image=street.jpg --output=boxes.png
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from detection.drawing import check_name, draw, read_picture, write_picture
from detection.labels import read_labels
from detection.letterbox import letterbox
from detection.running import class_names, finder
from neas_tf import command_line
from neas_tf.errors import NeasError, check, fail
from neas_tf.paths import resolve_user_path

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model", None, "What detection.export wrote: .tflite file or SavedModel.")
    flags.DEFINE_string("model_dir", None, "Instead: folder of a run, its last checkpoint.")
    flags.DEFINE_string("image", None, "A picture: JPEG or PNG.")
    flags.DEFINE_string("output", None, "Where the picture with boxes goes.")
    flags.DEFINE_float("score_threshold", 0.3, "Boxes below it are not drawn.", 0, 1)
    flags.DEFINE_integer("threads", 1, "Threads of a TFLite file.", 1)
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    try:
        if argv[1:]:
            fail("arguments", " ".join(argv[1:]), "flags only (see --help)")
        if bool(FLAGS.model) == bool(FLAGS.model_dir):
            raise NeasError("Give either --model or --model_dir.")
        for name in ("image", "output"):
            check(bool(FLAGS[name].value), name, FLAGS[name].value, "a path")
        output = Path(resolve_user_path(FLAGS.output))
        check_name(output)
        picture = read_picture(resolve_user_path(FLAGS.image))
        if FLAGS.model:
            model = Path(resolve_user_path(FLAGS.model))
            found, names = finder(model, FLAGS.threads)(picture), class_names(model)
        else:
            found, names = _of_run(resolve_user_path(FLAGS.model_dir), picture)
        keep = np.asarray(found["scores"]) >= FLAGS.score_threshold
        found = {key: np.asarray(value)[keep] for key, value in found.items()}
        write_picture(output, draw(picture, **found, names=names))
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = listed(found, names)
    if FLAGS.format == "json":
        print(json.dumps({"output": str(output), "detections": rows}, indent=2))
        return 0
    for row in rows:
        top, left, bottom, right = row["box"]
        print(f"{row['score']:.3f}  {row['name']:16} y {top:g}–{bottom:g}, x {left:g}–{right:g}")
    print(f"{len(rows)} boxes in {output}")
    return 0


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


def _of_run(model_dir: str, picture: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """What the Keras model of a run finds."""
    print("Starting TensorFlow …", file=sys.stderr, flush=True)
    import tensorflow as tf

    from detection.running import trimmed
    from detection.serving import Detector, load_detector

    model, config = load_detector(model_dir)
    detector = Detector(model, config.task)
    image, place = letterbox(picture, detector.inside, detector.frame)
    outputs = detector.detect(tf.constant(image[None]))
    found = trimmed({name: value.numpy() for name, value in outputs.items()})
    return {**found, "boxes": place.to_picture(found["boxes"])}, read_labels()


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
