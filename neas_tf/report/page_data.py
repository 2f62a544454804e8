"""What the HTML report draws, as one JSON object a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.report.layouts import is_published
from neas_tf.report.reading import RunFiles
from neas_tf.report.records import Candidate, find_key, number
from neas_tf.report.shrink_states import alive_shares, pair_states
from neas_tf.report.summary import budget, second_objective, sections, summarise
from neas_tf.search.pareto import pareto_front
from neas_tf.space.shrunk_space import ShrunkSpace

MAX_CANDIDATES = 20_000
MAX_POINTS = 2_000  # of a training curve
METRICS = ("macs", "params", "paper_flops", "latency_ns")
_WORDS = ("loss", "accuracy", "learning_rate")


def run_data(run: RunFiles, max_candidates: int = MAX_CANDIDATES) -> dict[str, Any]:
    """Everything that the page draws of one run; numbers that are not finite become None.

    Args:
      run: from `read_run`.
      max_candidates: of a search with more, the Pareto fronts, the best and evenly spread others.
    """
    summary = summarise(run)
    problems = list(summary["problems"])

    def part(name: str, make: Callable[[], Any], otherwise: Any) -> Any:
        """One part; a file with values that nobody expects costs no more than its part."""
        try:
            return finite(make())
        except Exception as error:
            problems.append(f"{name}: not as expected ({type(error).__name__}: {error}).")
            return otherwise

    def search() -> dict[str, Any] | None:
        shown = thinned(run.candidates, run.winner_key, max_candidates)
        return _search(run, shown) if shown else None

    def curves() -> dict[str, Any]:
        return {stage: _curves(lines) for stage, lines in run.metrics.items() if lines}

    value = {
        "name": summary["name"],
        "sections": sections(summary),
        "figures": _figures(summary),
        "stages": stages(run),
        "space": part("space", lambda: _space(run), None),
        "architecture": run.architecture.key if run.architecture else None,
        "search": part("search", search, None),
        "shrinks": part("shrinks", lambda: _shrinks(run), []),
        "metrics": part("metrics", curves, {}),
        "confusion": part("confusion", lambda: _confusion(run), None),
        "missing": summary["missing"],
        "problems": problems,
    }
    return finite(value)


def finite(value: Any) -> Any:
    """The value as plain JSON, with None for what is no finite number."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def stages(run: RunFiles) -> list[dict[str, str]]:
    """How far each stage is: `name`, `state` (none, begun, done) and `text`."""
    rows = []
    for name, done in (
        ("supernet", bool(run.candidates) or "shrink/alive.json" not in run.missing),
        ("search", run.winner_key is not None),
        ("retrain", run.results is not None),
    ):
        if name == "search":
            begun = bool(run.candidates)
            text = f"{len(run.candidates):,} candidates" if begun else ""
        else:
            lines = run.metrics.get(name) or ()
            begun = bool(lines)
            text = f"step {lines[-1]['step']:,.0f}" if begun else ""
        rows.append({"name": name, "state": _state(begun, done), "text": text})
    # A published folder has the reports of some exports only.
    made, wanted = len(run.exports), 0 if is_published(run.model_dir) else _formats(run)
    text = f"{made} of {wanted} files" if wanted else f"{made} file{'' if made == 1 else 's'}"
    state = _state(made > 0, made >= max(wanted, 1))
    rows.append({"name": "export", "state": state, "text": text if made else ""})
    return rows


def is_finished(run: RunFiles) -> bool:
    """Whether nothing more is to come: tested, and every format of `export.formats` written."""
    return run.results is not None and len(run.exports) >= _formats(run)


def _formats(run: RunFiles) -> int:
    formats = (find_key(run.params, "export") or {}).get("formats")
    return len(formats) if isinstance(formats, list) else 0


def _state(begun: bool, done: bool) -> str:
    return "done" if done else "begun" if begun else "none"


