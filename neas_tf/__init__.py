"""NEAS for TensorFlow: one-shot search for small ensembles that share their first layers."""

__version__ = "0.1.0"
