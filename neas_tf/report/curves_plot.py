"""Loss, accuracy and learning rate of the supernet's training and of the retraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from neas_tf.report import style
from neas_tf.report.reading import number

TITLES = {"supernet": "Supernet", "retrain": "Retraining"}
ROWS = {"loss": "loss", "accuracy": "accuracy", "learning_rate": "learning rate"}
_HELD_OUT = ("validation", "val", "test", "eval")


def row_of(key: str) -> str | None:
    """Which row of the figure a logged number belongs to; None for what is not drawn."""
    return next((row for row in ROWS if row in key), None)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean, (n,) to (n,): centred, narrower at the steep start, one-sided at the end."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    reach = np.minimum(window // 2, i)
    first, last = i - reach, np.minimum(i + reach, len(values) - 1)
    return (total[last + 1] - total[first]) / (last + 1 - first)


def draw_training_curves(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]], shrink_steps: Sequence[int] = ()
) -> Figure:
    """One column a stage, rows for what was logged: loss, accuracy, learning rate.

    Args:
      metrics: log lines by stage; a line has `step`, perhaps `epoch`, and numbers.
      shrink_steps: marked in the column of the supernet.
    """
    return _draw({k: list(v) for k, v in metrics.items() if v}, list(shrink_steps))


@style.styled
def _draw(metrics: dict[str, list[Mapping[str, Any]]], shrink_steps: list[int]) -> Figure:
    series = {stage: _series(lines) for stage, lines in metrics.items()}
    found = {row_of(key) for group in series.values() for key in group}
    rows = [row for row in ROWS if row in found]
    heights = [0.55 if row == "learning_rate" else 1.0 for row in rows]
    width = 5.6 * len(series) + 0.2
    figure = style.new_figure(max(width, 6.4), 1.0 + 2.5 * sum(heights))
    style.heading(figure, "Training")
    grid = figure.subplots(
        len(rows), len(series), squeeze=False, sharex="col", height_ratios=heights
    )
    for column, (stage, group) in enumerate(series.items()):
        for i, row in enumerate(rows):
            axes = grid[i, column]
            mine = {key: value for key, value in group.items() if row_of(key) == row}
            if not mine:
                axes.axis("off")
                continue
            _panel(axes, row, mine, shrink_steps if stage == "supernet" else [])
            if i == 0:
                axes.set_title(TITLES.get(stage, stage))
            if column == 0:
                axes.set_ylabel(ROWS[row])
        shown = [i for i, row in enumerate(rows) if any(row_of(k) == row for k in group)]
        axes = grid[shown[-1], column]
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(_x_label(metrics[stage]))
    figure.align_ylabels()
    return figure


def _x_label(lines: list[Mapping[str, Any]]) -> str:
    epochs = [e for e in (number(line.get("epoch")) for line in lines) if e is not None]
    if not epochs or max(epochs) <= 0:
        return "step"
    return f"step ({max(epochs):.3g} epochs in all)"


def _series(lines: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Per drawn key (2, n): steps and values."""
    result: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if row_of(key) and number(value) is not None:
                result.setdefault(key, []).append((line["step"], value))
    return {key: np.array(points, float).T for key, points in result.items()}


def _panel(axes: Axes, row: str, series: Mapping[str, np.ndarray], marks: list[int]) -> None:
    end = max(steps.max() for steps, _ in series.values())
    for i, step in enumerate(step for step in marks if step <= end):
        label = "shrink" if i == 0 and row == "loss" else None
        axes.axvline(step, color=style.PALE, lw=1.2, ls=(0, (4, 2)), zorder=0, label=label)
    for key in sorted(series, key=lambda key: ("ensemble" in key, key)):
        steps, values = series[key]
        colour, width, dashes = _look(key, row)
        window = len(values) // 25
        marker = "o" if len(values) < 12 else None
        if window >= 3 and row != "learning_rate":
            axes.plot(steps, values, color=colour, lw=0.7, alpha=0.28)
            values = smooth(values, window)
        axes.plot(
            steps, values, color=colour, lw=width, ls=dashes, marker=marker, ms=3.5,
            label=_label(key),
        )  # fmt: skip
    axes.grid(True, axis="y")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if row == "accuracy":
        style.percent_axis(axes)
    if row == "learning_rate":
        axes.set_ylim(0, 1.1 * max(float(v.max()) for _, v in series.values()) or 1.0)
    else:
        # Long curves are steep at the start; short ones may run anywhere.
        short = max(steps.size for steps, _ in series.values()) < 40
        place = "best" if short else "upper right" if row == "loss" else "lower right"
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(loc=place, ncol=2 if len(series) > 4 else 1)


def _look(key: str, row: str) -> tuple[str, float, Any]:
    dashes = (0, (5, 2)) if key.startswith(_HELD_OUT) else "-"
    tail = key.rsplit("_", 1)[-1]
    if row == "learning_rate":
        return style.GREY, 1.4, dashes
    if "ensemble" in key:
        return style.BLACK, 1.3 if dashes != "-" else 2.0, dashes
    if tail.isdigit():
        return style.PATHS[(int(tail) - 1) % len(style.PATHS)], 1.4, dashes
    return style.BLUE, 1.6, dashes


def _label(key: str) -> str:
    """Words for a logged name: accuracy_1 → path 1, validation_accuracy_2 → validation, path 2."""
    words = key.split("_")
    parts = [words.pop(0)] if words[0] in _HELD_OUT else []
    if "ensemble" in words:
        parts.append("ensemble")
        words.remove("ensemble")
    if words and words[-1].isdigit():
        parts.append(f"path {words.pop()}")
    rest = " ".join(word for word in words if word != "accuracy")
    if rest == "loss" and parts:
        rest = ""
    return ", ".join(p for p in (*parts, rest) if p) or " ".join(key.split("_"))
