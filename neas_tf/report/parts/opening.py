"""The first screen of a run: what was found, the picture of the ensemble, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neas_tf.cost.latency_table import NANOSECONDS, milliseconds
from neas_tf.report import diagram
from neas_tf.report.charts import LABELS, SCATTER_KEY
from neas_tf.report.parts.markup import Charts, Markup, button, card, details, note, table, tag
from neas_tf.report.parts.quality import NAMES
from neas_tf.report.summary import count, duration, file_size, percent
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace


def _points(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{abs(100 * value):.2f} points"


def short_count(value: float) -> str:
    """301500768 → '301.50 M'."""
    return count(value).partition(" (")[0]


COMPARED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("ensemble", "test accuracy", percent),
    ("gain", "over its best path", _points),
    ("best_search", "best in the search", percent),
    ("macs", "MACs", short_count),
    ("params", "parameters", short_count),
    ("latency_ns", "predicted latency", milliseconds),
    ("num_paths", "paths", str),
    ("split_point", "split after layer", str),
    ("candidates", "candidates", "{:,}".format),
    ("tflite_bytes", "TFLite file", file_size),
    ("seconds", "wall time", duration),
)
_AT_THE_TOP = ("ensemble", "gain", "macs", "params", "latency_ns", "tflite_bytes", "seconds")
# A bound of the budget: the cost that it bounds, and how both are told.
_BOUNDS: dict[str, tuple[str, float, Callable[[Any], str]]] = {
    "max_latency_ms": ("latency_ns", NANOSECONDS, milliseconds),
    "max_macs": ("macs", 1, lambda value: f"{short_count(value)} MACs"),
    "max_params": ("params", 1, lambda value: f"{short_count(value)} parameters"),
}
_MARKS = {"done": ("✓", "finished"), "begun": ("…", "begun"), "none": ("○", "not begun")}


def comparison(runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Runs as rows; their names choose which one is shown below."""
    used = [c for c in COMPARED if any(run["figures"][c[0]] is not None for run in runs)]
    rows = [
        [
            button(run["name"], class_="link", data_choose_run=i, aria_pressed=str(i == 0).lower()),
            *(
                None if run["figures"][key] is None else text(run["figures"][key])
                for key, _, text in used
            ),
        ]
        for i, run in enumerate(runs)
    ]
    columns = ["run", *(label for _, label, _ in used)]
    words = "Accuracies in the search are those of each run's own supernet."
    body = table(columns, rows, "Comparison of the runs")
    options = [tag("option", run["name"], value=i) for i, run in enumerate(runs)]
    select = tag("label", "Run shown below", tag("select", *options, id="run"))
    shown = card("comparison", "Comparison of the runs", note(words), body)
    return Markup(shown + tag("div", select, class_="controls"))


def verdict(summary: Mapping[str, Any]) -> str:
    """What a run found, in two sentences: accuracy, gain over the best path, cost against budget.

    `summary` is that of `summary.summarise`.
    """
    found, accuracy, search = (summary[name] for name in ("architecture", "accuracy", "search"))
    number = search["candidates"] if search else 0
    if not found:
        if not search:
            return "Nothing is found yet: no candidate has been scored."
        best = percent(search["best_accuracy"])
        return f"The search is not finished: of {number:,} candidates so far the best has {best}."
    ensemble = accuracy["ensemble"] if accuracy else None
    if ensemble is not None:
        told = _right(ensemble, accuracy["test_examples"])
        if accuracy["gain"] is not None and found["num_paths"] > 1:
            told += f", {_gain(accuracy['gain'])} its best path alone"
    elif search and search["winner_accuracy"] is not None:
        told = (
            f"{percent(search['winner_accuracy'])} with the supernet's weights, not retrained yet"
        )
    else:
        told = "not retrained yet"
    by = f" by {NAMES[search['fitness']]}" if search and "fitness" in search else ""
    chosen = f", chosen from {number:,} candidates{by}" if number else ""
    first = f"{_shape(found)}{chosen}: {told}."
    return " ".join([first, *_within(summary["cost"], summary["budget"])])


def _shape(found: Mapping[str, Any]) -> str:
    paths, split, layers = (found[name] for name in ("num_paths", "split_point", "num_layers"))
    if paths == 1:
        return f"A single path of {layers} layers"
    shared = f"the first {split} of {layers} layers" if 0 < split < layers else "all layers"
    return f"An ensemble of {paths} paths that share {shared if split else 'no layer'}"


def _right(share: float, examples: float | None) -> str:
    """The share of right answers with its standard error: few images say little."""
    if not examples:
        return f"{percent(share)} of the test images right"
    error = 100 * math.sqrt(share * (1 - share) / examples)
    return f"{percent(share)} of {examples:,} test images right (± {error:.2f})"


def _gain(gain: float) -> str:
    if not gain:
        return "as many as"
    return f"{abs(100 * gain):.2f} points {'more' if gain > 0 else 'less'} than"


