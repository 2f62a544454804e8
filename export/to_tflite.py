"""Writes a trained ensemble as one TFLite file, with parity check and report.

python export/to_tflite.py --model_dir=DIR [--output=PATH]
python export/to_tflite.py --model_dir=DIR --quantize=int8 --representative_dataset=run
python export/to_tflite.py --arch=neas_s --weights=FILE.weights.h5 --output=PATH
"""

import functools
import sys
from pathlib import Path
from typing import Any

from absl import flags

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export import common
from neas_tf.errors import check
from neas_tf.model_store import LoadedInfo
from neas_tf.quantizing import END_TYPES, QUANTIZATIONS, check_quantization
from neas_tf.rewrites import Rewrites

FLAGS = flags.FLAGS
OUTPUT = "export/model.tflite"


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """Defines this command's own flags."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    yes = functools.partial(flags.DEFINE_bool, default=True, flag_values=values)
    text("quantize", "none", f"One of {', '.join(QUANTIZATIONS)}.")
    text(
        "representative_dataset",
        None,
        "For int8: images that the ranges are measured on. 'run' takes the training images of "
        "--model_dir; else a folder of images or the name of a TFDS data set.",
    )
    flags.DEFINE_integer(
        "representative_images", 256, "For int8: how many of them.", flag_values=values
    )
    text("input_type", "float32", f"For int8: one of {', '.join(END_TYPES)}.")
    text("output_type", "float32", f"For int8: one of {', '.join(END_TYPES)}.")
    yes("rewrite_depthwise", help="Depthwise kernels of more than 25 taps as sums of smaller ones.")
    yes("fold_gates", help="The constants of squeeze-excite go into the convolutions beside it.")
    yes("fold_normalisation", help="The scale of the normalisation goes into the stem.")


def options(info: LoadedInfo) -> dict[str, Any]:
    """Arguments of `export_tflite`, from the flags."""
    name, quantize = FLAGS.representative_dataset, FLAGS.quantize
    check_quantization(quantize, FLAGS.input_type, FLAGS.output_type, bool(name))
    allowed = "none but with --quantize=int8"
    check(quantize == "int8" or not name, "--representative_dataset", name, allowed)
    count = FLAGS.representative_images
    check(count > 0, "--representative_images", count, "a number above 0")
    representative = None
    if name:
        from neas_tf.export_images import representative_images

        representative = representative_images(
            name, info, count, model_dir=FLAGS.model_dir or "", data_dir=FLAGS.data_dir or ""
        )
    return {
        "quantize": quantize,
        "representative": representative,
        "input_type": FLAGS.input_type,
        "output_type": FLAGS.output_type,
        "rewrites": Rewrites(FLAGS.rewrite_depthwise, FLAGS.fold_gates, FLAGS.fold_normalisation),
    }


def main() -> None:
    """Runs the command."""
    define_flags()
    common.run("export_tflite", OUTPUT, options)


if __name__ == "__main__":
    main()
