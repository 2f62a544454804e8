"""The configuration of a whole run, as nested Model Garden dataclasses.

One experiment holds the four stages (supernet, search, retrain, export) with what they share
(space, data, runtime). Zeros and empty strings mean "work it out"; `resolve` does so.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from official.core import config_definitions as cfg
from official.modeling import hyperparams, optimization

from neas_tf.common.errors import check
from neas_tf.config.distillation import DistillationConfig, SupernetDistillationConfig
from neas_tf.config.export_settings import ExportConfig
from neas_tf.data.data_config import DataConfig
from neas_tf.search.fitness import CALIBRATED
from neas_tf.search.variation import SearchSettings
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.space.search_space import PAPER_STAGES, SearchSpace

SCALES = ("", "auto", "fitted")


@dataclasses.dataclass
class StageShape(hyperparams.Config):
    """One stage of the space: channels, number of layers, stride of the first.

    Attributes:
      operators: those of `space.operators` that its layers may use; empty means all.
    """

    channels: int = 0
    layers: int = 0
    stride: int = 1
    operators: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class SpaceConfig(hyperparams.Config):
    """`SearchSpace` as a config; see there. Classes and input size come from `data` where 0.

    Attributes:
      scale: `auto` chooses depth and widths, so that the search's upper bounds of MACs and parameters
        lie well inside what ensembles can have; name, stages, operators, split points and channels
        are then replaced, and `scale` becomes `fitted`. Empty takes them as they are.
    """

    scale: str = ""
    name: str = SearchSpace.name
    input_size: Any = dataclasses.field(default_factory=list)
    input_channels: int = 0
    num_classes: int = 0
    stem_channels: int = SearchSpace.stem_channels
    stem_kernel: int = SearchSpace.stem_kernel
    stem_stride: int = SearchSpace.stem_stride
    block_channels: int = SearchSpace.block_channels
    block_stride: int = SearchSpace.block_stride
    stages: list[StageShape] = dataclasses.field(
        default_factory=lambda: [
            StageShape(channels=s.channels, layers=s.layers, stride=s.stride) for s in PAPER_STAGES
        ]
    )
    operators: list[str] = dataclasses.field(default_factory=lambda: list(SearchSpace().operators))
    min_split: int = SearchSpace.min_split
    max_split: int = SearchSpace.max_split
    head_channels: int = SearchSpace.head_channels
    feature_channels: int = SearchSpace.feature_channels
    activation: str = SearchSpace.activation


@dataclasses.dataclass
class StageTrainerConfig(cfg.TrainerConfig):
    """Model Garden's trainer; zeros are worked out from the stage's epochs."""

    train_steps: int = 0
    steps_per_loop: int = 0
    summary_interval: int = 0
    checkpoint_interval: int = 0
    validation_interval: int = 0
    max_to_keep: int = 3
    train_tf_while_loop: bool = True


def _sgd(rate: float, momentum: float = 0.9) -> optimization.OptimizationConfig:
    return optimization.OptimizationConfig(
        {
            "optimizer": {"type": "sgd", "sgd": {"momentum": momentum}},
            "learning_rate": {
                "type": "polynomial",
                "polynomial": {
                    "initial_learning_rate": rate,
                    "end_learning_rate": 0.0,
                    "power": 1.0,
                    "decay_steps": 0,
                },
            },
            "warmup": {"type": None},
        }
    )


@dataclasses.dataclass
class StageConfig(hyperparams.Config):
    """What supernet training and retraining have in common.

    Attributes:
      epochs: passes over the stage's images; `trainer.train_steps` wins when it is set.
      warmup_epochs: linear warm-up from zero; `warmup.linear.warmup_steps` wins when it is set.
      batch_size: global, over all replicas.
      weight_decay: of kernels, never of biases, gamma or beta.
      label_smoothing: of the targets.
      augment, auto_augment, rand_augment, cutout: overrides the key of `data` for this stage.
      on_divergence: what happens when the loss explodes or is not finite: stop, or rollback to the
        last checkpoint with a lower learning rate.
      rollback_rate_factor: on the learning rate, with each rollback.
      max_rollbacks: of the stage; then it stops.
      max_loss: loss of a step, mean over the paths, above which it has exploded; 0 takes 100 times
        that of guessing, ln(classes).
      trainer: Model Garden's trainer and optimizer.
    """

    epochs: float = 0.0
    warmup_epochs: float = 0.0
    batch_size: int = 128
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augment: str = ""
    auto_augment: str = ""
    rand_augment: int = 0
    cutout: int = 0
    on_divergence: str = "stop"
    rollback_rate_factor: float = 0.5
    max_rollbacks: int = 3
    max_loss: float = 0.0
    trainer: StageTrainerConfig = dataclasses.field(default_factory=StageTrainerConfig)


@dataclasses.dataclass
class SupernetConfig(StageConfig):
    """Phase 1 (paper sections 3.4 and 4.1); the defaults are the ImageNet recipe.

    Attributes:
      init: empty for fresh weights, or a stored ensemble to start from, as a path (a model folder,
        the output of `neas convert` or a `.keras` file), as far as its operators fit the space.
      batch_norm_momentum: of the running statistics (the search recalculates its own).
      zero_init_residual: whether the gamma of an operator's last batch normalisation begins at 0
        where a residual connection passes the operator, which then begins as the identity.
      draws_per_step: D, ensembles that a step trains on the same images before one update, every
        operator of a layer equally often; their gradients are added up. A step costs D times as much.
      sandwich: whether the first two of them, of 3 or more, are the widest and the narrowest ensemble
        alive.
      distillation: what they learn from each other.
    """

    init: str = ""
    epochs: float = 120.0
    batch_size: int = 1024
    weight_decay: float = 4e-5
    batch_norm_momentum: float = 0.9
    zero_init_residual: bool = False
    draws_per_step: int = 1
    sandwich: bool = False
    distillation: SupernetDistillationConfig = dataclasses.field(
        default_factory=SupernetDistillationConfig
    )
    trainer: StageTrainerConfig = dataclasses.field(
        default_factory=lambda: StageTrainerConfig(optimizer_config=_sgd(0.5))
    )


@dataclasses.dataclass
class ShrinkConfig(hyperparams.Config):
    """Diversity-guided shrinking (paper section 3.2, Algorithm 1).

    Attributes:
      metric: diversity, accuracy or none.
      every_epochs: training between two shrinks; 0 never shrinks.
      remove: k, combinations dropped at a time, over all layers.
      num_samples: Z, ensembles measured at a time.
      images: size of the part of the training set that they are measured on.
      batch_size: images of one forward pass of the measurement.
      beta: β of Eq. 5, or `auto` for 1 / median distance.
      gamma: γ in r = γ · accuracy^p; it cancels in every ranking.
      quality_power: p in r = γ · accuracy^p; larger puts quality before diversity.
      min_pair_count: every alive pair of operators is seen at least so often; a combination that
        rests on less is not dropped.
      shrink_shared_layers: whether layers that never split lose operators too, ranked by r² among
        themselves: of those alive the same share as `remove` is of the combinations alive.
      min_combinations: T, stop as soon as the layers that can split have no more combinations.
      batch_norm: `batch` normalises measured images with the moments of their own batch, as training
        does; `recalculated` with the moments of all measured images, as the search does.
      count_orders: whether `remove` counts a combination once for each order of its operators, as
        the paper's A_N^K does, so that for K = 2 half as many go at a time.
    """

    metric: str = ShrinkSettings.metric
    every_epochs: float = 20.0
    remove: int = ShrinkSettings.remove
    num_samples: int = ShrinkSettings.num_samples
    images: int = 512
    batch_size: int = 128
    beta: Any = ShrinkSettings.beta
    gamma: float = ShrinkSettings.gamma
    quality_power: float = ShrinkSettings.quality_power
    min_pair_count: int = ShrinkSettings.min_pair_count
    shrink_shared_layers: bool = ShrinkSettings.shrink_shared_layers
    min_combinations: int = ShrinkSettings.min_combinations
    batch_norm: str = ShrinkSettings.batch_norm
    count_orders: bool = ShrinkSettings.count_orders


@dataclasses.dataclass
class SearchConfig(hyperparams.Config):
    """Phase 2 (paper section 3.4, Algorithm 2).

    Attributes:
      method: evolution or random.
      fitness: what counts as better: log_likelihood_calibrated, log_likelihood,
        log_likelihood_mixture, accuracy (the paper's), ranks, or halving (docs/method.md, Search); all numbers are recorded.
      objective: accuracy, or pareto: the ensembles that no other beats in accuracy and cost breed,
        and are kept in search/pareto.json; the winner is the fittest one all the same. Accuracy is the
        `fitness` here.
      pareto_cost: macs, params or latency (which needs a `latency_table`), for `objective: pareto`.
      pareto_objectives: accuracy and cost, perhaps with disagreement (of the paths, mean over the
        held-out images; more is better), for `objective: pareto`.
      population: new ensembles a generation.
      parents: the best so far that breed.
      generations: populations scored, the random first one included.
      crossover, mutation: children by it in a generation; −1 is half the population.
      split_probability: P_s, of a split point that mutates.
      layer_probability: P_m, of a layer that mutates.
      even_splits: random ensembles spread evenly over the split points that fit the budget;
        otherwise as in training, which under a tight budget gives hardly any early split.
      seed: −1 takes the run's.
      max_macs, min_macs: multiply-accumulates of the whole ensemble, a count (`60M` is read too); 0
        is no bound.
      max_params: trainable parameters, a count; 0 is no bound.
      max_latency_ms: milliseconds that `latency_table` predicts for one image; 0 is no bound.
      latency_table: file that `python -m neas_tf.measure_latency` wrote on the target machine.
      constraints: further bounds, `function<=bound` or `function>=bound` each, on what a shipped
        function (`peak_activation_bytes`, `file_size_int8`, …) or one of yours, `module:function`,
        says of an ensemble (docs/constraints.md).
      calibration_images: training images for the BN recalculation.
      calibration_batch: of the BN recalculation; a rest smaller than this is left out.
      validation_images: held-out images for the accuracy; 0 takes all of them.
      batch_size: of the accuracy's forward passes.
      looks: with `fitness: halving`, evaluations of the best, each of half as many candidates.
    """

    method: str = SearchSettings.method
    fitness: str = CALIBRATED
    objective: str = SearchSettings.objective
    pareto_cost: str = SearchSettings.pareto_cost
    pareto_objectives: list[str] = dataclasses.field(
        default_factory=lambda: list(SearchSettings.pareto_objectives)
    )
    population: int = SearchSettings.population
    parents: int = SearchSettings.parents
    generations: int = SearchSettings.generations
    crossover: int = -1
    mutation: int = -1
    split_probability: float = SearchSettings.split_probability
    layer_probability: float = SearchSettings.layer_probability
    even_splits: bool = True
    seed: int = -1
    max_macs: int = 0
    min_macs: int = 0
    max_params: int = 0
    max_latency_ms: float = 0.0
    latency_table: str = ""
    constraints: list[str] = dataclasses.field(default_factory=list)
    calibration_images: int = 2048
    calibration_batch: int = 128
    validation_images: int = 0
    batch_size: int = 500
    looks: int = 3


@dataclasses.dataclass
class RetrainConfig(StageConfig):
    """Training of the found ensemble (paper section 4.1).

    Attributes:
      architecture: zoo name, JSON path, official list or canonical string; empty takes the
        search's winner.
      init: the weights to start from: auto, scratch, supernet (the trained supernet's, with BN
        statistics recalculated on `search.calibration_images`), or a stored ensemble of the same
        architecture as a path (a model folder, the output of `neas convert`, a `.keras` or
        `.weights.h5` file), whose classes and input size may be others; auto is scratch, but under a
        `time_limit` that leaves less than a fifth of the supernet's epochs it is supernet.
      freeze_epochs: at the beginning, in which only the classifiers train.
      trunk_rate_factor: on the learning rate of everything but the classifiers, 0 to 1.
      calibrate: whether the held-out images (`data.search_fraction`) stay out of the training and a
        temperature for the ensemble's logits is fitted on them after it (docs/uncertainty.md).
      distillation: a teacher's part in the loss.
      dropout: before each classifier.
      batch_norm_momentum: of the running statistics.
      evaluation_batch: images of one forward pass on the test split.
    """

    epochs: float = 350.0
    warmup_epochs: float = 10.0
    batch_size: int = 2048
    weight_decay: float = 1e-5
    label_smoothing: float = 0.1
    dropout: float = 0.2
    architecture: str = ""
    init: str = "auto"
    freeze_epochs: float = 0.0
    trunk_rate_factor: float = 1.0
    calibrate: bool = False
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    batch_norm_momentum: float = 0.99
    evaluation_batch: int = 250
    trainer: StageTrainerConfig = dataclasses.field(
        default_factory=lambda: StageTrainerConfig(
            optimizer_config=optimization.OptimizationConfig(
                {
                    "optimizer": {
                        "type": "rmsprop",
                        "rmsprop": {"rho": 0.9, "momentum": 0.9, "epsilon": 1e-3},
                    },
                    "ema": {"average_decay": 0.9999, "trainable_weights_only": False},
                    "learning_rate": {
                        "type": "cosine",
                        "cosine": {"initial_learning_rate": 0.064, "decay_steps": 0},
                    },
                    "warmup": {
                        "type": "linear",
                        "linear": {"warmup_learning_rate": 0.0, "warmup_steps": 0},
                    },
                }
            )
        )
    )


@dataclasses.dataclass
class WorkersConfig(hyperparams.Config):
    """How the processes of `multi_worker_mirrored` wait for one another.

    Attributes:
      start_seconds: for the last one to come, at the start; then the others end.
    """

    start_seconds: int = 600


@dataclasses.dataclass
class NeasConfig(hyperparams.Config):
    """A whole run.

    Attributes:
      seed: everything random derives from it.
      num_paths: K.
      heterogeneous: whether a layer's combination holds K different operators.
      time_limit: of the whole run, over all sessions, such as 2h, 20min or 300 (seconds); the lengths
        of the stages are then planned from measured steps. Empty is none.
    """

    seed: int = 0
    num_paths: int = 2
    heterogeneous: bool = True
    time_limit: Any = ""
    runtime: cfg.RuntimeConfig = dataclasses.field(
        default_factory=lambda: cfg.RuntimeConfig(distribution_strategy="one_device")
    )
    workers: WorkersConfig = dataclasses.field(default_factory=WorkersConfig)
    space: SpaceConfig = dataclasses.field(default_factory=SpaceConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    supernet: SupernetConfig = dataclasses.field(default_factory=SupernetConfig)
    shrink: ShrinkConfig = dataclasses.field(default_factory=ShrinkConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    retrain: RetrainConfig = dataclasses.field(default_factory=RetrainConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)


def search_space(config: SpaceConfig) -> SearchSpace:
    """The space that a (resolved) config describes."""
    check(config.scale in SCALES, "space.scale", config.scale, "'auto', or nothing")
    return SearchSpace.from_dict(config.as_dict())
