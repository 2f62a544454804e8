"""Networks that are done leave no graph behind."""

import gc
import weakref

import tensorflow as tf
from tensorflow.python.framework import ops

from neas_tf.ensemble.graph_memory import release_graphs


def trained_step() -> weakref.ref:
    """A traced step with a swish in it; its graph, weakly."""
    kernel = tf.Variable(tf.ones((3, 3)))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.swish(x @ kernel))
        kernel.assign_sub(0.1 * tape.gradient(loss, kernel))
        return loss

    step(tf.ones((2, 3)))
    return weakref.ref(step.get_concrete_function(tf.ones((2, 3))).graph)


def test_finished_graphs_are_released():
    graph = trained_step()
    gc.collect()
    assert graph() is not None, "TensorFlow lets go by itself: graph_memory is not needed any more"
    release_graphs()
    assert graph() is None


def test_what_comes_later_has_its_gradients():
    release_graphs()
    before = set(ops.gradient_registry.list())
    graph = trained_step()
    assert graph() is not None  # traced, and its gradient taken, behind a release
    release_graphs()
    assert set(ops.gradient_registry.list()) == before  # all others are still there