def thinned(
    candidates: Sequence[Candidate], winner: str | None, limit: int = MAX_CANDIDATES
) -> tuple[Candidate, ...]:
    """At most about `limit` candidates, by number: fronts, winner, the best, and a spread."""
    if len(candidates) <= limit:
        return tuple(candidates)
    keep = {i for rows in _fronts(candidates).values() for i in rows}
    keep |= {i for i, c in enumerate(candidates) if c.key == winner}
    best = sorted(range(len(candidates)), key=lambda i: -candidates[i].accuracy)
    keep |= set(best[: limit // 10])
    rest = [i for i in range(len(candidates)) if i not in keep]
    room = max(limit - len(keep), 1)
    keep |= {rest[round(i)] for i in np.linspace(0, len(rest) - 1, min(room, len(rest)))}
    return tuple(candidates[i] for i in sorted(keep))


def _fronts(candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    """Per cost that all candidates state, the indices of its Pareto front."""
    whole = [i for i, c in enumerate(candidates) if c.finished]
    result = {}
    for metric in METRICS:
        costs = [getattr(candidates[i], metric) for i in whole]
        if whole and None not in costs:
            front = pareto_front(costs, [candidates[i].accuracy for i in whole])
            result[metric] = [whole[i] for i in front.tolist()]
    return result


def _search(run: RunFiles, shown: Sequence[Candidate]) -> dict[str, Any]:
    metrics = [m for m in METRICS if all(getattr(c, m) is not None for c in shown)]
    return {
        "total": len(run.candidates),
        "metrics": metrics,
        "objective": second_objective(run.params),
        "budget": budget(run.params),
        "winner": run.winner_key,
        "number": [c.number for c in shown],
        "generation": [c.generation for c in shown],
        "origin": [c.origin for c in shown],
        "key": [c.key for c in shown],
        "accuracy": [c.accuracy for c in shown],
        "paths": [c.path_accuracies for c in shown],
        "images": [c.images for c in shown],
        "costs": {m: [getattr(c, m) for c in shown] for m in metrics},
        "fronts": _fronts(shown),
    }


def _space(run: RunFiles) -> dict[str, Any] | None:
    """Shapes of the layers, and the costs of every operator in every layer."""
    if run.space is None:
        return None
    space = run.space
    try:
        table = CostTable(space, run.latency)
    except NeasError:
        table = CostTable(space)
    return {
        "name": space.name,
        "input": [*space.input_size, space.input_channels],
        "classes": space.num_classes,
        "stem": [*space.stem_size, space.stem_channels],
        "block": [*space.block_size, space.block_channels] if space.block_channels else None,
        "head": [space.head_channels, space.feature_channels],
        "operators": space.operators,
        "layers": [
            {
                "stage": layer.stage + 1,
                "in": [*layer.in_size, layer.c_in],
                "out": [*layer.out_size, layer.c_out],
                "stride": layer.stride,
            }
            for layer in space.layers
        ],
        "costs": {
            metric: {"layers": rows, "trunk": table.trunk[metric], "head": table.head[metric]}
            for metric, rows in table.operators.items()
        },
    }


def _shrinks(run: RunFiles) -> list[dict[str, Any]]:
    """The space at the start (index 0), then behind each shrink."""
    rows = []
    known = next((s.alive for s in run.shrinks if s.alive is not None), None)
    if known is not None:
        full = ShrunkSpace.full(known.space, known.num_paths, known.heterogeneous)
        rows.append({"index": 0, "step": 0, "alive": _alive(full), "layers": []})
    for shrink in run.shrinks:
        rows.append(
            {
                "index": shrink.index,
                "step": shrink.step,
                "metric": shrink.metric,
                "alive": _alive(shrink.alive) if shrink.alive is not None else None,
                "layers": [_shrink_layer(layer) for layer in shrink.splittable],
            }
        )
    return rows


def _alive(alive: ShrunkSpace) -> dict[str, Any]:
    return {
        "shares": np.round(alive_shares(alive), 4),
        "combinations": alive.num_combinations,
        "split": [layer.number for layer in alive.space.layers if alive.can_split(layer.number)],
    }


def _shrink_layer(layer: Mapping[str, Any]) -> dict[str, Any]:
    combinations = []
    for row in layer.get("combinations") or ():
        before = row.get("alive_before", True)
        state = "gone" if not before else "dropped" if row.get("dropped") else "alive"
        combinations.append([list(map(str, row["operators"])), number(row.get("score")), state])
    return {
        "layer": layer["layer"],
        "operators": layer["operators"],
        "similarity": layer["similarity"],
        "quality": layer["quality"],
        "own": layer.get("self_similarity"),
        "states": [[i, j, state] for (i, j), state in sorted(pair_states(layer).items())],
        "combinations": combinations,
    }


def _curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Logged losses, accuracies and learning rates, by step; every k-th line of a long log."""
    every = -(-len(lines) // MAX_POINTS)
    kept = [line for i, line in enumerate(lines) if (len(lines) - 1 - i) % every == 0]
    keys = sorted({key for line in lines for key in line if any(w in key for w in _WORDS)})
    return {
        "lines": len(lines),
        "every": every,
        "step": [line["step"] for line in kept],
        "epoch": [number(line.get("epoch")) for line in kept],
        "series": {key: [number(line.get(key)) for line in kept] for key in keys},
    }


def _confusion(run: RunFiles) -> dict[str, Any] | None:
    if run.confusion is None:
        return None
    names = run.confusion.get("class_names") or range(run.confusion["num_classes"])
    return {**run.confusion, "class_names": [str(name) for name in names]}


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that runs are compared by."""
    accuracy, found = summary["accuracy"] or {}, summary["architecture"] or {}
    search, time = summary["search"] or {}, summary["wall_time"] or {}
    sizes = {export["file"]: export["bytes"] for export in summary["exports"]}
    return {
        "ensemble": accuracy.get("ensemble"),
        "best_path": accuracy.get("best_path"),
        "gain": accuracy.get("gain"),
        "top5": accuracy.get("top5"),
        "test_examples": accuracy.get("test_examples"),
        **{metric: summary["cost"].get(metric) for metric in METRICS},
        "num_paths": found.get("num_paths"),
        "split_point": found.get("split_point"),
        "num_layers": found.get("num_layers"),
        "candidates": search.get("candidates"),
        "best_search": search.get("best_accuracy"),
        "tflite_bytes": sizes.get("model.tflite"),
        "seconds": time.get("total"),
    }
