"""Compares ways to evaluate the candidates of a search: counts, time, and what a race saves.

    python -m benchmarks.candidate_evaluation [--quick] [--history=FILE …] [--run=MODEL_DIR]

Prints one JSON object:

* `layer_evaluations`: over searches, how many layers one pass of a batch goes through with K whole
  networks for each candidate, with each candidate's trunk once, and with one prefix tree for each
  generation. One search is run here in the paper's space, 20 generations of 50 with 2 paths, the
  real evolution with made-up scores; histories of real searches are read from files.
* `time`: processor time of one generation in those three ways, in turns in one process, against
  what MACs predict.
* `racing`: the validation work of searches with and without a race. With `--run`, searches with
  several seeds over the trained supernet of a run: every candidate is really evaluated, once, and
  kept in `--cache`. Without, on made-up results, which say only that it works.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import racing, searching, timing
from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.history import read_history
from neas_tf.search.prefix_tree import Work, one_each, one_each_with_skips, work
from neas_tf.search.variation import SearchSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace


def ratios(total: Work) -> dict[str, Any]:
    """A `Work` as JSON, with what the tree saves."""
    return {
        "full_paths": total.full_paths,
        "shared_trunk": total.shared_trunk,
        "prefix_tree": total.prefix_tree,
        "full_paths/prefix_tree": round(total.full_paths / total.prefix_tree, 3),
        "shared_trunk/prefix_tree": round(total.shared_trunk / total.prefix_tree, 3),
    }


def counts(generations: Iterable[Sequence[Architecture]], space: SearchSpace) -> dict[str, Any]:
    """The work of a search's generations: layers, layers with skips, MACs of everything."""
    table = CostTable(space)
    macs = table.operators["macs"]

    def cost(layer: int, operator: str) -> int:
        return int(macs[layer - 1, space.operator_index(operator)])

    generations = list(generations)
    total = {"layers": Work(), "layers_with_skips": Work(), "macs": Work()}
    for found in generations:
        total["layers"] += work(found, one_each)
        total["layers_with_skips"] += work(found, one_each_with_skips)
        total["macs"] += work(found, cost, table.trunk["macs"], table.head["macs"])
    sizes = [len(found) for found in generations]
    return {
        "generations": len(sizes),
        "candidates": sum(sizes),
        **{name: ratios(value) for name, value in total.items()},
    }


def by_generation(candidates: Iterable[Any]) -> list[list[Architecture]]:
    """The ensembles of a history, a list a generation."""
    result: dict[int, list[Architecture]] = {}
    for candidate in candidates:
        result.setdefault(candidate.generation, []).append(candidate.architecture)
    return [result[g] for g in sorted(result)]


def count_layers(files: Sequence[str], generations: int, population: int) -> dict[str, Any]:
    """`layer_evaluations`: see the module."""
    space = SearchSpace()
    shrunk = ShrunkSpace.full(space, 2)
    settings = SearchSettings(population=population, generations=generations)
    found = searching.search(shrunk, settings, searching.made_up_scores(space, 0)).candidates
    result = {"evolution in the paper's space, made-up scores": counts(by_generation(found), space)}
    for file in files:
        space = space_beside(Path(file))
        result[f"history {Path(file).parent.name}"] = counts(
            by_generation(read_history(file)), space
        )
    return result


def space_beside(file: Path) -> SearchSpace:
    """The space of the params.yaml beside a history, or one folder up."""
    for folder in (file.parent, file.parent.parent):
        if (folder / "params.yaml").exists():
            return SearchSpace.from_dict(load_file(str(folder / "params.yaml"))["space"])
    raise NeasError(f"--history: no params.yaml beside {str(file)!r} or one folder up.")


