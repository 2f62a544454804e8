"""What a race saves: searches with and without it, on what candidates are right about.

    python -m benchmarks.racing [--quick] [--run=MODEL_DIR --cache=FOLDER]

Prints one JSON object: the validation work of searches with several seeds, each with and without a
race. With `--run` every candidate is really evaluated with the trained supernet of a run, once, and
kept in `--cache`; without it results are made up, which says only that it works. The results of a
candidate are looked up, so that the same evaluations serve every search; who is measured how long
is what the race decides.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.targets import target
from neas_tf.common.errors import NeasError, check_int
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.evolution import SearchResult, run_search, top_candidates
from neas_tf.search.history import History, Score
from neas_tf.search.prefix_tree import PrefixTree
from neas_tf.search.racing import Race, RaceSettings, run_race
from neas_tf.search.variation import SearchSettings
from neas_tf.space import sampling
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
        alive = set(range(len(architectures)))
        known: tuple[int, int] = (0, 0)
        for first in range(0, rows.shape[-1], self._batch):
            found = rows[..., first : first + self._batch].copy()
            found[[c for c in range(len(rows)) if c not in alive]] = False
            self.images += len(alive) * found.shape[-1]
            if known[0] != len(alive):
                ongoing = [architectures[c] for c in sorted(alive)]
                known = len(alive), tree_macs(PrefixTree(ongoing), self._table, self._space)
            self.macs += known[1] * found.shape[-1]
            yield alive, found


def tree_macs(tree: PrefixTree, table: CostTable, space: SearchSpace) -> int:
    """MACs of one pass through a tree: every node once, and a head once where paths end alike."""
    macs = table.operators["macs"]
    layers = sum(int(macs[n.layer - 1, space.operator_index(n.operator)]) for n in tree.nodes[1:])
    heads = sum(len({path for path, _ in node.exits}) for node in tree.nodes)
    return table.trunk["macs"] + layers + table.head["macs"] * heads


def search(shrunk: ShrunkSpace, settings: SearchSettings, mode: _Mode) -> SearchResult:
    """A whole search of the framework without a budget, in a folder that is thrown away."""
    table = CostTable(shrunk.space)
    with tempfile.TemporaryDirectory() as folder:
        history = History(folder, lambda a: {"macs": table.cost(a).macs})
        mode.watch(history)
        draw = lambda rng: sampling.uniform(shrunk, rng)  # noqa: E731
        return run_search(settings, shrunk, draw, lambda a: True, mode, history)


def compare(
    results: Results, searches: int, settings: dict[str, int], error: float, batch: int
) -> dict[str, Any]:
    """Every search twice, with the same seed.

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
        found = [search(shrunk, chosen, mode) for mode in (plain, raced)]
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


def made_up(space: SearchSpace, images: int = 5000, seed: int = 0) -> Results:
    """Ensembles of made-up ability on images of made-up difficulty."""
    scores = made_up_scores(space, seed)
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


def targets(found: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What the project wants; a race on made-up results is no measurement."""
    saved, reason = (found or {}).get("validation_macs_saved"), ""
    if found and found["results"] == "made up":
        reason = (
            f"only on made-up results ({saved:.3g} ×): it needs a trained supernet (--supernet)"
        )
        saved = None
    text = "candidate evaluation: validation work without a race / with it"
    return [target("evaluation_racing", text, saved, at_least=2.0, unit="×", reason=reason)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three searches")
    parser.add_argument("--run", default="", help="model_dir with a trained supernet, to race on")
    parser.add_argument("--cache", default="", help="folder that keeps what was evaluated")
    parser.add_argument("--searches", type=int, default=10, help="each with its own seed")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--error", type=float, default=0.001, help="search.racing_error")
    parser.add_argument("--batch", type=int, default=500, help="images between two looks")
    args = parser.parse_args(arguments)
    searches, batch = (3, 250) if args.quick else (args.searches, args.batch)
    try:
        for name, value in (("searches", searches), ("batch", batch)):
            check_int(f"--{name}", value, 1)
        settings = {"population": args.population, "generations": args.generations}
        results = measured(args.run, args.cache) if args.run else made_up(SearchSpace())
        found = compare(results, searches, settings, args.error, batch)
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report = {"benchmark": "racing", "machine": timing.machine(), **found}
    print(json.dumps(report | {"targets": targets(found)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
