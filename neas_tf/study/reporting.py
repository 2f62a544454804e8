"""A study's outcome as files: results.json, README.md, report.html, pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from neas_tf.report import page, style
from neas_tf.report.page import Table
from neas_tf.study.statistics import Mean

FORMAT = "neas-study-report/1"
_MOST_MISSING = 40  # units that are named one by one


@dataclasses.dataclass(frozen=True)
class Report:
    """What a study found.

    Attributes:
      values: numbers behind tables and pictures, JSON.
      tables: for people; those without rows are left out.
      sentences: whether the paper's findings hold here, made of the values; the first is the verdict
        that a page begins with.
      pictures: file name → function that makes the PNG's bytes.
    """

    values: Mapping[str, Any]
    tables: Sequence[Table]
    sentences: Sequence[str]
    pictures: Mapping[str, Callable[[], bytes]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Header:
    """What stands above a report.

    Attributes:
      name, title, paper: the study's, and what of the paper it repeats.
      facts: how it was run, one line each.
      done: titles of the units that are done.
      missing: of those that are not.
      hours: that the units took, added up; of each, the session that finished it.
    """

    name: str
    title: str
    paper: str
    facts: Sequence[str]
    done: Sequence[str]
    missing: Sequence[str]
    hours: float


def write(folder: Path, header: Header, report: Report) -> None:
    """Writes all files of a report, each whole; those of an earlier one are replaced."""
    value = {
        "format": FORMAT,
        "study": header.name,
        "done": len(header.done),
        "missing": list(header.missing),
        "values": page.finite(report.values),
        "sentences": list(report.sentences),
    }
    write_json_atomic(folder / "results.json", value)
    pictures = {name: make() for name, make in report.pictures.items()}
    for name, content in pictures.items():
        write_bytes_atomic(folder / name, content)
    write_text_atomic(folder / "README.md", _page(header, report))
    if tables := [table for table in report.tables if table.rows]:
        page.write_page(
            folder / "report.html",
            (),
            title=header.title,
            tables=tables,
            notes=[_sentence(text) for text in report.sentences],
            pictures={_words(name): content for name, content in pictures.items()},
            facts=[f"Of the paper: {header.paper}.", *header.facts, _done(header)],
        )


def _done(header: Header) -> str:
    total = len(header.done) + len(header.missing)
    return (
        f"{len(header.done)} of {total} units done, {header.hours:.2f} hours of wall time "
        "(of each unit, the session that finished it)"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(name: str) -> str:
    """A picture's file name as words."""
    return _sentence(Path(name).stem.replace("_", " "))


def _page(header: Header, report: Report) -> str:
    parts = [f"# {header.title}", ""]
    sentences = [f"{_sentence(text)}\n" for text in report.sentences]
    pictures = [f"![{Path(name).stem}]({name})\n" for name in report.pictures]
    parts += [*sentences[:1], *pictures[:1], *sentences[1:]]
    parts += [_markdown(table) for table in report.tables if table.rows]
    parts += [*pictures[1:], "## How it was done", "", f"Of the paper: {header.paper}.", ""]
    parts += [*(f"- {fact}" for fact in header.facts), f"- {_done(header)}", ""]
    if header.missing:
        parts += ["## Not done yet", ""]
        parts += [f"- {text}" for text in header.missing[:_MOST_MISSING]]
        if len(header.missing) > _MOST_MISSING:
            parts.append(f"- and {len(header.missing) - _MOST_MISSING} more")
        parts.append("")
    parts += ["Written by `python -m neas_tf.study`; the numbers are in `results.json`.", ""]
    return "\n".join(parts)


def _markdown(table: Table) -> str:
    # A '|' separates the paths of an ensemble's key.
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(table.columns))
    return "\n".join([f"**{table.title}**", "", *lines]) + "\n"


def percent(value: Mean | float, digits: int = 2) -> str:
    """A share as text: '51.20 ± 0.31 %', '51.20 %' for one repetition, '–' for none."""
    return number(value, digits, 100.0, " %")


def number(value: Mean | float, digits: int = 3, factor: float = 1.0, unit: str = "") -> str:
    """A number as text, with its deviation where it has one."""
    mean = value if isinstance(value, Mean) else Mean(value, math.nan, 1)
    if not mean.count or math.isnan(mean.mean):
        return "–"
    text = f"{mean.mean * factor:.{digits}f}"
    if not math.isnan(mean.std):
        text += f" ± {mean.std * factor:.{digits}f}"
    return text + unit


def accuracies_picture(groups: Mapping[str, Sequence[float]], title: str) -> bytes:
    """PNG: test accuracies of several groups of networks, a line of points each."""
    names = [name for name, values in groups.items() if values]
    points = [
        {"x": value, "y": line, "s": name}
        for line, name in enumerate(names)
        for value in groups[name]
    ]
    size = (460, 30 + 30 * len(names))
    look: dict[str, Any] = {"percent": "x", "palette": style.MANY}
    chart = style.series(points, names, ("test accuracy", None), size, **look)
    return style.to_png(chart, title)
