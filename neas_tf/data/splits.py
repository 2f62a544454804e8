"""Drawing parts of a data set with a seed. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neas_tf.common.errors import check, unknown_name


def stratified_indices(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` examples in the proportions of the classes.

    Quotas are rounded by largest remainder, so that every class is at most one example away from
    its exact share.

    Args:
      labels: int (n,).
      count: 0..n.
      rng: source of randomness.

    Returns:
      int64 (count,), ascending.
    """
    _, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / max(len(labels), 1))
    return _draw(labels, _round_to(exact, sizes, count, rng), rng)


def balanced_indices(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` examples, as many of each class as there are and as evenly as that allows.

    Args:
      labels: int (n,).
      count: 0..n.
      rng: source of randomness.

    Returns:
      int64 (count,), ascending.
    """
    _, sizes = np.unique(labels, return_counts=True)
    level = np.zeros(len(sizes))
    remaining, open_classes = float(count), np.ones(len(sizes), bool)
    while remaining > 1e-9 and open_classes.any():  # fill all classes to the same level
        level[open_classes] += remaining / open_classes.sum()
        over = level > sizes
        remaining = float((level - sizes)[over].sum())
        level = np.minimum(level, sizes)
        open_classes = level < sizes
    return _draw(labels, _round_to(level, sizes, count, rng), rng)


def test_indices(labels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Draws a test part: the same share of each class, at least one of every class with two.

    Args:
      labels: int (n,).
      fraction: share of each class, in (0, 1).
      rng: source of randomness.

    Returns:
      int64, ascending; leaves every class at least one example.
    """
    _, sizes = np.unique(labels, return_counts=True)
    quotas = np.clip(np.round(sizes * fraction).astype(np.int64), 1, sizes - 1)
    return _draw(labels, quotas, rng)


def random_indices(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws `count` of `size` examples, whatever their class; int64 (count,), ascending."""
    return np.sort(rng.permutation(size)[:count]).astype(np.int64)


def complement(size: int, indices: np.ndarray) -> np.ndarray:
    """All of 0..size−1 that are not in `indices`; int64, ascending."""
    keep = np.ones(size, bool)
    keep[indices] = False
    return np.flatnonzero(keep).astype(np.int64)


def loss_weights(
    counts: np.ndarray, names: Sequence[str], setting: str | Mapping[str, float]
) -> np.ndarray | None:
    """The weight of each class in the loss, with a mean of 1 over all examples.

    Args:
      counts: int (classes,), training examples of each class.
      names: of the classes.
      setting: `data.class_weights`.

    Returns:
      float32 (classes,), 0 for a class without examples; None where all count the same.

    Raises:
      NeasError: for the name of no class, or weights that leave nothing to learn.
    """
    if setting == "none":
        return None
    if isinstance(setting, str):  # balanced
        raw = np.where(counts > 0, 1.0 / np.maximum(counts, 1), 0.0)
    else:
        for name in setting:
            if name not in names:
                unknown_name("data.class_weights", name, names)
        raw = np.array([float(setting.get(name, 1.0)) for name in names])
    total = float((raw * counts).sum())
    check(total > 0, "data.class_weights", setting, "a weight above 0 for a class with images")
    return (raw * (counts.sum() / total)).astype(np.float32)


def _round_to(
    exact: np.ndarray, limits: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Whole numbers near `exact`, at most `limits`, that add up to `count`."""
    quotas = np.floor(exact + 1e-9).astype(np.int64)
    # Ties among the remainders are broken at random, so that no class is always favoured.
    order = np.lexsort((rng.permutation(len(exact)), -np.round(exact - quotas, 9)))
    missing = count - int(quotas.sum())
    for i in order:
        if missing and quotas[i] < limits[i]:
            quotas[i] += 1
            missing -= 1
    return quotas


def _draw(labels: np.ndarray, quotas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """So many of each class, in the order of the classes."""
    # Where each class lies, without a look at all labels for each of a thousand classes.
    _, counts = np.unique(labels, return_counts=True)
    places = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    chosen = [rng.permutation(where)[:quota] for where, quota in zip(places, quotas, strict=True)]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen])).astype(np.int64)
