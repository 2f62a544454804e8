"""Checks every stage's settings before the first one starts: none may fail after hours."""

from __future__ import annotations

import dataclasses
from typing import Any

from official.modeling import optimization

from neas_tf.common.errors import NeasError, check, check_int, check_share, fail, unknown_name
from neas_tf.config.distillation import ENSEMBLE, PATHS, WIDEST, DistillationConfig
from neas_tf.config.export_settings import ExportConfig
from neas_tf.config.resolve import resolve_steps, retrain_part, with_augmentation
from neas_tf.config.settings import (
    NeasConfig,
    RetrainConfig,
    StageConfig,
    SupernetConfig,
)
from neas_tf.cost.budget import Budget, latency_bound
from neas_tf.cost.constraints import Constraints, load_constraints
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import LatencyTable, load_table
from neas_tf.data import DatasetInfo
from neas_tf.export.tflite.outputs import check_outputs
from neas_tf.run.parts.time_limit import parse_limit
from neas_tf.search.variation import DISAGREEMENT, SearchSettings
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.space import zoo
from neas_tf.space.search_space import SearchSpace
from neas_tf.training.initial_weights import AUTO, SCRATCH
from neas_tf.training.optimizers import check_supernet_optimizer, check_trunk_factor
from neas_tf.training.rollbacks import OnDivergence
from neas_tf.uncertainty.temperature import check_examples

EXPORT_FORMATS = (
    "tflite",
    "tflite_float16",
    "tflite_dynamic",
    "tflite_int8",
    "tflite_int8_qat",
    "tflite_pruned",
    "saved_model",
    "keras",
)
_COUNTS = {
    "workers": {"start_seconds": 1},
    "shrink": {"images": 1, "batch_size": 1},
    "search": {
        "calibration_images": 1,
        "calibration_batch": 1,
        "validation_images": 0,
        "looks": 1,
        "batch_size": 1,
        "crossover": -1,
        "mutation": -1,
        "seed": -1,
    },
    "retrain": {"evaluation_batch": 1},
    "export": {
        "parity_examples": 1,
        "calibration_images": 1,
        "test_examples": 0,
        "fine_tune_batch": 1,
    },
}
_MOST_DRAWS = 64  # of a step
_TRAINER_COUNTS = {
    "train_steps": 0,
    "steps_per_loop": 0,
    "summary_interval": 0,
    "checkpoint_interval": 0,
    "validation_interval": 0,
    "max_to_keep": 1,
}


def check_settings(
    config: NeasConfig, info: DatasetInfo, space: SearchSpace, num_replicas: int = 1
) -> None:
    """Raises for the first setting that a stage would refuse later.

    Args:
      config: of the run.
      info: the data.
      space: the resolved space.
      num_replicas: that share a batch.

    Raises:
      NeasError: names the field, what was received and what is expected.
    """
    check_int("seed", config.seed, 0, (1 << 31) - 2)
    parse_limit(config.time_limit)
    scale = config.runtime.loss_scale
    check(
        not isinstance(scale, str) or scale == "dynamic",
        "runtime.loss_scale",
        scale,
        "'dynamic' or a number",
    )
    _check_xla(config, num_replicas)
    for section, fields in _COUNTS.items():
        for field, low in fields.items():
            check_int(f"{section}.{field}", getattr(getattr(config, section), field), low)
    part = "supernet" if config.data.search_fraction else "train"
    _check_stage("supernet", config.supernet, info.sizes[part], num_replicas)
    if config.retrain.calibrate:
        check_examples(info.sizes["search"])
    images = info.sizes[retrain_part(config.retrain)]
    _check_stage("retrain", config.retrain, images, num_replicas)
    for name in ("supernet", "retrain"):
        OnDivergence.of(getattr(config, name), space.num_classes, name)
        try:
            with_augmentation(info, getattr(config, name))
        except NeasError as error:
            raise NeasError(f"{name}: {error}") from None
    check_supernet_optimizer(config.supernet.trainer.optimizer_config)
    _check_draws(config)
    _check_start(config.retrain, images)
    every = config.shrink.every_epochs
    check(every >= 0, "shrink.every_epochs", every, "0 (never) or more")
    shrink_settings(config)
    search_settings(config)
    _check_export(config.export, info.sizes["train"])
    if config.retrain.architecture:
        try:
            zoo.load_architecture(config.retrain.architecture, space)
        except NeasError as error:
            raise NeasError(f"retrain.architecture: {error}") from None
    _check_distillation(config, space)
    _check_outputs(config, space)


