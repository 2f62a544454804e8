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
from neas_tf.config.settings import StageConfig
from neas_tf.ensemble import store as model_store
from neas_tf.ensemble.confusion import CONFUSION_FILE, Confusion
from neas_tf.ensemble.model import build_ensemble
from neas_tf.report import write_report
from neas_tf.run.context import Run
from neas_tf.space import zoo
from neas_tf.space.architecture import Architecture
from neas_tf.training import checkpoints
from neas_tf.training import optimizers as averaging
from neas_tf.training.accuracy import evaluate
from neas_tf.training.divergence import Watch, reduced_rate, train_or_go_back
from neas_tf.training.optimizers import create_slots, take_averages
from neas_tf.training.rollbacks import OnDivergence, Rollback
from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig
from neas_tf.training.training_loop import TrainingLoop

RESULTS_FILE = Path("retrain") / "results.json"


def chosen_architecture(run: Run) -> Architecture:
    """`retrain.architecture`, or the search's winner.

    Raises:
      NeasError: when there is neither, or it does not lie in the space.
    """
    if run.config.retrain.architecture:
        return zoo.load_architecture(run.config.retrain.architecture, run.space)
    path = run.folder("search", "best.json")
    if not path.exists():
        raise NeasError(
            f"stage: {str(run.model_dir)!r} holds no finished search; run --stage=search first, or "
            "set retrain.architecture."
        )
    return Architecture.from_dict(read_json(path, "search/best.json")).check_in(run.space)


def check_retrain(run: Run, alone: bool) -> None:
    """Refuses, without writing, a folder with the retraining of something else.

    Args:
      run: the run.
      alone: whether the architecture must be known already.
    """
    known = run.config.retrain.architecture or run.folder("search", "best.json").exists()
    if alone or known:
        run.check_identity("retrain", {"architecture": chosen_architecture(run).key})
    else:
        run.check_identity("retrain")


def retrain(run: Run) -> dict[str, Any]:
    """Trains the ensemble on the whole training split and tests it once; resumes.

    Returns:
      The test results, also in `retrain/results.json`; the model is in `retrain/model`.
    """
    architecture = chosen_architecture(run)
    run.record_identity("retrain", {"architecture": architecture.key})
    results = run.model_dir / RESULTS_FILE
    cost = run.table.cost(architecture)
    what = f"{architecture.key}: {console.short_count(cost.macs)} MACs, {cost.params:,} parameters"
    if results.exists() and run.folder("retrain", "model").exists():
        test = read_json(results, "retrain/results.json")
        console.heading("Retrain", what, "finished before")
        console.say(f"   {_told(test)}")
        return test
    console.heading("Retrain", what, *_plan(run))
    with run.timed("retrain"):
        if not run.folder("retrain", "model").exists():
            if run.is_chief:
                _set_aside(run)
            _train(run, architecture)
        if run.is_chief:
            test, confusion = _test(run)
            write_json_atomic(run.model_dir / CONFUSION_FILE, confusion, indent=None)
            write_json_atomic(results, test)  # last: it says that the stage is finished
    run.barrier()
    test = read_json(results, "retrain/results.json")
    console.say(f"   {_told(test)}")
    return test


def _set_aside(run: Run) -> None:
    """Has the folder not show what belongs to a model that is gone as this training's own."""
    for name in (RESULTS_FILE, CONFUSION_FILE):
        path = run.model_dir / name
        if path.exists():
            earlier = path.with_suffix(".earlier.json")
            path.replace(earlier)
            console.say(
                f"   {path} is of a model that is not there; it is in {earlier.name!r} now."
            )
    summary = run.folder("report", "summary.json")
    shown: Any = {}
    if summary.exists():
        with contextlib.suppress(NeasError):
            shown = read_json(summary, "summary")
    if isinstance(shown, dict) and (shown.get("accuracy") or shown.get("exports")):
        write_report(run.model_dir, run.space)


