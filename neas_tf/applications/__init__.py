"""Ensembles as `keras.applications` has its networks: a `keras.Model` in one call (docs/fine_tuning.md)."""

from typing import TYPE_CHECKING

from neas_tf.common import moved

if TYPE_CHECKING:
    from neas_tf.applications.networks import NEASL, NEASM, NEASS, backbone, ensemble_model
    from neas_tf.applications.predictions import decode_predictions, preprocess_input

__all__ = [
    "NEASL",
    "NEASM",
    "NEASS",
    "backbone",
    "decode_predictions",
    "ensemble_model",
    "preprocess_input",
]

__getattr__ = moved.face(
    __name__,
    {
        "neas_tf.applications.networks": "NEASL NEASM NEASS backbone ensemble_model",
        "neas_tf.applications.predictions": "decode_predictions preprocess_input",
    },
)
