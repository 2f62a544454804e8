"""One self-contained HTML file: texts, tables, diagram, charts as Vega-Lite, and Vega itself.

Nothing is loaded from anywhere: the page's policy (CSP) allows its own scripts and style by their
hashes and nothing else. Texts reach it escaped; charts and candidates lie in a block of packed JSON
that no browser runs.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import html
import json
import math
import os
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.errors import check
from neas_tf.common.files import write_bytes_atomic
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.report import charts, diagram, shrinks, style
from neas_tf.report.page_parts import (
    Charts,
    comparison,
    remarks_section,
    search_section,
    summary_section,
    table,
    tag,
    test_section,
    training_section,
)
from neas_tf.report.reading import METRICS, RunFiles
from neas_tf.report.run_files import Shrink, stages
from neas_tf.report.summary import budget, second_objective, sections, summarise
from neas_tf.search.history import Candidate
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-report-page/2"
PAGE_FILE = "report.html"
MAX_CANDIDATES = 1_000
MAX_CLASSES = 40  # of a confusion matrix
SCRIPTS = ("state.js", "charts.js", "page.js")  # in the order in which they run


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a study, shown above the runs.

    Attributes:
      title: its heading.
      columns: headings of the columns.
      rows: strings or numbers; as many in each as there are columns.
      note: a sentence below the heading.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def __post_init__(self):
        for row in self.rows:
            size = len(self.columns)
            check(len(row) == size, f"table {self.title!r}: row", row, f"{size} cells")

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
        """From rows by column."""
        columns = tuple(rows[0]) if rows else ()
        return cls(title, columns, tuple(tuple(row[name] for name in columns) for row in rows))


def make_page(
    runs: Sequence[RunFiles],
    title: str = "",
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
    pictures: Mapping[str, bytes] | None = None,
    reload_seconds: float | None = None,
    max_candidates: int = MAX_CANDIDATES,
) -> bytes:
    """The page as UTF-8; the same files give the same bytes.

    Args:
      runs: one, or several to compare; none for a page of tables.
      tables, notes: of a study, above the runs; the sentences come first.
      pictures: of a study, below its tables: what they show → PNG.
      reload_seconds: the page reloads itself so often; None for a run that is finished.
      max_candidates: of each run; see `thinned`.

    Raises:
      NeasError: when there are neither runs nor tables.
    """
    check(bool(runs) or bool(tables), "runs", list(runs), "at least one run, or tables")
    shown = [run_data(run, max_candidates) for run in runs]
    title = title or f"NEAS: {', '.join(run['name'] for run in shown)}"
    places = Charts()
    main = [tag("ul", *(tag("li", note) for note in notes), id="notes") if notes else ""]
    main += [_study_table(each) for each in tables]
    main += [_study_picture(name, content) for name, content in (pictures or {}).items()]
    if len(shown) > 1:
        main.append(comparison(shown))
    for index, (run, files) in enumerate(zip(shown, runs, strict=True)):
        parts = _run_parts(run, f"r{index}", places, files.space)
        main.append(tag("div", *parts, class_="run", data_run=index, hidden=index > 0))
    data = {
        "format": FORMAT,
        "reload": reload_seconds,
        "colours": {"light": style.LIGHT, "dark": style.DARK},
        "config": style.CONFIG,
        "charts": places.specs,
        "runs": [_kept(run) for run in shown],
    }
    scripts = [_vega() if shown else "", "".join(map(_file, SCRIPTS))]
    looks = _colours() + _file("style.css") + diagram.stylesheet(_names())
    allowed = " ".join(f"'{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src '{_digest(looks)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = string.Template(_file("template.html")).substitute(
        policy=policy,
        title=html.escape(title),
        style=looks,
        main="".join(main),
        data=packed(data),
        vega=scripts[0],
        script=scripts[1],
    )
    return text.encode("utf-8", "replace")


def _run_parts(run: Mapping[str, Any], key: str, places: Charts, space: SearchSpace | None):
    """The sections of one run; `key` is the prefix of their ids."""
    parts = [
        ("summary", "Summary", summary_section(run, key)),
        ("search", "Search", search_section(run, key, places, space)),
        ("training", "Training", training_section(run, key, places)),
        ("shrinks", "Shrinking", shrinks.section(run, key, places)),
        ("test", "Test", test_section(run, key, places)),
    ]
    if run["missing"] or run["problems"]:
        parts.append(("remarks", "What is missing", remarks_section(run, key)))
    links = [tag("a", title, href=f"#{key}-{name}") for name, title, _ in parts]
    contents = tag("nav", *links, class_="contents", aria_label="Contents")
    return [contents, *(section for *_, section in parts)]


def write_page(path: str | os.PathLike[str], runs: Sequence[RunFiles], **options: Any) -> bool:
    """Writes `make_page(runs, **options)` atomically; returns whether the file's bytes are new."""
    path, page = Path(path), make_page(runs, **options)
    if path.is_file() and path.read_bytes() == page:
        return False
    write_bytes_atomic(path, page)
    return True


