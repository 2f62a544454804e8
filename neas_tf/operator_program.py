"""Forward and backward pass of one searchable layer, as two graphs that take everything as input.

Layers of equal shape share both graphs, and a graph is built once however often it is called; the
gradient is written out, so that a step keeps what it needs and nothing else, and a branch that is
not taken costs nothing.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from neas_tf import convolutions, functional
from neas_tf.operators import Step, squeeze_width
from neas_tf.row_layout import Stack
from neas_tf.supernet_layers import SQUEEZE

# A graph of its own at run time too: inlined, all calls would be optimised one by one.
_APART = {"_noinline": True}


class LayerShape(NamedTuple):
    """What the graphs of a layer depend on.

    Attributes:
      stacks: the operators.
      has_skip: whether a branch returns the input; it comes behind the stacks.
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


class Kept(NamedTuple):
    """What a forward pass keeps for the gradient, step after step.

    Attributes:
      maps: of a convolution: its result before normalisation, the sigmoid of a swish, and what comes
        out; of squeeze-excite: mean, hidden values, gate before its bounds, and what comes out.
      norms: what the gradient of a batch normalisation needs besides.
    """

    maps: list[tf.Tensor]
    norms: list[tf.Tensor]


class LayerProgram:
    """The two graphs of all layers of one shape; see `layer_program`."""

    def __init__(self, shape: LayerShape):
        self.shape = shape
        settings = {"experimental_attributes": _APART, "autograph": False}
        self._forward = tf.function(self._run, **settings)
        self._backward = tf.function(self._run_back, **settings)
        self._norms = len(shape.moment_widths)
        # Tensors that a forward pass keeps, see `Kept`.
        counts = [_count_kept(stack.steps[0]) for stack in shape.stacks]
        self._most = Kept(*map(max, zip(*counts, strict=True)))

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
          choice: the operator.
          first: output and moments of the path that this one may still share its layers with.
          statistics: None for the batch's moments, else what to normalise with, as the moments.

        Returns:
          The map, then (2, C) moments for each batch normalisation in the order of the operator's
          steps, zero-padded; zeros behind its last one and where the operator is skip.
        """
        shared = first is not None
        if not shared:
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
            run = _Forward(stack, row, choice.member, statistics)
            y = run(x)
            if shape.residual:
                y = x + y
            return [y, *self._padded(run.moments)], self._filled(
                run.kept, x.dtype, statistics is None
            )

        branches = [functools.partial(stack, member) for member in shape.stacks]
        if shape.has_skip:
            branches.append(lambda: ([tf.identity(x), *self._padded(())], nothing()))
        branches.append(lambda: ([tf.identity(value) for value in first], nothing()))
        return tf.switch_case(choice.branch, branches)

    def _filled(self, kept: Kept, dtype: tf.DType, wanted: bool) -> Kept:
        """What is kept, filled up to the number of tensors that any stack keeps."""
        if not wanted:
            return Kept([], [])
        maps = kept.maps + [tf.zeros([0], dtype)] * (self._most.maps - len(kept.maps))
        norms = kept.norms + [tf.zeros([0])] * (self._most.norms - len(kept.norms))
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
            dx, drow = _Backward(stack, row, choice.member, kept)(dy, x)
            drow = _lengthened(drow, shape.row_width - stack.width)
            return (dx + dy if shape.residual else dx), drow, tf.zeros_like(dy)

        def nothing(dx, dfirst):
            return tf.identity(dx), tf.zeros([shape.row_width]), tf.identity(dfirst)

        branches = [functools.partial(stack, member) for member in shape.stacks]
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


def _lengthened(values: tf.Tensor, by: int) -> tf.Tensor:
    """A vector with zeros behind it."""
    return tf.pad(values, [[0, by]]) if by else values


def _count_kept(steps: Sequence[Step]) -> tuple[int, int]:
    """How many maps and how many values of normalisations are kept of some steps."""
    norms = sum(step.has_batch_norm for step in steps)
    swishes = sum(step.activation == "swish" for step in steps)
    return 2 * norms + swishes + 4 * (len(steps) - norms), 3 * norms


class _Member:
    """The weights of the chosen operator of a stack, out of its row."""

    def __init__(self, stack: Stack, row: tf.Tensor, member: tf.Tensor):
        self.stack, self.row, self.member = stack, row, member

    def weight(self, role: str, number: int = 0) -> tf.Tensor:
        """The weight of a role, shaped as that of the stack's operator `number`."""
        place, shape = self.stack.places[role], self.stack.shape(number, role)
        return tf.reshape(self.row[place.offset : place.offset + math.prod(shape)], shape)

    def chosen(self, step: Step, number: int, run: Callable[[tf.Tensor, int], Any]) -> Any:
        """`run(kernel, its size)` with the kernel of the chosen operator; step is `number`."""
        role, choices, which = f"{step.role}/kernel", [], []
        sizes = [steps[number].kernel for steps in self.stack.steps]
        for size in sorted(set(sizes)):
            member = sizes.index(size)
            choices.append(lambda member=member: run(self.weight(role, member)))
        if len(choices) == 1:
            return choices[0]()
        which = [sorted(set(sizes)).index(size) for size in sizes]
        return tf.switch_case(tf.gather(tf.constant(which), self.member), choices)


