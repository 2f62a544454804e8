"""The charts of search, training and test, and of a latency table: one specification for page and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.cost.latency_table import NANOSECONDS, LatencyTable
from neas_tf.report import style
from neas_tf.report.parts.quality import BY_ACCURACY, Quality, progress
from neas_tf.report.reading import METRICS
from neas_tf.report.run_files import known_numbers, number
from neas_tf.search.candidate import Candidate
from neas_tf.search.pareto import pareto_front

LABELS = {
    "macs": "multiply-accumulates (M MACs)",
    "params": "parameters (M)",
    "paper_flops": "FLOPs as the paper counts (M)",
    "latency_ns": "predicted latency (ms)",
}
# Bounds of the config, and the factor from a bound to the cost it bounds.
_BOUNDS = {
    "macs": (("max_macs", 1), ("min_macs", 1)),
    "params": (("max_params", 1),),
    "latency_ns": (("max_latency_ms", NANOSECONDS),),
}
ROWS = {"loss": "loss", "accuracy": "accuracy", "learning_rate": "learning rate"}
STAGES = {"supernet": "Supernet", "retrain": "Retraining"}
MAX_POINTS = 200  # of a training curve
_HELD_OUT = ("validation", "val", "test", "eval")
_STAR = "M0,-1L.24,-.32L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.32Z"
# Of the chart of candidates, what its legends do not say.
SCATTER_KEY = "Star: the winner. Line: Pareto front. Dashes: budget. Pale: stopped by a race."


def fronts(candidates: Sequence[Candidate], quality: Quality = BY_ACCURACY) -> dict[str, list[int]]:
    """Per cost that all candidates state, the indices of its Pareto front."""
    whole = [i for i, c in enumerate(candidates) if c.finished]
    result = {}
    for metric in METRICS:
        costs = [c.costs[metric] for c in candidates if metric in c.costs]
        if whole and len(costs) == len(candidates):
            front = pareto_front(
                [costs[i] for i in whole], [quality.of(candidates[i]) for i in whole]
            )
            result[metric] = [whole[i] for i in front.tolist()]
    return result


def thinned(
    candidates: Sequence[Candidate], winner: str | None, limit: int, quality: Quality = BY_ACCURACY
) -> tuple[Candidate, ...]:
    """At most about `limit` candidates, by number: fronts, winner, the best, and a spread."""
    if len(candidates) <= limit:
        return tuple(candidates)
    keep = {i for rows in fronts(candidates, quality).values() for i in rows}
    keep |= {i for i, c in enumerate(candidates) if c.architecture.key == winner}
    best = sorted(range(len(candidates)), key=lambda i: -quality.of(candidates[i]))
    keep |= set(best[: limit // 10])
    rest = [i for i in range(len(candidates)) if i not in keep]
    room = max(limit - len(keep), 1)
    keep |= {rest[round(i)] for i in np.linspace(0, len(rest) - 1, min(room, len(rest)))}
    return tuple(candidates[i] for i in sorted(keep))


def candidate_rows(
    candidates: Sequence[Candidate], winner: str | None, quality: Quality = BY_ACCURACY
) -> list[dict[str, Any]]:
    """What the charts and the page say of each candidate: the data named `candidates`.

    A row has `n` number, `g` generation, `o` origin, `a` accuracy, `key`, the costs, `p` the paths'
    accuracies, `f` the costs on whose Pareto front it lies, `w` for the winner, `r`, the images
    it was judged by, where a race of an old search stopped it, `looks` where it had several, and those
    of `NUMBERS` that are known.
    """
    on = fronts(candidates, quality)
    rows = []
    for i, c in enumerate(candidates):
        row: dict[str, Any] = {"n": c.number, "g": c.generation, "o": c.origin}
        row |= {"a": c.accuracy, **c.costs}
        row |= {"key": c.architecture.key, "p": [round(a, 5) for a in c.path_accuracies]}
        row |= {"w": 1} if c.architecture.key == winner else {}
        row |= {} if c.finished else {"r": c.images}
        row |= {} if c.looks is None else {"looks": c.looks}
        row |= {name: round(value, 6) for name, value in c.numbers.items()}
        rows.append(row | {"f": [metric for metric in on if i in set(on[metric])]})
    return rows


def scatter_chart(
    metric: str,
    rows: Sequence[Mapping[str, Any]],
    budget: Mapping[str, Any],
    quality: Quality = BY_ACCURACY,
) -> dict[str, Any]:
    """Accuracy, or what the search asked for, against a cost. Its parameters: `chosen`, a number; `pick`, the point clicked at.

    It refers to the rows (`candidate_rows`) as the data `candidates`; bounds near them are drawn.
    """
    import altair as alt

    data = style.Rows()
    chosen = alt.param(name="chosen", value=-1)
    pick = alt.selection_point(name="pick", on="click", nearest=True, fields=["n"], toggle=False)
    x = alt.X(
        f"{metric}:Q",
        scale=alt.Scale(zero=False, padding=10, nice=False),
        axis=alt.Axis(title=LABELS[metric], labelExpr=style.MILLIONS, tickCount=6, grid=False),
    )
    y = alt.Y(f"{quality.field}:Q", scale=alt.Scale(zero=False), axis=quality.axis())
    base = alt.Chart(alt.NamedData(name="candidates")).encode(x=x, y=y)
    front = base.transform_filter(f"indexof(datum.f, '{metric}') >= 0")
    origins = ["random", "crossover", "mutation"]
    points = base.mark_point(filled=True, size=42).encode(
        shape=alt.Shape(
            "o:N",
            title="origin",
            scale=alt.Scale(domain=origins, range=["circle", "triangle-up", "square"]),
        ),
        fill=alt.Fill(
            "g:Q",
            title="generation",
            scale=alt.Scale(range=["@first", "@sky", "@last"]),
            legend=alt.Legend(tickMinStep=1, format="d"),
        ),
        opacity=alt.condition("isValid(datum.r)", alt.value(0.3), alt.value(1)),
        tooltip=[
            alt.Tooltip("n:Q", title="candidate"),
            alt.Tooltip("a:Q", title="accuracy", format=".2%"),
            *(
                alt.Tooltip(f"{name}:Q", title=name.replace("_", " "), format=".4f")
                for name in known_numbers(rows)
            ),
            alt.Tooltip(f"{metric}:Q", title=LABELS[metric].partition(" (")[0], format=","),
        ],
    )
    bounds = data.add([{"v": value} for value in _near(metric, rows, budget)])
    layers = [
        alt.Chart(bounds).mark_rule(color="@vermilion", strokeDash=[6, 3]).encode(x=alt.X("v:Q")),
        points.properties(name="points").add_params(pick),
        front.mark_line(interpolate="step-after", color="@vermilion", strokeWidth=1.5),
        front.mark_point(size=80, stroke="@vermilion", strokeWidth=1.5),
        base.transform_filter("datum.w").mark_point(
            shape=_STAR, size=250, fill="@gold", stroke="@ink", opacity=1
        ),
        base.transform_filter("datum.n === chosen").mark_point(
            size=480, stroke="@ink", strokeWidth=2.4, opacity=1
        ),
    ]  # fmt: skip
    return data.layered(layers, "container", 360, chosen)


def _near(metric: str, rows: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]) -> list[float]:
    costs = [row[metric] for row in rows]
    span = max(max(costs) - min(costs), 0.02 * max(costs))
    values = [factor * (number(budget.get(name)) or 0) for name, factor in _BOUNDS.get(metric, ())]
    return [v for v in values if min(costs) - span < v < max(costs) + span]


def progress_chart(
    rows: Sequence[Mapping[str, Any]], quality: Quality = BY_ACCURACY
) -> dict[str, Any]:
    """Quality by number of candidates: each, the best so far, and the mean of the best."""
    import altair as alt

    # One that a race stopped is neither the best nor of the best.
    values = np.array([-np.inf if "r" in row else row[quality.field] for row in rows])
    top = 50 if len(rows) >= 100 else max(1, min(10, len(rows) // 4))
    best, mean = progress(values, top)
    names = ["best so far", *([f"mean of the {top} best"] if top > 1 else [])]
    lines = [
        {"x": rows[i]["n"], "s": name, "v": round(float(values[i]), 6)}
        for name, values in zip(names, (best, mean), strict=False)
        for i in range(len(rows))
        if np.isfinite(values[i]) and (i + 1 == len(rows) or i == 0 or values[i] != values[i - 1])
    ]
    axis = alt.Axis(title="candidates scored", tickMinStep=1, format="d", grid=False)
    scale, title = alt.Scale(zero=False), quality.axis()
    points = alt.Chart(alt.NamedData(name="candidates"))
    data = style.Rows()
    curves = alt.Chart(data.add(lines)).encode(
        x=alt.X("x:Q", axis=axis),
        y=alt.Y("v:Q", scale=scale, axis=title),
        color=alt.Color(
            "s:N", title=None, scale=style.colours(names), legend=alt.Legend(symbolType="stroke")
        ),
    )
    layers = [
        points.mark_point(filled=True, size=12, color="@sky", opacity=0.8).encode(
            x=alt.X("n:Q", axis=axis), y=alt.Y(f"{quality.field}:Q", scale=scale, axis=title)
        ),
        curves.mark_line(interpolate="step-after"),
        curves.transform_filter("datum.x === cursor").mark_point(filled=True, size=50),
    ]
    cursor = alt.param(name="cursor", value=-1)
    return data.layered(layers, "container", 220, cursor)


def search_picture(
    candidates: Sequence[Candidate],
    winner: str | None = None,
    budget: Mapping[str, Any] | None = None,
    cost: str | None = None,
    quality: Quality = BY_ACCURACY,
) -> dict[str, Any]:
    """Two panels: quality against cost by generation, and quality by number of candidates.

    `cost` is `macs`, `params` or `latency_ns`; by default the predicted latency. Where a candidate has
    none of it, MACs. Bounds of `budget` near the candidates are drawn as lines.
    """
    metric = cost or "latency_ns"
    if any(metric not in c.costs for c in candidates):
        metric = "macs"
    rows = candidate_rows(candidates, winner, quality)
    left = scatter_chart(metric, rows, budget or {}, quality)
    left |= {"width": 470, "title": f"{quality.name.capitalize()} against cost"}
    right = {**progress_chart(rows, quality), "width": 380, "height": 360, "title": "Progress"}
    spec = style.together([left, right], 2)
    return {**spec, "datasets": {**spec["datasets"], "candidates": rows}}


def row_of(key: str) -> str | None:
    """Which chart of a stage a logged number belongs to; None for what is not drawn."""
    return next((row for row in ROWS if row in key), None)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean, (n,) to (n,): centred, narrower at the steep start, one-sided at the end."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    reach = np.minimum(window // 2, i)
    first, last = i - reach, np.minimum(i + reach, len(values) - 1)
    return (total[last + 1] - total[first]) / (last + 1 - first)


def curve_charts(lines: Sequence[Mapping[str, Any]], marks: Sequence[int] = ()) -> dict[str, Any]:
    """The charts of a stage's log, of those of loss, accuracy and learning rate that it has.

    A chart's data have `x` step, `s` series, `v` its running mean (of long logs) and `r` the value as
    logged. Its parameter `cursor` is a step to mark; `marks` are the steps of the shrinks.
    """
    series: dict[str, dict[str, np.ndarray]] = {row: {} for row in ROWS}
    keys = sorted(
        {k for line in lines for k in line if row_of(k)}, key=lambda k: ("ensemble" in k, k)
    )
    for key in keys:
        points = [(x["step"], x[key]) for x in lines if number(x.get(key)) is not None]
        if points:
            series[row_of(key) or ""][key] = np.array(points, float).T
    return {row: _curves(row, found, marks) for row, found in series.items() if found}


def _curves(row: str, series: Mapping[str, np.ndarray], marks: Sequence[int]) -> dict[str, Any]:
    import altair as alt

    names, points = [_label(key) for key in series], []
    for name, (steps, values) in zip(names, series.values(), strict=True):
        window = len(values) // 25
        smoothed = smooth(values, window) if window >= 3 and row != "learning_rate" else values
        every = -(-len(values) // MAX_POINTS)
        for i in range((len(values) - 1) % every, len(values), every):
            point = {"x": int(steps[i]), "s": name, "v": float(f"{smoothed[i]:.5g}")}
            raw = {} if smoothed is values else {"r": float(f"{values[i]:.5g}")}
            points.append(point | raw)
    data = style.Rows()
    looks = [_look(key, i) for i, key in enumerate(series)]
    shown = alt.Legend(symbolType="stroke") if len(names) > 1 else None
    scale = alt.Scale(domain=names, range=[colour for colour, _ in looks])
    dashes = alt.Scale(domain=names, range=[dash for _, dash in looks])
    x = alt.X("x:Q", axis=alt.Axis(title="step", tickMinStep=1, tickCount=5, grid=False))
    axis = style.percent_axis(None) if row == "accuracy" else alt.Axis(title=None)
    y = alt.Y("v:Q", axis=axis, scale=alt.Scale(zero=row == "learning_rate"))
    base = alt.Chart(data.add(points)).encode(
        x=x, color=alt.Color("s:N", title=None, scale=scale, legend=shown)
    )
    end = max(float(steps.max()) for steps, _ in series.values())
    rules = alt.Chart(data.add([{"x": step} for step in marks if step <= end]))
    cursor = base.transform_filter("datum.x === cursor")
    line = base.mark_line(point={"size": 14} if len(points) < 12 * len(names) else False)
    layers = [
        rules.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(x=x),
        base.mark_line(strokeWidth=0.7, opacity=0.35).encode(y=alt.Y("r:Q")),
        line.encode(y=y, strokeDash=alt.StrokeDash("s:N", title=None, scale=dashes, legend=shown)),
        cursor.mark_rule().encode(color=alt.value("@grey")),
        cursor.mark_point(filled=True, size=40).encode(y=y),
    ]
    parameter = alt.param(name="cursor", value=-1)
    return data.layered(layers, "container", 190, parameter)


def curves_picture(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]], marks: Sequence[int]
) -> dict[str, Any]:
    """One column a stage, rows for what was logged; `marks` are the steps of the shrinks."""
    found = {
        stage: curve_charts(lines, marks if stage == "supernet" else ())
        for stage, lines in metrics.items()
    }
    found = {stage: charts for stage, charts in found.items() if charts}
    panels = [
        {**charts[row], "width": 430, "title": f"{STAGES.get(stage, stage)}: {ROWS[row]}"}
        for row in ROWS
        for stage, charts in found.items()
        if row in charts
    ]
    return style.together(panels, len(found))


def _look(key: str, index: int) -> tuple[str, list[int]]:
    """Colour and dashes of a logged series; paths differ in both."""
    held_out = key.startswith(_HELD_OUT)
    if "ensemble" in key:
        return "@ink", [6, 3] if held_out else [1, 0]
    tail = key.rsplit("_", 1)[-1]
    place = int(tail) - 1 if tail.isdigit() else index
    dashes = ([1, 0], [7, 3], [2, 3], [8, 3, 2, 3], [4, 2])
    return style.PATHS[place % len(style.PATHS)], [4, 2] if held_out else dashes[place % 5]


def _label(key: str) -> str:
    """Words for a logged name: accuracy_1 → path 1, validation_accuracy_2 → validation, path 2."""
    words = key.split("_")
    parts = [words.pop(0)] if words[0] in _HELD_OUT else []
    if "ensemble" in words:
        parts.append("ensemble")
        words.remove("ensemble")
    if words and words[-1].isdigit():
        parts.append(f"path {words.pop()}")
    rest = " ".join(word for word in words if word != "accuracy")
    if rest == "loss" and parts:
        rest = ""
    return ", ".join(p for p in (*parts, rest) if p) or " ".join(key.split("_"))


def confusion_chart(confusion: Mapping[str, Any]) -> dict[str, Any]:
    """Right classes down, named classes across; the colour follows the square root of the share."""
    import altair as alt

    size, given = confusion["num_classes"], confusion["class_names"]
    names = [name if given.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(given)]
    total = np.zeros(size)
    for label, _, count in confusion["counts"]:
        total[label] += count
    # Errors are few: their square root makes them visible beside the diagonal.
    rows = [
        {"t": names[i], "p": names[j], "c": c, "s": round(float(np.sqrt(c / total[i])), 4)}
        for i, j, c in confusion["counts"]
        if c
    ]
    scale = alt.Scale(domain=names)
    axis: dict[str, Any] = {"title": None, "ticks": False, "domain": False, "labelLimit": 90}
    x = alt.X("p:N", scale=scale, axis=alt.Axis(**axis, orient="top", labelAngle=-90))
    tips = [alt.Tooltip("t:N", title="class"), alt.Tooltip("p:N", title="taken for")]
    tips.append(alt.Tooltip("c:Q", title="images", format=","))
    data = style.Rows()
    base = alt.Chart(data.add(rows)).encode(
        x=x, y=alt.Y("t:N", scale=scale, axis=alt.Axis(**axis)), tooltip=tips
    )
    colour = alt.Color("s:Q", scale=alt.Scale(domain=[0, 1], range=style.FADE), legend=None)
    layers = [base.mark_rect(stroke="@card").encode(color=colour)]
    if size <= 12:
        ink = alt.condition("datum.s > 0.55", alt.value("@onhigh"), alt.value("@ink"))
        layers.append(base.mark_text(fontSize=9).encode(text="c:Q", color=ink))
    height = size * max(10, min(32, 480 // size))
    return data.layered(layers, "container", height)


def latency_picture(table: LatencyTable) -> bytes:
    """PNG: predicted against measured latency of the fit's ensembles and the others."""
    kind = "float32" if table.quantize == "none" else table.quantize
    facts = f"{table.made_for}, {kind}, {table.num_paths} path{'s' * (table.num_paths > 1)}"
    rows: list[dict[str, Any]] = []
    for found, name in ((table.fit, "fitted on"), (table.validation, "others")):
        if not found:
            continue
        label = f"{name}: {len(found['ensembles'])}, "
        label += f"median error {found['median_relative_error']:.1%}"
        if name == "others" and found["kendall_tau"] is not None:
            label += f", τ {found['kendall_tau']:.2f}"
        for row in found["ensembles"]:
            x, y = (row[key] / NANOSECONDS for key in ("predicted_ns", "measured_ns"))
            rows.append({"x": x, "y": y, "s": label})
    names = list(dict.fromkeys(row["s"] for row in rows))
    titles, palette = ("predicted (ms)", "measured (ms)"), ("@grey", "@blue")
    spec = style.series(rows, names, titles, (440, 440), percent="", palette=palette)
    ends = [row[axis] for row in rows for axis in "xy"]
    same = [{"v": min(ends)}, {"v": max(ends)}]
    place = {"field": "v", "type": "quantitative"}
    line = {"mark": {"type": "line", "color": "@line"}, "encoding": {"x": place, "y": place}}
    spec["layer"].insert(0, {"data": {"values": same}, **line})
    return style.to_png(spec, "Latency table", f"{facts}; the line: predicted = measured")