def packed(value: Any) -> str:
    """A value as JSON, gzipped, in base64: safe inside a script element, whatever it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode()


def _kept(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the scripts need of a run: candidates, and the costs of the layers."""
    search = run["search"] and {
        k: v for k, v in run["search"].items() if k not in ("charts", "progress")
    }
    names = ("name", "architecture", "space", "figures")
    return {**{name: run[name] for name in names}, "search": search}


def _study_table(given: Table) -> str:
    rows = finite(given.rows)
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows)
        for i in range(len(given.columns))
    ]
    note = tag("p", given.note, class_="note") if given.note else ""
    body = table(given.columns, rows, given.title, numeric)
    return tag("section", tag("h2", given.title), note, body, class_="card study")


def _study_picture(name: str, content: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    picture = tag("img", class_="picture", alt=name, src=source)
    return tag("section", tag("h2", name), picture, class_="card study")


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    # Its stub forgets that a snippet need not be given.
    return vl_convert.javascript_bundle(vl_version=style.VEGA_LITE)  # type: ignore[call-arg]


def _names() -> dict[str, str]:
    return {name: f"var(--{name})" for name in style.LIGHT}


def _colours() -> str:
    """The palettes as custom properties."""
    light, dark = (
        "".join(f"--{name}:{value};" for name, value in palette.items())
        for palette in (style.LIGHT, style.DARK)
    )
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def _file(name: str) -> str:
    path = project_file("neas_tf", "report", "html", name)
    return Path(path).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


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

    shown = charts.thinned(run.candidates, run.winner_key, max_candidates)
    value = {
        "name": summary["name"],
        "sections": sections(summary),
        "figures": _figures(summary),
        "stages": stages(run),
        "space": part("space", lambda: _space(run), None),
        "architecture": run.architecture.key if run.architecture else None,
        "search": part("search", lambda: _search(run, shown), None) if shown else None,
        "shrinks": part("shrinks", lambda: [_shrink(s) for s in shrinks.states(run.shrinks)], []),
        "training": part("metrics", lambda: _training(run), {}),
        "confusion": part("confusion", lambda: _confusion(run), None),
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


def _search(run: RunFiles, shown: Sequence[Candidate]) -> dict[str, Any]:
    """`rows` are those of `charts.candidate_rows`; `start` is the number of the one shown first."""
    metrics = [m for m in METRICS if all(m in c.costs for c in shown)]
    rows = charts.candidate_rows(shown, run.winner_key)
    retrained = run.architecture.key if run.architecture else None
    first = max(rows, key=lambda r: (r["key"] == retrained, "w" in r, "r" not in r, r["a"]))
    objective, limits = second_objective(run.params), budget(run.params)
    scatter = {m: charts.scatter_chart(m, rows, limits) for m in metrics}
    return {
        "total": len(run.candidates),
        "metrics": metrics,
        "cost": objective if objective in metrics else metrics[0],
        "start": first["n"],
        "winner": next((row["n"] for row in rows if "w" in row), None),
        "rows": rows,
        "charts": scatter,
        "progress": charts.progress_chart(rows),
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
    scale = shrinks.similarity_range(layers)
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
        "caption": shrinks.caption(scale),
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


def _confusion(run: RunFiles) -> dict[str, Any] | None:
    if run.confusion is None:
        return None
    names = run.confusion.get("class_names") or range(run.confusion["num_classes"])
    value = {**run.confusion, "class_names": [str(name) for name in names]}
    small = value["num_classes"] <= MAX_CLASSES
    return {**value, "chart": charts.confusion_chart(value) if small else None}


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
