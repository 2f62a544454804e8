"""Which split points are found under which budget, and what does sharing give? (paper Table 4)"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

from neas_tf.common import console
from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, ranking_over_common_seeds
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Found, Lookup, Search, Training, Unit, found

TITLE = "Sharing: split points found under several budgets, against paths that share nothing"
PAPER = "Table 4"
APART = {"min_split": 0}  # a space that also holds ensembles that share no layer
_NEVER = {"min_split": 0, "max_split": 0}  # one that holds nothing else


def _search(plan: Plan, budget: int, seed: int) -> Search:
    return plan.search(plan.supernet(seed), max_macs=budget)


def _found(plan: Plan, budget: int, seed: int) -> Training:
    return plan.retrained(_search(plan, budget, seed))


def _twin(plan: Plan, budget: int, seed: int) -> Training:
    ensemble = Found(_search(plan, budget, seed), unshared=True)
    return plan.training(seed, ensemble, space=APART)


def _baseline(plan: Plan, seed: int) -> Training:
    """As the paper's: searched without sharing, under the largest budget."""
    search = plan.search(plan.supernet(seed, space=_NEVER), max_macs=max(plan.budgets))
    return plan.training(seed, Found(search), space=APART)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [
        [
            *(_found(plan, budget, seed) for budget in plan.budgets),
            *(_twin(plan, budget, seed) for budget in plan.budgets),
            _baseline(plan, seed),
        ]
        for seed in plan.seeds
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table, sentences and the picture, of what is done."""
    units = {f"≤ {console.short_count(b)} MACs": (_found, b) for b in plan.budgets}
    units |= {f"its paths unshared, {console.short_count(b)}": (_twin, b) for b in plan.budgets}
    results: dict[str, list[Mapping[str, Any]]] = {}
    for name, (make, budget) in units.items():
        results[name] = _done([make(plan, budget, seed) for seed in plan.seeds], lookup)
    baseline = f"searched unshared, ≤ {console.short_count(max(plan.budgets))}"
    results[baseline] = _done([_baseline(plan, seed) for seed in plan.seeds], lookup)
    summary = {name: _summary(rows) for name, rows in results.items()}
    names = [f"≤ {console.short_count(b)} MACs" for b in plan.budgets]
    sentences = [_split_words(names, summary)]
    largest = names[-1]
    what = "test accuracy, sharing against none under the largest budget"
    sentences.append(
        ranking_over_common_seeds(
            results, (largest, baseline), lambda row: row["ensemble_accuracy"], what
        )
    )
    sentences += _twin_words(plan, lookup)
    rows = [
        {
            "model": name,
            "trainings": str(row["ensemble"].count),
            "split point": number(row["split"], 1),
            "test accuracy": percent(row["ensemble"]),
            "top 5": percent(row["top5"]),
            "MACs": number(row["macs"], 2, 1e-6, " M"),
        }
        for name, row in summary.items()
    ]
    table = Table.of(f"Of {plan.space.num_layers} layers; mean ± standard deviation", rows)
    pictures = {}
    if any(results.values()):
        pictures["sharing.png"] = functools.partial(_picture, results)
    return Report({"models": summary, "results": results}, [table], sentences, pictures)


def _done(units: list[Training], lookup: Lookup) -> list[Mapping[str, Any]]:
    done = [(unit.seed, found(unit, lookup)) for unit in units]
    return [{**result, "seed": seed} for seed, result in done if result is not None]


def _split(result: Mapping[str, Any]) -> int:
    return int(result["architecture"].partition(":")[0][1:])


def _summary(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "split": Mean.of([_split(r) for r in results]),
        "ensemble": Mean.of([r["ensemble_accuracy"] for r in results]),
        "top5": Mean.of([r["top5"] for r in results if "top5" in r]),
        "macs": Mean.of([r["macs"] for r in results]),
    }


def _split_words(names: list[str], summary: Mapping[str, Any]) -> str:
    """The paper: 'the larger model attempts to share fewer layers'."""
    splits = [summary[name]["split"] for name in names if summary[name]["split"].count]
    if len(splits) < 2:
        return "Split points: too little is done to compare budgets."
    means = [split.mean for split in splits]
    fewer = all(a >= b for a, b in itertools.pairwise(means)) and means[0] > means[-1]
    shown = ", ".join(number(split, 1) for split in splits)
    verdict = "holds here" if fewer else "does not hold here"
    return (
        f"The paper's observation that larger ensembles share fewer layers {verdict}: split points "
        f"{shown} under rising budgets."
    )


def _twin_words(plan: Plan, lookup: Lookup) -> list[str]:
    """What sharing costs and saves, pair by pair."""
    gains, ratios = [], []
    for budget in plan.budgets:
        for seed in plan.seeds:
            shared = found(_found(plan, budget, seed), lookup)
            apart = found(_twin(plan, budget, seed), lookup)
            if shared is not None and apart is not None:
                gains.append(apart["ensemble_accuracy"] - shared["ensemble_accuracy"])
                ratios.append(apart["macs"] / shared["macs"])
    if not gains:
        return []
    gain, ratio = Mean.of(gains), Mean.of(ratios)
    error = "" if math.isnan(gain.std) else f" ± {100 * gain.std:.2f}"
    return [
        f"The same paths without a shared layer: {100 * gain.mean:+.2f}{error} points of test "
        f"accuracy at {ratio.mean:.2f} times the MACs ({gain.count} pairs)."
    ]


def _picture(results: Mapping[str, list[Mapping[str, Any]]]) -> bytes:
    rows = [
        {"x": r["macs"] / 1e6, "y": r["ensemble_accuracy"], "s": name}
        for name, found in results.items()
        for r in found
    ]
    titles = ("million MACs", "test accuracy")
    chart = style.series(rows, list(results), titles, (560, 280), palette=style.MANY)
    return style.to_png(chart, "Sharing layers under several budgets")
