"""Which of TensorFlow's graph optimisations the supernet's graphs go through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

# On switches whose branches get tensors of different ranks, these two together have chosen a
# branch that was not taken (TensorFlow 2.20; tests/supernet/test_grappler.py). A step is no slower without.
_OFF = {"constant_folding": False, "arithmetic_optimization": False}


@contextlib.contextmanager
def safe_switches() -> Iterator[None]:
    """Leaves the optimisations out that do not understand the layers' switches."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options(_OFF)
    try:
        yield
    finally:
        back = {name: before.get(name, True) for name in _OFF}
        tf.config.optimizer.set_experimental_options(back)