def _check_xla(config: NeasConfig, num_replicas: int) -> None:
    """`enable_xla` is carried out, or refused: a compiled step cannot leave for the others' gradients."""
    runtime = config.runtime
    if runtime.enable_xla and num_replicas > 1 and not runtime.num_gpus and not runtime.tpu:
        raise NeasError(
            f"runtime.enable_xla: received true with {num_replicas} CPU devices, expected one "
            "device, GPUs (runtime.num_gpus) or a TPU."
        )
    if runtime.enable_xla and runtime.mixed_precision_dtype == "float16":
        raise NeasError(
            "runtime.enable_xla: received true with runtime.mixed_precision_dtype 'float16', "
            "expected 'bfloat16' or 'float32' (the scale of the loss changes outside of a compiled step)."
        )


def _check_start(retrain: RetrainConfig, images: int) -> None:
    """What a retraining does with the weights that it starts from; not whether they are there."""
    check(
        bool(retrain.init.strip()),
        "retrain.init",
        retrain.init,
        "auto, scratch, supernet or a path",
    )
    factor, frozen = retrain.trunk_rate_factor, retrain.freeze_epochs
    check(0.0 <= factor <= 1.0, "retrain.trunk_rate_factor", factor, "a number from 0 to 1")
    check(frozen >= 0.0, "retrain.freeze_epochs", frozen, "0 or more")
    if not frozen and factor == 1.0:
        return
    check_trunk_factor(retrain.trainer.optimizer_config, "retrain.trunk_rate_factor")
    if retrain.init in (AUTO, SCRATCH):
        name, value = ("freeze_epochs", frozen) if frozen else ("trunk_rate_factor", factor)
        raise NeasError(
            f"retrain.{name}: received {value:g} with retrain.init {retrain.init!r}, expected "
            "'supernet' or a path there: fresh weights must train."
        )
    steps = resolve_steps(retrain, images, "retrain").trainer.train_steps
    epochs = steps * retrain.batch_size / images
    check(
        frozen <= epochs,
        "retrain.freeze_epochs",
        frozen,
        f"at most the {epochs:.4g} of retrain.epochs",
    )


def _check_draws(config: NeasConfig) -> None:
    """How many ensembles a step of the supernet trains, and what they learn from each other."""
    stage, where = config.supernet, "supernet.distillation"
    check_int("supernet.draws_per_step", stage.draws_per_step, 1, _MOST_DRAWS)
    if stage.sandwich and stage.draws_per_step < 3:
        wanted = "3 or more with supernet.sandwich: the widest, the narrowest and random ones"
        fail("supernet.draws_per_step", stage.draws_per_step, wanted)
    lessons = stage.distillation
    _check_lessons(lessons, where)
    if lessons.teacher not in ("", ENSEMBLE, WIDEST):
        fail(f"{where}.teacher", lessons.teacher, f"'{ENSEMBLE}', '{WIDEST}' or nothing")
    if lessons.teacher == ENSEMBLE and config.num_paths < 2:
        fail(f"{where}.teacher", ENSEMBLE, "num_paths of 2 or more, whose mean can teach")
    if lessons.teacher == WIDEST and not stage.sandwich:
        fail(f"{where}.teacher", WIDEST, "supernet.sandwich, which draws the widest ensemble")


