"""Accuracy against cost of all candidates, and how the search progressed (paper Fig. 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from neas_tf.cost.latency_table import NANOSECONDS, milliseconds
from neas_tf.report import style
from neas_tf.report.reading import Candidate, number
from neas_tf.search.pareto import pareto_front


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A cost to draw: millions of it are the unit of the axis (M MACs; ms of ns).

    Attributes:
      metric: field of a candidate.
      label: of the axis.
      text: an amount in words.
      bounds: names of the upper and the lower bound in the config.
      factor: from a bound of the config to the metric.
    """

    metric: str
    label: str
    text: Callable[[float], str]
    bounds: tuple[str, ...]
    factor: float = 1.0


_MACS = _Axis("macs", "multiply-accumulates (M MACs)", style.millions, ("max_macs", "min_macs"))
_PARAMS = _Axis(
    "params", "parameters (M)", lambda value: f"{value / 1e6:.2f} M parameters", ("max_params",)
)
_LATENCY = _Axis(
    "latency_ns", "predicted latency (ms)", milliseconds, ("max_latency_ms",), NANOSECONDS
)
_AXES = {axis.metric: axis for axis in (_MACS, _PARAMS, _LATENCY)}


def progress(accuracy: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Best accuracy, and mean of the `top` best, among the first 1, 2, …, n candidates; (n,) each.

    The mean is NaN until `top` candidates were scored.
    """
    best = np.maximum.accumulate(accuracy)
    mean = np.full(len(accuracy), np.nan)
    kept: list[float] = []
    for i, value in enumerate(accuracy.tolist()):
        kept = sorted([*kept, value], reverse=True)[:top]
        if len(kept) == top:
            mean[i] = sum(kept) / top
    return best, mean


def draw_search(
    candidates: Sequence[Candidate],
    winner_key: str | None = None,
    budget: Mapping[str, Any] | None = None,
    cost: str | None = None,
) -> Figure:
    """Two panels: accuracy against cost by generation, and accuracy by number of candidates.

    Args:
      candidates: at least one.
      winner_key: canonical string of the winner; by default the most accurate one.
      budget: `max_macs` and `min_macs`, or `max_latency_ms`, drawn as lines when they lie near.
      cost: `macs`, `params` or `latency_ns`; by default the predicted latency. Where a candidate
        has none of it, MACs.
    """
    return _draw(list(candidates), winner_key, budget or {}, cost)


@style.styled
def _draw(
    candidates: list[Candidate],
    winner_key: str | None,
    budget: Mapping[str, Any],
    cost: str | None,
) -> Figure:
    axis = _AXES.get(cost or "latency_ns", _MACS)
    if any(getattr(c, axis.metric) is None for c in candidates):
        axis = _MACS
    costs = np.array([getattr(c, axis.metric) for c in candidates], float)
    accuracy = np.array([c.accuracy for c in candidates], float)
    # One that a race stopped is a point on the left, but neither the best nor of the best.
    ranked = np.where([c.finished for c in candidates], accuracy, 0.0)
    generation = np.array([c.generation for c in candidates], int)
    figure = style.new_figure(11.0, 4.7)
    generations = int(generation.max()) + 1
    facts = f"{len(candidates):,} candidate{'s' * (len(candidates) > 1)}, "
    facts += f"{generations} generation{'s' * (generations > 1)}"
    style.heading(figure, "Search", facts)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    winner = [i for i, c in enumerate(candidates) if c.key == winner_key]
    star = winner[0] if winner else int(np.lexsort((costs, -ranked))[0])
    _scatter(figure, left, axis, costs, accuracy, generation, star, budget)
    _progress(right, ranked, generation)
    return figure


def _scatter(
    figure: Figure,
    axes: Axes,
    axis: _Axis,
    costs: np.ndarray,
    accuracy: np.ndarray,
    generation: np.ndarray,
    star: int,
    budget: Mapping[str, Any],
) -> None:
    last = int(generation.max())
    step = max(1, -(-(last + 1) // 25))
    edges = np.arange(0, last + 1 + step, step) - 0.5
    colours = matplotlib.colormaps[style.SEQUENTIAL]
    norm = BoundaryNorm(edges, colours.N)
    order = np.argsort(generation, kind="stable")
    points = axes.scatter(
        costs[order], accuracy[order], c=generation[order], cmap=colours, norm=norm,
        s=20, lw=0.3, edgecolors="white", zorder=2,
    )  # fmt: skip
    if last > 0:
        bar = figure.colorbar(points, ax=axes, pad=0.015, aspect=32, spacing="proportional")
        bar.set_label("generation")
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        bar.ax.minorticks_off()
    front = pareto_front(costs, accuracy)
    axes.step(
        costs[front], accuracy[front], where="post", color=style.VERMILION, lw=1.4, zorder=3,
        label="Pareto front",
    )  # fmt: skip
    axes.plot(costs[front], accuracy[front], "o", ms=3.2, color=style.VERMILION, zorder=4)
    axes.plot(
        costs[star], accuracy[star], "*", ms=17, mfc=style.YELLOW, mec=style.INK, mew=0.9, ls="",
        zorder=6, label=f"winner: {100 * accuracy[star]:.2f} %, {axis.text(costs[star])}",
    )  # fmt: skip
    low, high = costs.min(), costs.max()
    span = max(high - low, 0.02 * high)
    for name, label in zip(axis.bounds, ("budget", None), strict=False):
        value = axis.factor * (number(budget.get(name)) or 0)
        if value and low - span < value < high + span:
            text = f"{label} {axis.text(value)}" if label else None
            axes.axvline(value, color=style.GREY, lw=1.0, ls=(0, (4, 3)), zorder=1, label=text)
            low, high = min(low, value), max(high, value)
    axes.set_xlim(low - 0.04 * span, high + 0.04 * span)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:.5g}"))
    style.percent_axis(axes)
    axes.grid(True)
    axes.set(xlabel=axis.label, ylabel="accuracy on held-out training data")
    axes.set_title("Accuracy against cost")
    _headroom(axes, accuracy, below=0.34)
    handles, labels = axes.get_legend_handles_labels()
    handles = [_small_star(h) if h.get_marker() == "*" else h for h in handles]
    axes.legend(handles, labels, loc="lower right", handlelength=1.8)


def _small_star(star: Line2D) -> Line2D:
    """The winner's mark in the size of a legend's line."""
    look = {"mfc": star.get_markerfacecolor(), "mec": style.INK, "mew": 0.8}
    return Line2D([], [], marker="*", ms=11, ls="", **look)


def _headroom(axes: Axes, values: np.ndarray, below: float) -> None:
    """Limits of the y axis with free room at the bottom for a legend."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = max(high - low, 1e-2)
    axes.set_ylim(low - below * span, high + 0.06 * span)


def _progress(axes: Axes, accuracy: np.ndarray, generation: np.ndarray) -> None:
    n = len(accuracy)
    top = 50 if n >= 100 else max(1, min(10, n // 4))
    best, mean = progress(accuracy, top)
    count = np.arange(1, n + 1)
    starts = np.flatnonzero(np.diff(generation, prepend=generation[0])) + 1
    for i, start in enumerate(starts[:: max(1, len(starts) // 40)]):
        label = "new generation" if i == 0 else None
        axes.axvline(start, color=style.PALE, lw=0.8, zorder=0, label=label)
    size = 3.5 if n > 300 else 5.5
    axes.plot(count, accuracy, ".", ms=size, color=style.SKY, label="candidate", mew=0)
    axes.plot(count, best, color=style.BLUE, drawstyle="steps-post", label="best so far")
    if top > 1:
        label = f"mean of the {top} best"
        axes.plot(count, mean, color=style.VERMILION, label=label)
    axes.set_xlim(0.5, n + 0.5 + 0.02 * n)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    style.percent_axis(axes)
    axes.grid(True, axis="y")
    axes.set(xlabel="candidates scored")
    axes.set_title("Progress")
    _headroom(axes, accuracy, below=0.34)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] == "new generation")
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower right", ncol=2)
