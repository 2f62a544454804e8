"""Several training draws a step, among which every operator of a layer is drawn equally often.

FairNAS (Chu et al., 2021) updates a supernet once for N draws that hold each of a layer's N operators
once, so that none is ahead of another. Here the draws are ensembles: D of them with one split point hold
each operator of a shared layer D/N times and of a split layer D·K/N times, rounded up or down, as
far as the combinations alive allow it.
"""

from __future__ import annotations

import numpy as np

from neas_tf.common.errors import check_int
from neas_tf.space.shrunk_space import ShrunkSpace

_TAG = 0xFA12  # keeps these draws apart from what else derives from the same seed
_CHUNK = 256  # steps drawn at a time, for the memory


def balanced_draws(
    shrunk: ShrunkSpace,
    seed: int,
    first: int,
    count: int,
    draws: int,
    extremes: np.ndarray | None = None,
) -> np.ndarray:
    """The draws of the steps first, first + 1, …: a function of seed and step alone.

    Args:
      shrunk: what is alive.
      seed: of the run.
      first: first step.
      count: steps.
      draws: D, ensembles a step.
      extremes: int32 (2, 1 + K·d), ensembles that are the first two draws of every step, their
        combinations dealt to the paths at random (the sandwich rule: the widest and the narrowest).

    Returns:
      int32 (count, D, 1 + K·d), rows as `Architecture.to_array` gives them.
    """
    check_int("seed", seed, 0)
    check_int("first", first, 0)
    check_int("count", count, 0)
    check_int("draws", draws, 1 if extremes is None else 2)
    width = 1 + shrunk.num_paths * shrunk.space.num_layers
    result = np.empty((count, draws, width), np.int32)
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        result[begin : begin + size] = _chunk(shrunk, seed, first + begin, size, draws, extremes)
    return result


def _chunk(
    shrunk: ShrunkSpace, seed: int, first: int, count: int, draws: int, extremes: np.ndarray | None
) -> np.ndarray:
    depth, paths = shrunk.space.num_layers, shrunk.num_paths
    members, incidence, lengths = _choices(shrunk)
    most, layers = members.shape[2], np.arange(depth)
    sizes = (1, draws * depth * most, draws * depth * paths)
    numbers = np.empty((count, sum(sizes)))
    for i in range(count):
        numbers[i] = np.random.default_rng([seed, _TAG, first + i]).random(numbers.shape[1])
    split, ties, order = np.split(numbers, np.cumsum(sizes)[:-1], axis=1)
    split = shrunk.space.min_split + (split * len(shrunk.space.split_points)).astype(int)
    ties = ties.reshape(count, draws, depth, most)
    order = order.reshape(count, draws, depth, paths).argsort(axis=3)
    known = 0 if extremes is None else 2
    splits = np.repeat(split, draws, axis=1)  # (n, D)
    columns = np.empty((count, draws, depth, paths), np.int32)
    if extremes is not None:
        splits[:, :2] = extremes[:, 0]
        columns[:, :2] = extremes[:, 1:].reshape(2, paths, depth).swapaxes(1, 2)
    kind = (layers >= split).astype(int)  # (n, d): 0 where the layer is shared, 1 after the split
    own = incidence[kind, layers]  # (n, d, choices, N)
    absent = np.arange(most) >= lengths[kind, layers][..., None]
    drawn = np.zeros((count, depth, own.shape[-1]))
    squares = (own**2).sum(-1)
    for t in range(known, draws):
        # What brings Σ over the operators of their squared counts up least: N = 3, K = 2, counts (1, 1, 0)
        # after a draw of operators 0 and 1. {0, 1} makes (2, 2, 0), 8; {0, 2} and {1, 2} make 6.
        rise = squares + 2.0 * np.einsum("ndcx,ndx->ndc", own, drawn)
        pick = np.where(absent, np.inf, rise + ties[:, t]).argmin(-1)  # ties are less than 1
        columns[:, t] = members[kind, layers, pick]
        drawn += np.take_along_axis(own, pick[..., None, None], 2)[:, :, 0]
    columns = np.take_along_axis(columns, order, axis=3)
    rows = columns.swapaxes(2, 3).reshape(count, draws, paths * depth)
    return np.concatenate([splits[..., None], rows], axis=2).astype(np.int32)


def _choices(shrunk: ShrunkSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each layer may choose where it is shared (0) and after the split (1), as padded arrays.

    Returns:
      Operators of the K paths, int32 (2, d, choices, K); how often each operator counts, float64
      (2, d, choices, N), a shared one once; numbers of choices (2, d).
    """
    depth, paths, width = shrunk.space.num_layers, shrunk.num_paths, len(shrunk.space.operators)
    found = (shrunk.alive_operator_indices, shrunk.alive_combination_indices)
    lengths = np.array([[len(rows) for rows in kind] for kind in found])
    members = np.zeros((2, depth, lengths.max(), paths), np.int32)
    incidence = np.zeros((2, depth, lengths.max(), width))
    for m in range(depth):
        for kind in (0, 1):
            rows = found[kind][m].reshape(lengths[kind, m], -1)  # one column where it cannot split
            members[kind, m, : len(rows)] = rows
            np.add.at(incidence[kind, m], (np.arange(len(rows))[:, None], rows), 1.0)
    return members, incidence, lengths
