"""COCO's metrics of an exported detector, which show what a smaller file costs.

python -m detection.evaluate --model=detector.tflite --images=coco/val2017 \\
  --annotations=coco/instances_val2017.json
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from detection.drawing import read_picture
from detection.running import KEYS, Finder, finder
from neas_tf import command_line
from neas_tf.errors import NeasError, check
from neas_tf.paths import resolve_user_path

FLAGS = flags.FLAGS
# In the order of the COCO API's twelve numbers.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
METRICS += ("ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model", None, "What detection.export wrote: .tflite file or SavedModel.")
    flags.DEFINE_string("images", None, "Folder with the pictures that the annotations name.")
    flags.DEFINE_string("annotations", None, "COCO's annotations as JSON; their pictures are run.")
    flags.DEFINE_integer("threads", 1, "Threads of a TFLite file.", 1)
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def read_annotations(path: str) -> Any:
    """COCO's annotations.

    Raises:
      NeasError: when the file holds none.
    """
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(path)
        good = bool(coco.imgs and coco.cats)
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        good = False
    check(good, "annotations", path, "a JSON file of COCO annotations with images and categories")
    return coco


def evaluate(find: Finder, coco: Any, images: Path) -> dict[str, Any]:
    """Runs a detector on every picture of the annotations.

    Args:
      find: of `running.finder`.
      coco: of `read_annotations`.
      images: folder of the pictures.

    Returns:
      `images` and `detections`, how many there were, and `metrics` by Model Garden's names, 0..1;
      -1 where the COCO API has nothing to measure.
    """
    rows = []
    for number, image in coco.imgs.items():
        found = find(read_picture(images / image["file_name"]))
        for box, kind, score in zip(*(found[k].tolist() for k in KEYS), strict=True):
            top, left, bottom, right = box
            place = [left, top, right - left, bottom - top]
            row = {"image_id": number, "category_id": int(kind), "bbox": place, "score": score}
            rows.append(row)
    values = _measure(coco, rows) if rows else [0.0] * len(METRICS)
    metrics = dict(zip(METRICS, map(float, values), strict=True))
    return {"images": len(coco.imgs), "detections": len(rows), "metrics": metrics}


def _measure(coco: Any, rows: list[dict[str, Any]]) -> Sequence[float]:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco, coco.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code, 2 after bad input."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    try:
        check(not argv[1:], "arguments", " ".join(argv[1:]), "flags only (see --help)")
        for name in ("model", "images", "annotations"):
            check(bool(FLAGS[name].value), name, FLAGS[name].value, "a path")
        coco = read_annotations(resolve_user_path(FLAGS.annotations))
        find = finder(Path(resolve_user_path(FLAGS.model)), FLAGS.threads)
        result = evaluate(find, coco, Path(resolve_user_path(FLAGS.images)))
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if FLAGS.format == "json":
        print(json.dumps(result, indent=2))
        return 0
    print(f"{result['detections']} boxes in {result['images']} pictures")
    for name in METRICS[:6]:
        value = result["metrics"][name]
        print(f"{name:5} {'–' if value < 0 else format(100 * value, '.1f')}")
    return 0


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