class _Forward(_Member):
    """A stack's program; `moments` are its batch normalisations', `kept` what the gradient needs."""

    def __init__(self, stack, row, member, statistics):
        super().__init__(stack, row, member)
        self.moments: list[tf.Tensor] = []
        self.kept = Kept([], [])
        self._statistics = statistics

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        for number, step in enumerate(self.stack.steps[0]):
            if step.kind == "squeeze_excite":
                x = self._squeeze(x)
            else:
                x = self._convolve(x, step, number)
        return x

    def _convolve(self, x, step, number):
        function = convolutions.depthwise if step.kind == "depthwise" else convolutions.convolution
        x = self.chosen(step, number, lambda kernel: function(x, kernel, step.stride))
        name = f"{step.role}_bn"
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        if self._statistics is not None:
            given = self._statistics[len(self.moments)]
            y, moments = functional.batch_norm(x, gamma, beta, given)
            self.moments.append(moments)
            return functional.ACTIVATIONS[step.activation](y)
        y, moments, reserve = functional.normalise_batch(x, gamma, beta)
        self.moments.append(moments)
        self.kept.norms.extend(reserve)
        self.kept.maps.append(x)
        if step.activation == "swish":
            gate = functional.sigmoid(y)
            y = y * gate
            self.kept.maps.append(gate)
        elif step.activation == "relu":
            y = tf.nn.relu(y)
        self.kept.maps.append(y)
        return y

    def _squeeze(self, x):
        reduce, reduce_bias, expand, expand_bias = map(self.weight, SQUEEZE)
        mean = tf.reduce_mean(x, [1, 2])
        hidden = tf.nn.relu(functional.dense(mean, reduce, reduce_bias))
        linear = functional.dense(hidden, expand, expand_bias) + 3.0
        x = x * (tf.nn.relu6(linear) * (1.0 / 6.0))[:, None, None, :]
        self.kept.maps.extend([mean, hidden, linear, x])
        return x


