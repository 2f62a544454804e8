"""Forward and backward pass of one searchable layer, as two graphs that take everything as input.

Layers of equal shape share both graphs, and a graph is built once however often it is called; the
gradient is written out, so that a step keeps what it needs and nothing else, and a branch that is
not taken costs nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from neas_tf.supernet.operator_passes import Backward, Forward, Kept, count_kept
from neas_tf.supernet.row_layout import Stack

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
    """The two graphs of all layers of one shape; see `layer_program`."""

    def __init__(self, shape: LayerShape):
        self.shape = shape
        settings = {"experimental_attributes": _APART, "autograph": False}
        self._forward = tf.function(self._run, **settings)
        self._backward = tf.function(self._run_back, **settings)
        self._norms = len(shape.moment_widths)
        # Tensors that a forward pass keeps, see `Kept`.
        counts = [count_kept(stack.steps[0]) for stack in shape.stacks]
        self._most_maps, self._most_norms = map(max, zip(*counts, strict=True))

    def __call__(
        self,
        x: tf.Tensor,
        row: tf.Tensor,
        choice: Choice,
        first: Sequence[tf.Tensor] | None,
        statistics: Sequence[tf.Tensor] | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Runs a layer for one path.

        Args:
          x: the map (B, H, W, C).
          row: float32 (row_width,), the operator's weights.
          first: output and moments of the path that this one may still share its layers with.
          statistics: None for the batch's moments, else what to normalise with, as the moments.

        Returns:
          The map, then (2, C) moments for each batch normalisation in the order of the operator's
          steps, zero-padded; zeros after its last one and where the operator is skip.
        """
        shared = first is not None
        if first is None:
            first = [tf.zeros([0] * 4, x.dtype)] + [tf.zeros([0, 0])] * self._norms
        if statistics is not None:
            results, _ = self._forward(x, row, choice, _any_shape(first), list(statistics))
            return self._shaped(x, results)

        @tf.custom_gradient
        def differentiable(x, row, *first):
            outputs, kept = self._forward(x, row, choice, _any_shape(first), None)

            def gradient(dy, *_):
                dx, drow, dfirst = self._backward(dy, x, row, choice, kept)
                # Nothing is derived from moments.
                return dx, drow, dfirst if shared else None, *[None] * self._norms

            return self._shaped(x, outputs), gradient

        return differentiable(x, row, *first)

    def _shaped(self, x, results) -> tuple[tf.Tensor, ...]:
        results[0].set_shape([x.shape[0], *self.shape.out_shape])
        for value, width in zip(results[1:], self.shape.moment_widths, strict=True):
            value.set_shape([2, width])
        return tuple(results)

    def _run(self, x, row, choice, first, statistics):
        shape = self.shape

        def nothing() -> Kept:
            return self._filled(Kept([], []), x.dtype, statistics is None)

        def stack(stack: Stack):
            run = Forward(stack, row, choice.member, statistics)
            y = run(x)
            if shape.residual:
                y = x + y
            return [y, *self._padded(run.moments)], self._filled(
                run.kept, x.dtype, statistics is None
            )

        branches: list[Callable[[], Any]] = [
            functools.partial(stack, member) for member in shape.stacks
        ]
        if shape.has_skip:
            branches.append(lambda: ([tf.identity(x), *self._padded(())], nothing()))
        branches.append(lambda: ([tf.identity(value) for value in first], nothing()))
        return tf.switch_case(choice.branch, branches)

    def _filled(self, kept: Kept, dtype: tf.DType, wanted: bool) -> Kept:
        """What is kept, filled up to the number of tensors that any stack keeps."""
        if not wanted:
            return Kept([], [])
        maps = kept.maps + [tf.zeros([0], dtype)] * (self._most_maps - len(kept.maps))
        norms = kept.norms + [tf.zeros([0])] * (self._most_norms - len(kept.norms))
        return Kept(maps, norms)

    def _padded(self, moments: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        widths = self.shape.moment_widths
        padded = [
            tf.pad(value, [[0, 0], [0, width - value.shape[-1]]])
            for value, width in zip(moments, widths, strict=False)
        ]
        return padded + [tf.zeros([2, width]) for width in widths[len(padded) :]]

    def _run_back(self, dy, x, row, choice, kept):
        shape = self.shape
        # Called eagerly, the tensors have the shapes of the stack that ran.
        kept = Kept(_any_shape(kept.maps), _any_shape(kept.norms))

        def stack(stack: Stack):
            backward = Backward(stack, row, choice.member, kept)
            dx = backward(dy, x)
            drow = backward.row_gradient(shape.row_width)
            return (dx + dy if shape.residual else dx), drow, tf.zeros_like(dy)

        def nothing(dx, dfirst):
            return tf.identity(dx), tf.zeros([shape.row_width]), tf.identity(dfirst)

        branches: list[Callable[[], Any]] = [
            functools.partial(stack, member) for member in shape.stacks
        ]
        if shape.has_skip:
            branches.append(lambda: nothing(dy, tf.zeros_like(dy)))
        branches.append(lambda: nothing(tf.zeros_like(x), dy))
        dx, drow, dfirst = tf.switch_case(choice.branch, branches)
        dx.set_shape(x.shape)
        drow.set_shape([shape.row_width])
        return dx, drow, dfirst


@functools.lru_cache(maxsize=256)
def layer_program(shape: LayerShape) -> LayerProgram:
    """The program of all layers of a shape."""
    return LayerProgram(shape)


def _any_shape(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The values without their static shapes, for one graph to serve whatever they hold."""
    unknown = tf.TensorShape(None)
    return [tf.raw_ops.PlaceholderWithDefault(input=v, shape=unknown) for v in values]