def _check_lessons(lessons: DistillationConfig, where: str) -> None:
    """Numbers of a teacher's part."""
    check(0 <= lessons.weight <= 1, f"{where}.weight", lessons.weight, "a number from 0 to 1")
    heat = lessons.temperature
    check(0 < heat < 1e6, f"{where}.temperature", heat, "a number above 0")


def _check_distillation(config: NeasConfig, space: SearchSpace) -> None:
    """Numbers of a teacher's part; what a teacher is, the retraining's check says."""
    lessons, where = config.retrain.distillation, "retrain.distillation"
    _check_lessons(lessons, where)
    paths, named = config.num_paths, config.retrain.architecture
    if named:
        paths = zoo.load_architecture(named, space).num_paths
    if lessons.teacher == PATHS and paths < 2:
        fail(f"{where}.teacher", PATHS, "2 paths or more, which can teach each other")


def shrink_settings(config: NeasConfig) -> ShrinkSettings:
    """The settings of Algorithm 1 from the config."""
    names = [field.name for field in dataclasses.fields(ShrinkSettings)]
    return ShrinkSettings(**{name: getattr(config.shrink, name) for name in names})


def search_settings(config: NeasConfig) -> SearchSettings:
    """The settings of Algorithm 2 from the config."""
    names = [field.name for field in dataclasses.fields(SearchSettings)]
    values = {name: getattr(config.search, name) for name in names}
    for name in ("crossover", "mutation"):
        values[name] = None if values[name] < 0 else values[name]
    if values["seed"] < 0:
        values["seed"] = config.seed
    values["pareto_objectives"] = tuple(values["pareto_objectives"])
    if DISAGREEMENT in values["pareto_objectives"] and config.num_paths < 2:
        fail("search.pareto_objectives", DISAGREEMENT, "num_paths of 2 or more, which can disagree")
    return SearchSettings(**values)


def search_budget(config: NeasConfig) -> Budget:
    """The bounds of the search from the config, without those of its constraints."""
    search = config.search
    return Budget(
        search.max_macs, search.min_macs, search.max_params, latency_bound(search.max_latency_ms)
    )


def search_constraints(config: NeasConfig, space: SearchSpace) -> Constraints:
    """The constraints of the search, each tried on an ensemble of the space.

    Raises:
      NeasError: for one that cannot be had or gives no number.
    """
    return load_constraints(config.search.constraints, space, config.num_paths)


def search_costs(config: NeasConfig, space: SearchSpace) -> tuple[CostTable, Budget]:
    """What ensembles of a space cost, and the search's bounds on that.

    Raises:
      NeasError: for a bound without sense, a latency table that cannot be read, or a constraint
        that cannot be had.
    """
    constraints = search_constraints(config, space)
    table = CostTable(space, search_latency(config, space), constraints.columns)
    return table, dataclasses.replace(search_budget(config), others=constraints.limits())


def search_latency(config: NeasConfig, space: SearchSpace) -> LatencyTable | None:
    """The latency table that the config names, None where it names none.

    Raises:
      NeasError: for a table that is needed and not named, cannot be read or is not the space's.
    """
    search = config.search
    if not search.latency_table:
        needs: dict[str, Any] = {"max_latency_ms": search.max_latency_ms}
        if search.objective == "pareto" and search.pareto_cost == "latency":
            needs["pareto_cost"] = search.pareto_cost
        for field, value in needs.items():
            if value:
                raise NeasError(
                    f"search.{field}: received {value!r} without a search.latency_table that "
                    "predicts latencies; measure one on the target with "
                    "python -m neas_tf.measure_latency."
                )
        return None
    table = load_table(search.latency_table, "search.latency_table")
    return table.check_fits(space, config.num_paths)


