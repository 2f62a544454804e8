"""Trains and evaluates a detector with Model Garden's own flags and main program.

neas detect train --experiment=neas_retinanet_coco --mode=train_and_eval --model_dir=RUN \\
  --config_file=FILE.yaml --params_override=task.init_checkpoint=runs/imagenet
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from neas_tf.common import command_line
from neas_tf.common.errors import NeasError
from neas_tf.common.files import system_fault, write_text_atomic
from neas_tf.common.folder_lock import sweep_part
from neas_tf.common.paths import check_literal, check_local_path, literal_path
from neas_tf.detection.pictures.labels import names_of_categories, store_names

FLAGS = flags.FLAGS
NAME = "detection.train"
# Defined by Model Garden's main program, which loads TensorFlow.
_ASYNC = "enable_async_checkpointing"


def define_flags() -> None:
    """Defines Model Garden's flags, and one for machines without GPUs."""
    from official.common import flags as model_garden_flags  # loads no TensorFlow

    model_garden_flags.define_flags()
    flags.DEFINE_bool(_ASYNC, True, "Whether checkpoints are written beside the training.")
    flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)
    for name in ("experiment", "mode", "model_dir", "config_file", "params_override", "threads"):
        flags.declare_key_flag(name)


def main(argv: Sequence[str]) -> int:
    """Checks the settings, then runs Model Garden's main program; returns the exit code.

    It is 2 after bad input and where nothing can be written.
    """
    return command_line.exit_code(NAME, FLAGS.model_dir, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    command_line.flags_only(argv)
    for name in ("experiment", "mode", "model_dir"):
        if not FLAGS[name].value:
            raise NeasError(f"{name}: received nothing, expected --{name}=… (see --help).")
    check_local_path("model_dir", FLAGS.model_dir)
    if folder := os.environ.get("BUILD_WORKING_DIRECTORY"):
        os.chdir(folder)  # under `bazel run`, relative paths mean the caller's folder
    check_literal("model_dir", FLAGS.model_dir)
    command_line.start_tensorflow(FLAGS.threads, quiet=False)
    from neas_tf.detection.checks import check_experiment, load_experiment

    config = load_experiment(FLAGS.experiment, FLAGS.config_file or (), FLAGS.params_override or "")
    boxes = check_experiment(config, FLAGS.mode, FLAGS.model_dir)
    if "train" in FLAGS.mode:
        os.makedirs(FLAGS.model_dir, exist_ok=True)
        if boxes is not None:
            classes = config.task.model.num_classes
            names = names_of_categories(boxes.value["categories"], classes)
            store_names(FLAGS.model_dir, names)
    folder = FLAGS.model_dir
    FLAGS.model_dir = literal_path(folder)
    try:
        with _settings_as_files():
            _model_garden().main(argv)
    except Exception as error:
        if system_fault(error) and os.path.isdir(folder):
            sweep_part(Path(folder))  # half a checkpoint would keep the disk full
        raise


@contextlib.contextmanager
def _settings_as_files() -> Iterator[None]:
    """Has Model Garden read the settings as they were checked: its own reader takes 010 for 8."""
    from neas_tf.common.yaml_text import dump_yaml
    from neas_tf.config.parse import read_overrides

    overrides = read_overrides(FLAGS.config_file or (), FLAGS.params_override or "")
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, f"{i}.yaml") for i in range(len(overrides))]
        for file, override in zip(files, overrides, strict=True):
            write_text_atomic(file, dump_yaml(override))
        FLAGS.config_file, FLAGS.params_override = files[:-1], files[-1]
        yield


def _model_garden():
    """Model Garden's main program, whose import defines a flag that was parsed already."""
    chosen = FLAGS[_ASYNC].value
    delattr(FLAGS, _ASYNC)
    from official.vision import train

    FLAGS[_ASYNC].value = chosen
    return train


if __name__ == "__main__":
    define_flags()
    command_line.run(main, command_line.flags_parser(NAME))
