"""The ensemble as a branched diagram: shared trunk, K branches, heads, mean (paper Fig. 3b)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Curve

from neas_tf.operators import Operator
from neas_tf.report import style
from neas_tf.report.reading import number
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

COLUMN = 0.5  # inches from one layer to the next
STEM_COLUMN = 0.62  # inches between the fixed layers of the stem
ROW = 1.02  # inches from one path to the next
TALLEST = 0.74  # inches of the largest kernel's box
BOX = 0.34  # inches, width of a layer's box
GAP = 0.8  # columns added where the trunk forks and where the paths join
EXPANSION_COLOURS = (style.SKY, style.ORANGE, style.GREEN, style.PURPLE, style.YELLOW)
FIXED = "#C9D1D9"


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Where everything lies, in inches; x grows to the right, y upwards, the trunk at y = 0."""

    stem: tuple[float, ...]
    layers: tuple[float, ...]
    head: float
    dense: float
    mean: float
    fork: float
    join: float
    rows: tuple[float, ...]

    @property
    def top(self) -> float:
        return max(self.rows) + ROW / 2


def draw_architecture(architecture: Architecture, space: SearchSpace, cost: Any = None) -> Figure:
    """Draws any ensemble of a space.

    Colour is the expansion, the length (height) of a box the kernel size, a skip a thin dashed
    line.

    Args:
      architecture: the ensemble.
      space: gives channels and resolutions.
      cost: optional mapping (or object) with `macs`, `paper_flops`, `params` for the title, and
        `shared_macs`, `path_macs` (one number a path) for the labels.

    Raises:
      NeasError: when the space does not contain the architecture's operators.
    """
    architecture.check_in(space)
    return _draw(architecture, space, cost)


