"""What the page is made of, as HTML, and the sections of a run but for that on shrinking."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from neas_tf.cost.latency_table import milliseconds
from neas_tf.report import diagram
from neas_tf.report.charts import LABELS, ROWS, SCATTER_KEY, STAGES
from neas_tf.report.summary import count, duration, file_size, percent
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace


class Markup(str):
    """HTML, which `tag` does not escape."""


class Charts:
    """Collects the page's charts: `specs` by the id of the element that shows them."""

    def __init__(self):
        self.specs: dict[str, Any] = {}

    def add(self, identity: str, spec: Any, label: str, axis: str = "", form: str = "") -> Markup:
        """The place of a chart; with the name of its `axis` it is read with the arrow keys.

        `label` is for screen readers; `form` is 'percent', or '' for plain numbers.
        """
        self.specs[identity] = spec
        role = {"role": "slider"} if axis else {"role": "img"}
        told = f"{label}. The left and right arrow keys read its values." if axis else label
        plot = tag("div", class_="plot")
        look = {"id": identity, "data_axis": axis or None, "data_form": form or None}
        figure = tag("div", plot, class_="chart", tabindex=0, aria_label=told, **role, **look)
        readout = tag("output", class_="readout", for_=identity) if axis else ""
        save = button(
            "Save as SVG", class_="save", data_chart=identity, aria_label=f"Save as SVG: {label}"
        )
        return tag("div", figure, readout, save, class_="figure")


