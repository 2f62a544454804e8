"""Which layers decide how good an ensemble gets, and whether a supernet has noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.operators import Operator
from neas_tf.report.page import Table
from neas_tf.space.architecture import Architecture
from neas_tf.study.reporting import number
from neas_tf.study.statistics import partial_kendall
from neas_tf.study.tables.correlations import LEAST, Truth


def expansions(keys: list[str]) -> np.ndarray:
    """Expansion of each ensemble in each layer, mean over the paths, (ensembles, d); 0 for skip."""
    return np.array(
        [
            np.mean(
                [[Operator.parse(name).expansion for name in path] for path in architecture.paths],
                0,
            )
            for architecture in map(Architecture.from_key, keys)
        ]
    )


def width_correlations(
    truth: Truth, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, list[float]]:
    """How the expansion in each layer goes with long accuracy and with what supernets say.

    Args:
      truth: see `correlations.truth_of`.
      scores: by name of a supernet, what it says of each ensemble.

    Returns:
      By name, the truth's "trained from scratch" first: partial τ (quadratics in MACs taken off both sides) of each layer,
      NaN where all ensembles have the same expansion. {} with fewer than `LEAST` ensembles.
    """
    keys = [key for key in truth if all(key in row for row in scores.values())]
    if len(keys) < LEAST:
        return {}
    widths = expansions(keys)
    macs = np.array([truth[key]["macs"] for key in keys], np.float64)
    rows = {"trained from scratch": {key: truth[key]["accuracy"] for key in keys}, **scores}
    return {
        name: [
            partial_kendall(width, [row[key] for key in keys], macs)
            for width in np.ascontiguousarray(widths.T)
        ]
        for name, row in rows.items()
    }


def table_of_widths(found: Mapping[str, list[float]]) -> Table:
    """One row a supernet, one column a layer."""
    rows: list[dict[str, Any]] = [
        {"": name} | {f"layer {m}": number(value, 2) for m, value in enumerate(values, 1)}
        for name, values in found.items()
    ]
    title = "What a layer's expansion says: partial τ with accuracy or log-likelihood"
    return Table.of(f"{title}, the mean of the paths, skip 0", rows)
