"""How many paths are best under one budget? (paper Table 5)"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, over_common_seeds, ranking_words
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Lookup, Search, Unit, found

TITLE = "Paths: ensembles of different numbers of paths under one budget"
PAPER = "Table 5"
_EXPECTED = (2, 3, 5)  # the paper's order, 80.0 > 79.5 > 78.5 %; it has no K = 1


def removed_at_a_time(plan: Plan, num_paths: int) -> int:
    """Combinations dropped at a time: the same share of all as the base drops."""
    counts = [
        ShrunkSpace.full(plan.space, k, plan.base["heterogeneous"]).num_combinations
        for k in (plan.base["num_paths"], num_paths)
    ]
    return max(1, round(plan.base["shrink"]["remove"] * counts[1] / counts[0]))


def _search(plan: Plan, num_paths: int, seed: int) -> Search:
    shrink = {"remove": removed_at_a_time(plan, num_paths)}
    return plan.search(plan.supernet(seed, num_paths=num_paths, shrink=shrink))


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [
        [plan.retrained(_search(plan, k, seed)) for k in plan.settings.paths] for seed in plan.seeds
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table, sentences and the picture, of what is done."""
    results: dict[int, list[Mapping[str, Any]]] = {}
    scores: dict[int, list[float]] = {}
    for k in plan.settings.paths:
        results[k], scores[k] = [], []
        for seed in plan.seeds:
            search = _search(plan, k, seed)
            trained, history = found(plan.retrained(search), lookup), found(search, lookup)
            if history is not None:
                scores[k].append(history["candidates"][history["best"]][1])
            if trained is not None:
                results[k].append({**trained, "seed": seed})
    summary = {k: _summary(rows) | {"supernet": Mean.of(scores[k])} for k, rows in results.items()}
    ensemble = {f"K = {k}": row["ensemble"] for k, row in summary.items()}
    expected = [k for k in _EXPECTED if k in results]
    means = over_common_seeds(results, expected, lambda row: row["ensemble_accuracy"])
    named = {f"K = {k}": mean for k, mean in means.items()}
    sentences = [ranking_words(named, list(named), "test accuracy of the ensemble")]
    known = {name: value for name, value in ensemble.items() if value.count}
    if len(known) > 1:
        best = max(known, key=lambda name: known[name].mean)
        sentences.append(
            f"The best mean has {best} with {percent(known[best])}; the paper's is K = 2."
        )
    rows = [
        {
            "K": str(k),
            "trainings": str(row["ensemble"].count),
            "ensemble": percent(row["ensemble"]),
            "best path": percent(row["best_path"]),
            "top 5": percent(row["top5"]),
            "MACs": number(row["macs"], 2, 1e-6, " M"),
            "split point": number(row["split"], 1),
            "supernet accuracy": percent(row["supernet"]),
        }
        for k, row in summary.items()
    ]
    table = Table.of("Found under one budget and retrained; mean ± standard deviation", rows)
    values = {
        "paths": summary,
        "remove": {k: removed_at_a_time(plan, k) for k in plan.settings.paths},
    }
    pictures = {"paths.png": functools.partial(_picture, results)} if known else {}
    return Report(values, [table], sentences, pictures)


def _summary(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "ensemble": Mean.of([r["ensemble_accuracy"] for r in results]),
        "best_path": Mean.of([max(r["path_accuracies"]) for r in results]),
        "top5": Mean.of([r["top5"] for r in results if "top5" in r]),
        "macs": Mean.of([r["macs"] for r in results]),
        "split": Mean.of([int(r["architecture"].partition(":")[0][1:]) for r in results]),
        "architectures": [r["architecture"] for r in results],
    }


def _picture(results: Mapping[int, list[Mapping[str, Any]]]) -> bytes:
    import altair as alt

    points = []
    for k, rows in results.items():
        alone = [a for r in rows for a in r["path_accuracies"]]
        for series, values in (
            ("paths alone", alone),
            ("ensemble", [r["ensemble_accuracy"] for r in rows]),
        ):
            points += [{"k": f"K = {k}", "s": series, "a": value} for value in values]
    names = ["paths alone", "ensemble"]
    data = style.Rows()
    base = alt.Chart(data.add(points)).encode(
        x=alt.X("k:N", title=None, sort=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("s:N", sort=names),
        color=alt.Color("s:N", title=None, scale=style.colours(names, ("@sky", "@vermilion"))),
    )
    y = alt.Y("a:Q", scale=alt.Scale(zero=False), axis=style.percent_axis("test accuracy"))
    mean = base.transform_filter("datum.s === 'ensemble'")
    chart = alt.layer(
        base.mark_point(filled=True, size=40).encode(y=y),
        mean.mark_tick(thickness=2, size=26).encode(y=alt.Y("mean(a):Q")),
    )
    spec = data.spec(chart.properties(width=90 * len(results), height=260))
    return style.to_png(spec, "Number of paths under one budget")
