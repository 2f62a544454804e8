"""Branches that are chosen at run time, and which of TensorFlow's optimisations their graphs go through."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

# On switches whose branches get tensors of different ranks, these two together have chosen a
# branch that was not taken (TensorFlow 2.20; tests/supernet/test_switches.py). A step is no slower without.
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


@functools.cache
def accelerated() -> bool:
    """Whether this process has another device than CPUs."""
    return {device.device_type for device in tf.config.list_logical_devices()} != {"CPU"}


def on_host() -> contextlib.AbstractContextManager[Any]:
    """The place for small integers: beside an accelerator, whose switches read their index from host memory."""
    return tf.device("CPU:0") if accelerated() and not in_xla() else contextlib.nullcontext()


def in_xla() -> bool:
    """Whether the graph being built is compiled by XLA: under `jit_compile=True`, or on a TPU.

    TensorFlow has no public word for it; its own control flow asks the same of the graph.
    """
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def switch(index: tf.Tensor, branches: Sequence[Callable[..., Any]], inputs: Sequence[Any]) -> Any:
    """`branches[index](*inputs)`, of which only that one runs.

    For XLA it is the bare operation. What `tf.switch_case` makes asks XLA to find constants among
    the branches' inputs, and where those come out of another switch, XLA evaluates its branches
    for that, product by product: 60 s for one layer of the paper (16 images of 16²×24) instead of
    none.

    Args:
      index: int32 scalar, in range.
      branches: functions of the inputs, whose results have one structure; for XLA, equal shapes too.
      inputs: nested tensors; their static shapes are those of the branches' arguments.
    """
    if not in_xla():
        return tf.switch_case(index, [functools.partial(branch, *inputs) for branch in branches])
    flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(list(inputs))]
    structure: list[Any] = []

    def traced(branch: Callable[..., Any]) -> Any:
        def run(*values: tf.Tensor) -> list[tf.Tensor]:
            result = branch(*tf.nest.pack_sequence_as(list(inputs), values))
            structure[:] = [result]
            return [tf.identity(value) for value in tf.nest.flatten(result)]

        specs = [tf.TensorSpec(value.shape, value.dtype) for value in flat]
        return tf.function(run, autograph=False).get_concrete_function(*specs)

    made = [traced(branch) for branch in branches]
    outputs = tf.raw_ops.StatelessCase(
        branch_index=index,
        input=flat,
        Tout=[value.dtype for value in made[0].outputs],
        branches=made,
        output_shapes=[value.shape for value in made[0].outputs],
    )
    return tf.nest.pack_sequence_as(structure[0], outputs)
