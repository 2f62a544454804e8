"""Predicted against measured latency of whole ensembles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neas_tf.cost.latency_table import NANOSECONDS, LatencyTable
from neas_tf.report import style


def draw_latency(table: LatencyTable) -> Figure:
    """One panel: the ensembles of the fit and of the validation, and the line of no error."""
    return _draw(table)


@style.styled
def _draw(table: LatencyTable) -> Figure:
    figure = style.new_figure(5.6, 5.2)
    kind = "float32" if table.quantize == "none" else table.quantize
    facts = f"{table.made_for}, {kind}, {table.num_paths} path{'s' * (table.num_paths > 1)}"
    style.heading(figure, "Latency table", facts)
    axes = figure.subplots()
    ends: list[float] = []
    for found, name, look in (
        (table.fit, "fitted on", {"marker": "o", "mfc": "none", "color": style.GREY}),
        (table.validation, "others", {"marker": "o", "color": style.BLUE}),
    ):
        if not found:
            continue
        predicted, measured = _milliseconds(found)
        ends += [*predicted, *measured]
        label = f"{name}: {len(predicted)}, median error {found['median_relative_error']:.1%}"
        if name == "others" and found["kendall_tau"] is not None:
            label += f", τ {found['kendall_tau']:.2f}"
        axes.plot(predicted, measured, ls="", ms=5, label=label, zorder=3, **look)
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low) or 0.05 * high
    line = np.array([low - margin, high + margin])
    axes.plot(line, line, color=style.PALE, lw=1.2, zorder=1, label="predicted = measured")
    axes.set_xlim(*line)
    axes.set_ylim(*line)
    axes.set_aspect("equal")
    axes.grid(True)
    axes.set(xlabel="predicted (ms)", ylabel="measured (ms)")
    axes.legend(loc="upper left")
    return figure


def _milliseconds(found: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    rows = found["ensembles"]
    columns = ([row[name] for row in rows] for name in ("predicted_ns", "measured_ns"))
    predicted, measured = (np.array(column, float) / NANOSECONDS for column in columns)
    return predicted, measured