def tag(name: str, *children: Any, **attributes: Any) -> Markup:
    """An element; children that are no `Markup` are escaped, as are the attributes' values.

    Attributes that are None or False are left out; `class_` and `data_run` become `class` and
    `data-run`.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{html.escape(str(value))}"')
    inner = "".join(c if isinstance(c, Markup) else html.escape(str(c)) for c in children)
    # HTML lets the ends of table cells be left out, which halves long tables.
    end = "" if name in ("td", "th", "tr", "img", "input", "option") else f"</{name}>"
    return Markup(f"<{' '.join(parts)}>{inner}{end}")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    caption: str,
    numeric: Sequence[bool] | None = None,
) -> Markup:
    """A table in a box of its own, which scrolls where it is wide and which the keyboard reaches.

    `numeric` says which columns hold numbers; by default all but the first.
    """
    numeric = numeric or [i > 0 for i in range(len(columns))]

    def cells(kind: str, values: Sequence[Any], **attributes: Any) -> Markup:
        shown = ("–" if value is None else value for value in values)
        made = [
            tag(kind, value, class_="num" if right else None, **attributes)
            for value, right in zip(shown, numeric, strict=True)
        ]
        return tag("tr", *made)

    head = tag("thead", cells("th", columns, scope="col"))
    body = tag("tbody", *(cells("td", row) for row in rows))
    look = {"class_": "scroll", "tabindex": 0, "role": "region", "aria_label": caption}
    return tag("div", tag("table", head, body), **look)


def _points(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{abs(100 * value):.2f} points"


def _count(value: float) -> str:
    return count(value).partition(" (")[0]


COMPARED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("ensemble", "test accuracy", percent),
    ("gain", "over its best path", _points),
    ("best_search", "best in the search", percent),
    ("macs", "MACs", _count),
    ("params", "parameters", _count),
    ("latency_ns", "predicted latency", milliseconds),
    ("num_paths", "paths", str),
    ("split_point", "split after layer", str),
    ("candidates", "candidates", "{:,}".format),
    ("tflite_bytes", "TFLite file", file_size),
    ("seconds", "wall time", duration),
)
_AT_THE_TOP = ("ensemble", "gain", "macs", "params", "latency_ns", "candidates", "seconds")
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


def card(identity: str, title: str, *parts: Any) -> Markup:
    """A section under a heading."""
    return tag("section", tag("h2", title), *parts, class_="card", id=identity)


def button(text: str, **attributes: Any) -> Markup:
    """A button."""
    return tag("button", text, type="button", **attributes)


def details(title: str, *parts: Any) -> Markup:
    """What is shown on demand."""
    return tag("details", tag("summary", title), *parts)


def note(text: str, kind: str = "note") -> Markup:
    """A sentence; of the kind 'missing' on what is not there."""
    return tag("p", text, class_=kind)


def summary_section(run: Mapping[str, Any], key: str) -> Markup:
    """Stages and numbers of a run, as `page.run_data` has it; `key` is the prefix of all ids."""
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
    return card(
        f"{key}-summary",
        f"Summary of {run['name']}",
        tag("ul", *states, class_="stages", aria_label="Stages"),
        tag("dl", *figures, class_="figures") if figures else "",
        tag("div", *parts, class_="flow"),
    )


def search_section(
    run: Mapping[str, Any], key: str, charts: Charts, space: SearchSpace | None
) -> Markup:
    """Candidates and the chosen one, whose diagram needs the space."""
    search = run["search"]
    panel = _candidate(run, key, space) if search or run["architecture"] else []
    if not search:
        lack = note("the search; it needs search/history.jsonl.", "missing")
        return card(f"{key}-search", "Search", lack, *panel)
    rows, total = search["rows"], search["total"]
    words = f"{total:,} candidates, scored with the supernet's weights on held-out training images."
    if total > len(rows):
        words += f" {len(rows):,} of them are shown: the Pareto fronts, the best, and others spread evenly."
    options = [
        tag("option", LABELS[m].partition(" (")[0], value=m, selected=m == search["cost"])
        for m in search["metrics"]
    ]
    box = {"type": "number", "inputmode": "numeric", "class_": "number", "id": f"{key}-number"}
    controls = [
        tag("label", "Cost", tag("select", *options, class_="cost", id=f"{key}-cost")),
        tag("label", "Candidate", tag("input", min=rows[0]["n"], max=rows[-1]["n"], **box)),
    ]
    if search["winner"] is not None:
        controls.append(button("Winner", data_candidate=search["winner"], id=f"{key}-winner"))  # fmt: skip
    controls.append(button("Save as CSV", class_="csv", id=f"{key}-csv"))
    left = [tag("div", *controls, class_="controls")]
    for metric in search["metrics"]:
        label = f"Candidates, accuracy against {LABELS[metric].partition(' (')[0]}"
        keys = ". Left and right arrow keys walk by cost, up and down by accuracy"
        chart = charts.add(f"{key}-scatter-{metric}", search["charts"][metric], label + keys)
        chart = Markup(chart.replace('role="img"', 'role="slider"', 1))
        front = _front(rows, metric, search["metrics"])
        shown = metric == search["cost"]
        left.append(
            tag(
                "div",
                chart,
                note(f"{SCATTER_KEY} Ring: the chosen one."),
                front,
                data_metric=metric,
                hidden=not shown,
            )
        )
    right = [
        tag("h3", "Best so far"),
        charts.add(
            f"{key}-progress",
            search["progress"],
            "Best accuracy among the first candidates",
            "candidate",
            "percent",
        ),
    ]
    columns = tag("div", tag("div", *left), tag("div", panel[0], *right), class_="columns two")
    return card(f"{key}-search", "Search", note(words), columns, panel[1])


def _front(rows: Sequence[Mapping[str, Any]], metric: str, metrics: Sequence[str]) -> Markup:
    front = sorted((row for row in rows if metric in row["f"]), key=lambda row: row[metric])
    lines = [
        [
            button(row["n"], class_="link", data_candidate=row["n"]),
            percent(row["a"]),
            *(milliseconds(row[m]) if m == "latency_ns" else _count(row[m]) for m in metrics),
            row["g"],
        ]
        for row in front
    ]
    names = [LABELS[m].partition(" (")[0] for m in metrics]
    columns = ["candidate", "accuracy", *names, "generation"]
    body = table(columns, lines, "Candidates on the Pareto front")
    return details(f"Pareto front as a table ({len(front)})", body)


def _candidate(run: Mapping[str, Any], key: str, space: SearchSpace | None) -> list[Markup]:
    """What the scripts fill with the chosen candidate: its facts, and its diagram with a table."""
    facts = tag(
        "div",
        tag("h3", "The ensemble", class_="candidate-title"),
        tag("p", class_="candidate-facts"),
        tag("p", tag("code", class_="candidate-key")),
        class_="candidate",
        aria_live="polite",
    )
    if space is None:
        lack = note("the diagram; it needs the search space (params.yaml).", "missing")
        return [facts, tag("div", tag("h3", "Diagram"), lack)]
    keys = {row["key"] for row in (run["search"] or {}).get("rows", ())}
    keys |= {run["architecture"]} if run["architecture"] else set()
    frames, legend = diagram.pieces(space, map(Architecture.from_key, keys), key)
    wide = {"class_": "scroll diagram", "tabindex": 0, "role": "region"}
    parts = [
        tag("h3", "Its branches"),
        tag("p", class_="note diagram-total"),
        tag("div", id=f"{key}-picture", aria_label="Diagram of the ensemble", **wide),
        tag("div", Markup(legend), aria_label="Key to the diagram", **wide),
        Markup(frames),
        details("Layers as a table", tag("div", class_="layers")),
    ]
    return [facts, tag("div", *parts)]


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


def test_section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """Confusions, and how the paths disagree."""
    title, found = "Test of the retrained ensemble", run["confusion"]
    if not found:
        lack = (
            "confusion matrix and path disagreement; they need retrain/confusion.json, which the "
        )
        lack += "retraining writes (runs of older versions have none)."
        return card(f"{key}-test", title, note(lack, "missing"))
    names, examples = found["class_names"], found["examples"]
    left = [tag("h3", "Confusion matrix of the ensemble")]
    if found["chart"]:
        label = (
            f"Confusion matrix of {len(names)} classes; the table of the most frequent confusions "
        )
        how = (
            "Rows: the right class; columns: the class that the ensemble names. The colour follows "
        )
        left.append(note(f"{how}the square root of the share."))
        left.append(charts.add(f"{key}-confusion", found["chart"], f"{label}says what stands out"))
    else:
        left.append(note(f"{len(names):,} classes are too many for a picture."))
    total: dict[int, int] = {}
    for label, _, images in found["counts"]:
        total[label] = total.get(label, 0) + images
    wrong = sorted((c for c in found["counts"] if c[0] != c[1]), key=lambda c: (-c[2], c[0], c[1]))
    rows = [[names[i], names[j], f"{n:,}", f"{100 * n / total[i]:.1f} %"] for i, j, n in wrong[:10]]
    columns = ["class", "taken for", "images", "of its images"]
    often = "The most frequent confusions"
    right = [tag("h3", often), table(columns, rows, often, [False, False, True, True])]
    for heading, field, words in (
        ("Path disagreement", "differ", "for which two paths name different classes."),
        ("Errors in common", "both_wrong", "that both paths get wrong; on the diagonal each path's own errors."),
    ):  # fmt: skip
        columns = ["", *(f"path {k + 1}" for k in range(len(found[field])))]
        rows = [
            [
                f"path {i + 1}",
                *(
                    "–" if (i == j and field == "differ") or not examples else percent(n / examples)
                    for j, n in enumerate(row)
                ),
            ]
            for i, row in enumerate(found[field])
        ]
        right += [tag("h3", heading), note(f"Share of the test images {words}")]
        right.append(table(columns, rows, heading))
    sides = tag("div", tag("div", *left), tag("div", *right), class_="columns two")
    return card(f"{key}-test", title, note(f"{examples:,} test images."), sides)


def remarks_section(run: Mapping[str, Any], key: str) -> Markup:
    """Files that are not there, and problems."""
    parts = []
    for title, items in (("Not there (yet)", run["missing"]), ("Problems", run["problems"])):
        if items:
            parts += [tag("h3", title), tag("ul", *(tag("li", item) for item in items))]
    return card(f"{key}-remarks", "What the folder lacks", *parts)
