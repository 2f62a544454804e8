"""What the benchmark of the supernet's step trains: spaces, batch sizes and drawn ensembles."""

from __future__ import annotations

import dataclasses

import numpy as np

from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement of the supernet's step.

    Attributes:
      name, label: for commands and for people.
      space: the search space.
      num_paths: K.
      batch_size: images a step.
    """

    name: str
    label: str
    space: SearchSpace
    num_paths: int
    batch_size: int

    def draws(self, count: int, seed: int = 0) -> np.ndarray:
        """The ensembles of the first steps of a training with that seed, int32 (n, 1 + K·d)."""
        return draws_for_steps(ShrunkSpace.full(self.space, self.num_paths), seed, 0, count)


def _strided(size: int, classes: int, stem: int, strides: tuple[int, ...]) -> SearchSpace:
    """The paper's 20 layers at width 1 with another input and other strides."""
    paper = SearchSpace()
    stages = tuple(
        Stage(stage.channels, stage.layers, stride)
        for stage, stride in zip(paper.stages, strides, strict=True)
    )
    return dataclasses.replace(
        paper,
        name=f"paper_{size}",
        input_size=(size, size),
        num_classes=classes,
        stem_stride=stem,
        stages=stages,
    )


# 64² with the paper's strides: maps of 32² (stem), 16², 8², 4², 4², 2².
# 32² with strides for CIFAR: maps of 32² (stem), 16², 16², 8², 8², 4², so that the widest
# depthwise convolutions are 16²×144, 16²×240, 8²×480, 8²×672 and 4²×960.
CASES = {
    case.name: case
    for case in (
        Case("k1", "K = 1, 64²", _strided(64, 1000, 2, (2, 2, 2, 1, 2)), 1, 32),
        Case("k2", "K = 2, 32²", _strided(32, 10, 1, (2, 1, 2, 1, 2)), 2, 64),
        # For tests: seconds instead of minutes.
        Case(
            "tiny",
            "K = 2, toy",
            SearchSpace(
                name="toy",
                input_size=(8, 8),
                num_classes=4,
                stem_channels=8,
                stem_stride=1,
                block_channels=8,
                stages=(Stage(8, 2, 1), Stage(16, 1, 2)),
                operators=("k3e4", "k5e4", "k3e6", "skip"),
                min_split=1,
                max_split=3,
                head_channels=16,
                feature_channels=12,
            ),
            2,
            4,
        ),
    )
}

# A rate at which fresh weights do not diverge without a warm-up.
WEIGHT_DECAY, MOMENTUM, LEARNING_RATE = 4e-5, 0.9, 0.01


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random normalised images (B, H, W, C) float32 and labels (B,) int64."""
    rng = np.random.default_rng([0xBE7C, 0])
    shape = (case.batch_size, *case.space.input_size, case.space.input_channels)
    return rng.standard_normal(shape, np.float32), rng.integers(
        0, case.space.num_classes, case.batch_size
    )
