"""One self-contained HTML file: template, style, scripts and data; nothing is loaded from anywhere.

The page's policy (CSP) allows its own script and style by their hashes and nothing else. Data lie in
a JSON block that no browser runs, and reach the page as text only.
"""

from __future__ import annotations

import base64
import dataclasses
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
from neas_tf.report.page_data import MAX_CANDIDATES, finite, run_data
from neas_tf.report.reading import RunFiles

FORMAT = "neas-report-page/1"
PAGE_FILE = "report.html"
# In the order in which they run; each adds to the object that the first one makes.
SCRIPTS = (
    "dom.js", "state.js", "axes.js", "lines.js", "scatter.js", "candidate.js", "diagram.js",
    "shrinks.js", "testing.js", "tables.js", "main.js",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of a study, shown above the runs.

    Attributes:
      title: its heading.
      columns: headings of the columns.
      rows: texts or numbers; as many in each as there are columns.
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
      title: of the page; by default made of the runs' names.
      tables: of a study, above the runs.
      notes: sentences above the tables.
      pictures: of a study, below its tables: what they show → PNG.
      reload_seconds: the page reloads itself so often; None for a run that is finished.
      max_candidates: of each run; see `page_data.thinned`.

    Raises:
      NeasError: when there are neither runs nor tables.
    """
    check(bool(runs) or bool(tables), "runs", list(runs), "at least one run, or tables")
    shown = [run_data(run, max_candidates) for run in runs]
    names = [run["name"] for run in shown]
    title = title or f"NEAS: {', '.join(names)}"
    data = {
        "format": FORMAT,
        "title": title,
        "reload": reload_seconds,
        "notes": list(notes),
        "runs": shown,
        "pictures": [
            {"title": name, "data": base64.b64encode(content).decode()}
            for name, content in (pictures or {}).items()
        ],
        "tables": [finite(dataclasses.asdict(table)) for table in tables],
    }
    style, script = _file("style.css"), "".join(map(_file, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = string.Template(_file("template.html")).substitute(
        policy=policy, title=html.escape(title), style=style, data=embedded(data), script=script
    )
    return text.encode("utf-8", "replace")


def write_page(path: str | os.PathLike[str], runs: Sequence[RunFiles], **options: Any) -> bool:
    """Writes `make_page(runs, **options)` atomically; returns whether the file's bytes are new."""
    path, page = Path(path), make_page(runs, **options)
    if path.is_file() and path.read_bytes() == page:
        return False
    write_bytes_atomic(path, page)
    return True


def embedded(value: Any) -> str:
    """JSON that is safe inside a script element, whatever texts it holds, in ASCII."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> str:
    path = project_file("neas_tf", "report", "html", name)
    return Path(path).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"
