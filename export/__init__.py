"""Commands that turn a trained ensemble into deployable files."""

import neas_tf  # noqa: F401  # first: it settles how Keras is set
