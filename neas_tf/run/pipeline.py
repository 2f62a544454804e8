"""A whole run from Python: what `python -m neas_tf.train` does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from official.common import distribute_utils

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError, check_int, unknown_name
from neas_tf.config.settings import NeasConfig
from neas_tf.report import format_summary, write_report
from neas_tf.run import cluster
from neas_tf.run.context import Run, open_run
from neas_tf.run.export_stage import check_export, export
from neas_tf.run.parts.time_limit import TimePlan, open_plan, told
from neas_tf.run.retrain_stage import check_retrain, retrain
from neas_tf.run.search_stage import check_search, search
from neas_tf.run.supernet_stage import check_supernet, train_supernet
from neas_tf.training.initial_weights import AUTO

# Of each stage, what refuses a folder (and writes nothing), and what does the work.
_STAGES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "supernet": (check_supernet, train_supernet),
    "search": (check_search, search),
    "retrain": (check_retrain, retrain),
    "export": (check_export, export),
}
STAGES = tuple(_STAGES)
# Stages of one process: further workers wait for its files in the shared model_dir.
_CHIEF_ONLY = ("export",)
_STRATEGIES = ("one_device", "mirrored", "multi_worker_mirrored", "tpu", "off")
_PRECISIONS = ("float32", "bfloat16", "float16")


def run_pipeline(
    config: NeasConfig, model_dir: str, stage: str = "all", began: float | None = None
) -> dict[str, Any]:
    """Runs one stage or all of them; finished ones are taken from the folder.

    Args:
      config: from `parse.load_config`.
      model_dir: folder of the run.
      stage: supernet, search, retrain, export or all.
      began: `time.monotonic()` from which on a `time_limit` counts; None is now.

    Returns:
      The summary of everything that the folder holds by then (`report/summary.json`); {} on
      workers other than the chief.

    Raises:
      NeasError: for anything that the settings, the data or the folder lack. What can be known
        at the beginning is checked before anything is written.
    """
    if stage not in (*STAGES, "all"):
        unknown_name("stage", stage, (*STAGES, "all"))
    began = time.monotonic() if began is None else began
    strategy = make_strategy(config)
    with cluster.together(strategy):
        run = open_run(config, model_dir, strategy)
        return _run(run, stage, _plan(run, stage, began))


def _plan(run: Run, stage: str, began: float) -> TimePlan | None:
    """The plan of the run's time, where that is limited."""
    config = run.config
    alone = stage in ("search", "export") or (
        stage == "retrain" and not config.retrain.architecture
    )
    plan = open_plan(config.time_limit, run.model_dir, began, run.cluster.is_chief, alone)
    _take_choice(config, plan)
    return plan


def _take_choice(config: NeasConfig, plan: TimePlan | None) -> None:
    """`retrain.init: auto` is what the plan chose, once it has."""
    chosen = plan.stages.get("retrain", {}).get("init") if plan else None
    if chosen and config.retrain.init == AUTO:
        config.retrain.init = chosen


def _run(run: Run, stage: str, plan: TimePlan | None) -> dict[str, Any]:
    config = run.config
    names = STAGES if stage == "all" else (stage,)
    if stage == "all" and config.retrain.architecture:
        names = ("retrain", "export")
    for name in names:
        check, _ = _STAGES[name]
        check(*run.inputs, alone=stage != "all")
    run.cluster.barrier()  # nothing is written before all workers are here
    with run.writing(), plan.counting() if plan else contextlib.nullcontext():
        run.check_agreement(names)
        _announce(run, names, plan)
        for name in names:
            _, work = _STAGES[name]
            timed = {} if name in _CHIEF_ONLY else {"plan": plan}
            if run.cluster.is_chief or name not in _CHIEF_ONLY:
                with data.failures():
                    work(*run.inputs, **timed)
            _take_choice(config, plan)
            run.cluster.barrier()
        summary = report(run)
        run.cluster.barrier()
        if plan:
            console.say(f"Time: {told(plan.used())} of {told(plan.limit)}.")
        return summary


def _announce(run: Run, names: Sequence[str], plan: TimePlan | None) -> None:
    sizes = run.info.sizes
    console.heading(
        "NEAS",
        f"folder {run.model_dir}",
        f"data {run.info.name}: {sizes['train']:,} training images, {run.info.judges()}"
        f"{sizes['test']:,} test images, {run.info.num_classes} classes",
        f"stages {', '.join(names)}"
        + (" (retrain.architecture is given)" if run.config.retrain.architecture else ""),
        f"{run.cluster.strategy.num_replicas_in_sync} device(s), seed {run.config.seed}",
        *(plan.announced() if plan else ()),
    )


def report(run: Run) -> dict[str, Any]:
    """Draws what the folder holds and prints the summary."""
    if not run.cluster.is_chief:
        return {}
    result = write_report(run.model_dir, run.space)
    console.say("")
    console.show(format_summary(result.summary))
    console.say(f"Pictures and summary are in {run.folder('report')}")
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
    gpus = len(tf.config.list_physical_devices("GPU"))
    if runtime.num_gpus > gpus:
        raise NeasError(
            f"runtime.num_gpus: received {runtime.num_gpus}, expected the {gpus} GPUs of this "
            "machine."
        )
    if name == "mirrored" and not runtime.num_gpus:
        # Not for other strategies: several workers must connect before any device starts.
        devices = tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return tf.distribute.MirroredStrategy([device.name for device in devices])
    try:
        if name == "multi_worker_mirrored" and runtime.worker_hosts:
            distribute_utils.configure_cluster(runtime.worker_hosts, runtime.task_index)
        if name == "multi_worker_mirrored":
            check_int("workers.start_seconds", config.workers.start_seconds, 1)
            cluster.await_others(config.workers.start_seconds)
        # A worker can still die after that meeting; a TPU may take long to start.
        limit = cluster.at_most(config.workers.start_seconds)
        with limit if name == "multi_worker_mirrored" else contextlib.nullcontext():
            return distribute_utils.get_distribution_strategy(
                distribution_strategy=name,
                all_reduce_alg=runtime.all_reduce_alg,
                num_gpus=runtime.num_gpus,
                num_packs=runtime.num_packs,
                tpu_address=runtime.tpu,
            )
    except NeasError:
        raise
    except (ValueError, RuntimeError, tf.errors.OpError) as error:  # also: no TPU is there
        raise NeasError(f"runtime: {' '.join(str(error).split())}") from None