def compare_times(
    space: SearchSpace, population: int, images: int, rounds: int, generation: int
) -> dict[str, Any]:
    """`time`: one generation through the evaluator in three ways.

    Args:
      space: at a small input size.
      population: candidates.
      images: of the calibration and of the accuracy, one batch each.
      rounds: in which every way takes a turn.
      generation: of a search with made-up scores that is evaluated, 1 for the random one.
    """
    from neas_tf.search.evaluation import CandidateEvaluator
    from neas_tf.supernet.model import Supernet

    shrunk = ShrunkSpace.full(space, 2)
    settings = SearchSettings(population=population, generations=generation)
    found = searching.search(shrunk, settings, searching.made_up_scores(space, 0)).candidates
    ensembles = by_generation(found)[-1]
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(images, *space.input_size, space.input_channels)).astype(np.float32)
    labels = rng.integers(0, space.num_classes, images)
    both, single = (
        CandidateEvaluator(
            Supernet(space, k, name="supernet"), batch, batch, labels, images, images
        )
        for k in (2, 1)
    )
    alone = [Architecture(space.max_split, (row,)) for a in ensembles for row in a.paths]
    times = timing.interleaved(
        {
            "prefix_tree": lambda: both.evaluate_all(ensembles),
            "shared_trunk": lambda: [both.evaluate(a) for a in ensembles],
            "full_paths": lambda: [single.evaluate(a) for a in alone],
        },
        rounds,
        1,
    )
    predicted = counts([ensembles], space)
    result: dict[str, Any] = {
        "space": space.name,
        "candidates": len(ensembles),
        "generation": generation,
        "images": images,
        "rounds": rounds,
        **{name: timing.spread(values) for name, values in times.items()},
    }
    for name in ("shared_trunk", "full_paths"):
        measured = timing.ratio(times[name], times["prefix_tree"])
        expected = predicted["macs"][f"{name}/prefix_tree"]
        result[f"{name}/prefix_tree"] = {
            "cpu_time": round(measured, 3),
            "macs": expected,
            "layers": predicted["layers"][f"{name}/prefix_tree"],
            "cpu_time/macs": round(measured / expected, 3),
        }
    return result


def small_space(width: float, size: int) -> SearchSpace:
    """The paper's 20 layers and operators at a small input size, with CIFAR's strides."""
    paper = SearchSpace()
    stages = [[max(8, round(x.channels * width / 8) * 8), x.layers, x.stride] for x in paper.stages]
    stages[0][2] = 1
    head, features = (round(n * width) for n in (paper.head_channels, paper.feature_channels))
    return SearchSpace.from_dict(
        paper.to_dict()
        | {"name": f"paper's layers, width {width}, {size} px", "input_size": size}
        | {"num_classes": 10, "stem_stride": 1, "stages": stages}
        | {"head_channels": head, "feature_channels": features}
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the benchmark, prints its result and returns it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="all parts, small: two minutes")
    parser.add_argument("--parts", default="layers,time,racing", help="of layers, time, racing")
    parser.add_argument("--history", nargs="*", default=[], help="history.jsonl of real searches")
    parser.add_argument("--rounds", type=int, default=3, help="of the times")
    parser.add_argument("--images", type=int, default=64, help="a batch of the times")
    parser.add_argument("--run", default="", help="model_dir with a trained supernet, to race on")
    parser.add_argument("--cache", default="", help="folder that keeps what was evaluated")
    parser.add_argument("--searches", type=int, default=10, help="raced, each with its own seed")
    parser.add_argument("--population", type=int, default=50, help="of the raced searches")
    parser.add_argument("--generations", type=int, default=6, help="of the raced searches")
    parser.add_argument("--error", type=float, default=0.001, help="search.racing_error")
    parser.add_argument("--batch", type=int, default=500, help="images between two looks")
    args = parser.parse_args(argv)
    parts = args.parts.split(",")
    result: dict[str, Any] = {"benchmark": "candidate_evaluation", "machine": timing.machine()}
    if "layers" in parts:
        result["layer_evaluations"] = count_layers(args.history, 20, 50)
    if "time" in parts and args.quick:
        result["time"] = compare_times(small_space(0.25, 16), 10, 16, 1, 3)
    elif "time" in parts:
        result["time"] = compare_times(small_space(0.5, 32), 50, args.images, args.rounds, 10)
    if "racing" in parts:
        searches, batch = (3, 250) if args.quick else (args.searches, args.batch)
        settings = {"population": args.population, "generations": args.generations}
        if args.run:
            results = racing.measured(args.run, args.cache)
        else:
            results = racing.made_up(SearchSpace())
        result["racing"] = racing.compare(results, searches, settings, args.error, batch)
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
