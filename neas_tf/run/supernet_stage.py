"""Stage 1: supernet training, alternating with shrinking (paper section 3.4, Algorithm 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from official.core import config_definitions as cfg

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import literal_path
from neas_tf.config.resolve import resolve_steps, shrink_boundaries, with_augmentation
from neas_tf.config.settings import StageConfig
from neas_tf.run import cluster
from neas_tf.run.context import Run
from neas_tf.run.preflight import shrink_settings
from neas_tf.search.layer_functions import statistics_of
from neas_tf.shrinking.diversity import path_distances
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.shrinking.measurements import Measurements
from neas_tf.shrinking.shrink import shrink
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.grappler import safe_switches
from neas_tf.supernet.model import Supernet
from neas_tf.training import checkpoints
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.divergence import Watch, train_or_go_back
from neas_tf.training.rollbacks import OnDivergence, Rollback
from neas_tf.training.tasks import SupernetTask, SupernetTaskConfig
from neas_tf.training.training_loop import TrainingLoop

_TAG = 0x5C04E  # Keeps the random numbers of shrinking apart from those of other stages.
_MAX_DRAWS = 8192


def check_supernet(run: Run, alone: bool = False) -> None:
    """Refuses, without writing, a folder with the supernet of other settings, or half of one."""
    del alone  # It is the first stage.
    finished = run.folder("shrink", "alive.json").exists()
    # A shrink keeps an ensemble inside the budget; behind the last one it is the search's alone.
    run.check_identity("supernet", None if finished else {"budget": run.bounds})
    if run.folder("shrink", "alive.json").exists() and not latest_step(run.folder("supernet")):
        raise NeasError(
            f"model_dir: {str(run.folder('shrink'))!r} is there without the checkpoints of "
            "'supernet'; move it away or choose another folder."
        )


def train_supernet(run: Run) -> ShrunkSpace:
    """Trains and shrinks until all steps are done; goes on from the newest checkpoint.

    Returns:
      The shrunk space, also in `shrink/alive.json`.
    """
    final = run.folder("shrink", "alive.json")
    check_supernet(run)
    if not final.exists():
        run.record_identity("supernet", {"budget": run.bounds})
    config = run.config
    part = "supernet" if config.data.search_fraction else "train"
    examples = run.info.sizes[part]
    stage = resolve_steps(config.supernet, examples, "supernet")
    total, per_epoch = stage.trainer.train_steps, examples / stage.batch_size
    if run.is_chief:
        checkpoints.settle(run.folder("supernet"))
    run.barrier()
    # The last checkpoint may have been damaged after the stage had ended.
    if final.exists() and latest_step(run.folder("supernet")) >= total:
        shrunk = ShrunkSpace.from_dict(read_json(final, "shrink/alive.json"), run.space)
        console.heading("Supernet", f"finished before: {_alive(run, shrunk)}")
        return shrunk
    boundaries = shrink_boundaries(config.shrink.every_epochs, per_epoch, total)
    _announce(run, total, per_epoch, boundaries, shrink_settings(config))
    diverging = OnDivergence.of(stage, run.space.num_classes, "supernet")

    def train(rollbacks: tuple[Rollback, ...]) -> ShrunkSpace:
        return _train(run, stage, part, boundaries, diverging, rollbacks)

    with run.timed("supernet"):
        folder = run.folder("supernet")
        shrunk = train_or_go_back(train, "supernet", folder, diverging, run.is_chief, run.barrier)
    if run.is_chief:
        write_json_atomic(final, shrunk.to_dict())
    console.say(f"   Trained: {_alive(run, shrunk)}, in {run.folder('supernet')}")
    return shrunk


def _train(
    run: Run,
    stage: StageConfig,
    part: str,
    boundaries: list[int],
    diverging: OnDivergence,
    rollbacks: tuple[Rollback, ...],
) -> ShrunkSpace:
    """Trains from the newest checkpoint to the last step, and shrinks on the way."""
    config, seed, settings = run.config, run.config.seed, shrink_settings(run.config)
    info = with_augmentation(run.info, stage)
    total, per_epoch = stage.trainer.train_steps, run.info.sizes[part] / stage.batch_size
    with run.strategy.scope(), safe_switches():
        task = SupernetTask(
            SupernetTaskConfig(),
            run.space,
            config.num_paths,
            stage,
            capacity=min(total, _MAX_DRAWS),
            heterogeneous=config.heterogeneous,
            seed=seed,
        )
        model = task.build_model()
        optimizer = task.create_masked_optimizer(
            model, stage.trainer.optimizer_config, config.runtime, rollbacks
        )
        experiment = cfg.ExperimentConfig(
            task=SupernetTaskConfig(), trainer=stage.trainer, runtime=config.runtime
        )
        loop = TrainingLoop(
            experiment,
            task,
            model,
            optimizer,
            lambda first, context: data.make_dataset(
                info,
                part,
                stage.batch_size,
                training=True,
                seed=seed,
                start_step=first,
                drop_remainder=True,
                input_context=context,
            ),
            run.folder("supernet"),
            per_epoch,
            "supernet",
            Watch(diverging, lambda step: _drawn(run, task, step)),
        )
        try:
            shrunk = model.shrunk()
            for index, boundary in enumerate(boundaries, 1):
                if boundary < loop.first_step:
                    continue
                _train_span(loop, task, shrunk, boundary, seed)
                shrunk = _shrink(run, model, shrunk, settings, index, boundary, per_epoch)
                model.set_shrunk(shrunk)
            _train_span(loop, task, shrunk, total, seed)
        finally:
            loop.close()
    return shrunk


def _drawn(run: Run, task: SupernetTask, step: int) -> str:
    """The architecture that a step (0-based) of the draw table trains."""
    row = task.draws.rows[step - int(task.draws.first.numpy())]
    return Architecture.from_array(row.numpy(), run.space).key


def _announce(
    run: Run, total: int, per_epoch: float, boundaries: list[int], settings: ShrinkSettings
) -> None:
    config, space = run.config, run.space
    plan = "no shrinking"
    if settings.metric != "none" and boundaries:
        plan = (
            f"{len(boundaries)} shrinks by {settings.metric}, {settings.remove} combinations each"
        )
    console.heading(
        "Supernet",
        f"space {space.name!r}: {space.num_layers} layers, {len(space.operators)} operators, "
        f"{config.num_paths} paths, {run.full.num_combinations:,} combinations",
        f"{total:,} steps of {config.supernet.batch_size} images ({total / per_epoch:.4g} epochs), "
        + plan,
    )


def _alive(run: Run, shrunk: ShrunkSpace) -> str:
    return f"{shrunk.num_combinations:,} of {run.full.num_combinations:,} combinations alive"


def load_supernet(run: Run) -> Supernet:
    """The trained supernet of the run's folder, on this process' default device.

    Raises:
      NeasError: when the stage has not finished.
    """
    folder = run.folder("supernet")
    path = tf.train.latest_checkpoint(literal_path(folder))
    if path is None or not run.folder("shrink", "alive.json").exists():
        raise NeasError(
            f"stage: {str(run.model_dir)!r} holds no finished supernet; run --stage=supernet first."
        )
    # Not in the strategy's scope, where other workers would have to take part.
    model = Supernet(
        run.space,
        run.config.num_paths,
        heterogeneous=run.config.heterogeneous,
        momentum=run.config.supernet.batch_norm_momentum,
        seed=run.config.seed,
        name="supernet",
    )
    try:
        status = tf.train.Checkpoint(model=model).restore(path)
    except tf.errors.OpError as error:
        raise NeasError(
            f"checkpoint {str(folder / Path(path).name)!r}: is damaged ({checkpoints.reason_of(error)}); run "
            "--stage=supernet, which goes on from the last one that is whole."
        ) from None
    status.expect_partial().assert_existing_objects_matched()
    return model


def _train_span(loop: TrainingLoop, task: SupernetTask, shrunk: ShrunkSpace, end: int, seed: int):
    """Trains to a step; the architectures of the steps are drawn beforehand, as a table."""
    capacity = task.draws.capacity
    while (first := loop.step) < end:
        # Whole multiples, so that a resumed run has its logging intervals where they were.
        stop = min(end, (first // capacity + 1) * capacity)
        task.draws.fill(first, sampling.draws_for_steps(shrunk, seed, first, stop - first))
        cluster.agree_on_draws(tf.distribute.get_strategy(), task.draws.rows, first)
        loop.train_to(stop, save=stop == end)


def _shrink(
    run: Run,
    model: Supernet,
    shrunk: ShrunkSpace,
    settings: ShrinkSettings,
    index: int,
    step: int,
    steps_per_epoch: float,
) -> ShrunkSpace:
    """One shrink; its result depends on the checkpoint of `step` only.

    The chief measures and decides; other workers read its report, for rounding on another
    machine could decide differently.
    """
    path = run.folder("shrink", f"shrink_{index:02d}.json")
    before = shrunk.num_combinations
    due = settings.metric != "none" and before > settings.min_combinations
    if run.is_chief and due and not path.exists():
        measurements = measure(run, model, shrunk, settings, index)
        _, report = shrink(
            shrunk,
            measurements,
            settings,
            run.keeps_budget,
            index=index,
            step=step,
            epoch=step / steps_per_epoch,
        )
        write_json_atomic(path, report)
    run.barrier()
    if not path.exists():
        return shrunk
    report = read_json(path, "shrink report")
    if not isinstance(report, dict) or report.get("step") != step or "alive" not in report:
        raise NeasError(f"shrink report {str(path)!r}: is not the one of step {step}.")
    shrunk = ShrunkSpace.from_dict(report["alive"], run.space)
    console.say(
        f"   Shrink {index} at step {step:,}: {before:,} -> {shrunk.num_combinations:,} combinations."
    )
    return shrunk


def measure(
    run: Run, model: Supernet, shrunk: ShrunkSpace, settings: ShrinkSettings, index: int
) -> Measurements:
    """Distances and accuracies of sampled ensembles on a part of the training set (Eqs. 5, 7).

    BN normalises with the moments of each measured batch, or (`batch_norm: recalculated`) with
    those of all measured images, as the search does.
    """
    config = run.config.shrink
    rng = np.random.default_rng([run.config.seed, _TAG, index])
    ensembles = sampling.stratified(shrunk, rng, settings.num_samples, settings.min_pair_count)
    part = "supernet" if run.config.data.search_fraction else "train"
    images, labels = data.make_arrays(run.info, part, config.images, run.config.seed)
    size = min(config.batch_size, len(images))
    batches = [
        (tf.constant(images[i : i + size]), tf.constant(labels[i : i + size], tf.int64))
        for i in range(0, len(images) // size * size, size)
    ]

    @tf.function(autograph=False)
    def moments(x, architecture):
        # Mean and mean square: their means over equal batches are those of all images together.
        both = model(x, architecture).moments
        return tf.nest.map_structure(lambda m: tf.stack([m[0], m[1] + tf.square(m[0])]), both)

    def recalculated(architecture):
        if settings.batch_norm == "batch":
            return None
        each = [moments(x, architecture) for x, _ in batches]
        return tf.nest.map_structure(lambda *m: statistics_of(tf.add_n(m), len(m)), *each)

    @tf.function(autograph=False)
    def forward(x, y, architecture, statistics):
        output = model(x, architecture, statistics)
        correct = tf.equal(tf.argmax(output.logits, -1), y[None, :])
        return path_distances(output.features), tf.reduce_mean(tf.cast(correct, tf.float32), 1)

    codes, distances, accuracies = [], [], []
    with console.bar(f"shrink {index}", len(ensembles), "ensembles", leave=False) as bar:
        for ensemble in ensembles:
            code = ensemble.to_array(run.space)
            drawn = tf.constant(code)
            statistics = recalculated(drawn)
            parts = [forward(x, y, drawn, statistics) for x, y in batches]
            codes.append(code)
            distances.append(np.mean([d.numpy() for d, _ in parts], 0, dtype=np.float64))
            accuracies.append(np.mean([a.numpy() for _, a in parts], 0, dtype=np.float64))
            bar.update()
    return Measurements(np.stack(codes), np.stack(distances), np.stack(accuracies))
