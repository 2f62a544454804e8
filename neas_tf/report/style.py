"""One look for all pictures: colour-blind safe, sans-serif, deterministic PNGs (matplotlib Agg)."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's palette, told apart with every common kind of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, PALE, FAINT = "#1F2328", "#6E7781", "#D0D7DE", "#F3F5F7"
# Colours of paths 1, 2, … (repeated when there are more).
PATHS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
SEQUENTIAL = "cividis"
# From little to much: pale to dark blue.
FADE = LinearSegmentedColormap.from_list("neas_fade", ("#E3EEF7", "#86B7DD", "#2F7DBB", "#0E4A80"))
DPI = 160

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "legend.borderpad": 0.3,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.titlesize": 12.0,
    "figure.titleweight": "bold",
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "neas",
}


def styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: whatever the user's matplotlib settings are, pictures look the same."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.style.context(_RC, after_reset=True):
            return function(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """A figure of this size in inches, with an Agg canvas and no global state."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


@styled
def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """PNG bytes; the same figure always gives the same bytes (no date, no software version)."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def heading(figure: Figure, title: str, note: str = "") -> None:
    """Left-aligned bold title of a whole figure, with a grey line of facts below it."""
    text = f"{title}\n" if note else title
    # Without a layout engine nobody else places the title; 0.1 inch from the top looks the same.
    place = {"y": 1 - 0.1 / figure.get_figheight()} if figure.get_layout_engine() is None else {}
    figure.suptitle(text, x=0.01, ha="left", linespacing=1.5, **place)
    if note:
        # A second text shares the place of the title's empty second line.
        top = 1 - 0.36 / figure.get_figheight()
        figure.text(0.01, top, note, ha="left", va="top", fontsize=9, color=GREY)


def percent_axis(axes: Axes, which: str = "y") -> None:
    """Labels fractions as percent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def millions(value: float) -> str:
    """A count in readable units: 301.5 M, 12.4 M, 830 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            scaled = value / size
            digits = 1 if scaled >= 100 else 2
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}"
