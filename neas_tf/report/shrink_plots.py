"""What the shrinking did: alive operators over the shrinks; similarity and quality by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from neas_tf.report import style
from neas_tf.report.records import Shrink
from neas_tf.report.shrink_states import alive_shares, pair_states
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

_GONE = "#FFFFFF"
_DIAGONAL = "#E4E8EC"
_NEVER = {"fc": style.FAINT, "ec": "#AEB6BF", "hatch": "/////", "lw": 0.0}


def draw_alive_operators(shrinks: Sequence[Shrink], space: SearchSpace) -> Figure:
    """One panel for the start and one behind each shrink: layers × operators, share alive.

    Args:
      shrinks: by index; those without `alive` are left out; at least one has it.
      space: the space that was shrunk.
    """
    return _draw_alive([s for s in shrinks if s.alive is not None], space)


@style.styled
def _draw_alive(shrinks: list[Shrink], space: SearchSpace) -> Figure:
    first = shrinks[0].alive
    full = ShrunkSpace.full(space, first.num_paths, first.heterogeneous)
    panels: list[tuple[str, ShrunkSpace]] = [("Start", full)]
    panels += [(f"Shrink {s.index}", s.alive) for s in shrinks]
    steps = ["step 0", *(f"step {s.step:,}" for s in shrinks)]
    columns = min(len(panels), 7)
    rows = -(-len(panels) // columns)
    each_width = 0.62 + 0.2 * len(space.operators)
    each_height = 1.15 + 0.2 * space.num_layers
    width = max(7.0, 1.25 + columns * each_width)
    figure = style.new_figure(width, 1.25 + rows * each_height)
    left = panels[-1][1].num_combinations
    note = (
        f"Share of each operator's combinations that is alive; {left:,} of "
        f"{full.num_combinations:,} combinations left"
    )
    style.heading(figure, "Alive operators over the shrinks", note)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    image = None
    for i, (axes, (title, alive)) in enumerate(zip(grid.flat, panels, strict=False)):
        image = _alive_panel(axes, alive, space, with_layers=i % columns == 0)
        count = f"{alive.num_combinations:,} combinations"
        axes.set_title(title, pad=22)
        text = f"{steps[i]}\n{count}"
        axes.annotate(
            text, (0, 1), (0, 3), "axes fraction", textcoords="offset points",
            fontsize=7, color=style.GREY, va="bottom", ha="left", linespacing=1.15,
        )  # fmt: skip
    bar = figure.colorbar(image, ax=grid, pad=0.012, aspect=28, shrink=0.62)
    bar.set_label("share of combinations alive")
    bar.outline.set_visible(False)
    style.percent_axis(bar.ax)
    figure.legend(
        handles=[
            Line2D([], [], color=style.VERMILION, lw=3, label="layer can split"),
            Line2D(
                [], [], marker="x", ms=6, mew=1.2, color=style.VERMILION, ls="", label="dropped"
            ),
            Patch(**_NEVER, label="not in the space"),
        ],
        loc="outside lower center",
        ncol=3,
    )
    return figure


def _alive_panel(axes: Axes, alive: ShrunkSpace, space: SearchSpace, with_layers: bool) -> Any:
    shares = alive_shares(alive)
    layers, operators = shares.shape
    colours = style.FADE.with_extremes(bad=_GONE)
    image = axes.imshow(
        np.ma.masked_invalid(np.where(shares == 0, np.nan, shares)), cmap=colours,
        norm=Normalize(0, 1), aspect="auto", interpolation="nearest",
        extent=(0.5, operators + 0.5, layers + 0.5, 0.5),
    )  # fmt: skip
    for i, j in np.argwhere(shares == 0):
        axes.plot(j + 1, i + 1, "x", ms=4.2, mew=1.1, color=style.VERMILION)
    for i, j in np.argwhere(np.isnan(shares)):
        axes.add_patch(Rectangle((j + 0.5, i + 0.5), 1, 1, **_NEVER))
    for i in range(layers + 1):
        stage = i < layers and i > 0 and space.layers[i].stage != space.layers[i - 1].stage
        axes.axhline(i + 0.5, color="white", lw=3.0 if stage else 0.6)
    for j in range(operators + 1):
        axes.axvline(j + 0.5, color="white", lw=0.6)
    split = [layer.number for layer in space.layers if alive.can_split(layer.number)]
    if split:
        ends = [split[0] - 0.5, split[-1] + 0.5]
        axes.plot(
            [0.27, 0.27], ends, color=style.VERMILION, lw=3, clip_on=False, solid_capstyle="butt"
        )
    axes.set_xlim(0.5, operators + 0.5)
    axes.set_ylim(layers + 0.5, 0.5)
    axes.set_xticks(range(1, operators + 1), space.operators, rotation=90)
    axes.set_yticks(range(1, layers + 1))
    axes.tick_params(length=0, pad=4)
    axes.tick_params(axis="y", labelleft=with_layers, pad=7)
    axes.spines[:].set_visible(False)
    if with_layers:
        axes.set_ylabel("layer")
    return image


def draw_similarity(shrink: Shrink) -> Figure:
    """By layer: similarity S below the diagonal, fate of the pairs above it, quality r beside it.

    Args:
      shrink: with at least one of `splittable` layers.
    """
    return _draw_similarity(shrink, shrink.splittable)


@style.styled
def _draw_similarity(shrink: Shrink, layers: list[Mapping[str, Any]]) -> Figure:
    off = [x["similarity"][~np.eye(len(x["operators"]), dtype=bool)] for x in layers]
    values = np.concatenate(off)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1e-6)
    # Enough digits to tell the cells apart: beta = 1e-3 leaves S close to 1.
    digits = int(np.clip(2 - np.floor(np.log10(norm.vmax - norm.vmin)), 3, 5))
    qualities = [q for x in layers if x["quality"] is not None for q in x["quality"].tolist()]
    largest = max(filter(math.isfinite, qualities), default=1.0)
    most = max(len(x["operators"]) for x in layers)
    columns = min(len(layers), 4)
    rows = math.ceil(len(layers) / columns)
    side = 0.95 + 0.31 * most
    figure = style.new_figure(max(7.6, 0.9 + columns * (side + 1.0)), 1.3 + rows * (side + 0.05))
    note = f"Shrink {shrink.index} at step {shrink.step:,}, metric: {shrink.metric}"
    style.heading(figure, "Similarity S and quality r by layer", note)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(layers) :]:
        axes.axis("off")
    for axes, layer in zip(grid.flat, layers, strict=False):
        _similarity_panel(axes, layer, norm, digits, largest, most)
    scale = matplotlib.cm.ScalarMappable(norm, style.FADE)
    bar = figure.colorbar(scale, ax=grid, pad=0.012, aspect=30, shrink=min(1.0, 1.7 / rows))
    bar.set_label("similarity S (low = diverse)")
    bar.ax.yaxis.get_major_formatter().set_useOffset(False)
    bar.outline.set_visible(False)
    figure.legend(
        handles=[
            Line2D([], [], marker="o", ms=5, color=style.GREEN, ls="", label="pair alive"),
            Line2D(
                [], [], marker="x", ms=6, mew=1.5, color=style.VERMILION, ls="",
                label="dropped in this shrink",
            ),
            Line2D([], [], marker=".", ms=3, color=style.GREY, ls="", label="dropped earlier"),
            Patch(fc=style.SKY, label="quality r"),
        ],
        loc="outside lower center",
        ncol=4,
    )  # fmt: skip
    return figure


def _similarity_panel(
    axes: Axes,
    layer: Mapping[str, Any],
    norm: Normalize,
    digits: int,
    largest: float,
    most: int,
) -> None:
    names, matrix, quality = list(layer["operators"]), layer["similarity"], layer["quality"]
    n = len(names)
    own = layer.get("self_similarity")
    own = np.array(own, float) if own is not None and len(own) == n else None
    lower = np.ma.masked_invalid(np.where(np.tril(np.ones((n, n)), -1) > 0, matrix, np.nan))
    axes.imshow(lower, cmap=style.FADE, norm=norm, interpolation="nearest")
    for i in range(n):
        axes.fill_between([i - 0.5, i + 0.5], i - 0.5, i + 0.5, color=_DIAGONAL, lw=0)
        if own is not None and np.isfinite(own[i]):
            # Two paths with the same operator, which a homogeneous space allows.
            text = f"{own[i]:.{digits}f}".replace("0.", ".", 1)
            axes.text(i, i, text, ha="center", va="center", fontsize=5.9 - 0.3 * (digits - 2))
        for j in range(i):
            value = matrix[i, j]
            text = f"{value:.{digits}f}".replace("0.", ".", 1) if np.isfinite(value) else "?"
            dark = np.isfinite(value) and sum(style.FADE(norm(value))[:3]) < 1.5
            ink = "white" if dark else style.INK
            axes.text(
                j, i, text, ha="center", va="center", fontsize=5.9 - 0.3 * (digits - 2), color=ink
            )
    looks = {
        "alive": {"marker": "o", "ms": 3.6, "color": style.GREEN},
        "dropped": {"marker": "x", "ms": 5, "mew": 1.4, "color": style.VERMILION},
        "gone": {"marker": ".", "ms": 2.4, "color": style.GREY},
    }
    for (i, j), state in pair_states(layer).items():
        axes.plot(j, i, ls="", **looks[state])
    for edge in np.arange(-0.5, n):
        axes.plot([edge, edge], [-0.5, n - 0.5], color="white", lw=0.8)
        axes.plot([-0.5, n - 0.5], [edge, edge], color="white", lw=0.8)
    if quality is not None:
        _quality_bars(axes, quality, largest)
    axes.set_xlim(-0.5, most + 2.6)
    axes.set_ylim(most - 0.5, -0.5)
    for i, name in enumerate(names):
        axes.text(i, n - 0.4, name, rotation=90, fontsize=7.5, ha="center", va="top")
    axes.set_xticks([])
    axes.set_yticks(range(n), names)
    axes.tick_params(length=0, labelsize=7.5, pad=2)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Layer {layer['layer']}", pad=4)


def _quality_bars(axes: Axes, quality: np.ndarray, largest: float) -> None:
    """Bars right of the matrix, of length r / largest r, with their values."""
    n = len(quality)
    axes.text(n - 0.2, -0.62, "r", fontsize=8, style="italic", va="bottom", ha="left")
    for i, value in enumerate(quality.tolist()):
        if not math.isfinite(value):
            continue
        length = 2.6 * value / largest if largest > 0 else 0.0
        axes.barh(i, length, left=n - 0.2, height=0.66, color=style.SKY, lw=0)
        text = f"{value:.3f}" if largest < 10 else f"{value:.3g}"
        axes.text(n, i, text, fontsize=5.8, va="center", ha="left")
