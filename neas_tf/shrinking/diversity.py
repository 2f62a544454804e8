"""The diversity score of operator combinations (paper section 3.2, Eq. 4-8), in TensorFlow.

Everything here is computed in float64 on the host, in functions that are traced once for any
number of ensembles, paths, layers, operators and combinations: the scores of one shrink (1,000
samples, 20 layers, 7 operators) take 0.02 s.

The score of a combination is det(L_h) = Π r² · det(S_h). With the paper's β = 1e-3 all entries of S
are close to 1, so that det(S_h) is a tiny difference of large numbers. The module therefore
carries D = 1 − S (from `expm1`) and takes determinants in the form of `_determinants`, which never
subtracts numbers close to 1.

On Eq. 9 (a combination that differs in one operator, less similar to all others and of higher
quality, scores strictly higher): it holds for K = 2. For K ≥ 3 the proof of the paper's appendix
multiplies by a matrix that is not positive semi-definite, and the claim needs one condition more.
With R the similarity of the other operators, b and b' the similarities of the two operators to
them, det(S_h) − det(S_h') = det(R) · (b' − b)ᵀ R⁻¹ (b' + b): it is positive when R⁻¹ (b' + b) has no
negative entry, as when no other operator is nearly a copy of a third one.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import check
from neas_tf.shrinking.measurements import LayerScores, Measurements
from neas_tf.space.shrunk_space import ShrunkSpace

_F64 = tf.float64


def path_distances(features: tf.Tensor) -> tf.Tensor:
    """Distances between the paths' feature maps, d_pq of Eq. 5.

    Args:
      features: (K, B, …) maps of the K paths after the last searchable layer, of any float type;
        K is static.

    Returns:
      float32 (K, K), symmetric with a zero diagonal: mean over the B images of ‖v_p − v_q‖₂ of the
      flattened maps.
    """
    num_paths = features.shape[0]
    check(num_paths is not None, "features", features.shape, "a known number of paths")
    features = tf.cast(features, tf.float32)
    batch = tf.shape(features)[1]
    paths = tf.unstack(tf.reshape(features, [num_paths, batch, -1]))  # K × (B, H·W·C)
    zero = tf.zeros([], tf.float32)
    rows = [[zero] * num_paths for _ in range(num_paths)]
    for p in range(num_paths):
        for q in range(p + 1, num_paths):
            # Differences before squares: ‖a‖² + ‖b‖² − 2ab cancels for paths that are alike.
            squares = tf.reduce_sum(tf.math.squared_difference(paths[p], paths[q]), axis=-1)
            rows[p][q] = rows[q][p] = tf.reduce_mean(tf.sqrt(squares))
    return tf.stack([tf.stack(row) for row in rows])


def similarity_and_quality(
    measurements: Measurements,
    num_operators: int,
    beta: float,
    gamma: float = 1.0,
    quality_power: float = 1.0,
) -> LayerScores:
    """Estimates S (Eq. 5) and r (Eq. 7) of all layers from Z sampled ensembles.

    S counts pairs of different paths in the layers after the split only: in a shared layer both
    paths have one operator, and S_ii is 1 anyhow. r counts every layer; as in Eq. 7 the accuracies
    of one ensemble's paths that contain the operator are averaged first, then the ensembles, so
    that an ensemble weighs the same whether it shares the layer or not.

    Args:
      measurements: the Z ensembles.
      num_operators: N = `len(space.operators)`.
      beta: β of Eq. 5, a number (see `Measurements.resolve_beta`).
      gamma: γ of Eq. 7; it scales all scores of one K alike.
      quality_power: p in r = γ · accuracy^p.

    Raises:
      NeasError: when an architecture holds an operator index that is not in 0..N−1.
    """
    highest = int(measurements.architectures[:, 1:].max())
    check(highest < num_operators, "architectures", highest, f"operator indices < {num_operators}")
    with tf.device("CPU:0"):
        dissimilarity, accuracy, pairs, operators = _estimate(
            tf.constant(measurements.architectures, tf.int32),
            tf.constant(measurements.distances, _F64),
            tf.constant(measurements.accuracies, _F64),
            tf.constant(num_operators, tf.int32),
            tf.constant(beta, _F64),
        )
    seen = operators.numpy() > 0
    quality = np.where(seen, gamma * accuracy.numpy() ** quality_power, 0.0)
    return LayerScores(dissimilarity.numpy(), quality, pairs.numpy(), operators.numpy())


def combination_scores(
    scores: LayerScores, layers: np.ndarray, combinations: np.ndarray
) -> np.ndarray:
    """Diversity scores det(L_h) = Π r² · det(S_h) of combinations of any layers (Eq. 8).

    For K ≥ 3 an estimated S need not be positive semi-definite: the S of each layer's operators
    that occur in `combinations` is symmetric, and its negative eigenvalues are set to 0 before the
    determinants are taken. A pair of these operators that was never observed (because no
    combination alive holds it) counts as average there. For K = 2 the score is r_i² r_j² (1 − s²).

    A combination that repeats an operator would have two equal rows and score 0 with S_ii = 1, as
    if its paths were one. They are not, for they differ in other layers, so each of its paths has
    a row of its own and the entry between them is the measured similarity of different paths
    with that operator in that layer.

    Args:
      scores: S and r of all layers.
      layers: int (H,), 0-based layer of each combination.
      combinations: int (H, K) operator indices.

    Returns:
      float64 (H,), ≥ 0; NaN for a combination with an operator or a pair that was never observed.
    """
    layers = np.asarray(layers, np.int32)
    combinations = np.asarray(combinations, np.int32)
    if not len(layers):
        return np.zeros([0])
    earlier = np.tril(combinations[:, :, None] == combinations[:, None, :], -1)  # (H, K, K)
    repeats = earlier.sum(axis=2)  # (H, K): how often the operator stood before this place
    copies = int(repeats.max()) + 1
    slots = combinations + scores.num_operators * repeats
    with tf.device("CPU:0"):
        result = _scores(
            tf.constant(scores.dissimilarity, _F64),
            tf.constant(scores.pair_counts > 0),
            tf.constant(scores.quality, _F64),
            tf.constant(layers, tf.int32),
            tf.constant(combinations, tf.int32),
            tf.constant(slots, tf.int32),
            tf.constant(copies, tf.int32),
        ).numpy()
    for layer in np.unique(layers):
        here = np.flatnonzero(layers == layer)
        result[here[scores.support(layer, combinations[here]) == 0]] = np.nan
    return result


def diversity_scores(shrunk: ShrunkSpace, scores: LayerScores) -> tuple[np.ndarray, ...]:
    """Diversity scores of all that is alive, by layer in the order of `shrunk.alive`.

    In a layer that can never split the score of a single operator is r² (K = 1).
    """
    result: list[np.ndarray] = [np.zeros(0)] * len(shrunk.alive)
    for splits in (True, False):
        numbers = [layer.number for layer in shrunk.space.layers]
        numbers = [number for number in numbers if shrunk.can_split(number) == splits]
        if not numbers:
            continue
        rows = [shrunk.alive_combination_indices[number - 1] for number in numbers]
        sizes = [len(row) for row in rows]
        flat = combination_scores(
            scores, np.repeat(np.array(numbers) - 1, sizes), np.concatenate(rows)
        )
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        for number, part in zip(numbers, parts, strict=True):
            result[number - 1] = part
    return tuple(result)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None, None], _F64),
        tf.TensorSpec([None, None], _F64),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([], _F64),
    ]
)
def _estimate(architectures, distances, accuracies, num_operators, beta):
    """Means of 1 − exp(−β d) and of accuracy with their counts, all layers at once."""
    shape = tf.shape(accuracies)
    num, paths = shape[0], shape[1]  # Z, K
    depth = (tf.shape(architectures)[1] - 1) // paths  # d
    operators = tf.reshape(architectures[:, 1:], [num, paths, depth])  # (Z, K, d)
    layer = tf.range(depth)
    behind = layer[None, :] >= architectures[:, :1]  # (Z, d): layer + 1 > s

    p, q = operators[:, :, None, :], operators[:, None, :, :]
    segment = (layer * num_operators + p) * num_operators + q  # (Z, K, K, d)
    upper = tf.range(paths)[:, None] < tf.range(paths)[None, :]  # (K, K): every pair once
    used = tf.cast(upper[None, :, :, None] & behind[:, None, None, :], _F64)  # (Z, K, K, d)
    values = -tf.math.expm1(-beta * distances)[..., None] * used
    cells = depth * num_operators * num_operators
    table = [depth, num_operators, num_operators]
    total = _symmetric(tf.reshape(_scatter(values, segment, cells), table))
    pairs = _symmetric(tf.reshape(_scatter(used, segment, cells), table))

    # Each ensemble that holds an operator weighs 1, shared equally by its paths that do (Eq. 7).
    weight = 1.0 / tf.reduce_sum(tf.cast(p == q, _F64), axis=2)  # (Z, K, d)
    segment = layer * num_operators + operators
    table, cells = table[:2], depth * num_operators
    accuracy = tf.reshape(_scatter(accuracies[:, :, None] * weight, segment, cells), table)
    holders = tf.reshape(_scatter(weight, segment, cells), table)
    return (
        tf.math.divide_no_nan(total, pairs),
        tf.math.divide_no_nan(accuracy, holders),
        tf.cast(tf.round(pairs), tf.int64),
        tf.cast(tf.round(holders), tf.int64),
    )


def _scatter(values: tf.Tensor, segment: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(tf.reshape(values, [-1]), tf.reshape(segment, [-1]), cells)


def _symmetric(upper: tf.Tensor) -> tf.Tensor:
    """(d, N, N) sums over p < q → over unordered pairs; pairs of equal operators count once."""
    both = upper + tf.linalg.matrix_transpose(upper)
    return tf.linalg.set_diag(both, tf.linalg.diag_part(upper))


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, None], _F64),
        tf.TensorSpec([None, None, None], tf.bool),
        tf.TensorSpec([None, None], _F64),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([], tf.int32),
    ]
)
def _scores(dissimilarity, measured, quality, layers, combinations, slots, copies):
    """Scores of H combinations; operator o's c-th copy has slot o + N·c of M = N·copies."""
    paths = tf.shape(combinations)[1]
    full = tf.tile(dissimilarity, [1, copies, copies])  # (d, M, M)
    if paths > 2:
        measured = tf.tile(measured, [1, copies, copies])
        full = _positive_semidefinite(full, measured, layers, slots)
    else:
        full = tf.linalg.set_diag(full, tf.zeros(tf.shape(full)[:2], _F64))
    rows = tf.gather(full, layers)  # (H, M, M)
    rows = tf.gather(rows, slots, axis=1, batch_dims=1)  # (H, K, M)
    rows = tf.gather(tf.linalg.matrix_transpose(rows), slots, axis=1, batch_dims=1)  # (H, K, K)
    r = tf.gather(tf.gather(quality, layers), combinations, axis=1, batch_dims=1)  # (H, K)
    return tf.reduce_prod(r, axis=1) ** 2 * tf.maximum(_determinants(rows), 0.0)


