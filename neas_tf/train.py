"""Searches, trains and exports an ensemble: `python -m neas_tf.train --model_dir=…`."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Sequence

from absl import app, flags

from neas_tf import console
from neas_tf.errors import NeasError, WorkerLost
from neas_tf.files import system_fault
from neas_tf.paths import resolve_user_path
from neas_tf.stopping import EXIT_CODE, Terminated, terminating

# What a folder or its disk is to blame for, in the middle of a run as well.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_NOT_WRITABLE += (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO)
_PATIENCE = 10.0  # seconds for a process that has lost another one

_EXPERIMENT = flags.DEFINE_string(
    "experiment", "neas_quickstart", "neas_quickstart, neas_cifar10 or neas_imagenet."
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Folder of the run; an interrupted run goes on from what it holds."
)
_STAGE = flags.DEFINE_string(
    "stage", "all", "supernet, search, retrain, export, or all; each continues the one before."
)
_CONFIG_FILE = flags.DEFINE_multi_string(
    "config_file", [], "YAML files that override the experiment, in this order; or with commas."
)
_OVERRIDE = flags.DEFINE_string(
    "params_override", "", "Overrides behind the files: a.b=1,c=2, a YAML mapping, or a YAML file."
)
_CPUS = flags.DEFINE_integer(
    "logical_cpus", 1, "Splits the CPU into so many devices, for mirrored runs without GPUs.", 1, 64
)
_THREADS = flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)


def main(argv: Sequence[str]) -> int:
    """Runs the stages; bad input ends with one sentence and exit code 2, SIGTERM with 143."""
    try:
        with terminating():
            return _main(argv)
    except Terminated:
        console.say("\nneas_tf.train: received SIGTERM; the same command goes on from here.")
        return EXIT_CODE


def _main(argv: Sequence[str]) -> int:
    try:
        if len(argv) > 1:
            raise NeasError(f"received {argv[1]!r}, allowed are flags only (see --help).")
        if not _MODEL_DIR.value:
            raise NeasError("model_dir: received nothing, allowed is --model_dir=FOLDER.")
        _start_tensorflow(_CPUS.value, _THREADS.value)
        from neas_tf.parse_config import load_config
        from neas_tf.pipeline import run_pipeline

        files = [name for text in _CONFIG_FILE.value for name in text.split(",") if name]
        config = load_config(_EXPERIMENT.value, files, _OVERRIDE.value)
        run_pipeline(config, resolve_user_path(_MODEL_DIR.value), _STAGE.value)
    except NeasError as error:
        console.say(f"neas_tf.train: {error}")
        if isinstance(error, WorkerLost):
            _leave(error.exit_code)
        return error.exit_code
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        where = error.filename or _MODEL_DIR.value
        console.say(f"neas_tf.train: {where!r} cannot be written ({error.strerror}).")
        return 2
    except Exception as error:
        if not (fault := system_fault(error)):
            raise
        console.say(f"neas_tf.train: {_MODEL_DIR.value!r} cannot be written ({fault}).")
        return 2
    except KeyboardInterrupt:
        console.say("\nneas_tf.train: stopped; the same command goes on from here.")
        return 130
    return 0


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags; a mistake in them ends with one sentence and exit code 2."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        console.say(f"neas_tf.train: {' '.join(str(error).split())} (see --help)")
        sys.exit(2)


def _leave(exit_code: int) -> None:
    """Ends the process soon, though TensorFlow may wait in its destructors for who is gone."""

    def end() -> None:
        time.sleep(_PATIENCE)
        os._exit(exit_code)

    threading.Thread(target=end, daemon=True).start()


def _start_tensorflow(logical_cpus: int, threads: int) -> None:
    """Imports TensorFlow quietly and splits the CPU, which must precede everything else."""
    if not flags.FLAGS["verbosity"].present:
        console.quiet_libraries()
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    console.say("Starting TensorFlow …")
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    if logical_cpus > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [configuration] * logical_cpus)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
