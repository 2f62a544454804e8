"""NEAS for TensorFlow: one-shot search for small ensembles that share their first layers."""

from neas_tf.common import keras_settings

__version__ = "0.1.0"

keras_settings.settle()
