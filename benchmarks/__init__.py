"""Measurements of speed; each module is a command."""

import neas_tf  # noqa: F401  # first: it settles how Keras is set
