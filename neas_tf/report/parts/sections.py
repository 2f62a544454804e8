"""The sections of a run on its search, its trainings and what its folder lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neas_tf.cost.latency_table import milliseconds
from neas_tf.report.charts import LABELS, ROWS, STAGES
from neas_tf.report.parts.markup import Charts, Markup, button, card, details, note, table, tag
from neas_tf.report.parts.opening import short_count
from neas_tf.report.summary import percent


def search_section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """How the search went, and the candidates that nothing beats."""
    search = run["search"]
    if not search:
        lack = note("the search; it needs search/history.jsonl.", "missing")
        return card(f"{key}-search", "Search", lack)
    rows, total = search["rows"], search["total"]
    words = f"{total:,} candidates, scored with the supernet's weights on held-out training images."
    if total > len(rows):
        words += f" {len(rows):,} of them are shown: the Pareto fronts, the best, and others spread evenly."
    best = charts.add(
        f"{key}-progress",
        search["progress"],
        f"Best {search['quality']['name']} among the first candidates",
        "candidate",
        search["quality"]["form"],
    )
    fronts = [_front(search, metric) for metric in search["metrics"]]
    left, right = tag("div", tag("h3", "Best so far"), best), tag("div", *fronts)
    return card(
        f"{key}-search", "Search", note(words), tag("div", left, right, class_="columns two")
    )


def _front(search: Mapping[str, Any], metric: str) -> Markup:
    rows, metrics, numbers = search["rows"], search["metrics"], search.get("numbers", ())
    front = sorted((row for row in rows if metric in row["f"]), key=lambda row: row[metric])
    lines = [
        [
            button(row["n"], class_="link", data_candidate=row["n"]),
            percent(row["a"]),
            *(f"{row[name]:.4f}" if name in row else "" for name in numbers),
            *(milliseconds(row[m]) if m == "latency_ns" else short_count(row[m]) for m in metrics),
            row["g"],
        ]
        for row in front
    ]
    names = [LABELS[m].partition(" (")[0] for m in metrics]
    shown = [name.replace("_", " ") for name in numbers]
    columns = ["candidate", "accuracy", *shown, *names, "generation"]
    title = f"Pareto front of {search['quality']['name']} and {LABELS[metric].partition(' (')[0]} ({len(front)})"
    return details(title, table(columns, lines, title), shown=metric == search["cost"])


def training_section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """Curves of both trainings."""
    parts = []
    for stage, found in run["training"].items():
        name = STAGES.get(stage, stage)
        words = f"{found['lines']:,} logged lines"
        if found["epochs"] is not None:
            words += f", {found['epochs']:.4g} epochs"
        words += "; thin: as logged, thick: running mean"
        words += ", dashed rules: shrinks." if stage == "supernet" else "."
        made = [
            tag(
                "div",
                tag("h4", ROWS[row].capitalize()),
                charts.add(
                    f"{key}-{stage}-{row}",
                    spec,
                    f"{name}: {ROWS[row]}",
                    "step",
                    "percent" if row == "accuracy" else "",
                ),
            )
            for row, spec in found["charts"].items()
        ]
        parts += [tag("h3", name), note(words), tag("div", *made, class_="columns three")]
    if not parts:
        lack = "training curves; they need supernet/metrics.jsonl or retrain/metrics.jsonl."
        parts.append(note(lack, "missing"))
    return card(f"{key}-training", "Training", *parts)


def remarks_section(run: Mapping[str, Any], key: str) -> Markup:
    """Files that are not there, and problems."""
    parts = []
    for title, items in (("Not there (yet)", run["missing"]), ("Problems", run["problems"])):
        if items:
            parts += [tag("h3", title), tag("ul", *(tag("li", item) for item in items))]
    return card(f"{key}-remarks", "What the folder lacks", *parts)
