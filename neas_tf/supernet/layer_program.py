"""Forward and backward pass of one searchable layer, as two graphs that take everything as input.

Layers of equal shape share both graphs, and a graph is built once however often it is called; the
gradient is written out, so that a step keeps what it needs and nothing else, and a branch that is
not taken costs nothing. Under XLA, where one compiled program serves all draws, all that a branch
returns has static shapes (`KeptSlots`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from neas_tf.supernet.functional import Moments
from neas_tf.supernet.operator_passes import Backward, Forward, Kept, KeptSlots
from neas_tf.supernet.row_layout import Stack
from neas_tf.supernet.switches import in_xla, switch

# A graph of its own at run time too: inlined, all calls would be optimised one by one.
_APART = {"_noinline": True}


class LayerShape(NamedTuple):
    """What the graphs of a layer depend on.

    Attributes:
      stacks: the operators.
      has_skip: whether a branch returns the input; it comes after the stacks.
      residual: whether the input is added to an operator's output.
      row_width: numbers of a row of weights.
      moment_widths: channels of each batch normalisation's moments, those of the widest operator.
      out_shape: (H, W, C) of the output.
    """

    stacks: tuple[Stack, ...]
    has_skip: bool
    residual: bool
    row_width: int
    moment_widths: tuple[int, ...]
    out_shape: tuple[int, int, int]


class Choice(NamedTuple):
    """The operator of a path in a layer, as int32 scalars.

    Attributes:
      branch: number of its stack; one more is skip, and the last one what `first` holds.
      member: its number within the stack.
    """

    branch: tf.Tensor
    member: tf.Tensor


class LayerProgram:
    """The two graphs of all layers of one shape, for XLA or without it; see `layer_program`."""

    def __init__(self, shape: LayerShape, for_xla: bool):
        self.shape, self._for_xla = shape, for_xla
        settings = {"experimental_attributes": _APART, "autograph": False}
        self._forward = tf.function(self._run, **settings)
        self._backward = tf.function(self._run_back, **settings)
        self._backward_eager = tf.function(self._run_back_eager, **settings)
        self._slots = KeptSlots(shape.stacks, static=for_xla)

    def __call__(
        self,
        x: tf.Tensor,
        row: tf.Tensor,
        choice: Choice,
        first: Sequence[tf.Tensor] | None,
        statistics: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs a layer for one path.

        Args:
          x: the map (B, H, W, C).
          row: float32 (row_width,), the operator's weights.
          first: output and moments of the path that this one may still share its layers with.
          statistics: None for the batch's moments, else what to normalise with, as the moments.

        Returns:
          The map, and mean and variance (2, ΣC) of the batch normalisations side by side, in the order of
          the operator's steps, each zero-padded to the widest operator's; zeros after its last one and
          where the operator is skip. With `statistics` those.
        """
        shared = first is not None
        if first is None:
            first = self._no_first(x)
        if statistics is not None:
            results, _ = self._forward(x, row, choice, self._loose(first), statistics)
            return self._shaped(x, results)[0], statistics

        @tf.custom_gradient
        def differentiable(x, row, *first):
            outputs, kept = self._forward(x, row, choice, self._loose(first), None)

            def gradient(dy, *_):
                backward = self._backward if tf.inside_function() else self._backward_eager
                dx, drow, dfirst = backward(dy, x, row, choice, kept)
                # Nothing is derived from moments.
                return dx, drow, dfirst if shared else None, None

            return self._shaped(x, outputs), gradient

        return differentiable(x, row, *first)

    def _no_first(self, x) -> list[tf.Tensor]:
        """What stands for `first` where there is none."""
        if not self._for_xla:
            return [tf.zeros([0] * 4, x.dtype), tf.zeros([0, 0])]
        return [tf.zeros([tf.shape(x)[0], *self.shape.out_shape], x.dtype), self._side_by_side(())]

    def _loose(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The values without their static shapes, for one graph to serve whatever they hold."""
        if self._for_xla:
            return list(values)
        unknown = tf.TensorShape(None)
        return [tf.raw_ops.PlaceholderWithDefault(input=v, shape=unknown) for v in values]

    def _shaped(self, x, results) -> tuple[tf.Tensor, tf.Tensor]:
        y, moments = results
        y.set_shape([x.shape[0], *self.shape.out_shape])
        moments.set_shape([2, sum(self.shape.moment_widths)])
        return y, moments

    def _run(self, x, row, choice, first, statistics):
        shape, training = self.shape, statistics is None

        def kept(stack: Stack | None, values: Kept, x) -> Kept:
            return self._slots.fill(stack, values, x) if training else Kept([], [])

        def given(statistics):
            return None if training else tf.split(statistics[0], shape.moment_widths, axis=1)

        def stack(stack: Stack, x, row, member, _, statistics):
            run = Forward(stack, row, member, given(statistics))
            y = run(x)
            if shape.residual:
                y = x + y
            return [y, self._side_by_side(run.moments)], kept(stack, run.kept, x)

        def skip(x, *_):
            return [tf.identity(x), self._side_by_side(())], kept(None, Kept([], []), x)

        def same(x, row, member, first, _):
            return [tf.identity(value) for value in first], kept(None, Kept([], []), x)

        branches: list[Callable[..., Any]] = [functools.partial(stack, own) for own in shape.stacks]
        branches += [skip] * shape.has_skip + [same]
        inputs = (x, row, choice.member, list(first), [] if training else [statistics])
        return switch(choice.branch, branches, inputs)

    def _side_by_side(self, moments: Sequence[Moments]) -> tf.Tensor:
        """Means and variances (2, ΣC), with zeros where there are none: two operations for all."""
        widths = self.shape.moment_widths
        if not moments:
            return tf.zeros([2, sum(widths)])
        known = all(isinstance(found.share, np.float32) for found in moments)
        parts, shares = [], np.ones([2, sum(widths)], np.float32)
        for row, kind in enumerate(("mean", "unbiased")):
            begin = 0
            for found, width in itertools.zip_longest(moments, widths):
                end = begin + (int(found.mean.shape[0]) if found else 0)
                if found and row and known:
                    shares[row, begin:end] = found.share
                if found:
                    value = getattr(found, kind)
                    parts.append(value * found.share if row and not known else value)
                if end < begin + width:
                    parts.append(tf.zeros([begin + width - end]))
                begin += width
        both = tf.reshape(tf.concat(parts, 0), [2, -1])
        return both * shares if known else both

    def _run_back_eager(self, dy, x, row, choice, kept):
        # Called eagerly, the tensors have the shapes of the stack that ran.
        kept = Kept(self._loose(kept.maps), self._loose(kept.norms))
        return self._run_back(dy, x, row, choice, kept)

    def _run_back(self, dy, x, row, choice, kept):
        shape = self.shape

        def stack(stack: Stack, dy, x, row, member, kept):
            own = self._slots.take(stack, kept, x.shape[0])
            backward = Backward(stack, row, member, own)
            dx = backward(dy, x)
            drow = backward.row_gradient(shape.row_width)
            return (dx + dy if shape.residual else dx), drow, tf.zeros_like(dy)

        def skip(dy, *_):
            return tf.identity(dy), tf.zeros([shape.row_width]), tf.zeros_like(dy)

        def same(dy, x, *_):
            return tf.zeros_like(x), tf.zeros([shape.row_width]), tf.identity(dy)

        branches: list[Callable[..., Any]] = [functools.partial(stack, own) for own in shape.stacks]
        branches += [skip] * shape.has_skip + [same]
        inputs = (dy, x, row, choice.member, kept)
        dx, drow, dfirst = switch(choice.branch, branches, inputs)
        dx.set_shape(x.shape)
        drow.set_shape([shape.row_width])
        return dx, drow, dfirst


def layer_program(shape: LayerShape) -> LayerProgram:
    """The program of all layers of a shape, in the form of the graph that is being built."""
    return _program(shape, in_xla())


@functools.lru_cache(maxsize=256)
def _program(shape: LayerShape, for_xla: bool) -> LayerProgram:
    return LayerProgram(shape, for_xla)
