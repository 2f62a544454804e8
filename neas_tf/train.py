"""Searches, trains and exports an ensemble: `python -m neas_tf.train --model_dir=…`."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Sequence

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.command_line import EXIT_CODE, Terminated, terminating
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import resolve_user_path
from neas_tf.run import ray_engine

NAME = "neas_tf.train"
_BEGAN = time.monotonic()
parse_flags = command_line.flags_parser(NAME)

_NEW = "neas_quickstart"  # a new folder's experiment
_EXPERIMENT = flags.DEFINE_string(
    "experiment",
    None,
    "neas_quickstart, neas_cifar10, neas_imagenet or a recipe of your own, a YAML file; without it a "
    f"run continues with the settings in its folder, and a new one is {_NEW}.",
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the run; an interrupted run resumes from what it holds."
)
_STAGE = flags.DEFINE_string(
    "stage", "all", "supernet, search, retrain, export, or all; each continues the one before."
)
_CONFIG_FILE = flags.DEFINE_multi_string(
    "config_file", [], "YAML files that override the experiment, in this order; or with commas."
)
_OVERRIDE = flags.DEFINE_string(
    "params_override", "", "Overrides after the files: a.b=1,c=2, a YAML mapping, or a YAML file."
)
_TIME_LIMIT = flags.DEFINE_string(
    "time_limit", None, "When the whole run is to end, over all sessions: 2h, 20min, 300 (seconds)."
)
_CPUS = flags.DEFINE_integer(
    "logical_cpus", 1, "Splits the CPU into so many devices, for mirrored runs without GPUs.", 1, 64
)
_THREADS = flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)
ray_engine.define_flags()
flags.adopt_module_key_flags(ray_engine)


def main(argv: Sequence[str]) -> int:
    """Runs the stages; bad input ends with one sentence and exit code 2, SIGTERM with 143."""
    try:
        with terminating():
            return command_line.exit_code(NAME, _MODEL_DIR.value, lambda: _run(argv))
    except Terminated:
        console.say(f"\n{NAME}: received SIGTERM; the same command continues from here.")
        return EXIT_CODE


def _run(argv: Sequence[str]) -> None:
    command_line.flags_only(argv)
    if not _MODEL_DIR.value:
        raise NeasError("model_dir: received nothing, expected --model_dir=FOLDER.")
    if ray := ray_engine.from_flags():
        _run_on_ray(ray)
        return
    command_line.start_tensorflow(_THREADS.value, _CPUS.value)
    from neas_tf.config.parse import load_config
    from neas_tf.run.context import settings_file
    from neas_tf.run.pipeline import run_pipeline

    folder = resolve_user_path(_MODEL_DIR.value)
    files = [name for text in _CONFIG_FILE.value for name in text.split(",") if name]
    if _EXPERIMENT.value is None and (own := settings_file(pathlib.Path(folder))):
        console.say(f"Settings of {own} (--experiment=NAME begins with a recipe's instead).")
        files.insert(0, str(own))
    config = load_config(_EXPERIMENT.value or _NEW, files, _OVERRIDE.value)
    if _TIME_LIMIT.value is not None:
        config.time_limit = _TIME_LIMIT.value
    run_pipeline(config, folder, _STAGE.value, _BEGAN)


def _run_on_ray(ray: ray_engine.Ray) -> None:
    """The same command as one task of a cluster: it waits there for what it takes, then runs."""
    folder = resolve_user_path(_MODEL_DIR.value)
    command = [*sys.argv[1:], f"--model_dir={folder}", "--engine=local", f"--threads={ray.threads}"]
    with ray.connect("neas_tf.train:run_command", show_output=True) as tasks:
        tasks.start(folder, command)
        ((_, code),) = tasks.finished()
    if isinstance(code, NeasError):
        raise code
    if code:
        sys.exit(code)


def run_command(command: Sequence[str]) -> int:
    """The command on a node of a cluster; returns its exit code, which its own sentence explains."""
    return main(parse_flags([NAME, *command]))


if __name__ == "__main__":
    command_line.run(main, parse_flags)