@style.styled
def _draw(architecture: Architecture, space: SearchSpace, cost: Any) -> Figure:
    plan = _plan(architecture, space)
    left, right = -0.62, plan.mean + 0.72
    bottom, top = -plan.top - 0.68, plan.top + 0.34
    width = max(right - left, 7.4)
    handles = _legend_handles(architecture)
    columns = min(len(handles), int(width / 1.45))
    legend = 0.22 * -(-len(handles) // columns)
    height = top - bottom + 0.94 + legend
    slack = (width - (right - left)) / 2
    figure = style.new_figure(width, height, layout=None)
    axes = figure.add_axes((0, (0.22 + legend) / height, 1, (top - bottom) / height))
    axes.set(xlim=(left - slack, right + slack), ylim=(bottom, top), aspect="equal")
    axes.axis("off")
    _bands(axes, plan, space)
    _trunk(axes, plan, architecture, space)
    for k, y in enumerate(plan.rows):
        _path(axes, plan, architecture, k, y)
    _labels(axes, plan, architecture, space, cost)
    figure.legend(
        handles=handles,
        loc="lower center",
        ncol=columns,
        bbox_to_anchor=(0.5, 0.06 / height),
        columnspacing=1.8,
        handletextpad=0.6,
        handlelength=1.6,
        borderaxespad=0.0,
    )
    name = architecture.name or "Ensemble"
    title = f"{name}: {architecture.num_paths} paths, split after layer "
    title += f"{architecture.split_point} of {space.num_layers}"
    if architecture.num_paths == 1:
        title = f"{name}: 1 path of {space.num_layers} layers"
    style.heading(figure, title, _facts(space, cost))
    return figure


def cost_value(cost: Any, name: str) -> Any:
    """A field of a mapping or object; None when it has none."""
    return cost.get(name) if isinstance(cost, Mapping) else getattr(cost, name, None)


def _facts(space: SearchSpace, cost: Any) -> str:
    parts = []
    for name, unit in (("macs", "MACs"), ("paper_flops", "paper FLOPs"), ("params", "parameters")):
        value = number(cost_value(cost, name))
        if value is not None:
            parts.append(f"{style.millions(value)} {unit}")
    sides = "×".join(map(str, space.input_size))
    return "  ·  ".join([*parts, f"input {sides}", f"{space.num_classes:,} classes"])


def _plan(architecture: Architecture, space: SearchSpace) -> _Plan:
    columns = 2 if space.block_channels else 1
    stem = tuple(STEM_COLUMN * i for i in range(columns))
    x, layers = stem[-1] + (STEM_COLUMN - COLUMN) / 2, []
    fork = x + COLUMN * 0.5
    for i in range(space.num_layers):
        if i == architecture.split_point:
            fork, x = x + COLUMN * 0.5, x + COLUMN * GAP
        x += COLUMN
        layers.append(x)
    if architecture.split_point == space.num_layers:
        fork, x = x + COLUMN * 0.5, x + COLUMN * GAP
    head = x + COLUMN * 1.1
    dense = head + COLUMN
    join = dense + COLUMN * 0.5
    mean = join + COLUMN * (GAP + 0.5)
    k = architecture.num_paths
    rows = tuple(ROW * ((k - 1) / 2 - i) for i in range(k))
    return _Plan(stem, tuple(layers), head, dense, mean, fork, join, rows)


def _bands(axes: Axes, plan: _Plan, space: SearchSpace) -> None:
    """Shades every other stage; layer numbers, channels and resolution below."""
    y = -plan.top
    for i, stage in enumerate(space.stages):
        members = [j for j, layer in enumerate(space.layers) if layer.stage == i]
        x0, x1 = plan.layers[members[0]] - COLUMN / 2, plan.layers[members[-1]] + COLUMN / 2
        if i % 2 == 0:
            size = (x1 - x0, 2 * plan.top)
            axes.add_patch(Rectangle((x0, y), *size, fc=style.FAINT, ec="none", zorder=0))
        axes.plot([x0 + 0.04, x1 - 0.04], [y - 0.25] * 2, color=style.GREY, lw=0.9)
        sides = "×".join(map(str, space.layers[members[-1]].out_size))
        text = f"{stage.channels} ch\n{sides}"
        axes.text((x0 + x1) / 2, y - 0.31, text, ha="center", va="top", fontsize=8)
    for x, layer in zip(plan.layers, space.layers, strict=True):
        axes.text(x, y - 0.06, layer.number, ha="center", va="top", fontsize=7, color=style.GREY)
    names = [("stem", space.stem_channels, space.stem_size)]
    if space.block_channels:
        names.append(("dw", space.block_channels, space.block_size))
    for x, (name, channels, size) in zip(plan.stem, names, strict=True):
        axes.text(x, y - 0.06, name, ha="center", va="top", fontsize=7, color=style.GREY)
        text = f"{channels} ch\n{'×'.join(map(str, size))}"
        axes.text(x, y - 0.31, text, ha="center", va="top", fontsize=7)
    grey = {"ha": "center", "va": "top", "fontsize": 7, "color": style.GREY}
    axes.text((plan.head + plan.dense) / 2, y - 0.06, "heads", **grey)
    widths = f"{space.head_channels} ch\n{space.feature_channels} → {space.num_classes}"
    middle = (plan.head + plan.dense) / 2
    axes.text(middle, y - 0.31, widths, ha="center", va="top", fontsize=7)


def _trunk(axes: Axes, plan: _Plan, architecture: Architecture, space: SearchSpace) -> None:
    _line(axes, plan.stem[0] - 0.45, plan.fork, 0.0)
    kernels = (space.stem_kernel, 3)
    for x, kernel in zip(plan.stem, kernels, strict=False):
        _box(axes, x, 0.0, _height(kernel, _largest(architecture)), FIXED, f"{kernel}×{kernel}")
    axes.text(plan.stem[0] - 0.24, 0.06, "image", ha="right", va="bottom", fontsize=7)
    for x, name in zip(plan.layers, architecture.shared, strict=False):
        _operator(axes, x, 0.0, name, architecture)


def _path(axes: Axes, plan: _Plan, architecture: Architecture, k: int, y: float) -> None:
    split = architecture.split_point
    first = (*plan.layers, plan.head)[split]
    _curve(axes, plan.fork, 0.0, first - COLUMN * 0.5, y)
    _line(axes, first - COLUMN * 0.5, plan.join, y)
    for x, name in zip(plan.layers[split:], architecture.paths[k][split:], strict=True):
        _operator(axes, x, y, name, architecture)
    _box(axes, plan.head, y, 0.42, FIXED, "1×1")
    _box(axes, plan.dense, y, 0.42, FIXED, "FC")
    _curve(axes, plan.join, y, plan.mean - 0.2, 0.0)


def _labels(
    axes: Axes, plan: _Plan, architecture: Architecture, space: SearchSpace, cost: Any
) -> None:
    y = plan.top
    each = cost_value(cost, "path_macs")
    each = each if isinstance(each, (list, tuple)) and len(each) == len(plan.rows) else None
    for k, row in enumerate(plan.rows):
        text = f"path {k + 1}"
        if each is not None and number(each[k]) is not None:
            text += f"\n{style.millions(each[k])}"
        middle = (plan.head + plan.dense) / 2
        axes.text(middle, row + 0.25, text, ha="center", va="bottom", fontsize=7, linespacing=1.1)
    shared = number(cost_value(cost, "shared_macs"))
    extra = f", {style.millions(shared)} MACs" if shared is not None else ""
    what = f"shared by all paths{extra}" if architecture.split_point else "shared"
    axes.text(plan.fork - 0.1, y + 0.07, what, ha="right", va="bottom", fontsize=8)
    axes.text(plan.fork + 0.1, y + 0.07, "one per path", ha="left", va="bottom", fontsize=8)
    dash = {"color": style.INK, "lw": 0.9, "ls": (0, (4, 3)), "zorder": 1}
    axes.plot([plan.fork] * 2, [-y, y + 0.28], **dash)
    axes.plot([plan.fork], [0], "o", ms=5, color=style.INK, zorder=4)
    _line(axes, plan.mean, plan.mean + 0.62, 0.0)
    axes.annotate(
        "",
        (plan.mean + 0.66, 0),
        (plan.mean + 0.5, 0),
        arrowprops={"arrowstyle": "-|>", "color": style.GREY, "lw": 1.3},
    )
    _box(axes, plan.mean, 0.0, 0.42, style.INK, "mean", colour="white", width=0.46)


def _legend_handles(architecture: Architecture) -> list[Any]:
    operators = _used(architecture)
    handles: list[Any] = []
    for expansion, colour in _colours(architecture).items():
        label = f"expansion {expansion}" if expansion else "no expansion"
        handles.append(Rectangle((0, 0), 1, 1, fc=colour, ec=style.INK, lw=0.7, label=label))
    handles.append(Rectangle((0, 0), 1, 1, fc=FIXED, ec=style.INK, lw=0.7, label="fixed part"))
    kernels = ", ".join(f"{k}×{k}" for k in sorted({o.kernel for o in operators if o.kernel}))
    if kernels:
        label = f"box length: kernel ({kernels})"
        handles.append(
            Line2D([], [], marker="|", ms=11, mew=2, ls="", color=style.INK, label=label)
        )
    if any(o.is_skip for o in operators):
        dashes = {"color": style.INK, "lw": 1.0, "ls": (0, (3, 2))}
        handles.append(Line2D([], [], label="skip (identity)", **dashes))
    return handles


def _used(architecture: Architecture) -> list[Operator]:
    return [Operator.parse(name) for name in {n for row in architecture.paths for n in row}]


def _largest(architecture: Architecture) -> int:
    return max([3, *(operator.kernel for operator in _used(architecture))])


def _colours(architecture: Architecture) -> dict[int, str]:
    """Colour of each expansion; 4 and 6, the paper's, look the same in every picture."""
    found = {o.expansion for o in _used(architecture) if not o.is_skip}
    ordered = [4, 6, *sorted(found - {4, 6})]
    palette = {e: EXPANSION_COLOURS[i % len(EXPANSION_COLOURS)] for i, e in enumerate(ordered)}
    return {e: palette[e] for e in sorted(found)}


def _height(kernel: int, largest: int) -> float:
    return TALLEST * kernel / max(largest, 7)


def _operator(axes: Axes, x: float, y: float, name: str, architecture: Architecture) -> None:
    operator = Operator.parse(name)
    if operator.is_skip:
        half = COLUMN / 2
        axes.plot(
            [x - half, x + half], [y, y], color="white", lw=3, zorder=2, solid_capstyle="butt"
        )
        dashes = {"color": style.INK, "lw": 1.0, "ls": (0, (3, 2)), "zorder": 3}
        axes.plot([x - half, x + half], [y, y], **dashes)
        return
    colour = _colours(architecture)[operator.expansion]
    height = max(_height(operator.kernel, _largest(architecture)), 0.13)
    _box(axes, x, y, height, colour, operator.label)


def _box(
    axes: Axes,
    x: float,
    y: float,
    height: float,
    face: str,
    text: str,
    colour: str = style.INK,
    width: float = BOX,
) -> None:
    pad = 0.03
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2 + pad, y - height / 2 + pad),
            width - 2 * pad,
            height - 2 * pad,
            boxstyle=f"round,pad={pad},rounding_size=0.045",
            fc=face,
            ec=style.INK,
            lw=0.8,
            zorder=3,
        )
    )
    size = 7 if height >= 0.3 and len(text.split("\n")[0]) < 5 else 5.5
    text = text if height >= 0.25 else text.split("\n")[0]
    axes.text(
        x, y - 0.004, text, ha="center", va="center", fontsize=size, color=colour, zorder=4,
        linespacing=1.05,
    )  # fmt: skip


def _line(axes: Axes, x0: float, x1: float, y: float) -> None:
    axes.plot([x0, x1], [y, y], color=style.GREY, lw=1.3, zorder=1.5)


def _curve(axes: Axes, x0: float, y0: float, x1: float, y1: float) -> None:
    middle = (x0 + x1) / 2
    points = [(x0, y0), (middle, y0), (middle, y1), (x1, y1)]
    codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
    axes.add_patch(PathPatch(Curve(points, codes), fc="none", ec=style.GREY, lw=1.3, zorder=1.5))