def _test(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of `results.json` and of `confusion.json`."""
    model, info = model_store.load_model(run.folder("retrain", "model"))
    confusion = Confusion(run.space.num_classes, info.architecture.num_paths)
    batch = run.config.retrain.evaluation_batch
    test = evaluate(model, run.info, "test", batch, confusion.add)
    cost = run.table.cost(info.architecture)
    test |= {"architecture": info.architecture.key, "macs": cost.macs, "params": cost.params}
    test |= {"paper_flops": cost.paper_flops}
    return test, confusion.to_dict(run.info.class_names)


def _plan(run: Run) -> list[str]:
    if run.folder("retrain", "model").exists():
        return ["trained before, not tested yet"]
    examples = run.info.sizes["train"]
    stage = resolve_steps(run.config.retrain, examples, "retrain")
    steps = stage.trainer.train_steps
    return [
        f"from scratch on all {examples:,} training images: {steps:,} steps of {stage.batch_size} "
        f"({steps * stage.batch_size / examples:.4g} epochs)"
    ]


def _told(test: dict[str, Any]) -> str:
    paths = ", ".join(f"{accuracy:.2%}" for accuracy in test["path_accuracies"])
    return (
        f"Test accuracy {test['ensemble_accuracy']:.2%}, paths alone {paths} "
        f"({test['test_examples']:,} images)."
    )


def _train(run: Run, architecture: Architecture) -> None:
    """Trains to the last step and writes the model."""
    stage = resolve_steps(run.config.retrain, run.info.sizes["train"], "retrain")
    folder = run.folder("retrain")
    if run.is_chief:
        checkpoints.settle(folder)
    run.barrier()
    diverging = OnDivergence.of(stage, run.space.num_classes, "retrain")

    def train(rollbacks: tuple[Rollback, ...]) -> Any:
        return _trained_weights(run, architecture, stage, diverging, rollbacks)

    weights = train_or_go_back(train, "retrain", folder, diverging, run.is_chief, run.barrier)
    if run.is_chief:
        model = build_ensemble(architecture, run.space, dtype="float32")
        model.set_weights(weights)
        model_store.save_model(
            run.folder("retrain", "model"),
            model,
            architecture,
            run.space,
            run.info.class_names,
            run.info.normalisation.to_dict(),
        )


def _trained_weights(
    run: Run,
    architecture: Architecture,
    stage: StageConfig,
    diverging: OnDivergence,
    rollbacks: tuple[Rollback, ...],
) -> list[np.ndarray]:
    """Trains from the newest checkpoint to the last step; the averaged weights."""
    config, seed = run.config, run.config.seed
    examples = run.info.sizes["train"]
    info = with_augmentation(run.info, stage)
    # Generators with a state that the task puts into the checkpoint, so that dropout resumes exactly.
    tf_keras.backend.experimental.enable_tf_random_generator()
    tf_keras.utils.set_random_seed(seed)
    with run.strategy.scope():
        task = EnsembleTask(EnsembleTaskConfig(), architecture, run.space, stage, seed=seed)
        model = task.build_model()
        optimizer = averaging.create_optimizer(
            stage.trainer.optimizer_config,
            config.runtime,
            lambda rate: reduced_rate(rate, rollbacks),
        )
        create_slots(optimizer, model)
        experiment = cfg.ExperimentConfig(
            task=EnsembleTaskConfig(), trainer=stage.trainer, runtime=config.runtime
        )
        loop = TrainingLoop(
            experiment,
            task,
            model,
            optimizer,
            lambda first, context: data.make_dataset(
                info,
                "train",
                stage.batch_size,
                training=True,
                seed=seed + 1,
                start_step=first,
                drop_remainder=True,
                input_context=context,
            ),
            run.folder("retrain"),
            examples / stage.batch_size,
            "retrain",
            Watch(diverging, lambda step: architecture.key),
        )
        try:
            loop.train_to(stage.trainer.train_steps)
        finally:
            loop.close()
        take_averages(loop.optimizer)
        # On every worker: the running statistics are averaged over the replicas when read.
        return model.get_weights()
