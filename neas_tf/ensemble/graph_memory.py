"""Gives back what the graphs of finished networks hold, for programs that make many of them."""

from __future__ import annotations

import gc

import tf_keras
from tensorflow.python.framework import ops

_PREFIX = "CustomGradient-"  # of the names that `tf.custom_gradient` makes up


def release_graphs() -> None:
    """Forgets the graphs of networks that nothing refers to any more.

    Each `tf.custom_gradient` in a graph, and so each swish, enters a closure over the graph's
    tensors into a global registry that TensorFlow never empties: every network trained leaves some
    fifty graphs there. Call it between networks. A gradient that is asked for later through a graph
    traced before is a LookupError; to run such a graph does no harm.
    """
    registry = getattr(ops.gradient_registry, "_registry", {})
    for name in [name for name in registry if name.startswith(_PREFIX)]:
        del registry[name]
    tf_keras.backend.clear_session()
    gc.collect()
