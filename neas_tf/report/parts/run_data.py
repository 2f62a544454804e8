"""What the page shows of a run, as plain JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.cost.cost_table import CostTable
from neas_tf.report import charts, shrinks
from neas_tf.report import summary as numbers
from neas_tf.report.parts import opening
from neas_tf.report.parts.quality import Quality, quality_of
from neas_tf.report.parts.uncertain import risk_chart
from neas_tf.report.reading import METRICS, RunFiles
from neas_tf.report.run_files import Shrink, known_numbers, stages
from neas_tf.report.summary import budget, second_objective, summarise
from neas_tf.search.candidate import Candidate

MAX_CANDIDATES = 1_000
MAX_CLASSES = 40  # of a confusion matrix


def run_data(run: RunFiles, max_candidates: int = MAX_CANDIDATES) -> dict[str, Any]:
    """Everything that the page shows of one run; numbers that are not finite become None.

    Of a search with more candidates: the Pareto fronts, the best and evenly spread others.
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

    quality = quality_of(numbers.search_fitness(run.params), run.candidates)
    shown = charts.thinned(run.candidates, run.winner_key, max_candidates, quality)
    value = {
        "name": summary["name"],
        "verdict": opening.verdict(summary),
        "sections": numbers.sections(summary),
        "figures": _figures(summary),
        "stages": stages(run),
        "space": part("space", lambda: _space(run), None),
        "architecture": run.architecture.key if run.architecture else None,
        "search": part("search", lambda: _search(run, shown, quality), None) if shown else None,
        "shrinks": part("shrinks", lambda: [_shrink(s) for s in shrinks.states(run.shrinks)], []),
        "training": part("metrics", lambda: _training(run), {}),
        "confusion": part("confusion", lambda: confusion_data(run), None),
        "pictures": part("pictures", lambda: named(run.pictures), None),
        "uncertainty": part("uncertainty", lambda: _uncertainty(run), None),
        "missing": summary["missing"],
        "problems": problems,
    }
    return finite(value)


def finite(value: Any) -> Any:
    """The value as plain JSON, with None for what is no finite number."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
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


def _search(run: RunFiles, shown: Sequence[Candidate], quality: Quality) -> dict[str, Any]:
    """`rows` are those of `charts.candidate_rows`; `start` is the number of the one shown first."""
    metrics = [m for m in METRICS if all(m in c.costs for c in shown)]
    rows = charts.candidate_rows(shown, run.winner_key, quality)
    names = known_numbers(rows)
    retrained = run.architecture.key if run.architecture else None
    first = max(
        rows, key=lambda r: (r["key"] == retrained, "w" in r, "r" not in r, r[quality.field])
    )
    objective, limits = second_objective(run.params), budget(run.params)
    # Low, so that a first screen holds it below the picture.
    scatter = {m: charts.scatter_chart(m, rows, limits, quality) | {"height": 260} for m in metrics}
    return {
        "total": len(run.candidates),
        "metrics": metrics,
        "cost": objective if objective in metrics else metrics[0],
        "start": first["n"],
        "winner": next((row["n"] for row in rows if "w" in row), None),
        "rows": rows,
        **({"numbers": names} if names else {}),
        "charts": scatter,
        "progress": charts.progress_chart(rows, quality),
        "quality": quality.words,
    }


def _space(run: RunFiles) -> dict[str, Any] | None:
    """Shapes of the layers, and the MACs of every operator in every layer."""
    if run.space is None:
        return None
    space, table = run.space, CostTable(run.space)
    return {
        "layers": [
            f"{_shape(x.in_size, x.c_in)} → {_shape(x.out_size, x.c_out)}" for x in space.layers
        ],
        "operators": space.operators,
        "macs": table.operators["macs"],
        "trunk": table.trunk["macs"],
        "head": table.head["macs"],
    }


def _shape(size: Sequence[int], channels: int) -> str:
    return "×".join(map(str, (*size, channels)))


def _shrink(shrink: Shrink) -> dict[str, Any]:
    """The space after a shrink, or at the start (index 0)."""
    alive, layers = shrink.alive, shrink.splittable
    scale = shrinks.similarity_scale(layers)
    scores = [
        [layer["layer"], ", ".join(map(str, row["operators"])), row.get("score"), shrinks.fate(row)]
        for layer in layers
        for row in layer.get("combinations") or ()
    ]
    label = f"shrink {shrink.index} at step {shrink.step:,}, by {shrink.metric}"
    if alive is not None:
        word = "combination" if alive.num_combinations == 1 else "combinations"
        label += f", {alive.num_combinations:,} {word} left"
        if not shrink.index:
            label = f"start, {alive.num_combinations:,} {word}"
    return {
        "index": shrink.index,
        "label": label,
        "shares": None if alive is None else np.round(shrinks.alive_shares(alive), 4),
        "operators": None if alive is None else alive.space.operators,
        "alive": None if alive is None else shrinks.alive_chart(alive),
        "scale": shrinks.similarity_key(scale),
        "similarity": {
            str(layer["layer"]): shrinks.similarity_chart(layer, scale) for layer in layers
        },
        "scores": sorted(scores, key=lambda row: (row[0], row[2] or 0)),
    }


def _training(run: RunFiles) -> dict[str, Any]:
    """By stage: how many lines and epochs its log has, and its charts."""
    result = {}
    for stage, lines in run.metrics.items():
        marks = [s.step for s in run.shrinks] if stage == "supernet" else []
        made = charts.curve_charts(lines, marks)
        if made:
            epochs = lines[-1].get("epoch")
            result[stage] = {"lines": len(lines), "epochs": epochs, "charts": made}
    return result


def named(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a test left, with names of all classes."""
    if found is None:
        return None
    names = found.get("class_names") or range(found["num_classes"])
    return {**found, "class_names": [str(name) for name in names]}


def confusion_data(run: RunFiles) -> dict[str, Any] | None:
    """Content of confusion.json, with its chart where the classes are not too many."""
    value = named(run.confusion)
    if value is None:
        return None
    small = value["num_classes"] <= MAX_CLASSES
    return {**value, "chart": charts.confusion_chart(value) if small else None}


def _uncertainty(run: RunFiles) -> dict[str, Any] | None:
    """Content of uncertainty.json, with its chart."""
    found = run.uncertainty
    return None if found is None else {**found, "chart": risk_chart(found) | {"width": "container"}}


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that runs are compared by."""
    accuracy, found = summary["accuracy"] or {}, summary["architecture"] or {}
    search, time = summary["search"] or {}, summary["wall_time"] or {}
    sizes = {export["file"]: export["bytes"] for export in summary["exports"]}
    return {
        "ensemble": accuracy.get("ensemble"),
        "gain": accuracy.get("gain"),
        "best_search": search.get("best_accuracy"),
        **{metric: summary["cost"].get(metric) for metric in ("macs", "params", "latency_ns")},
        "num_paths": found.get("num_paths"),
        "split_point": found.get("split_point"),
        "candidates": search.get("candidates"),
        "tflite_bytes": sizes.get("model.tflite"),
        "seconds": time.get("total"),
    }
