"""Small ensembles that several tests use."""

from __future__ import annotations

import numpy as np

from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

NEAS_S = "20,2,0,0,-1,0,2,0,0,2,-1,0,-1,0,3,2,4,0,2,5,0,4,3,0,0"
NEAS_L = "16,2,0,5,5,1,3,5,1,3,4,1,2,5,4,1,3,3,1,3,1,5,1,0,5,4,4,3,0"

SPACE = SearchSpace(
    name="small",
    input_size=(24, 20),
    num_classes=5,
    stem_channels=8,
    block_channels=8,
    stages=(Stage(8, 2, 2), Stage(16, 2, 2)),
    min_split=0,
    max_split=4,
    head_channels=16,
    feature_channels=24,
)

# By name: K = 1, 2, 3; split points at both ends; skips in the trunk and in the paths.
ENSEMBLES = {
    "one_path": Architecture(2, (("k3e4", "skip", "k5e6", "skip"),)),
    "two_paths": Architecture(
        2, (("k7e4", "skip", "k3e4", "skip"), ("k7e4", "skip", "k5e6", "k7e6"))
    ),
    "three_paths": Architecture(
        1,
        (
            ("k5e4", "k3e4", "k3e4", "skip"),
            ("k5e4", "skip", "k5e6", "k3e6"),
            ("k5e4", "k7e6", "k7e4", "k5e4"),
        ),
    ),
    "nothing_shared": Architecture(
        0, (("k3e4", "k3e4", "k5e4", "skip"), ("k5e6", "skip", "k3e6", "k7e4"))
    ),
    "all_shared": Architecture(4, (("k3e6", "k5e4", "k7e4", "skip"),) * 2),
}


def randomise(model, seed: int = 0) -> None:
    """Random weights and BN statistics, so that every operation shows in the output."""
    rng = np.random.default_rng(seed)
    weights = []
    for layer in model.layers:
        for i, value in enumerate(layer.get_weights()):
            noise = rng.standard_normal(value.shape).astype(np.float32)
            if type(layer).__name__ == "BatchNormalization":
                noise = 1 + 0.5 * np.tanh(noise) if i in (0, 3) else 0.1 * noise
            elif value.ndim > 1:
                noise /= np.sqrt(max(np.prod(value.shape) / max(value.shape), 1))
            weights.append(noise)
    model.set_weights(weights)


def images(space: SearchSpace = SPACE, count: int = 2, seed: int = 1) -> np.ndarray:
    """Normalised images (count, h, w, c)."""
    shape = (count, *space.input_size, space.input_channels)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
