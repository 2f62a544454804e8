"""The section on what the ensemble knows of its own errors: a table and the risk-coverage chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neas_tf.report import style
from neas_tf.report.parts.markup import Charts, Markup, card, note, table
from neas_tf.uncertainty.measures import COLUMNS, cells, rows_of

_MEASURES = (
    "NLL: negative log-likelihood in nats; ECE: expected calibration error, 15 bins; AURC: area under "
    "the risk-coverage curve; AUROC: how well a low confidence finds errors (1: all of them first)."
)


def risk_chart(found: Mapping[str, Any]) -> dict[str, Any]:
    """Share of errors among the surest images, by the share of images that is answered.

    `found` is the content of uncertainty.json; a single network has one line.
    """
    rows = rows_of({k: v for k, v in found.items() if k != "calibrated"})
    if len(rows) == 2:
        del rows["path 1"]
    points = [
        {"x": coverage, "y": risk, "s": name}
        for name, row in rows.items()
        for coverage, risk in row["risk_coverage"]
    ]
    palette = [*(style.PATHS * len(rows))[: len(rows) - 1], "@ink"]
    titles = ("share of images answered", "errors among them")
    chart = style.series(
        points, list(rows), titles, (420, 260), lines=True, palette=palette, percent="xy"
    )
    for layer in chart["layer"]:
        layer["mark"].pop("point", None)
    return chart


def uncertainty_section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """Measures of each path and of the ensemble, disagreement, and the risk-coverage chart."""
    title, identity = "What the ensemble knows of its errors", f"{key}-uncertainty"
    found = run["uncertainty"]
    if not found:
        lack = "calibration and disagreement; they need retrain/uncertainty.json."
        return card(identity, title, note(lack, "missing"))
    rows = [[name, *cells(row)] for name, row in rows_of(found).items()]
    parts = [note(_MEASURES), table(["", *COLUMNS], rows, title)]
    told = found["disagreement"]
    if told and told["auroc"] is not None:
        parts.append(
            note(
                "Disagreement of the paths (mean divergence from their mean probabilities): "
                f"{told['mean_right']:.4f} nats where the ensemble is right, "
                f"{told['mean_wrong']:.4f} where it errs; its AUROC for errors is "
                f"{told['auroc']:.4f}."
            )
        )
    if found["chart"]["layer"]:
        words = "Errors among the surest images, by the share of images answered"
        parts.append(charts.add(f"{key}-risk", found["chart"], words))
    return card(identity, title, *parts)