class _Backward(_Member):
    """The gradient of `_Forward` by its input and by the row."""

    def __init__(self, stack, row, member, kept):
        super().__init__(stack, row, member)
        self._kept, self._parts = kept, {}

    def __call__(self, dy: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, inputs, groups = self.stack.steps[0], [x], []
        maps, norms = iter(self._kept.maps), iter(self._kept.norms)
        for step in steps:
            count, _ = _count_kept([step])
            own = _with_shapes(step, list(itertools.islice(maps, count)), x.shape[0])
            reserve = list(itertools.islice(norms, 3)) if step.has_batch_norm else []
            groups.append((own, reserve))
            inputs.append(own[-1])
        for number in reversed(range(len(steps))):
            step, x, (own, reserve) = steps[number], inputs[number], groups[number]
            if step.kind == "squeeze_excite":
                dy = self._squeeze_back(dy, x, own)
            else:
                dy = self._convolve_back(dy, x, step, number, own, reserve)
        return dy, self._row_gradient()

    def _add(self, role: str, gradient: tf.Tensor) -> None:
        self._parts[role] = tf.cast(tf.reshape(gradient, [-1]), tf.float32)

    def _row_gradient(self) -> tf.Tensor:
        pieces = []
        for place in self.stack.places.values():
            part = self._parts[place.role]
            part.set_shape([place.size])
            pieces.append(part)
        return tf.concat(pieces, 0)

    def _convolve_back(self, dy, x, step, number, own, reserve):
        result, *_, y = own
        if step.activation == "swish":
            gate = own[1]
            dy = dy * (gate + (y - y * gate))
        elif step.activation == "relu":
            dy = tf.raw_ops.ReluGrad(gradients=dy, features=y)
        name = f"{step.role}_bn"
        dy, dgamma, dbeta = functional.normalise_batch_gradient(
            dy, result, self.weight(f"{name}/gamma"), reserve
        )
        self._add(f"{name}/gamma", dgamma)
        self._add(f"{name}/beta", dbeta)
        function = (
            convolutions.depthwise_gradients
            if step.kind == "depthwise"
            else convolutions.convolution_gradients
        )
        size = self.stack.places[f"{step.role}/kernel"].size

        def gradients(kernel):
            dx, dkernel = function(x, kernel, step.stride, dy)
            flat = tf.reshape(dkernel, [-1])
            return dx, _lengthened(flat, size - math.prod(kernel.shape))

        dx, dkernel = self.chosen(step, number, gradients)
        self._add(f"{step.role}/kernel", dkernel)
        return dx

    def _squeeze_back(self, dy, x, own):
        mean, hidden, linear, _ = own
        reduce, _, expand, _ = (tf.cast(self.weight(role), x.dtype) for role in SQUEEZE)
        gate = tf.nn.relu6(linear) * (1.0 / 6.0)
        dgate = tf.reduce_sum(dy * x, [1, 2])
        dlinear = tf.raw_ops.Relu6Grad(gradients=dgate * (1.0 / 6.0), features=linear)
        expand, reduce = (tf.squeeze(kernel, [0, 1]) for kernel in (expand, reduce))
        self._add("se_expand/kernel", tf.linalg.matmul(hidden, dlinear, transpose_a=True))
        self._add("se_expand/bias", tf.reduce_sum(dlinear, 0))
        dhidden = tf.linalg.matmul(dlinear, expand, transpose_b=True)
        dhidden = tf.raw_ops.ReluGrad(gradients=dhidden, features=hidden)
        self._add("se_reduce/kernel", tf.linalg.matmul(mean, dhidden, transpose_a=True))
        self._add("se_reduce/bias", tf.reduce_sum(dhidden, 0))
        dmean = tf.linalg.matmul(dhidden, reduce, transpose_b=True)
        pixels = tf.cast(tf.reduce_prod(tf.shape(x)[1:3]), x.dtype)
        return dy * gate[:, None, None, :] + (dmean / pixels)[:, None, None, :]


def _with_shapes(step: Step, maps: list[tf.Tensor], batch: int | None) -> list[tf.Tensor]:
    """The maps kept of a step with their static shapes, which a switch of several stacks forgets."""
    shaped = [tf.identity(value) for value in maps]
    map_size, inside = (*step.out_size, step.c_out), (squeeze_width(step.c_out),)
    if step.kind == "squeeze_excite":
        sizes = [(step.c_out,), inside, (step.c_out,), map_size]
    else:
        sizes = [map_size] * len(shaped)
    for value, size in zip(shaped, sizes, strict=True):
        value.set_shape([batch, *size])
    return shaped
