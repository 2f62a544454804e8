"""Whole searches for benchmarks: the framework's evolution, on made-up scores or any others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable

import numpy as np

from neas_tf.cost.cost_table import CostTable
from neas_tf.search.evolution import SearchResult, run_search
from neas_tf.search.history import History, Score
from neas_tf.search.variation import SearchSettings
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace


def made_up_scores(
    space: SearchSpace, seed: int
) -> Callable[[list[Architecture]], Iterable[Score]]:
    """Every operator of a layer has a worth; a path is worth their sum, an ensemble the mean."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(0, 1, (space.num_layers, len(space.operators)))

    def evaluate(architectures: list[Architecture]) -> Iterable[Score]:
        for a in architectures:
            rows = a.to_array(space)[1:].reshape(a.num_paths, -1)
            paths = worth[np.arange(space.num_layers), rows].sum(1) / space.num_layers
            noise = np.random.default_rng(rows.ravel()).normal(0, 0.05)
            squashed = 1 / (1 + np.exp(-np.append(paths, paths.mean() + noise)))
            yield Score(float(squashed[-1]), tuple(squashed[:-1].tolist()))

    return evaluate


def search(
    shrunk: ShrunkSpace,
    settings: SearchSettings,
    evaluate: Callable[[list[Architecture]], Iterable[Score]],
    history: Callable[[History], None] = lambda history: None,
) -> SearchResult:
    """A whole search of the framework without a budget, in a folder that is thrown away.

    Args:
      history: is handed the history before the search begins.
    """
    table = CostTable(shrunk.space)
    with tempfile.TemporaryDirectory() as folder:
        made = History(folder, lambda a: {"macs": table.cost(a).macs})
        history(made)
        return run_search(
            settings,
            shrunk,
            lambda rng: sampling.uniform(shrunk, rng),
            lambda a: True,
            evaluate,
            made,
        )
