"""The units that studies are made of."""

from __future__ import annotations

from neas_tf.study.units.measurements import (
    Comparison,
    Costs,
    Embedding,
    Latency,
    OfTraining,
    Pace,
    PacedSupernet,
    Robustness,
    TimedTraining,
    Uncertain,
)
from neas_tf.study.units.networks import (
    Found,
    LatencyTable,
    Scores,
    Search,
    Supernet,
    Taught,
    Training,
)
from neas_tf.study.units.unit import Lookup, Result, Unit, found, in_order, settings_text

__all__ = [
    "Comparison",
    "Costs",
    "Embedding",
    "Found",
    "Latency",
    "LatencyTable",
    "Lookup",
    "OfTraining",
    "Pace",
    "PacedSupernet",
    "Result",
    "Robustness",
    "Scores",
    "Search",
    "Supernet",
    "Taught",
    "TimedTraining",
    "Training",
    "Uncertain",
    "Unit",
    "found",
    "in_order",
    "settings_text",
]
