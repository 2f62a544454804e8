"""What the page is made of: elements, charts with their buttons, tables, cards, contents."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


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
        saves = [
            button(
                kind.upper(),
                class_="save",
                data_chart=identity,
                data_kind=kind,
                aria_label=f"Save as {kind.upper()}: {label}",
            )
            for kind in ("png", "svg")
        ]
        return tag("div", figure, readout, tag("div", *saves, class_="saves"), class_="figure")


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


def card(identity: str, title: str, *parts: Any) -> Markup:
    """A section under a heading."""
    return tag("section", tag("h2", title), *parts, class_="card", id=identity)


def button(text: str, **attributes: Any) -> Markup:
    """A button."""
    return tag("button", text, type="button", **attributes)


def details(title: str, *parts: Any, shown: bool = False) -> Markup:
    """What is shown on demand, or, with `shown`, until it is folded."""
    return tag("details", tag("summary", title), *parts, open=shown)


def note(text: str, kind: str = "note") -> Markup:
    """A sentence; of the kind 'missing' on what is not there."""
    return tag("p", text, class_=kind)


def contents(links: Mapping[str, str], short: str = "") -> Markup:
    """The bar that stays at the top: headings by the ids of their sections, and what counts most."""
    made = [tag("a", title, href=f"#{identity}") for identity, title in links.items()]
    told = tag("span", short, class_="short") if short else ""
    return tag("nav", *made, told, class_="contents", aria_label="Contents")
