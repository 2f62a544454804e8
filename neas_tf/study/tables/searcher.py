"""Does evolution find better ensembles than random search? (paper Fig. 5)"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, ranking_words
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Lookup, Result, Search, Unit, found

TITLE = "Searcher: evolution against random search on the same supernets"
PAPER = "Fig. 5"
METHODS = ("evolution", "random")


def _search(plan: Plan, method: str, seed: int) -> Search:
    return plan.search(plan.supernet(seed), method=method)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [[_search(plan, method, seed) for method in METHODS] for seed in plan.seeds]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table, sentences and the picture, of what is done."""
    curves: dict[str, dict[int, Any]] = {method: {} for method in METHODS}
    for seed in plan.seeds:
        every = {method: found(_search(plan, method, seed), lookup) for method in METHODS}
        done = {method: result for method, result in every.items() if result is not None}
        if len(done) == len(every):
            for method, result in done.items():
                curves[method][seed] = top_curve(result, plan.settings.top)
    summary = {
        method: {
            "top": Mean.of([curve["top"][-1] for curve in by_seed.values()]),
            "best": Mean.of([curve["best"][-1] for curve in by_seed.values()]),
            "macs": Mean.of([curve["macs"][-1] for curve in by_seed.values()]),
            "scored": Mean.of([curve["scored"] for curve in by_seed.values()]),
        }
        for method, by_seed in curves.items()
    }
    top = plan.settings.top
    sentences = [
        ranking_words(
            {method: summary[method][name] for method in METHODS}, METHODS, f"{what} at the end"
        )
        for name, what in (
            ("top", f"mean supernet accuracy of the best {top} candidates"),
            ("best", "supernet accuracy of the best candidate"),
        )
    ]
    rows = [
        {
            "method": method,
            "searches": str(len(curves[method])),
            "scored": number(row["scored"], 0),
            f"top {top}": percent(row["top"]),
            "best": percent(row["best"]),
            "MACs of the top": number(row["macs"], 2, 1e-6, " M"),
        }
        for method, row in summary.items()
    ]
    table = Table.of("Supernet accuracy on held-out training images, at the end", rows)
    pictures = {}
    if curves["evolution"]:
        pictures["searcher.png"] = functools.partial(_picture, curves, top)
    return Report({"curves": curves, "summary": summary}, [table], sentences, pictures)


def top_curve(result: Result, top: int) -> dict[str, Any]:
    """The best candidates of a search's result after each generation.

    Returns:
      By generation `top` (mean accuracy of the best `top` so far), `spread` (their worst and
      best), `best` and `macs` (mean of the `top`); and `scored`, how many there are at the end.
    """
    candidates = result["candidates"]
    last = max(generation for *_, generation in candidates)
    curve: dict[str, Any] = {"top": [], "spread": [], "best": [], "macs": []}
    for generation in range(last + 1):
        so_far = sorted((-a, macs) for _, a, macs, g in candidates if g <= generation)[:top]
        accuracies = [-a for a, _ in so_far]
        curve["top"].append(float(np.mean(accuracies)))
        curve["spread"].append([accuracies[-1], accuracies[0]])
        curve["best"].append(accuracies[0])
        curve["macs"].append(float(np.mean([macs for _, macs in so_far])))
    return {**curve, "scored": len(candidates)}


def _picture(curves: Mapping[str, Mapping[int, Any]], top: int) -> bytes:
    rows: list[dict[str, Any]] = []
    names, palette = [], []
    for colour, (method, by_seed) in zip(style.PATHS, curves.items(), strict=False):
        names += [f"{method}, top {top}", f"{method}, best"]
        palette += [colour, colour]
        for seed, curve in by_seed.items():
            for i, (mean, best) in enumerate(zip(curve["top"], curve["best"], strict=True), 1):
                low, high = curve["spread"][i - 1]
                both = {"x": i, "k": str(seed)}
                rows.append({**both, "y": mean, "s": names[-2], "low": low, "high": high})
                rows.append({**both, "y": best, "s": names[-1]})
    look: dict[str, Any] = {"lines": True, "dashed": names[1::2], "palette": palette}
    chart = style.series(rows, names, ("generation", "supernet accuracy"), (460, 280), **look)
    return style.to_png(chart, "Evolution against random search")
