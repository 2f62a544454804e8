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
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.errors import check
from neas_tf.common.files import write_bytes_atomic
from neas_tf.common.paths import project_file
from neas_tf.report import diagram, shrinks, style
from neas_tf.report.parts import opening, sections, tested
from neas_tf.report.parts.markup import Charts, Markup, contents, note, table, tag
from neas_tf.report.parts.run_data import MAX_CANDIDATES, finite, run_data
from neas_tf.report.parts.uncertain import uncertainty_section
from neas_tf.report.reading import RunFiles
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-report-page/2"
PAGE_FILE = "report.html"
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
    facts: Sequence[str] = (),
    reload_seconds: float | None = None,
    max_candidates: int = MAX_CANDIDATES,
) -> bytes:
    """The page as UTF-8; the same files give the same bytes.

    Args:
      runs: one, or several to compare; none for a page of tables.
      tables, notes: of a study, above the runs; the sentences come first, as its verdict.
      pictures: of a study: what they show → PNG; the first stands below the verdict, the others
        below the tables.
      facts: of a study, how it was done; they come last of it.
      reload_seconds: the page reloads itself so often; None for a run that is finished.
      max_candidates: of each run; see `thinned`.

    Raises:
      NeasError: when there are neither runs nor tables.
    """
    check(bool(runs) or bool(tables), "runs", list(runs), "at least one run, or tables")
    shown = [run_data(run, max_candidates) for run in runs]
    title = title or f"NEAS: {', '.join(run['name'] for run in shown)}"
    places = Charts()
    main = _study(tables, notes, pictures or {}, facts)
    if len(shown) > 1:
        main.append(opening.comparison(shown))
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
    parts = {
        "summary": ("Found", opening.opening_section(run, key, places, space)),
        "test": ("Test", tested.test_section(run, key, places)),
        "uncertainty": ("Uncertainty", uncertainty_section(run, key, places)),
        "search": ("Search", sections.search_section(run, key, places)),
        "training": ("Training", sections.training_section(run, key, places)),
        "shrinks": ("Shrinking", shrinks.section(run, key, places)),
        "facts": ("All numbers", opening.facts_section(run, key)),
    }
    if run["missing"] or run["problems"]:
        parts["remarks"] = ("What is missing", sections.remarks_section(run, key))
    bar = contents(
        {f"{key}-{name}": title for name, (title, _) in parts.items()}, opening.short(run)
    )
    return [bar, *(section for _, section in parts.values())]


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


def _study(
    tables: Sequence[Table],
    notes: Sequence[str],
    pictures: Mapping[str, bytes],
    facts: Sequence[str],
) -> list[Markup]:
    """A study's sections: verdict with one picture, tables, the other pictures, how it was done."""
    parts: list[tuple[str, list[Markup]]] = []
    made = [(name, _picture(name, content)) for name, content in pictures.items()]
    if notes or made:
        told = [tag("p", text, class_=None if i else "verdict") for i, text in enumerate(notes)]
        parts.append(("Verdict", [*told[:1], *(made[0][1] if made else ()), *told[1:]]))
    parts += [(each.title, _study_table(each)) for each in tables]
    parts += made[1:]
    if facts:
        parts.append(("How it was done", [tag("ul", *(tag("li", fact) for fact in facts))]))
    cards = [
        tag("section", tag("h2", title), *body, class_="card study", id=f"study-{i}")
        for i, (title, body) in enumerate(parts)
    ]
    if len(cards) > 1:
        cards.insert(0, contents({f"study-{i}": title for i, (title, _) in enumerate(parts)}))
    return cards


def _study_table(given: Table) -> list[Markup]:
    rows = finite(given.rows)
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows)
        for i in range(len(given.columns))
    ]
    body = table(given.columns, rows, given.title, numeric)
    return [note(given.note), body] if given.note else [body]


def _picture(name: str, content: bytes) -> list[Markup]:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    width = int.from_bytes(content[16:20]) // 2  # drawn at twice its size
    return [tag("img", class_="picture", alt=name, src=source, width=width or None)]


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
