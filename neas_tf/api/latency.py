"""A latency table for a search that has a bound in milliseconds and no table: measured on this machine.

The space must be known before it can be measured, and its width depends on what the machine is
able to: a first space is measured, and another of other MACs where the bound lies badly in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neas_tf.api.plan import Facts
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.cost.budget import latency_bound
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import METRIC, load_table, milliseconds
from neas_tf.cost.space_fitting import fit_space
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

_FIRST_MACS = 10_000_000
_ROUNDS = 5
_GOOD = (0.15, 0.7)  # shares of the attainable range in which a bound leaves the search a choice
_AIM = 0.35

Measure = Callable[[SearchSpace, int], Path]


def fit_latency(
    facts: Facts,
    size: tuple[int, int],
    max_latency_ms: float,
    given: Mapping[str, Any],
    measure: Measure | None = None,
) -> tuple[SearchSpace, Path]:
    """A space in which a bound of latency lies well, and its table.

    Args:
      facts: of the data.
      size: (height, width) of the images.
      max_latency_ms: the bound.
      given: the user's settings; a space of their own is measured as it is.
      measure: makes or finds the table of a space for K paths; by default of this machine.

    Raises:
      NeasError: where no space of the family is that fast, with what was attainable.
    """
    from neas_tf.latency.tables import latency_table_for

    measure = measure or latency_table_for
    paths = int(given.get("num_paths") or 2)
    heterogeneous = bool(given.get("heterogeneous", True))
    bound, macs = latency_bound(max_latency_ms) or 0, _FIRST_MACS
    earlier = macs
    best: tuple[float, SearchSpace, Path] | None = None
    low = high = 0
    for _ in range(_ROUNDS):
        try:
            fit = fit_space(
                size, facts.channels, facts.classes, paths, {"macs": macs}, heterogeneous
            )
        except NeasError:  # so narrow is none
            macs = round(math.sqrt(macs * earlier))
            continue
        console.say(f"Latency of {fit.space.num_layers} layers for about {macs:,} MACs:")
        path = measure(fit.space, paths)
        table = CostTable(fit.space, load_table(str(path), "latency_table"))
        full = ShrunkSpace.full(fit.space, paths, heterogeneous)
        low, high = table.attainable_range(full, METRIC)
        share = (bound - low) / max(high - low, 1)
        console.say(
            f"Its ensembles take {milliseconds(low)} to {milliseconds(high)} here; "
            f"{max_latency_ms:g} ms lie at {share:.0%}."
        )
        if best is None or _oddness(share) < _oddness(best[0]):
            best = share, fit.space, path
        if _GOOD[0] <= share <= _GOOD[1]:
            break
        earlier, macs = macs, max(1, round(macs * bound / (low + _AIM * (high - low))))
    if best is None or best[0] <= 0:
        raise NeasError(
            f"max_latency_ms: received {max_latency_ms:g}, expected more: the fastest ensembles that "
            f"were measured for images of {size[0]}×{size[1]} pixels take {milliseconds(low)}; smaller "
            "images (input_size) take less."
        )
    return best[1], best[2]


def _oddness(share: float) -> float:
    """How far a bound is from a good place; one that binds little is better than one that binds all."""
    return abs(share - _AIM) if share >= _GOOD[0] else 1 + _GOOD[0] - share
