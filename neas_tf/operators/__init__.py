"""The operators of a layer: every registered family under one name (paper section 4.1).

A family of one's own subclasses `Operator` and is decorated with `register` (docs/operators.md).
"""

from __future__ import annotations

from neas_tf.operators import fused_mbconv, mbconv, universal_bottleneck
from neas_tf.operators.base import (
    ACTIVATIONS,
    SKIP,
    Maker,
    Operator,
    Step,
    batch_norms,
    bottleneck_width,
    divisible,
    operator_steps,
    register,
    squeeze_width,
)

__all__ = [
    "ACTIVATIONS",
    "PAPER_OPERATORS",
    "SKIP",
    "Maker",
    "Operator",
    "Step",
    "batch_norms",
    "bottleneck_width",
    "divisible",
    "fused_mbconv",
    "mbconv",
    "operator_steps",
    "register",
    "squeeze_width",
    "universal_bottleneck",
]

# The authors' indices 0..5; skip is -1 there.
PAPER_OPERATORS = ("k3e4", "k3e6", "k5e4", "k5e6", "k7e4", "k7e6", SKIP)
