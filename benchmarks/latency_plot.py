"""The picture of `tflite_latency`: latency against MACs, float32 and int8 side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neas_tf.report.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    heading,
    new_figure,
    styled,
    to_png,
)

_USUAL_SIZE = 224  # pixels; other sizes are written at the mark
_TITLES = {"float32": "float32", "int8": "int8, full integer"}
# Of NEAS's own marks: filled as it is deployed, hollow for what it is compared with.
_VARIANTS = {"_plain": ("s", "plain conversion"), "_separate": ("D", "its paths as networks")}
_COLOURS = {"neas": BLUE, "mobilenet": ORANGE, "efficientnet": PURPLE}
_FAMILIES = {"neas": "NEAS, rewritten", "mobilenet": "MobileNet", "efficientnet": "EfficientNet"}


@styled
def draw(result: Mapping[str, Any]) -> bytes:
    """A PNG of a report of `tflite_latency.measure`."""
    rows = result["networks"]
    formats = [format for format in _TITLES if format in rows[0]]
    figure = new_figure(5.2 * len(formats) + 0.2, 5.0)
    axes = figure.subplots(1, len(formats), sharex=True, sharey=True, squeeze=False)[0]
    for format, ax in zip(formats, axes, strict=True):
        ax.set(xscale="log", yscale="log", title=_TITLES[format], xlabel="M MACs")
        _scatter(ax, rows, format)
        ax.grid(True, which="major")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    low, high = min(row["macs"] for row in rows) / 1e6, max(row["macs"] for row in rows) / 1e6
    axes[0].set_xlim(low / 1.25, high * 1.6)
    axes[0].set_ylabel("ms an image")
    axes[-1].legend(handles=_legend(rows), loc="lower right")
    what = "CPU time" if result["clock"] == "cpu" else "time"
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    version = result["versions"].get("ai-edge-litert", "")
    heading(
        figure,
        "Latency against MACs in LiteRT with XNNPACK",
        f"{what}, {threads}, batch 1, {result['machine']['processor']}, LiteRT {version}; "
        f"medians of {result['rounds']} interleaved rounds",
    )
    return to_png(figure)


def _variant(name: str) -> str:
    return next((ending for ending in _VARIANTS if name.endswith(ending)), "")


def _scatter(ax: Axes, rows: Sequence[Mapping[str, Any]], format: str) -> None:
    """Marks, bars from the 10th to the 90th percentile, and lines from a network to its variants."""
    named: set[str] = set()
    places = {row["name"]: (row["macs"] / 1e6, row[format]["ms"]) for row in rows}
    for row in rows:
        name, found, variant = row["name"], row[format], _variant(row["name"])
        x, y = places[name]
        colour = _COLOURS.get(row["family"], GREY)
        own = places.get(name.removesuffix(variant)) if variant else None
        if own:
            ax.plot(*zip(own, (x, y), strict=True), color=PALE, linewidth=1.0, zorder=1)
        ax.plot((x, x), (found["ms_p10"], found["ms_p90"]), color=colour, linewidth=1.0, zorder=2)
        marker = _VARIANTS[variant][0] if variant else "o"
        face = "white" if variant else colour
        style = {"markerfacecolor": face, "markeredgecolor": colour, "linestyle": "none"}
        ax.plot(x, y, marker=marker, markersize=5 if variant else 7, zorder=3, **style)
        if not variant:
            crowded = any(1 < u / x < 1.8 and 0.88 < v / y < 1.14 for u, v in places.values())
            _label(ax, row, (x, y), named, below=crowded)


def _label(
    ax: Axes,
    row: Mapping[str, Any],
    place: tuple[float, float],
    named: set[str],
    below: bool,
) -> None:
    """The network's name, once; and its size, where it is not that of the others.

    NEAS's stand left of the mark, the others right of it, or `below` where that is taken.
    """
    neas, height = row["family"] == "neas", row["input_size"][0]
    text, side = row["label"].split(",")[0], 7
    options = {"textcoords": "offset points", "color": INK, "ha": "left"}
    if neas:
        side, options["ha"] = -7, "right"
    elif below:
        side, options["ha"] = 0, "center"
    level = -13.0 if below and not neas else -2.5
    if text not in named:
        weight = "bold" if neas else "normal"
        ax.annotate(text, place, (side, level), fontsize=7.5, fontweight=weight, **options)
    if height != _USUAL_SIZE:
        offset = (side, level if text in named else level - 7)
        ax.annotate(f"{height}²", place, offset, fontsize=6.5, **(options | {"color": GREY}))
    named.add(text)


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[Line2D]:
    handles = []
    for family, label in _FAMILIES.items():
        if any(row["family"] == family for row in rows):
            handles.append(_handle("o", _COLOURS[family], _COLOURS[family], label))
    for ending, (marker, label) in _VARIANTS.items():
        if any(row["name"].endswith(ending) for row in rows):
            handles.append(_handle(marker, "white", BLUE, label))
    return handles


def _handle(marker: str, face: str, edge: str, label: str) -> Line2D:
    style = {"markerfacecolor": face, "markeredgecolor": edge, "linestyle": "none"}
    return Line2D([], [], marker=marker, markersize=6, label=label, **style)
