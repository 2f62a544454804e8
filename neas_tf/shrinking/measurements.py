"""What a shrink is decided from: raw measurements of sampled ensembles, and S and r by layer."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from neas_tf.common.errors import check, fail

PAPER_BETA = 1e-3
_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


@dataclasses.dataclass(frozen=True, eq=False)
class Measurements:
    """Z sampled ensembles with the distances and accuracies of their paths.

    Distances are kept raw, for `beta: auto` is known only when all of them are.

    Attributes:
      architectures: int32 (Z, 1 + K·d), rows of `Architecture.to_array`.
      distances: float64 (Z, K, K), d_pq = mean over images of ‖v_p − v_q‖₂ (see
        `diversity.path_distances`); only p < q is read.
      accuracies: float64 (Z, K), of each path, 0..1.
    """

    architectures: np.ndarray
    distances: np.ndarray
    accuracies: np.ndarray

    def __post_init__(self):
        architectures = np.asarray(self.architectures)
        distances = np.asarray(self.distances, np.float64)
        accuracies = np.asarray(self.accuracies, np.float64)
        check(
            accuracies.ndim == 2 and accuracies.size > 0,
            "measurements.accuracies",
            accuracies.shape,
            "a shape (ensembles, paths) with at least one of both",
        )
        num, paths = accuracies.shape
        check(
            distances.shape == (num, paths, paths),
            "measurements.distances",
            distances.shape,
            f"shape {(num, paths, paths)}",
        )
        check(
            architectures.ndim == 2
            and len(architectures) == num
            and architectures.shape[1] > paths
            and (architectures.shape[1] - 1) % paths == 0
            and np.issubdtype(architectures.dtype, np.integer)
            and int(architectures.min()) >= 0,
            "measurements.architectures",
            f"{architectures.dtype}{architectures.shape}",
            f"{num} rows of a split point and {paths} equally long rows of operator indices",
        )
        if not np.all(np.isfinite(distances)) or np.any(distances < 0):
            fail(
                "measurements.distances",
                "a value that is negative or not finite",
                "finite distances ≥ 0 (did the supernet's training diverge?)",
            )
        if not np.all((accuracies >= 0) & (accuracies <= 1)):
            fail("measurements.accuracies", "a value outside 0..1", "accuracies in 0..1")
        object.__setattr__(self, "architectures", architectures.astype(np.int32))
        object.__setattr__(self, "distances", distances)
        object.__setattr__(self, "accuracies", accuracies)

    @property
    def num_samples(self) -> int:
        """Z."""
        return self.accuracies.shape[0]

    @property
    def num_paths(self) -> int:
        """K."""
        return self.accuracies.shape[1]

    @property
    def num_layers(self) -> int:
        """d."""
        return (self.architectures.shape[1] - 1) // self.num_paths

    @functools.cached_property
    def path_distances(self) -> np.ndarray:
        """float64 (n,): distances of all different paths (p < q) of the ensembles that split.

        An ensemble whose paths share every searchable layer is left out: there v_p is v_q.
        """
        splits = self.architectures[:, 0] < self.num_layers
        p, q = np.triu_indices(self.num_paths, 1)
        return self.distances[splits][:, p, q].ravel()

    def distance_quantiles(self) -> dict[str, float | None]:
        """Minimum, quartiles and maximum of `path_distances`; None where no ensemble splits."""
        values = self.path_distances
        if not values.size:
            return dict.fromkeys(_QUANTILES)
        return {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}

    def resolve_beta(self, beta: float | str) -> float:
        """The scaling factor β of Eq. 5: a number as it is, 'auto' as 1 / median distance.

        With a median of 0 (no two paths differ, or none splits) 'auto' is the paper's 1e-3: every
        similarity is 1 then, whatever β.
        """
        if beta != "auto":
            return float(beta)
        median = float(np.median(self.path_distances)) if self.path_distances.size else 0.0
        return 1.0 / median if median > 0 else PAPER_BETA


@dataclasses.dataclass(frozen=True, eq=False)
class LayerScores:
    """Estimated S and r of every layer (Eq. 5 and 7). Operators by index in `space.operators`.

    Attributes:
      dissimilarity: float64 (d, N, N), symmetric: mean of 1 − exp(−β d_pq) over the pairs of
        different paths with these operators in that layer, after the split. Kept instead of S
        because 1 − S loses nothing to rounding while β d_pq ≪ 1. The diagonal belongs to pairs
        of different paths with the *same* operator (they exist with `heterogeneous: false` only).
      quality: float64 (d, N): r = γ · E[accuracy]^p.
      pair_counts: int64 (d, N, N): pairs of paths behind each entry of `dissimilarity`.
      operator_counts: int64 (d, N): ensembles behind each entry of `quality`.

    Entries without any observation are 0 and have a count of 0.
    """

    dissimilarity: np.ndarray
    quality: np.ndarray
    pair_counts: np.ndarray
    operator_counts: np.ndarray

    @property
    def num_operators(self) -> int:
        """N."""
        return self.quality.shape[1]

    @functools.cached_property
    def similarity(self) -> np.ndarray:
        """float64 (d, N, N): S of Eq. 5 with S_ii = 1; NaN where a pair was never observed."""
        result = np.where(self.pair_counts > 0, 1.0 - self.dissimilarity, np.nan)
        index = np.arange(self.num_operators)
        result[:, index, index] = 1.0
        return result

    @functools.cached_property
    def self_similarity(self) -> np.ndarray:
        """float64 (d, N): of different paths with the same operator; NaN where never observed."""
        index = np.arange(self.num_operators)
        seen = self.pair_counts[:, index, index] > 0
        return np.where(seen, 1.0 - self.dissimilarity[:, index, index], np.nan)

    def support(self, layer: int, combinations: np.ndarray) -> np.ndarray:
        """Fewest observations that an entry of each combination's kernel rests on.

        Args:
          layer: 0-based layer.
          combinations: int (H, K) operator indices.

        Returns:
          int64 (H,): minimum over its operators' and pairs' counts.
        """
        counts = self.operator_counts[layer][combinations].min(axis=1)  # (H,)
        p, q = np.triu_indices(combinations.shape[1], 1)
        if p.size:
            pairs = self.pair_counts[layer][combinations[:, p], combinations[:, q]]  # (H, pairs)
            counts = np.minimum(counts, pairs.min(axis=1))
        return counts
