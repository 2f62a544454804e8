"""COCO's metrics of an exported detector, which show what a smaller file costs.

neas detect evaluate --model=detector.tflite --images=coco/val2017 \\
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

from absl import flags

from neas_tf.common import command_line
from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import resolve_user_path
from neas_tf.detection.deployment.running import KEYS, Finder, class_names, finder
from neas_tf.detection.pictures import annotations as boxes_of_coco
from neas_tf.detection.pictures.drawing import read_picture, size_fault, stored_size
from neas_tf.export.artifacts import labels_file

FLAGS = flags.FLAGS
# In the order of the COCO API's twelve numbers.
METRICS: tuple[str, ...] = ("AP", "AP50", "AP75", "APs", "APm", "APl")
METRICS += ("ARmax1", "ARmax10", "ARmax100", "ARs", "ARm", "ARl")


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model", None, "What neas detect export wrote: .tflite file or SavedModel.")
    flags.DEFINE_string("images", None, "Folder with the pictures that the annotations name.")
    flags.DEFINE_string("annotations", None, "COCO's annotations as JSON; their pictures are run.")
    flags.DEFINE_string("labels", None, "Text file, a class name a line; default: the export's.")
    flags.DEFINE_integer("threads", 1, "Threads of a TFLite file.", 1)
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def read_annotations(path: str) -> Any:
    """COCO's annotations, clean (`annotations.read`), as the COCO API has them.

    Raises:
      NeasError: when the file holds none.
    """
    return _as_coco(boxes_of_coco.read(path).value)


def _as_coco(value: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    if any(isinstance(image["id"], str) for image in value["images"]):
        # The COCO API sorts ids, which words and numbers together are not fit for.
        numbers = {image["id"]: i for i, image in enumerate(value["images"], 1)}
        value = value | {
            "images": [row | {"id": numbers[row["id"]]} for row in value["images"]],
            "annotations": [
                row | {"image_id": numbers[row["image_id"]]} for row in value["annotations"]
            ],
        }
    coco = COCO()
    coco.dataset = value
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def find_pictures(coco: Any, images: Path) -> dict[Any, Path]:
    """The files of the pictures that annotations name, by the pictures' ids.

    Raises:
      NeasError: when one is missing, is no picture, has another size than its annotations say,
        or boxes outside of it.
    """
    check(images.is_dir(), "images", str(images), "a folder of pictures")
    files, missing = {}, []
    for number, image in coco.imgs.items():
        name = image.get("file_name")
        good = isinstance(name, str) and name.strip()
        check(bool(good), f"annotations: file_name of image {number}", name, "a file's name")
        path = images / name
        if not os.path.isfile(path):  # Windows' tools part folders by "\\"
            path = images / name.replace("\\", "/")
        files[number] = path
        if not os.path.isfile(path):
            missing.append(name)
    if missing:
        raise NeasError(
            f"images: {len(missing)} of {len(files)} pictures that the annotations name are not "
            f"in {str(images)!r}, such as {missing[0]!r}."
        )
    for number, path in files.items():
        image, stored = coco.imgs[number], stored_size(path)
        declared = (image.get("height", stored[0]), image.get("width", stored[1]))
        fault = size_fault(declared, stored, path)
        if fault:
            raise NeasError(f"images: {str(path)!r} {fault}.")
        for row in coco.imgToAnns.get(number, ()):
            size = {"height": stored[0], "width": stored[1]}
            fault = boxes_of_coco.outside(row["bbox"], size)
            check(not fault, f"annotations: a box in {image['file_name']!r}", row["bbox"], fault)
    return files


def evaluate(find: Finder, coco: Any, images: Path) -> dict[str, Any]:
    """Runs a detector (`running.finder`) on every picture of the annotations (`read_annotations`).

    Returns:
      `images` and `detections`, how many there were, and `metrics` by Model Garden's names, 0..1;
      -1 where the COCO API has nothing to measure.

    Raises:
      NeasError: when a picture is missing or does not fit, before one is run.
    """
    rows = []
    for number, path in find_pictures(coco, images).items():
        found = find(read_picture(path))
        for box, kind, score in zip(*(found[k].tolist() for k in KEYS), strict=True):
            top, left, bottom, right = box
            place = [left, top, right - left, bottom - top]
            row = {"image_id": number, "category_id": int(kind), "bbox": place, "score": score}
            rows.append(row)
    metrics = dict(zip(METRICS, map(float, _measure(coco, rows)), strict=True))
    return {"images": len(coco.imgs), "detections": len(rows), "metrics": metrics}


def _measure(coco: Any, rows: list[dict[str, Any]]) -> Sequence[float]:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        # The COCO API reads no empty list of detections.
        found = coco.loadRes(rows) if rows else _as_coco(coco.dataset | {"annotations": []})
        judge = COCOeval(coco, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code, 2 after bad input."""
    return command_line.quiet_exit_code("detection.evaluate", lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    command_line.flags_only(argv)
    for name in ("model", "images", "annotations"):
        check(bool(FLAGS[name].value), name, FLAGS[name].value, "a path")
    model = Path(resolve_user_path(FLAGS.model))
    boxes = boxes_of_coco.read(resolve_user_path(FLAGS.annotations))
    named = FLAGS.labels or labels_file(model).is_file()
    boxes = boxes_of_coco.fit_classes(boxes, class_names(model, FLAGS.labels) if named else ())
    unnamed = () if named else (f"no class names are beside {str(model)!r}; ids count",)
    for text in (*boxes.mended, *boxes.left_out, *unnamed):
        print(f"warning: {text}.", file=sys.stderr)
    find = finder(model, FLAGS.threads)
    images = Path(resolve_user_path(FLAGS.images))
    result = evaluate(find, _as_coco(boxes.value), images)
    if FLAGS.format == "json":
        print(json.dumps(result, indent=2))
        return
    print(f"{result['detections']} boxes in {result['images']} pictures")
    for name in METRICS[:6]:
        value = result["metrics"][name]
        print(f"{name:5} {'–' if value < 0 else format(100 * value, '.1f')}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
