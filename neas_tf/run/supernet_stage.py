"""Stage 1: supernet training, alternating with shrinking (paper section 3.4, Algorithm 1)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import config_definitions as cfg

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import literal_path
from neas_tf.config.resolve import resolve_steps, shrink_boundaries, with_augmentation
from neas_tf.config.settings import NeasConfig, SupernetConfig
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity, bounds_of
from neas_tf.run.parts.measuring import forward_functions, measure, training_part
from neas_tf.run.parts.pacing import SupernetPace
from neas_tf.run.parts.spans import drawn, train_paced, train_span
from neas_tf.run.parts.time_limit import TimePlan
from neas_tf.run.preflight import search_costs, shrink_settings
from neas_tf.run.record import timed
from neas_tf.shrinking.shrink import shrink
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches
from neas_tf.training import checkpoints
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.divergence import Watch, train_or_go_back
from neas_tf.training.initial_weights import digest_of_stored, read_weights, start_supernet
from neas_tf.training.optimizers import averages_in_place, take_averages
from neas_tf.training.paced import planned_rate
from neas_tf.training.rollbacks import OnDivergence, Rollback
from neas_tf.training.tasks import SupernetTask, SupernetTaskConfig
from neas_tf.training.training_loop import TrainingLoop

# Says that the stage is finished: what the last shrink left alive.
FINAL = Path("shrink") / "alive.json"
_MAX_DRAWS = 8192


def check_supernet(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    alone: bool = False,
) -> None:
    """Refuses, without writing, a folder with the supernet of other settings, or half of one."""
    del cluster, alone  # It is the first stage.
    finished = (model_dir / FINAL).exists()
    # A shrink keeps an ensemble inside the budget; after the last one it is the search's alone.
    table, _ = search_costs(config, space)
    identity = Identity("supernet", config, model_dir, info)
    extra: dict[str, Any] = {} if finished else {"budget": bounds_of(config, table)}
    identity.check(extra | _started_from(config, identity, finished))
    if config.supernet.init and not identity.path.exists():
        stored = read_weights(config.supernet.init, "supernet.init")
        start_supernet(fresh_supernet(config, space), stored, info.class_names)
    if finished and not latest_step(model_dir / "supernet"):
        raise NeasError(
            f"model_dir: {str(model_dir / 'shrink')!r} is there without the checkpoints of "
            "'supernet'; move it away or choose another folder."
        )


def train_supernet(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    plan: TimePlan | None = None,
) -> ShrunkSpace:
    """Trains and shrinks until all steps are done; resumes from the newest checkpoint.

    Args:
      config, model_dir, info, space, cluster: of the run.
      plan: of its time, where that is limited.

    Returns:
      The shrunk space, also in `shrink/alive.json`.
    """
    folder, final = model_dir / "supernet", model_dir / FINAL
    check_supernet(config, model_dir, info, space, cluster)
    table, budget = search_costs(config, space)
    if not final.exists():
        identity = Identity("supernet", config, model_dir, info)
        extra = {"budget": bounds_of(config, table), **_started_from(config, identity)}
        identity.record(extra, cluster.is_chief)
    part = training_part(config)
    examples = info.sizes[part]
    stage = resolve_steps(config.supernet, examples, "supernet")
    recipe, per_epoch = stage.trainer.train_steps, examples / stage.batch_size
    total = recipe if plan is None else plan.course("supernet", recipe).total
    if cluster.is_chief:
        checkpoints.settle(folder)
    cluster.barrier()
    full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
    # The last checkpoint may have been damaged after the stage had ended.
    if final.exists() and latest_step(folder) >= total:
        shrunk = ShrunkSpace.from_dict(read_json(final, "shrink/alive.json"), space)
        console.heading("Supernet", f"finished before: {_alive(shrunk, full)}")
        return shrunk
    boundaries = shrink_boundaries(config.shrink.every_epochs, per_epoch, recipe)
    _announce(config, full, recipe, per_epoch, boundaries)
    pace: SupernetPace | None = None
    if plan is not None:
        pace = SupernetPace(config, info, plan, recipe, per_epoch, cluster, boundaries)
    diverging = OnDivergence.of(stage, space.num_classes, "supernet")

    xla = config.runtime.enable_xla
    # A model more only after a rollback.
    functions = functools.cache(
        functools.partial(
            forward_functions,
            xla=xla,
            normalisation=info.normalisation,
            runner=cluster.replicas,
        )
    )

    def next_space(index: int, step: int, model: Supernet, shrunk: ShrunkSpace) -> ShrunkSpace:
        path = model_dir / "shrink" / f"shrink_{index:02d}.json"
        due = cluster.is_chief and not path.exists() and _is_due(config, shrunk)
        if due and not (pace and pace.skips(index)):
            begin = time.monotonic()
            settings = shrink_settings(config)
            measurements = measure(functions(model), shrunk, settings, info, config, index)
            _, report = shrink(
                shrunk,
                measurements,
                settings,
                lambda smaller: budget.attainable(smaller, table),
                index=index,
                step=step,
                epoch=step / per_epoch,
            )
            write_json_atomic(path, report)
            if pace:
                pace.took(time.monotonic() - begin)
        # Other workers read the chief's report: rounding on another machine could decide otherwise.
        cluster.barrier()
        return _read_shrink(path, index, step, shrunk) if path.exists() else shrunk

    def train(rollbacks: tuple[Rollback, ...]) -> ShrunkSpace:
        with cluster.strategy.scope(), safe_switches():
            loop = supernet_loop(config, stage, info, space, folder, diverging, rollbacks, pace)
            try:
                return _train(loop, boundaries, config.seed, next_space, pace)
            finally:
                loop.close()

    with timed(model_dir, "supernet", cluster.is_chief):
        shrunk = train_or_go_back(
            train, "supernet", folder, diverging, cluster.is_chief, cluster.barrier
        )
    if cluster.is_chief:
        write_json_atomic(final, shrunk.to_dict())
    console.say(f"   Trained: {_alive(shrunk, full)}, in {folder}")
    return shrunk


def _started_from(config: NeasConfig, identity: Identity, finished: bool = False) -> dict[str, str]:
    """The digest of the stored weights that the supernet starts from, where there are some."""
    if not config.supernet.init or finished:
        return {}
    return digest_of_stored(config.supernet.init, "supernet.init", identity.path)


def supernet_loop(
    config: NeasConfig,
    stage: SupernetConfig,
    info: data.DatasetInfo,
    space: SearchSpace,
    folder: Path,
    diverging: OnDivergence,
    rollbacks: tuple[Rollback, ...],
    pace: SupernetPace | None = None,
) -> TrainingLoop:
    """The supernet's training, at the newest checkpoint of its folder."""
    part, total = training_part(config), stage.trainer.train_steps
    task = _task(
        config,
        stage,
        space,
        min(total, _MAX_DRAWS // stage.draws_per_step),
        class_weights=data.class_weights(info, part),
        normalisation=info.normalisation,
    )
    model = task.build_model()
    if stage.init and not latest_step(folder):
        stored = read_weights(stage.init, "supernet.init")
        console.say(f"   It {start_supernet(model, stored, info.class_names)}.")
    position = pace.begin() if pace else None
    optimizer = task.create_masked_optimizer(
        model,
        stage.trainer.optimizer_config,
        config.runtime,
        rollbacks,
        lambda rate: planned_rate(rate, position),
    )
    augmented = with_augmentation(info, stage)
    return TrainingLoop(
        cfg.ExperimentConfig(
            task=SupernetTaskConfig(), trainer=stage.trainer, runtime=config.runtime
        ),
        task,
        model,
        optimizer,
        lambda first, context: data.make_dataset(
            augmented,
            part,
            stage.batch_size,
            training=True,
            seed=config.seed,
            start_step=first,
            drop_remainder=True,
            input_context=context,
            pixels=True,
        ),
        folder,
        info.sizes[part] / stage.batch_size,
        "supernet",
        Watch(diverging, lambda step: drawn(task, step)),
        pace.note if pace else str,
        paced=pace is not None,
    )


def _task(
    config: NeasConfig, stage: SupernetConfig, space: SearchSpace, capacity: int, **kwargs: Any
) -> SupernetTask:
    return SupernetTask(
        SupernetTaskConfig(),
        space,
        config.num_paths,
        stage,
        capacity=capacity,
        heterogeneous=config.heterogeneous,
        seed=config.seed,
        **kwargs,
    )


def _train(
    loop: TrainingLoop,
    boundaries: list[int],
    seed: int,
    next_space: Callable[[int, int, Supernet, ShrunkSpace], ShrunkSpace],
    pace: SupernetPace | None = None,
) -> ShrunkSpace:
    """Trains to the last step, and shrinks on the way; the boundaries are those of the recipe."""
    task, model = loop.trainer.task, loop.trainer.model
    shrunk = model.shrunk()
    for index, boundary in enumerate(boundaries, 1):
        if (pace.step_of(boundary) if pace else boundary) < loop.first_step:
            continue
        if pace:
            train_paced(loop, task, shrunk, functools.partial(pace.step_of, boundary), seed, pace)
        else:
            train_span(loop, task, shrunk, boundary, seed)
        with averages_in_place(loop.optimizer):
            shrunk = next_space(index, loop.step, model, shrunk)
        model.set_shrunk(shrunk)
    if pace:
        train_paced(loop, task, shrunk, lambda: pace.course.total, seed, pace)
    else:
        train_span(loop, task, shrunk, loop.total, seed)
    return shrunk


def _announce(
    config: NeasConfig, full: ShrunkSpace, total: int, per_epoch: float, boundaries: list[int]
) -> None:
    settings, space = shrink_settings(config), full.space
    plan = "no shrinking"
    if settings.metric != "none" and boundaries:
        plan = (
            f"{len(boundaries)} shrinks by {settings.metric}, {settings.remove} combinations each"
        )
    console.heading(
        "Supernet",
        f"space {space.name!r}: {space.num_layers} layers, {len(space.operators)} operators, "
        f"{config.num_paths} paths, {full.num_combinations:,} combinations",
        f"{total:,} steps of {config.supernet.batch_size} images ({total / per_epoch:.4g} epochs), "
        + plan,
    )


def _alive(shrunk: ShrunkSpace, full: ShrunkSpace) -> str:
    return f"{shrunk.num_combinations:,} of {full.num_combinations:,} combinations alive"


def load_shrunk(model_dir: Path, space: SearchSpace) -> ShrunkSpace:
    """The shrunk space that the stage left.

    Raises:
      NeasError: when the stage has not finished.
    """
    path = model_dir / FINAL
    if not path.exists() or not latest_step(model_dir / "supernet"):
        raise _unfinished(model_dir)
    return ShrunkSpace.from_dict(read_json(path, "shrink/alive.json"), space)


def load_supernet(config: NeasConfig, model_dir: Path, space: SearchSpace) -> Supernet:
    """The trained supernet of a run's folder, on this process' default device or in a strategy's scope.

    It has the averages of the weights, where the training kept some.

    Raises:
      NeasError: when the stage has not finished.
    """
    folder = model_dir / "supernet"
    path = tf.train.latest_checkpoint(literal_path(folder))
    if path is None or not (model_dir / FINAL).exists():
        raise _unfinished(model_dir)
    # With several workers not in their strategy's scope, where all of them would have to take part.
    parts: dict[str, Any] = {"model": fresh_supernet(config, space)}
    if config.supernet.trainer.optimizer_config.ema is not None:
        task = _task(config, config.supernet, space, 1)
        parts["model"] = model = task.build_model()
        parts["optimizer"] = task.create_masked_optimizer(
            model, config.supernet.trainer.optimizer_config, config.runtime
        )
    try:
        status = tf.train.Checkpoint(**parts).restore(path)
    except tf.errors.OpError as error:
        raise NeasError(
            f"checkpoint {str(folder / Path(path).name)!r}: is damaged "
            f"({checkpoints.reason_of(error)}); run --stage=supernet, which resumes from the last "
            "one that is whole."
        ) from None
    status.expect_partial().assert_existing_objects_matched()
    if "optimizer" in parts:
        take_averages(parts["optimizer"])
    return parts["model"]


def fresh_supernet(config: NeasConfig, space: SearchSpace) -> Supernet:
    """A supernet of these settings, not trained."""
    return Supernet(
        space,
        config.num_paths,
        heterogeneous=config.heterogeneous,
        momentum=config.supernet.batch_norm_momentum,
        seed=config.seed,
        name="supernet",
    )


def _unfinished(model_dir: Path) -> NeasError:
    return NeasError(
        f"stage: {str(model_dir)!r} holds no finished supernet; run --stage=supernet first."
    )


def _is_due(config: NeasConfig, shrunk: ShrunkSpace) -> bool:
    settings = shrink_settings(config)
    return settings.metric != "none" and shrunk.num_combinations > settings.min_combinations


def _read_shrink(path: Path, index: int, step: int, before: ShrunkSpace) -> ShrunkSpace:
    """The space that a shrink left, which depends on the checkpoint of `step` only."""
    report = read_json(path, "shrink report")
    if not isinstance(report, dict) or report.get("step") != step or "alive" not in report:
        raise NeasError(f"shrink report {str(path)!r}: is not the one of step {step}.")
    shrunk = ShrunkSpace.from_dict(report["alive"], before.space)
    console.say(
        f"   Shrink {index} at step {step:,}: {before.num_combinations:,} -> "
        f"{shrunk.num_combinations:,} combinations."
    )
    return shrunk