def _positive_semidefinite(full, measured, layers, slots):
    """D of the nearest positive semi-definite S, over the slots in use of each layer."""
    shape = tf.shape(full)
    depth, size = shape[0], shape[1]
    where = tf.stack([tf.broadcast_to(layers[:, None], tf.shape(slots)), slots], axis=-1)
    hits = tf.scatter_nd(where, tf.ones_like(slots), [depth, size])
    alive = hits > 0  # (d, M)
    both = alive[:, :, None] & alive[:, None, :]
    both &= ~tf.eye(size, dtype=tf.bool)
    known = tf.cast(both & measured, _F64)
    mean = tf.math.divide_no_nan(
        tf.reduce_sum(full * known, axis=[1, 2]), tf.reduce_sum(known, axis=[1, 2])
    )
    full = tf.where(measured, full, mean[:, None, None])
    # Slots out of use are independent of all others (S = 0), so they change nothing.
    full = tf.where(both, full, tf.ones_like(full))
    full = tf.linalg.set_diag(full, tf.zeros([depth, size], _F64))
    values, vectors = tf.linalg.eigh(1.0 - full)
    # S + Σ |λ| v vᵀ over the negative eigenvalues; where there is none, D keeps its last bit.
    lift = tf.matmul(vectors * tf.nn.relu(-values)[:, None, :], vectors, transpose_b=True)
    return full - lift


def _determinants(dissimilarity: tf.Tensor) -> tf.Tensor:
    """det(1 − D) of (H, K, K), exact also where D ≪ 1.

    Subtracting the first row and column from the others leaves the determinant as it is and
    turns 1 − D_ij into D_i0 + D_0j − D_ij − D_00, so that no two numbers close to 1 are subtracted.
    For K = 2 it is 2D − D² = 1 − s².
    """
    corner = dissimilarity[:, :1, :1]  # (H, 1, 1)
    column, row = dissimilarity[:, 1:, :1], dissimilarity[:, :1, 1:]
    inner = column + row - dissimilarity[:, 1:, 1:] - corner  # (H, K−1, K−1)
    first = 1.0 - corner
    inner -= tf.matmul(corner - column, corner - row) / first
    return first[:, 0, 0] * tf.linalg.det(inner)