def _check_stage(name: str, stage: StageConfig, images: int, num_replicas: int) -> None:
    """One training stage: sizes, rates, trainer and optimizer."""
    for field, high in _rates(stage).items():
        value = getattr(stage, field)
        check(0 <= value < high, f"{name}.{field}", value, f"a number in [0, {high})")
    check(stage.epochs >= 0, f"{name}.epochs", stage.epochs, "0 or more")
    check(stage.warmup_epochs >= 0, f"{name}.warmup_epochs", stage.warmup_epochs, "0 or more")
    check(
        stage.batch_size % num_replicas == 0,
        f"{name}.batch_size",
        stage.batch_size,
        f"a multiple of the {num_replicas} replicas",
    )
    for field, low in _TRAINER_COUNTS.items():
        check_int(f"{name}.trainer.{field}", getattr(stage.trainer, field), low)
    trainer = resolve_steps(stage, images, name).trainer
    check(
        trainer.summary_interval % trainer.steps_per_loop == 0,
        f"{name}.trainer.summary_interval",
        trainer.summary_interval,
        f"a multiple of steps_per_loop = {trainer.steps_per_loop}",
    )
    _check_optimizer(f"{name}.trainer.optimizer_config", trainer.optimizer_config)


def _check_outputs(config: NeasConfig, space: SearchSpace) -> None:
    """What the graphs of `export` give; which formats there are is checked before."""
    export, named = config.export, config.retrain.architecture
    if not export.outputs and not export.calibrated:
        return
    if "keras" in export.formats:
        what = "outputs" if export.outputs else "calibrated"
        expected = "formats without 'keras', whose file has logits and probabilities as they are"
        fail(f"export.{what}", getattr(export, what), expected)
    paths = zoo.load_architecture(named, space).num_paths if named else config.num_paths
    check_outputs(export.outputs, paths, field="export.outputs")
    if export.calibrated and not config.retrain.calibrate:
        fail(
            "export.calibrated", True, "retrain.calibrate=true with it, which fits the temperature"
        )


def _check_export(export: ExportConfig, images: int) -> None:
    """Formats, and the settings of those that train the model on."""
    for name in export.formats:
        if name not in EXPORT_FORMATS:
            unknown_name("export.formats", name, EXPORT_FORMATS)
    if not {"tflite_int8_qat", "tflite_pruned"} & set(export.formats):
        return
    batch = export.fine_tune_batch
    check(batch <= images, "export.fine_tune_batch", batch, f"1 to {images}, the training images")
    steps = round(export.fine_tune_epochs * images / batch)
    epochs = export.fine_tune_epochs
    check(steps >= 1, "export.fine_tune_epochs", epochs, "a number that makes a step or more")
    rate = export.fine_tune_rate
    check(0 <= rate < 1, "export.fine_tune_rate", rate, "0 (the default) or a rate below 1")
    check_share("export.sparsity", export.sparsity)


def _rates(stage: StageConfig) -> dict[str, Any]:
    limits: dict[str, Any] = {"weight_decay": 1e6, "label_smoothing": 1.0}
    if isinstance(stage, (SupernetConfig, RetrainConfig)):
        limits["batch_norm_momentum"] = 1.0
    if isinstance(stage, RetrainConfig):
        limits["dropout"] = 1.0
    return limits


def _check_optimizer(field: str, config: optimization.OptimizationConfig) -> None:
    """Builds schedule and optimizer once, for Model Garden checks them nowhere else."""
    for part in ("optimizer", "learning_rate"):
        if getattr(config, part).type is None:
            raise NeasError(f"{field}.{part}.type: received None, expected the name of one.")
    for part in ("learning_rate", "warmup"):
        chosen = getattr(config, part)
        values = chosen.get().as_dict() if chosen.type else {}
        missing = [k for k, v in values.items() if v is None and k != "staircase"]
        if missing:
            names = ", ".join(f"{part}.{chosen.type}.{name}" for name in missing)
            raise NeasError(f"{field}: received nothing for {names}, expected a value.")
    try:
        factory = optimization.OptimizerFactory(config)
        factory.build_optimizer(factory.build_learning_rate())
    except Exception as error:  # Whatever Model Garden stumbles over is in the settings.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NeasError(f"{field}: not usable ({reason}).") from None
