"""Stage 3: training the found ensemble from scratch, and its one test (paper section 4.1)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras
from official.core import config_definitions as cfg

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.config.resolve import resolve_steps, with_augmentation
from neas_tf.config.settings import NeasConfig, StageConfig
from neas_tf.cost.constraints import Constraints
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble import store as model_store
from neas_tf.ensemble.confusion import CONFUSION_FILE, Confusion
from neas_tf.ensemble.model import build_ensemble
from neas_tf.report import write_report
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity
from neas_tf.run.preflight import search_constraints, search_costs
from neas_tf.run.record import timed
from neas_tf.space import zoo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.training import checkpoints
from neas_tf.training import optimizers as averaging
from neas_tf.training.accuracy import evaluate
from neas_tf.training.divergence import Watch, reduced_rate, train_or_go_back
from neas_tf.training.optimizers import create_slots, take_averages
from neas_tf.training.rollbacks import OnDivergence, Rollback
from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig
from neas_tf.training.training_loop import TrainingLoop

RESULTS_FILE = Path("retrain") / "results.json"
_WINNER = Path("search") / "best.json"


def chosen_architecture(config: NeasConfig, model_dir: Path, space: SearchSpace) -> Architecture:
    """`retrain.architecture`, or the search's winner.

    Raises:
      NeasError: when there is neither, or it does not lie in the space.
    """
    if config.retrain.architecture:
        return zoo.load_architecture(config.retrain.architecture, space)
    path = model_dir / _WINNER
    if not path.exists():
        raise NeasError(
            f"stage: {str(model_dir)!r} holds no finished search; run --stage=search first, or "
            "set retrain.architecture."
        )
    return Architecture.from_dict(read_json(path, "search/best.json")).check_in(space)


def check_retrain(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    alone: bool,
) -> None:
    """Refuses, without writing, a folder with the retraining of something else.

    `alone`: the architecture must be known already.
    """
    del cluster
    identity = Identity("retrain", config, model_dir, info)
    if alone or config.retrain.architecture or (model_dir / _WINNER).exists():
        identity.check({"architecture": chosen_architecture(config, model_dir, space).key})
    else:
        identity.check()


def retrain(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
) -> dict[str, Any]:
    """Trains the ensemble on the whole training split and tests it once; resumes.

    Returns:
      The test results, also in `retrain/results.json`; the model is in `retrain/model`.
    """
    architecture = chosen_architecture(config, model_dir, space)
    identity = Identity("retrain", config, model_dir, info)
    identity.record({"architecture": architecture.key}, cluster.is_chief)
    table, _ = search_costs(config, space)
    results, model = model_dir / RESULTS_FILE, model_dir / model_store.RUN_MODEL
    cost = table.cost(architecture)
    what = f"{architecture.key}: {console.short_count(cost.macs)} MACs, {cost.params:,} parameters"
    if results.exists() and model.exists():
        test = read_json(results, "retrain/results.json")
        console.heading("Retrain", what, "finished before")
        console.say(f"   {_told(test)}")
        return test
    plan = "trained before, not tested yet" if model.exists() else _plan(config, info)
    console.heading("Retrain", what, plan)
    with timed(model_dir, "retrain", cluster.is_chief):
        if not model.exists():
            if cluster.is_chief:
                _set_aside(model_dir, space)
            weights = _train(config, model_dir / "retrain", info, architecture, space, cluster)
            if cluster.is_chief:
                _save(model, weights, architecture, space, info)
        if cluster.is_chief:
            constraints = search_constraints(config, space)
            batch = config.retrain.evaluation_batch
            test, confusion = _test(model, info, table, constraints, batch)
            write_json_atomic(model_dir / CONFUSION_FILE, confusion, indent=None)
            write_json_atomic(results, test)  # last: it says that the stage is finished
    cluster.barrier()
    test = read_json(results, "retrain/results.json")
    console.say(f"   {_told(test)}")
    return test


def _set_aside(model_dir: Path, space: SearchSpace) -> None:
    """Has the folder not show what belongs to a model that is gone as this training's own."""
    for name in (RESULTS_FILE, CONFUSION_FILE):
        path = model_dir / name
        if path.exists():
            earlier = path.with_suffix(".earlier.json")
            path.replace(earlier)
            console.say(
                f"   {path} is of a model that is not there; it is in {earlier.name!r} now."
            )
    summary = model_dir / "report" / "summary.json"
    shown: Any = {}
    if summary.exists():
        with contextlib.suppress(NeasError):
            shown = read_json(summary, "summary")
    if isinstance(shown, dict) and (shown.get("accuracy") or shown.get("exports")):
        write_report(model_dir, space)


