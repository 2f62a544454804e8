"""Searched ensembles beside published networks of the same cost (paper Fig. 1 and Table 1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.rivals import fitted, space_settings
from neas_tf.study.statistics import Mean, over_common_seeds, ranking_words
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Found, Latency, LatencyTable, Lookup, Search, Training, Unit, found

TITLE = "Frontier: accuracy against MACs and latency, beside published networks"
PAPER = "Fig. 1, Table 1"
_OWN = "searched"


def _searches(plan: Plan, seed: int) -> dict[tuple[str, str], Search]:
    """By (model, bound in words): searches in each space, by MACs and by latency."""
    spaces: dict[str, dict[str, Any]] = {"own": {}}
    if plan.settings.mobile_space:
        spaces["mobile"] = {"space": dict(plan.settings.mobile_space)}
    result = {}
    for space, settings in spaces.items():
        supernet = plan.supernet(seed, **settings)
        name = _OWN if space == "own" else f"{_OWN}, {space} space"
        for budget in plan.budgets:
            result[name, _macs(budget)] = plan.search(supernet, max_macs=budget)
        for share in plan.settings.latency_shares:
            # Each seed measures its own; on a cluster, on whatever node.
            table = LatencyTable(seed, "{}", supernet)
            search = Search(seed, "{}", supernet, table, float(share))
            result[f"{name}, by latency", f"{share:.0%} of the latency range"] = search
    return result


def _models(plan: Plan, seed: int) -> dict[tuple[str, str], Training]:
    """By (model, bound in words), what is trained with one seed."""
    result: dict[tuple[str, str], Training] = {}
    mobile = {"space": dict(plan.settings.mobile_space)}
    for (name, bound), search in _searches(plan, seed).items():
        settings = mobile if "mobile space" in name else {}
        result[name, bound] = plan.training(seed, Found(search), **settings)
    for rival in plan.settings.rivals:
        for budget in plan.budgets:
            form = fitted(rival, plan.space, budget, plan.settings.rival_depth)
            if form is not None:
                space, key = form
                result[rival, _macs(budget)] = plan.training(
                    seed, key, num_paths=1, space=dict(space_settings(space))
                )
    if not result:
        raise NeasError("study.rivals: received none, and there is nothing to search.")
    return result


def _macs(budget: int) -> str:
    return f"≤ {console.short_count(budget)} MACs"


def _latency(training: Training) -> Latency:
    return Latency(0, "{}", training)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [
        [unit for one in _models(plan, seed).values() for unit in (one, _latency(one))]
        for seed in plan.seeds
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table, sentences and the picture, of what is done."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in plan.seeds:
        for place, training in _models(plan, seed).items():
            result = found(training, lookup)
            timed = found(_latency(training), lookup)
            rows.setdefault(place, [])
            if result is not None:
                milliseconds = timed["milliseconds"] if timed else None
                rows[place].append({**result, "milliseconds": milliseconds, "seed": seed})
    summary = {place: _summary(results) for place, results in rows.items()}
    values = [
        {"model": name, "bound": bound, **row, "results": rows[name, bound]}
        for (name, bound), row in summary.items()
    ]
    shown = [
        {
            "model": name,
            "bound": bound,
            "trainings": str(row["accuracy"].count),
            "test accuracy": percent(row["accuracy"]),
            "MACs": number(row["macs"], 3, 1e-6, " M"),
            "parameters": number(row["params"], 1, 1e-3, " k"),
            "latency": number(row["milliseconds"], 3, 1.0, " ms"),
        }
        for (name, bound), row in summary.items()
    ]
    title = "Trained alike from scratch; latency of the float TFLite form on one thread"
    pictures = {}
    if any(rows.values()):
        pictures["frontier.png"] = functools.partial(_picture, rows)
    table = Table.of(title, shown)
    return Report({"models": values}, [table], _findings(plan, summary, rows), pictures)


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    times = [r["milliseconds"] for r in results if r["milliseconds"] is not None]
    return {
        "accuracy": Mean.of([r["ensemble_accuracy"] for r in results]),
        "macs": Mean.of([r["macs"] for r in results]),
        "params": Mean.of([r["params"] for r in results]),
        "milliseconds": Mean.of(times),
    }


def _findings(
    plan: Plan,
    summary: Mapping[tuple[str, str], Any],
    rows: Mapping[tuple[str, str], list[dict[str, Any]]],
) -> list[str]:
    """The paper: the searched ensemble is the most accurate under every budget."""
    texts = []
    for budget in plan.budgets:
        bound = _macs(budget)
        own = {
            name: row["accuracy"]
            for (name, where), row in summary.items()
            if where == bound and row["accuracy"].count
        }
        rivals = {name: mean for name, mean in own.items() if not name.startswith(_OWN)}
        if _OWN not in own or not rivals:
            texts.append(f"{bound}: too little is done to compare.")
            continue
        best = max(rivals, key=lambda name: rivals[name].mean)
        places = [(_OWN, bound), (best, bound)]
        means = over_common_seeds(rows, places, lambda row: row["ensemble_accuracy"])
        pair = {name: mean for (name, _), mean in means.items()}
        texts.append(ranking_words(pair, (_OWN, best), f"{bound}, the best published network"))
    return texts


def _picture(rows: Mapping[tuple[str, str], list[dict[str, Any]]]) -> bytes:
    names = list(dict.fromkeys(name for name, _ in rows))
    panels = []
    for field, factor, label in (
        ("macs", 1e-6, "million MACs"),
        ("milliseconds", 1.0, "milliseconds, one thread"),
    ):
        points = []
        for (name, _), results in rows.items():
            if results and all(r[field] is not None for r in results):
                row = _summary(results)
                x, y = row[field].mean * factor, row["accuracy"]
                span = (
                    {"low": y.mean - y.std, "high": y.mean + y.std} if y.count > 1 and y.std else {}
                )
                points.append({"x": x, "y": y.mean, "s": name, **span})
        dashed = [name for name in names if not name.startswith(_OWN)]
        look: dict[str, Any] = {"lines": True, "dashed": dashed, "palette": style.MANY}
        panels.append(style.series(points, names, (label, "test accuracy"), (380, 280), **look))
    chart = style.together(panels, 2, shared=True)
    return style.to_png(
        chart, "Accuracy against cost", "mean and standard deviation over the seeds"
    )
