"""Random ensembles: the training draw, and the stratified sample for scoring (docs/method.md).

An ensemble is drawn as an array (`Architecture.to_array`): the split point, then K rows of d
operator indices. All randomness comes from the generator, or the seed and step, that is passed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from neas_tf.common.errors import check_int
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace

# Keeps the draws of training apart from everything else that derives from the same seed.
_STEP_TAG = 0x4E454153


def _uniforms(shrunk: ShrunkSpace) -> int:
    """Random numbers that one draw takes: split, a choice per layer, an order per layer."""
    depth = shrunk.space.num_layers
    return 1 + depth + depth * shrunk.num_paths


def _arrays(shrunk: ShrunkSpace, numbers: np.ndarray) -> np.ndarray:
    """Maps uniform numbers (n, 1 + d + d·K) in [0, 1) to ensembles, int32 (n, 1 + K·d)."""
    tables, depth, paths = shrunk.draw_tables, shrunk.space.num_layers, shrunk.num_paths
    layers = np.arange(depth)
    split = shrunk.space.min_split + (numbers[:, :1] * len(shrunk.space.split_points)).astype(int)
    choice = numbers[:, 1 : 1 + depth]  # (n, d)
    single = tables.operators[layers, (choice * tables.num_operators).astype(int)]
    combination = tables.combinations[layers, (choice * tables.num_combinations).astype(int)]
    order = numbers[:, 1 + depth :].reshape(-1, depth, paths).argsort(axis=2)
    combination = np.take_along_axis(combination, order, axis=2)  # (n, d, K)
    columns = np.where((layers < split)[..., None], single[..., None], combination)
    result = np.empty((len(numbers), 1 + paths * depth), np.int32)
    result[:, :1] = split
    result[:, 1:] = columns.swapaxes(1, 2).reshape(len(numbers), paths * depth)
    return result


def uniform_array(shrunk: ShrunkSpace, rng: np.random.Generator) -> np.ndarray:
    """The training draw as int32 (1 + K·d,), see `uniform`."""
    return _arrays(shrunk, rng.random((1, _uniforms(shrunk))))[0]


def uniform(shrunk: ShrunkSpace, rng: np.random.Generator) -> Architecture:
    """The training draw (paper section 3.4).

    The split point is uniform; each layer up to it takes one of its operators alive, each later
    one a combination alive, both uniformly; which path gets which operator is random.
    """
    return Architecture.from_array(uniform_array(shrunk, rng), shrunk.space)


def _step_numbers(shrunk: ShrunkSpace, seed: int, step: int) -> np.ndarray:
    return np.random.default_rng([seed, _STEP_TAG, step]).random(_uniforms(shrunk))


def draw_for_step(shrunk: ShrunkSpace, seed: int, step: int) -> np.ndarray:
    """The training draw of one step, int32 (1 + K·d,): a function of seed and step alone."""
    check_int("seed", seed, 0)
    check_int("step", step, 0)
    return _arrays(shrunk, _step_numbers(shrunk, seed, step)[None])[0]


def draws_for_steps(shrunk: ShrunkSpace, seed: int, first: int, count: int) -> np.ndarray:
    """`draw_for_step` for the steps first, first + 1, …: int32 (count, 1 + K·d)."""
    check_int("seed", seed, 0)
    check_int("first", first, 0)
    check_int("count", count, 0)
    numbers = np.empty((count, _uniforms(shrunk)))
    for i in range(count):
        numbers[i] = _step_numbers(shrunk, seed, first + i)
    return _arrays(shrunk, numbers)


def pairs_of(combination: Iterable[str]) -> frozenset[tuple[str, str]]:
    """The pairs of operators on different paths in one combination.

    (o, o) is one of them where two paths use o. With one path it is the operator itself, as
    (o, o), so that coverage of pairs means coverage of operators.
    """
    names = tuple(combination)
    if len(names) == 1:
        return frozenset({(names[0], names[0])})
    return frozenset(itertools.combinations(names, 2))


def pair_counts(shrunk: ShrunkSpace, ensembles: Iterable[Architecture]) -> np.ndarray:
    """How many ensembles show each pair of operators on different paths, by layer.

    Returns:
      int64 (d, N, N), symmetric, operators in the order of the space. Only layers after an
      ensemble's split count, and an ensemble counts once a pair. With one path the diagonal
      counts the operators.
    """
    width, index = len(shrunk.space.operators), shrunk.space.operator_index
    counts = np.zeros((shrunk.space.num_layers, width, width), np.int64)
    for ensemble in ensembles:
        for m in range(ensemble.split_point, ensemble.num_layers):
            column = shrunk.ordered(row[m] for row in ensemble.paths)
            for a, b in pairs_of(column):
                i, j = index(a), index(b)
                counts[m, i, j] += 1
                if i != j:
                    counts[m, j, i] += 1
    return counts


def stratified(
    shrunk: ShrunkSpace, rng: np.random.Generator, num_samples: int, min_pair_count: int
) -> list[Architecture]:
    """Ensembles for scoring that cover every pair alive (docs/method.md, Diversity score).

    Every pair of operators that lives in a combination of a splittable layer is on two different
    paths of at least `min_pair_count` ensembles that split in that layer; every operator alive of
    a layer that cannot split is in at least as many. Otherwise the draw is even: split points
    occur equally often, as far as coverage lets them, and combinations and operators take turns
    in random order.

    Returns:
      `num_samples` ensembles, more where coverage needs them, in random order.
    """
    check_int("num_samples", num_samples, 1)
    check_int("min_pair_count", min_pair_count, 0)
    space, depth = shrunk.space, shrunk.space.num_layers
    cover = [
        _cover(shrunk.alive[m], min_pair_count, rng) if shrunk.can_split(m + 1) else []
        for m in range(depth)
    ]
    fixed = [len(names) for names in shrunk.alive_operators[: space.min_split]]
    total = max(num_samples, min_pair_count * max(fixed, default=0))
    splits = np.array(_plan_splits(shrunk, total, [len(c) for c in cover], rng))
    rng.shuffle(splits)
    arrays = np.empty((len(splits), shrunk.num_paths, depth), np.int32)
    for m in range(depth):
        before = np.flatnonzero(splits > m)  # the layer with number m + 1 is shared there
        behind = np.flatnonzero(splits <= m)
        names = shrunk.alive_operator_indices[m]
        turns = _turns(len(names), len(before), rng)
        arrays[before, :, m] = names[turns][:, None]
        more = _turns(len(shrunk.alive[m]), max(0, len(behind) - len(cover[m])), rng)
        chosen = np.concatenate([np.array(cover[m], int), more])[: len(behind)]
        rows = shrunk.alive_combination_indices[m][rng.permutation(chosen)]
        if len(rows):
            arrays[behind, :, m] = rng.permuted(rows, axis=1)
    flat = np.concatenate([splits[:, None], arrays.reshape(len(splits), -1)], axis=1)
    return [Architecture.from_array(row, space) for row in flat]


def _cover(
    combinations: tuple[tuple[str, ...], ...], times: int, rng: np.random.Generator
) -> list[int]:
    """Indices of combinations that together show every pair in them `times` times: greedy."""
    sets = [pairs_of(c) for c in combinations]
    pairs = sorted(frozenset().union(*sets))
    incidence = np.array([[p in s for p in pairs] for s in sets], np.int64)
    missing = np.full(len(pairs), times)
    result: list[int] = []
    while (missing > 0).any():
        gain = incidence @ np.maximum(missing, 0) + rng.random(len(sets))
        result.append(int(gain.argmax()))
        missing -= incidence[result[-1]]
    return result


def _turns(choices: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` indices below `choices`, each one once in every round, rounds in random order."""
    rounds = -(-count // choices)
    return np.concatenate([[], *(rng.permutation(choices) for _ in range(rounds))])[:count].astype(
        int
    )


def _plan_splits(
    shrunk: ShrunkSpace, total: int, needed: list[int], rng: np.random.Generator
) -> list[int]:
    """Split points, even as far as layer m + 1 is after `needed[m]` of them."""
    points = np.array(shrunk.space.split_points)
    counts = np.bincount(_turns(len(points), total, rng), minlength=len(points))
    for m in range(shrunk.space.min_split, len(needed)):
        behind = points <= m
        missing = needed[m] - int(counts[behind].sum())
        if missing <= 0:
            continue
        target = np.flatnonzero(behind)[-1]
        for _ in range(missing):
            later = np.where(behind, 0, counts)
            if later.any():
                counts[later.argmax()] -= 1
            counts[target] += 1
    return np.repeat(points, counts).tolist()
