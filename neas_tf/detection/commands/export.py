"""Writes a trained detector as a SavedModel or a TFLite file, with suppression in the graph.

neas detect export --model_dir=RUN --output=detector.tflite [--quantize=float16]
neas detect export --model_dir=RUN --output=detector_saved_model
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from neas_tf.common import command_line
from neas_tf.common.errors import check, fail
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.detection.pictures.drawing import PICTURES, read_picture
from neas_tf.detection.pictures.labels import names_of_categories, names_of_run, read_labels
from neas_tf.export.artifacts import check_output

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model_dir", None, "Folder of a run of neas detect train.")
    flags.DEFINE_string("output", None, "A name that ends with .tflite, or a SavedModel's folder.")
    flags.DEFINE_string("checkpoint", "", "Prefix or folder of a checkpoint; default: the last.")
    flags.DEFINE_string(
        "quantize", "none", "Of a TFLite file: none, float16, dynamic (int8 weights) or int8."
    )
    flags.DEFINE_string(
        "images",
        None,
        "Folder of pictures: the export must find the Keras model's boxes in them, and int8 "
        "measures its ranges on them.",
    )
    flags.DEFINE_integer("check_images", 10, "How many of them are compared.", 1)
    flags.DEFINE_integer("calibration_images", 100, "For int8: how many measure the ranges.", 1)
    flags.DEFINE_string(
        "labels", None, "Text file, a class name a line; default: the run's, or ids."
    )
    flags.DEFINE_float(
        "score_threshold",
        None,
        "Boxes below it are dropped in the graph; default: the run's.",
        0,
        1,
    )
    flags.DEFINE_bool("overwrite", False, "Replace an earlier export at --output.")


def list_pictures(folder: str | None) -> list[Path]:
    """The pictures of a folder, by name.

    Raises:
      NeasError: when there are none.
    """
    if not folder:
        fail("images", folder, "a folder of pictures")
    path = Path(resolve_user_path(folder))
    found = path.iterdir() if path.is_dir() else ()
    files = sorted(
        file
        for file in found
        if file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()
    )
    check(bool(files), "images", folder, f"a folder with {', '.join(PICTURES)} files")
    return files


def main(argv: Sequence[str]) -> int:
    """Exports as the flags say; returns the exit code, 2 after bad input."""
    return command_line.quiet_exit_code("detection.export", lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    command_line.flags_only(argv)
    for name in ("model_dir", "output"):
        check(bool(FLAGS[name].value), name, FLAGS[name].value, "a path")
    check_local_path("output", FLAGS.output)
    output = Path(resolve_user_path(FLAGS.output))
    check_output(output, FLAGS.overwrite)
    files = list_pictures(FLAGS.images)
    if FLAGS.labels:
        read_labels(FLAGS.labels)  # a mistake is told before TensorFlow starts
    print("Starting TensorFlow …", file=sys.stderr, flush=True)
    from neas_tf.detection.deployment.exporting import check_format, export
    from neas_tf.detection.deployment.serving import load_detector

    check_format(output, FLAGS.quantize, True)
    checkpoint = resolve_user_path(FLAGS.checkpoint)
    model_dir = resolve_user_path(FLAGS.model_dir)
    model, config = load_detector(model_dir, checkpoint)
    classes = config.task.model.num_classes
    names = names_of_run(model_dir, classes, FLAGS.labels)
    if not names:
        print("warning: the run keeps no class names; --labels gives them.", file=sys.stderr)
        names = names_of_categories((), classes)
    calibration = files[: FLAGS.calibration_images] if FLAGS.quantize == "int8" else []
    report = export(
        model,
        config.task,
        output,
        quantize=FLAGS.quantize,
        pictures=[read_picture(file) for file in files[: FLAGS.check_images]],
        calibration=[read_picture(file) for file in calibration],
        names=names,
        score_threshold=FLAGS.score_threshold,
        overwrite=FLAGS.overwrite,
    )
    parity = report["parity"]
    print(f"wrote    {output} ({report['bytes'] / 1e6:.2f} MB, {report['quantize']})")
    print(
        f"parity   {parity['matched']} of {parity['boxes']} boxes matched in "
        f"{parity['pictures']} pictures (both ways), lowest IoU {parity['lowest_iou']:.6f}, "
        f"scores within {parity['largest_score_difference']:.2e}; {parity['not_asked']} boxes at "
        "the threshold or the last place were not asked for"
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
