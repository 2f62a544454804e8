"""A whole run from Python: what `python -m neas_tf.train` does."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras
from absl import logging
from official.common import distribute_utils

from neas_tf.config import NeasConfig
from neas_tf.errors import NeasError, unknown_name
from neas_tf.report import format_summary, write_report
from neas_tf.run_context import Run, open_run
from neas_tf.stages.export_stage import export
from neas_tf.stages.retrain_stage import retrain
from neas_tf.stages.search_stage import search
from neas_tf.stages.supernet_stage import train_supernet

STAGES = ("supernet", "search", "retrain", "export")
# Stages of one process: further workers wait for its files in the shared model_dir.
_CHIEF_ONLY = ("search", "export")
_STRATEGIES = ("one_device", "mirrored", "multi_worker_mirrored", "tpu", "off")
_PRECISIONS = ("float32", "bfloat16", "float16")


def run_pipeline(config: NeasConfig, model_dir: str, stage: str = "all") -> dict[str, Any]:
    """Runs one stage or all of them; finished ones are taken from the folder.

    Args:
      config: from `parse_config.load_config`.
      model_dir: folder of the run.
      stage: supernet, search, retrain, export or all.

    Returns:
      The summary of everything that the folder holds by then (`report/summary.json`); {} on
      workers other than the chief.

    Raises:
      NeasError: for anything that the settings, the data or the folder lack.
    """
    if stage not in (*STAGES, "all"):
        unknown_name("stage", stage, (*STAGES, "all"))
    strategy = make_strategy(config)
    run = open_run(config, model_dir, strategy)
    functions = {"supernet": train_supernet, "search": search, "retrain": retrain, "export": export}
    for name in STAGES if stage == "all" else (stage,):
        if stage == "all" and name in ("supernet", "search") and config.retrain.architecture:
            logging.info("Skips %s: retrain.architecture is given.", name)
            continue
        logging.info("Stage %s", name)
        if run.is_chief or name not in _CHIEF_ONLY:
            functions[name](run)
        run.barrier()
    summary = report(run)
    run.barrier()
    return summary


def report(run: Run) -> dict[str, Any]:
    """Draws what the folder holds and prints the summary."""
    if not run.is_chief:
        return {}
    result = write_report(run.model_dir, run.space)
    print(format_summary(result.summary), flush=True)
    return result.summary


def make_strategy(config: NeasConfig) -> tf.distribute.Strategy:
    """The distribution strategy and precision of `runtime`, as Model Garden makes them.

    `mirrored` without GPUs spreads over all logical CPU devices.
    """
    runtime = config.runtime
    name = runtime.distribution_strategy
    if name not in _STRATEGIES:
        unknown_name("runtime.distribution_strategy", name, _STRATEGIES)
    precision = runtime.mixed_precision_dtype or "float32"
    if precision not in _PRECISIONS:
        unknown_name("runtime.mixed_precision_dtype", precision, _PRECISIONS)
    tf_keras.mixed_precision.set_global_policy(
        precision if precision == "float32" else f"mixed_{precision}"
    )
    if name == "mirrored" and not runtime.num_gpus:
        # Not for other strategies: several workers must connect before any device starts.
        devices = tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
    try:
        if name == "multi_worker_mirrored" and runtime.worker_hosts:
            distribute_utils.configure_cluster(runtime.worker_hosts, runtime.task_index)
        return distribute_utils.get_distribution_strategy(
            distribution_strategy=name,
            all_reduce_alg=runtime.all_reduce_alg,
            num_gpus=runtime.num_gpus,
            num_packs=runtime.num_packs,
            tpu_address=runtime.tpu,
        )
    except ValueError as error:
        raise NeasError(f"runtime: {' '.join(str(error).split())}") from None
