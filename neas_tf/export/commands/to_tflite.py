"""Writes a trained ensemble as one TFLite file, with parity check and report.

neas export tflite --model_dir=DIR [--output=PATH]
neas export tflite --model_dir=DIR --quantize=int8 --representative_dataset=run
neas export tflite --model_dir=DIR --quantize=int8_qat
neas export tflite --model_dir=DIR --prune --sparsity=0.5 --quantize=float16
neas export tflite --arch=neas_s --weights=FILE.weights.h5 --output=PATH

int8_qat and --prune train the model on, on the run's data; stopped, the same command resumes.
"""

import functools
from pathlib import Path
from typing import Any

from absl import flags

from neas_tf.common.errors import check, check_share
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.ensemble.rewrites import Rewrites
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import FINE_TUNING
from neas_tf.export.commands import common
from neas_tf.export.tflite.quantizing import END_TYPES, QAT, QUANTIZATIONS, check_quantization

FLAGS = flags.FLAGS
OUTPUT = "export/model.tflite"


def define_flags(values: flags.FlagValues = FLAGS) -> None:
    """Defines this command's own flags."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    yes = functools.partial(flags.DEFINE_bool, flag_values=values)
    text("quantize", "none", f"One of {', '.join(QUANTIZATIONS)}.")
    text(
        "representative_dataset",
        None,
        "For int8: images that the ranges are measured on. 'run' takes the training images of "
        "--model_dir; else a folder with images at any depth (those in folders named train, if "
        "there are any), or the name of a TFDS data set.",
    )
    whole = functools.partial(flags.DEFINE_integer, flag_values=values)
    real = functools.partial(flags.DEFINE_float, flag_values=values)
    whole("representative_images", 256, "For int8 and int8_qat: images to measure ranges on.")
    text("input_type", "float32", f"For int8 and int8_qat: one of {', '.join(END_TYPES)}.")
    text("output_type", "float32", f"For int8 and int8_qat: one of {', '.join(END_TYPES)}.")
    yes("prune", False, "Train on, while the smallest weights become zero.")
    real("sparsity", 0.5, "With --prune: share of zeros in each pruned kernel.")
    real("fine_tune_epochs", 2.0, "For int8_qat and --prune: passes over the training images.")
    real(
        "fine_tune_rate",
        0.0,
        "Learning rate at the beginning (Adam, cosine); 0 takes 0.00002 for int8_qat and 0.001 for "
        "--prune.",
    )
    whole("fine_tune_batch", 128, "Images a step.")
    whole("fine_tune_seed", 0, "Draws order and augmentation of the images.")
    text("fine_tune_dir", None, "Checkpoints and logs; default: MODEL_DIR/export/fine_tuning.")
    yes(
        "rewrite_depthwise", True, "Depthwise kernels of more than 25 taps as sums of smaller ones."
    )
    yes("fold_gates", True, "The constants of squeeze-excite go into the convolutions beside it.")
    yes("fold_normalisation", True, "The scale of the normalisation goes into the stem.")


def options(info: LoadedInfo) -> dict[str, Any]:
    """Arguments of `export_tflite`, from the flags."""
    name, quantize = FLAGS.representative_dataset, FLAGS.quantize
    check_quantization(quantize, FLAGS.input_type, FLAGS.output_type, bool(name))
    allowed = "none but with --quantize=int8"
    check(quantize == "int8" or not name, "--representative_dataset", name, allowed)
    count = FLAGS.representative_images
    check(count > 0, "--representative_images", count, "a number above 0")
    tuning = _fine_tuning(info) if FLAGS.prune or quantize == QAT else None
    representative = None
    if name:
        from neas_tf.export.images import representative_images

        representative = representative_images(
            name, info, count, model_dir=FLAGS.model_dir or "", data_dir=FLAGS.data_dir or ""
        )
    return {
        "quantize": quantize,
        "representative": representative,
        "input_type": FLAGS.input_type,
        "output_type": FLAGS.output_type,
        "rewrites": Rewrites(FLAGS.rewrite_depthwise, FLAGS.fold_gates, FLAGS.fold_normalisation),
        "fine_tuning": tuning,
        "sparsity": FLAGS.sparsity if FLAGS.prune else 0.0,
    }


def _fine_tuning(info: LoadedInfo) -> Any:
    """Settings and data of a fine-tuning, from the flags and the run."""
    what = "--quantize=int8_qat" if FLAGS.quantize == QAT else "--prune"
    check(bool(FLAGS.model_dir), "--model_dir", FLAGS.model_dir, f"a run, to train on for {what}")
    if FLAGS.prune:
        check_share("--sparsity", FLAGS.sparsity)
    from neas_tf.export.images import run_training

    dataset, smoothing = run_training(info, FLAGS.model_dir, FLAGS.data_dir or "")
    from neas_tf.export.fine_tuning import FineTuning

    check_local_path("--fine_tune_dir", FLAGS.fine_tune_dir or "")
    folder = FLAGS.fine_tune_dir or Path(FLAGS.model_dir) / FINE_TUNING
    return FineTuning(
        dataset,
        Path(resolve_user_path(str(folder))).absolute(),
        epochs=FLAGS.fine_tune_epochs,
        rate=FLAGS.fine_tune_rate,
        batch_size=FLAGS.fine_tune_batch,
        seed=FLAGS.fine_tune_seed,
        label_smoothing=smoothing,
        calibration_images=FLAGS.representative_images,
    )


def main() -> None:
    """Runs the command."""
    define_flags()
    common.run("export_tflite", OUTPUT, options)


if __name__ == "__main__":
    main()
