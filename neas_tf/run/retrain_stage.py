"""Stage 3: training the found ensemble, and its one test (paper section 4.1)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.config.resolve import resolve_steps, retrain_part, with_augmentation
from neas_tf.config.settings import NeasConfig, RetrainConfig
from neas_tf.cost.constraints import Constraints
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble import store as model_store
from neas_tf.ensemble.confusion import CONFUSION_FILE, PICTURES_FILE, Confusion, Pictures
from neas_tf.ensemble.model import build_ensemble
from neas_tf.report import write_report
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity
from neas_tf.run.parts.calibrating import calibrated_temperature
from neas_tf.run.parts.pacing import StagePace, choose_start
from neas_tf.run.parts.starting import check_start, start_ensemble, start_identity
from neas_tf.run.parts.teaching import load_teacher, teacher_identity
from neas_tf.run.parts.time_limit import TimePlan
from neas_tf.run.preflight import search_constraints, search_costs
from neas_tf.run.record import timed
from neas_tf.run.supernet_stage import FINAL, load_shrunk
from neas_tf.space import zoo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.training import checkpoints
from neas_tf.training import optimizers as averaging
from neas_tf.training.accuracy import evaluate
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.divergence import Watch, reduced_rate, train_or_go_back
from neas_tf.training.initial_weights import AUTO, SCRATCH, SUPERNET, is_path
from neas_tf.training.optimizers import create_slots, take_averages
from neas_tf.training.paced import CoursePosition, planned_rate
from neas_tf.training.rollbacks import OnDivergence, Rollback
from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig
from neas_tf.training.training_loop import TrainingLoop
from neas_tf.uncertainty.measures import UNCERTAINTY_FILE, Uncertainty

RESULTS_FILE = Path("retrain") / "results.json"
_WINNER = Path("search") / "best.json"
_BEGINNING = {
    AUTO: "from scratch",
    SCRATCH: "from scratch",
    SUPERNET: "from the supernet's weights",
}


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
        architecture = chosen_architecture(config, model_dir, space)
        extra = {"architecture": architecture.key}
        begun = identity.path.exists()
        extra |= teacher_identity(config.retrain.distillation, begun)
        identity.check(extra | start_identity(config, model_dir, architecture, space))
        if not begun:
            check_start(config, model_dir, info, architecture, space)
            load_teacher(config.retrain.distillation, info)  # or refuses it
        return
    if is_path(config.retrain.init):
        raise NeasError(
            f"retrain.init: received {config.retrain.init!r} for an ensemble that is yet to be "
            "found, expected scratch or supernet, or retrain.architecture with the architecture of "
            "the weights."
        )
    identity.check(teacher_identity(config.retrain.distillation, identity.path.exists()))
    if not identity.path.exists():
        load_teacher(config.retrain.distillation, info)


def retrain(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    plan: TimePlan | None = None,
) -> dict[str, Any]:
    """Trains the ensemble on the whole training split and tests it once; resumes.

    Args:
      config, model_dir, info, space, cluster: of the run.
      plan: of its time, where that is limited.

    Returns:
      The test results, also in `retrain/results.json`; the model is in `retrain/model`.
    """
    architecture = chosen_architecture(config, model_dir, space)
    table, _ = search_costs(config, space)
    if plan is not None and config.retrain.init == AUTO:
        trained = (model_dir / FINAL).exists() and architecture.num_paths == config.num_paths
        shrunk = load_shrunk(model_dir, space) if trained else None
        init = choose_start(config, info, plan, table, architecture, shrunk, cluster)
        config = copy.deepcopy(config)
        config.retrain.init = init
    identity = Identity("retrain", config, model_dir, info)
    start = start_identity(config, model_dir, architecture, space)
    start |= teacher_identity(config.retrain.distillation, identity.path.exists())
    identity.record({"architecture": architecture.key, **start}, cluster.is_chief)
    results, model = model_dir / RESULTS_FILE, model_dir / model_store.RUN_MODEL
    cost = table.cost(architecture)
    what = f"{architecture.key}: {console.short_count(cost.macs)} MACs, {cost.params:,} parameters"
    if results.exists() and model.exists():
        test = read_json(results, "retrain/results.json")
        console.heading("Retrain", what, "finished before")
        console.say(f"   {_told(test)}")
        return test
    length = "trained before, not tested yet" if model.exists() else _plan(config, info)
    console.heading("Retrain", what, length)
    with timed(model_dir, "retrain", cluster.is_chief):
        if not model.exists():
            if cluster.is_chief:
                _set_aside(model_dir, space)
            weights = _train(config, model_dir, info, architecture, space, cluster, plan)
            if cluster.is_chief:
                _save(model, weights, architecture, space, info, config.retrain)
        if cluster.is_chief:
            constraints = search_constraints(config, space)
            batch = config.retrain.evaluation_batch
            test, beside = _test(model, info, table, constraints, batch)
            for name, value in beside.items():
                write_json_atomic(model_dir / name, value, indent=None)
            write_json_atomic(results, test)  # last: it says that the stage is finished
    cluster.barrier()
    test = read_json(results, "retrain/results.json")
    console.say(f"   {_told(test)}")
    return test


def _set_aside(model_dir: Path, space: SearchSpace) -> None:
    """Has the folder not show what belongs to a model that is gone as this training's own."""
    for name in (RESULTS_FILE, CONFUSION_FILE, PICTURES_FILE, UNCERTAINTY_FILE):
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
    """Contents of `results.json`, and of the files beside it by name."""
    model, loaded = model_store.load_model(folder)
    architecture, classes = loaded.architecture, loaded.space.num_classes
    confusion = Confusion(classes, architecture.num_paths)
    pictures = Pictures(classes)
    sure = Uncertainty(architecture.num_paths, loaded.temperature)

    def seen(images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        confusion.add(labels, logits.argmax(-1))
        pictures.add(images, labels, logits)
        sure.add(labels, logits)

    test = evaluate(model, info, "test", batch, seen)
    cost = table.cost(architecture)
    test |= {"architecture": architecture.key, "macs": cost.macs, "params": cost.params}
    test |= {"paper_flops": cost.paper_flops}
    if constraints.bounds:
        test["constraints"] = constraints.all_values(architecture)
    return test, {
        CONFUSION_FILE: confusion.to_dict(info.class_names),
        PICTURES_FILE: pictures.to_dict(info.class_names),
        UNCERTAINTY_FILE: sure.to_dict(),
    }


def _plan(config: NeasConfig, info: data.DatasetInfo) -> str:
    part = retrain_part(config.retrain)
    examples = info.sizes[part]
    stage = resolve_steps(config.retrain, examples, "retrain")
    steps = stage.trainer.train_steps
    return (
        f"{_BEGINNING.get(config.retrain.init, 'from stored weights')} on "
        f"{'all ' if part == 'train' else ''}{examples:,} training images: {steps:,} steps of {stage.batch_size} ({steps * stage.batch_size / examples:.4g} "
        "epochs)"
    )


def _told(test: dict[str, Any]) -> str:
    paths = ", ".join(f"{accuracy:.2%}" for accuracy in test["path_accuracies"])
    return (
        f"Test accuracy {test['ensemble_accuracy']:.2%}, paths alone {paths} "
        f"({test['test_examples']:,} images)."
    )


def _train(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
    cluster: Cluster,
    plan: TimePlan | None,
) -> list[np.ndarray]:
    """Trains to the last step, going back where it diverges; the averaged weights."""
    folder = model_dir / "retrain"
    images = info.sizes[retrain_part(config.retrain)]
    stage = resolve_steps(config.retrain, images, "retrain")
    if cluster.is_chief:
        checkpoints.settle(folder)
    cluster.barrier()
    diverging = OnDivergence.of(stage, space.num_classes, "retrain")
    pace: StagePace | None = None
    if plan is not None:
        recipe, per_epoch = stage.trainer.train_steps, images / stage.batch_size
        pace = StagePace("retrain", config, info, plan, recipe, per_epoch, cluster)

    def begin(model: tf_keras.Model) -> None:
        if not latest_step(folder):
            start_ensemble(model, config, model_dir, info, architecture, space, cluster)

    def train(rollbacks: tuple[Rollback, ...]) -> list[np.ndarray]:
        # Generators with a state that the task puts into the checkpoint, so that dropout resumes
        # exactly.
        tf_keras.backend.experimental.enable_tf_random_generator()
        tf_keras.utils.set_random_seed(config.seed)
        with cluster.strategy.scope():
            loop = retrain_loop(
                config, stage, info, architecture, space, folder, diverging, rollbacks, begin, pace
            )
            try:
                if pace:
                    pace.train(loop, lambda: pace.course.total)
                    loop.save()
                else:
                    loop.train_to(stage.trainer.train_steps)
            finally:
                loop.close()
            take_averages(loop.optimizer)
            # On every worker: the running statistics are averaged over the replicas when read.
            return loop.trainer.model.get_weights()

    return train_or_go_back(train, "retrain", folder, diverging, cluster.is_chief, cluster.barrier)


def retrain_loop(
    config: NeasConfig,
    stage: RetrainConfig,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
    folder: Path,
    diverging: OnDivergence,
    rollbacks: tuple[Rollback, ...],
    begin: Callable[[tf_keras.Model], None],
    pace: StagePace | None = None,
) -> TrainingLoop:
    """The ensemble's training, at the newest checkpoint of its folder; `begin` gets the new model."""
    part = retrain_part(stage)
    per_epoch = info.sizes[part] / stage.batch_size
    task = EnsembleTask(
        EnsembleTaskConfig(),
        architecture,
        space,
        stage,
        seed=config.seed,
        teacher=load_teacher(stage.distillation, info),
        class_weights=data.class_weights(info, part),
        normalisation=info.normalisation,
    )
    model = task.build_model()
    begin(model)
    position = pace.begin() if pace else None
    optimizer = averaging.create_optimizer(
        stage.trainer.optimizer_config,
        config.runtime,
        lambda rate: reduced_rate(planned_rate(rate, position), rollbacks),
        _trunk_factor(stage, per_epoch, position),
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
            part,
            stage.batch_size,
            training=True,
            seed=config.seed + 1,
            start_step=first,
            drop_remainder=True,
            input_context=context,
            pixels=True,
        ),
        folder,
        per_epoch,
        "retrain",
        Watch(diverging, lambda step: architecture.key),
        pace.note if pace else str,
        paced=pace is not None,
    )


def _trunk_factor(
    stage: RetrainConfig, per_epoch: float, position: CoursePosition | None
) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """Step → factor on the learning rate of all but the classifiers; None where there is one rate."""
    frozen, factor = round(stage.freeze_epochs * per_epoch), stage.trunk_rate_factor
    if not frozen and factor == 1.0:
        return None
    if position is None:
        return lambda step: tf.where(step < frozen, 0.0, factor)
    return lambda step: tf.where(position.recipe_step(step) < frozen, 0.0, factor)


def _save(
    folder: Path,
    weights: list[np.ndarray],
    architecture: Architecture,
    space: SearchSpace,
    info: data.DatasetInfo,
    retrain: RetrainConfig,
) -> None:
    model = build_ensemble(architecture, space, dtype="float32")
    model.set_weights(weights)
    normalisation = info.normalisation.to_dict()
    temperature = None
    if retrain.calibrate:
        temperature = calibrated_temperature(model, info, retrain.evaluation_batch)
    model_store.save_model(
        folder, model, architecture, space, info.class_names, normalisation, temperature
    )