def _within(cost: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """A sentence on the cost beside its bound, the tightest where there are several."""
    shares = []
    for name, (metric, factor, text) in _BOUNDS.items():
        if name in limits and metric in cost:
            share = cost[metric] / (factor * limits[name])
            shares.append((share, text(cost[metric]), text(factor * limits[name])))
    if shares:
        share, has, most = max(shares)
        return [f"It takes {has}, {100 * share:.0f} % of the {most} that the budget allows."]
    return [f"It takes {short_count(cost['macs'])} MACs; there was no upper bound."] if cost else []


def short(run: Mapping[str, Any]) -> str:
    """Of a run what counts most, for the bar."""
    figures = run["figures"]
    told = [percent(figures["ensemble"])] if figures["ensemble"] is not None else []
    return " · ".join(
        [*told, *([f"{short_count(figures['macs'])} MACs"] if figures["macs"] else [])]
    )


def opening_section(
    run: Mapping[str, Any], key: str, charts: Charts, space: SearchSpace | None
) -> Markup:
    """Verdict, the chosen ensemble and the candidates of a run, as `page.run_data` has it.

    `key` is the prefix of all ids; the diagram needs the space.
    """
    states = []
    for stage in run["stages"]:
        mark, told = _MARKS[stage["state"]]
        words = f"{mark} {stage['name']}: {told}{', ' if stage['text'] else ''}{stage['text']}"
        states.append(tag("li", words, data_state=stage["state"]))
    figures = [
        tag("div", tag("dt", label), tag("dd", text(run["figures"][name])))
        for name, label, text in COMPARED
        if name in _AT_THE_TOP and run["figures"][name] is not None
    ]
    right: list[Markup | str] = [tag("dl", *figures, class_="figures") if figures else ""]
    picture: Markup | str = ""
    if run["search"] or run["architecture"]:
        picture = _picture(run, key, space)
        right.append(_candidate(run, key, space is not None))
    right.append(tag("ul", *states, class_="stages", aria_label="Stages"))
    if run["search"]:
        left = _candidates(run["search"], key, charts)
    else:
        left = [note("the candidates; they need search/history.jsonl.", "missing")]
    return card(
        f"{key}-summary",
        f"What {run['name']} found",
        tag("p", run["verdict"], class_="verdict"),
        picture,
        tag("div", tag("div", *left), tag("div", *right), class_="columns two"),
    )


def _candidates(search: Mapping[str, Any], key: str, charts: Charts) -> list[Markup]:
    """Accuracy against each cost, of which one is shown."""
    options = [
        tag("option", LABELS[m].partition(" (")[0], value=m, selected=m == search["cost"])
        for m in search["metrics"]
    ]
    cost = tag("select", *options, class_="cost", id=f"{key}-cost")
    name = search["quality"]["name"]
    label = f"{name.capitalize()} against"
    parts = [tag("div", tag("label", label, cost), class_="controls")]
    for metric in search["metrics"]:
        label = f"Candidates, {name} against {LABELS[metric].partition(' (')[0]}"
        keys = f". Left and right arrow keys walk by cost, up and down by {name}"
        chart = charts.add(f"{key}-scatter-{metric}", search["charts"][metric], label + keys)
        chart = Markup(chart.replace('role="img"', 'role="slider"', 1))
        shown = metric == search["cost"]
        parts.append(tag("div", chart, data_metric=metric, hidden=not shown))
    parts.append(note(f"{SCATTER_KEY} Ring: the chosen one; a click chooses another."))
    return parts


def _candidate(run: Mapping[str, Any], key: str, drawn: bool) -> Markup:
    """What the scripts fill with the chosen candidate's facts, and what can be saved."""
    search, controls = run["search"], []
    if search:
        ends = {"min": search["rows"][0]["n"], "max": search["rows"][-1]["n"]}
        box = {"type": "number", "inputmode": "numeric", "class_": "number", "id": f"{key}-number"}
        controls.append(tag("label", "Candidate", tag("input", **ends, **box)))
        if search["winner"] is not None:
            controls.append(button("Winner", data_candidate=search["winner"], id=f"{key}-winner"))
    controls.append(button("Architecture (JSON)", class_="json", id=f"{key}-json"))
    if drawn:
        controls.append(button("Picture (PNG)", class_="diagram-png", id=f"{key}-png"))
    if search:
        controls.append(button("Candidates (CSV)", class_="csv", id=f"{key}-csv"))
    return tag(
        "div",
        tag(
            "div",
            tag("h3", "The ensemble", class_="candidate-title"),
            tag("p", class_="candidate-facts"),
            tag("p", tag("code", class_="candidate-key")),
            class_="candidate",
            aria_live="polite",
        ),
        tag("div", *controls, class_="controls"),
        details("Layers as a table", tag("div", class_="layers")) if drawn else "",
    )


def _picture(run: Mapping[str, Any], key: str, space: SearchSpace | None) -> Markup:
    """The place of the chosen candidate's diagram, and the pieces it is made of."""
    if space is None:
        return note("the diagram; it needs the search space (params.yaml).", "missing")
    keys = {row["key"] for row in (run["search"] or {}).get("rows", ())}
    keys |= {run["architecture"]} if run["architecture"] else set()
    frames, legend = diagram.pieces(space, map(Architecture.from_key, keys), key)
    wide = {"class_": "scroll diagram", "tabindex": 0, "role": "region"}
    parts = [
        tag("div", id=f"{key}-picture", aria_label="Diagram of the ensemble", **wide),
        tag("div", Markup(legend), aria_label="Key to the diagram", **wide),
        tag("p", class_="note diagram-total"),
        Markup(frames),
    ]
    return tag("div", *parts)


def facts_section(run: Mapping[str, Any], key: str) -> Markup:
    """All numbers of the summary."""
    parts = []
    for title, rows in run["sections"]:
        lines = [
            tag(
                "tr",
                tag("th", label, scope="row"),
                tag("td", tag("code", text) if label == "architecture" else text),
            )
            for label, text in rows
        ]
        facts = tag("table", tag("tbody", *lines), class_="facts")
        parts.append(tag("div", tag("h3", title), facts))
    return card(f"{key}-facts", "All numbers", tag("div", *parts, class_="flow"))
