"""What a race saves: searches with and without it, on what candidates are right about.

A part of `benchmarks.candidate_evaluation`. The results of a candidate are looked up, so that the
same evaluations serve every search; who is measured how long is what the race decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import searching
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.evolution import top_candidates
from neas_tf.search.history import History, Score
from neas_tf.search.prefix_tree import work
from neas_tf.search.racing import Race, RaceSettings, run_race
from neas_tf.search.variation import SearchSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

# bool (C, K + 1, n) of some ensembles, as `CandidateEvaluator.correct`; the space; what they are.
Results = tuple[Callable[[list[Architecture]], np.ndarray], ShrunkSpace, dict[str, Any]]


class _Mode:
    """An evaluator for `run_search` that counts the validation work, with or without a race."""

    def __init__(self, correct, space: SearchSpace, race: RaceSettings | None, batch: int):
        self._correct, self._race, self._batch = correct, race, batch
        self._table, self._space = CostTable(space), space
        self.images = self.macs = 0
        self._history: History | None = None

    def watch(self, history: History) -> None:
        """Where the best of the generations before are."""
        self._history = history

    def __call__(self, architectures: list[Architecture]) -> Iterator[Score]:
        rows = self._correct(architectures)
        count, _, total = rows.shape
        if self._race is None:
            for _ in self._batches(architectures, rows):
                pass
            accuracies = rows.mean(2)
            seen = np.full(count, total)
        else:
            best = top_candidates(self._history.candidates, self._race.parents)
            finished = np.zeros((0, total), bool)
            if best:
                finished = self._correct([c.architecture for c in best])[:, -1]
            race = Race(self._race, total, self._batch, finished)
            ordered = rows[..., race.order]
            _, seen = run_race(race, self._batches(architectures, ordered), count)
            accuracies = np.stack(
                [
                    row.mean(1) if n == total else race.estimates(row[:, :n])
                    for row, n in zip(ordered, seen, strict=True)
                ]
            )
        for values, n in zip(accuracies.tolist(), seen.tolist(), strict=True):
            yield Score(values[-1], tuple(values[:-1]), None if n == total else n)

    def _batches(
        self, architectures: Sequence[Architecture], rows: np.ndarray
    ) -> Iterator[tuple[set[int], np.ndarray]]:
        alive, macs = set(range(len(architectures))), self._table.operators["macs"]

        def cost(layer: int, operator: str) -> int:
            return int(macs[layer - 1, self._space.operator_index(operator)])

        fixed = self._table.trunk["macs"], self._table.head["macs"]
        known: tuple[int, int] = (0, 0)
        for first in range(0, rows.shape[-1], self._batch):
            found = rows[..., first : first + self._batch].copy()
            found[[c for c in range(len(rows)) if c not in alive]] = False
            self.images += len(alive) * found.shape[-1]
            if known[0] != len(alive):
                ongoing = [architectures[c] for c in sorted(alive)]
                known = len(alive), int(work(ongoing, cost, *fixed).prefix_tree)
            self.macs += known[1] * found.shape[-1]
            yield alive, found


def compare(
    results: Results, searches: int, settings: dict[str, int], error: float, batch: int
) -> dict[str, Any]:
    """`racing`: every search twice, with the same seed.

    Args:
      results: `measured` or `made_up`.
      searches: how many, with the seeds 0, 1, …
      settings: population and generations.
      error: `search.racing_error`.
      batch: images between two looks.
    """
    correct, shrunk, about = results
    rows = []
    for seed in range(searches):
        chosen = SearchSettings(seed=seed, **settings)
        plain = _Mode(correct, shrunk.space, None, batch)
        raced = _Mode(correct, shrunk.space, RaceSettings(chosen.parents, error), batch)
        found = [searching.search(shrunk, chosen, mode, mode.watch) for mode in (plain, raced)]
        best, other = (result.best for result in found)
        stopped = sum(not c.finished for c in found[1].candidates)
        rows.append(
            {
                "seed": seed,
                "same_best": best.architecture == other.architecture,
                "accuracy": best.accuracy,
                "accuracy_with_race": other.accuracy,
                "stopped": round(stopped / len(found[1].candidates), 3),
                "images": round(plain.images / raced.images, 3),
                "macs": round(plain.macs / raced.macs, 3),
                "_totals": (plain.images, raced.images, plain.macs, raced.macs),
            }
        )
    totals = np.sum([row.pop("_totals") for row in rows], 0, dtype=float)
    return {
        **about,
        **settings,
        "racing_error": error,
        "batch": batch,
        "searches": len(rows),
        "same_best": sum(row["same_best"] for row in rows),
        "validation_images_saved": round(float(totals[0] / totals[1]), 3),
        "validation_macs_saved": round(float(totals[2] / totals[3]), 3),
        "by_search": rows,
    }


def measured(model_dir: str, cache: str) -> Results:
    """Real evaluations with the trained supernet of a run's folder.

    Args:
      model_dir: the run.
      cache: folder in which every ensemble's results are kept; '' keeps them in memory.
    """
    import tensorflow as tf

    from neas_tf.config.parse import load_config
    from neas_tf.run.context import open_run
    from neas_tf.run.search_stage import make_evaluator
    from neas_tf.run.supernet_stage import load_shrunk, load_supernet

    config = load_config("neas_cifar10", [str(Path(model_dir, "params.yaml"))], "")
    run = open_run(config, model_dir, tf.distribute.get_strategy())
    known: dict[str, np.ndarray] = {}
    files = sorted(Path(cache).glob("*.npz")) if cache else []
    for file in files:
        with np.load(file) as stored:
            known.update({key: stored[key] for key in stored.files})
    evaluator = None

    def correct(architectures: list[Architecture]) -> np.ndarray:
        nonlocal evaluator
        if evaluator is None:
            evaluator = make_evaluator(
                run.config,
                run.info,
                load_supernet(run.config, run.model_dir, run.space),
                run.cluster,
            )
        missing = [a for a in architectures if a.key not in known]
        if missing:
            found = evaluator.correct(missing)
            new = {a.key: np.packbits(rows, -1) for a, rows in zip(missing, found, strict=True)}
            known.update(new)
            if cache:
                Path(cache).mkdir(parents=True, exist_ok=True)
                np.savez_compressed(Path(cache, f"{len(known):06d}.npz"), **new)
        size = evaluator.images
        return np.stack([np.unpackbits(known[a.key], -1, count=size) for a in architectures]) > 0

    about = {"results": "evaluations with a trained supernet", "space": run.space.name}
    return correct, load_shrunk(run.model_dir, run.space), about


def made_up(space: SearchSpace, images: int = 5000, seed: int = 0) -> Results:
    """Ensembles of made-up ability on images of made-up difficulty."""
    scores = searching.made_up_scores(space, seed)
    ease = np.random.default_rng(seed).normal(0, 2.0, images)

    def correct(architectures: list[Architecture]) -> np.ndarray:
        rows = []
        for a, score in zip(architectures, scores(architectures), strict=True):
            accuracies = np.array([*score.path_accuracies, score.accuracy])
            ability = np.log(accuracies / (1 - accuracies))[:, None]
            rng = np.random.default_rng([seed, *a.to_array(space).tolist()])
            rows.append(rng.random((len(ability), images)) < 1 / (1 + np.exp(-ability - ease)))
        return np.stack(rows)

    return correct, ShrunkSpace.full(space, 2), {"results": "made up", "images": images}