def _test(
    folder: Path,
    info: data.DatasetInfo,
    table: CostTable,
    constraints: Constraints,
    batch: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of `results.json` and of `confusion.json`."""
    model, loaded = model_store.load_model(folder)
    architecture = loaded.architecture
    confusion = Confusion(loaded.space.num_classes, architecture.num_paths)
    test = evaluate(model, info, "test", batch, confusion.add)
    cost = table.cost(architecture)
    test |= {"architecture": architecture.key, "macs": cost.macs, "params": cost.params}
    test |= {"paper_flops": cost.paper_flops}
    if constraints.bounds:
        test["constraints"] = constraints.all_values(architecture)
    return test, confusion.to_dict(info.class_names)


def _plan(config: NeasConfig, info: data.DatasetInfo) -> str:
    examples = info.sizes["train"]
    stage = resolve_steps(config.retrain, examples, "retrain")
    steps = stage.trainer.train_steps
    return (
        f"from scratch on all {examples:,} training images: {steps:,} steps of {stage.batch_size} "
        f"({steps * stage.batch_size / examples:.4g} epochs)"
    )


def _told(test: dict[str, Any]) -> str:
    paths = ", ".join(f"{accuracy:.2%}" for accuracy in test["path_accuracies"])
    return (
        f"Test accuracy {test['ensemble_accuracy']:.2%}, paths alone {paths} "
        f"({test['test_examples']:,} images)."
    )


def _train(
    config: NeasConfig,
    folder: Path,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
    cluster: Cluster,
) -> list[np.ndarray]:
    """Trains to the last step, going back where it diverges; the averaged weights."""
    stage = resolve_steps(config.retrain, info.sizes["train"], "retrain")
    if cluster.is_chief:
        checkpoints.settle(folder)
    cluster.barrier()
    diverging = OnDivergence.of(stage, space.num_classes, "retrain")

    def train(rollbacks: tuple[Rollback, ...]) -> list[np.ndarray]:
        # Generators with a state that the task puts into the checkpoint, so that dropout resumes
        # exactly.
        tf_keras.backend.experimental.enable_tf_random_generator()
        tf_keras.utils.set_random_seed(config.seed)
        with cluster.strategy.scope():
            loop = _loop(config, stage, info, architecture, space, folder, diverging, rollbacks)
            try:
                loop.train_to(stage.trainer.train_steps)
            finally:
                loop.close()
            take_averages(loop.optimizer)
            # On every worker: the running statistics are averaged over the replicas when read.
            return loop.trainer.model.get_weights()

    return train_or_go_back(train, "retrain", folder, diverging, cluster.is_chief, cluster.barrier)


def _loop(
    config: NeasConfig,
    stage: StageConfig,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
    folder: Path,
    diverging: OnDivergence,
    rollbacks: tuple[Rollback, ...],
) -> TrainingLoop:
    """The ensemble's training, at the newest checkpoint of its folder."""
    task = EnsembleTask(
        EnsembleTaskConfig(),
        architecture,
        space,
        stage,
        seed=config.seed,
        class_weights=data.class_weights(info, "train"),
    )
    model = task.build_model()
    optimizer = averaging.create_optimizer(
        stage.trainer.optimizer_config,
        config.runtime,
        lambda rate: reduced_rate(rate, rollbacks),
    )
    create_slots(optimizer, model)
    augmented = with_augmentation(info, stage)
    return TrainingLoop(
        cfg.ExperimentConfig(
            task=EnsembleTaskConfig(), trainer=stage.trainer, runtime=config.runtime
        ),
        task,
        model,
        optimizer,
        lambda first, context: data.make_dataset(
            augmented,
            "train",
            stage.batch_size,
            training=True,
            seed=config.seed + 1,
            start_step=first,
            drop_remainder=True,
            input_context=context,
        ),
        folder,
        info.sizes["train"] / stage.batch_size,
        "retrain",
        Watch(diverging, lambda step: architecture.key),
    )


def _save(
    folder: Path,
    weights: list[np.ndarray],
    architecture: Architecture,
    space: SearchSpace,
    info: data.DatasetInfo,
) -> None:
    model = build_ensemble(architecture, space, dtype="float32")
    model.set_weights(weights)
    normalisation = info.normalisation.to_dict()
    model_store.save_model(folder, model, architecture, space, info.class_names, normalisation)
