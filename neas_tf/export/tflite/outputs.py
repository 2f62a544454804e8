"""Which outputs an export has beside the ensemble's logits. No TensorFlow here.

`probabilities` (b, classes); `path_logits` (b, K, classes); `disagreement` (b,), in nats:
(1/K) Σ_k KL(p_k ‖ p̄) of the paths' probabilities from their mean, 0 to ln K (docs/uncertainty.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neas_tf.common.errors import NeasError, fail, unknown_name
from neas_tf.ensemble.model import PATH_LOGITS
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.tflite.quantizing import INTEGER

DISAGREEMENT, PROBABILITIES = "disagreement", "probabilities"
OPTIONAL = (PROBABILITIES, DISAGREEMENT, PATH_LOGITS)
# Operations of TFLite that disagreement is made of, which stay in float in an integer graph, and
# the one that leads there.
FLOAT_TAIL = frozenset(
    ("DEQUANTIZE", "LOG_SOFTMAX", "SOFTMAX", "EXP", "LOG", "MAXIMUM", "MEAN", "SUB", "MUL", "SUM")
)


def needs_paths(names: Sequence[str]) -> bool:
    """Whether some of the outputs are of each path."""
    return DISAGREEMENT in names or PATH_LOGITS in names


def check_calibrated(info: LoadedInfo) -> None:
    """Raises `NeasError` where an ensemble has no temperature to divide its logits by."""
    if info.temperature is None:
        raise NeasError(
            "calibrated: received true for a model without a temperature, expected one that was "
            "retrained with retrain.calibrate=true."
        )


def check_outputs(
    names: Sequence[str], num_paths: int, quantize: str = "none", *ends: str, field: str = "outputs"
) -> tuple[str, ...]:
    """The outputs in the order of `OPTIONAL`, those that an ensemble and a file's numbers can have.

    `ends` are the types of the graph's input and output; `field` begins a message.

    Raises:
      NeasError: for an unknown one, disagreement of one path, or what an integer graph cannot give.
    """
    for name in names:
        if name != "logits" and name not in OPTIONAL:
            unknown_name(field, name, ("logits", *OPTIONAL))
    if DISAGREEMENT in names and num_paths < 2:
        fail(field, DISAGREEMENT, "an ensemble of 2 paths or more, which can disagree")
    if PROBABILITIES in names and quantize in INTEGER:
        allowed = f"logits and {PATH_LOGITS} or {DISAGREEMENT} with quantize={quantize}"
        fail(field, PROBABILITIES, f"{allowed}: steps of 1/256 say little")
    for end in ends:
        if DISAGREEMENT in names and end != "float32":
            fail("input_type, output_type", end, "float32 with the output disagreement")
    return tuple(name for name in OPTIONAL if name in names)


def described(info: LoadedInfo, names: Sequence[str]) -> list[dict[str, Any]]:
    """The outputs of a SavedModel, for its report."""
    classes, paths = info.space.num_classes, info.architecture.num_paths
    shapes = {DISAGREEMENT: [None], PATH_LOGITS: [None, paths, classes]}
    return [
        {"name": name, "shape": shapes.get(name, [None, classes]), "dtype": "float32"}
        for name in ("logits", *names)
    ]
