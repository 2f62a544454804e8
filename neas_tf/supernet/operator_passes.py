"""Forward pass of one operator that keeps what its gradient needs, and the gradient, written out."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from neas_tf.operators import Step, squeeze_width
from neas_tf.supernet import convolutions, functional
from neas_tf.supernet.fixed_layers import SQUEEZE
from neas_tf.supernet.row_layout import ALIGNMENT, Stack
from neas_tf.supernet.switches import in_xla, on_host, switch


class Kept(NamedTuple):
    """What a forward pass keeps for the gradient, step after step.

    Attributes:
      maps: of a convolution: its result before normalisation, the sigmoid of a swish, and what comes
        out, where that has an activation or another step follows; of squeeze-excite: mean, hidden
        values, sixfold gate. What comes out of that is a product away, and the largest map of all.
      norms: what the gradient of a batch normalisation needs besides.

    Of MBConv k3e4 (expand, depthwise, squeeze-excite, project): maps are
    (expand: conv, gate, out), (depthwise: conv, gate, out), (squeeze-excite: mean, hidden, gate),
    (project: conv), norms three tensors for each of the three normalisations.
    """

    maps: list[tf.Tensor]
    norms: list[tf.Tensor]


def kept_sizes(step: Step, is_last: bool) -> list[tuple[int, ...]]:
    """Sizes of the maps that are kept of a step, without the batch: (H, W, C) or (C,)."""
    if step.kind == "squeeze_excite":
        return [(step.c_out,), (squeeze_width(step.c_out),), (step.c_out,)]
    count = 1 + (step.activation == "swish") + _keeps_output(step, is_last)
    return [(*step.out_size, step.c_out)] * count


def _keeps_output(step: Step, is_last: bool) -> bool:
    """Whether what a convolution's step gives is kept: for its activation's gradient, or as an input."""
    return not is_last or step.activation in ("swish", "relu")


def _sizes(stack: Stack) -> list[list[tuple[int, ...]]]:
    """`kept_sizes` of each step."""
    steps = stack.steps[0]
    return [kept_sizes(step, step is steps[-1]) for step in steps]


class KeptSlots:
    """Places for what the branches of a layer's switch keep, the same places for all of them.

    XLA wants equal static shapes of all branches: there a slot is as wide as the widest tensor that a
    stack keeps in it, and narrower ones are filled up with zeros. Without XLA a slot takes any
    tensor, and an empty one where a stack has none.

    Stacks of expansion 4 and 6 on 8 channels keep three maps of their expansions (conv, gate, out),
    (B, H, W, 32) and (B, H, W, 48): three slots, which XLA sees with 48 channels.

    Args:
      stacks: those of the layer.
      static: whether the graph is for XLA.
    """

    def __init__(self, stacks: Sequence[Stack], static: bool):
        self._static = static
        self._sizes: list[tuple[int, ...]] = []
        self._of: dict[str, list[tuple[int, tuple[int, ...]]]] = {}  # slot and size of each map
        for stack in stacks:
            taken: set[int] = set()
            own = self._of[stack.name] = []
            for size in itertools.chain(*_sizes(stack)):
                slot = self._free(size, taken)
                taken.add(slot)
                own.append((slot, size))
        widths = itertools.zip_longest(*(stack.norm_widths for stack in stacks), fillvalue=0)
        self._norm_widths = [width for most in map(max, widths) for width in (most, most, 0)]

    def _free(self, size: tuple[int, ...], taken: set[int]) -> int:
        """The first free slot of a map's height and width, widened where it must be."""
        for slot, found in enumerate(self._sizes):
            if slot not in taken and found[:-1] == size[:-1]:
                self._sizes[slot] = max(found, size)
                return slot
        self._sizes.append(size)
        return len(self._sizes) - 1

    def fill(self, stack: Stack | None, kept: Kept, x: tf.Tensor) -> Kept:
        """The slots with what a stack's pass over x (B, …) kept; without a stack, empty ones."""
        places = [slot for slot, _ in self._of[stack.name]] if stack else []
        maps = dict(zip(places, kept.maps, strict=True))
        norms = itertools.chain(kept.norms, itertools.repeat(None))
        if not self._static:
            none, no_norm = tf.zeros([0], x.dtype), tf.zeros([0])
            return Kept(
                [maps.get(slot, none) for slot in range(len(self._sizes))],
                [
                    no_norm if n is None else n
                    for n, _ in zip(norms, self._norm_widths, strict=False)
                ],
            )
        batch = tf.shape(x)[0]
        return Kept(
            [
                _widened(maps[slot], size[-1])
                if slot in maps
                else tf.zeros([batch, *size], x.dtype)
                for slot, size in enumerate(self._sizes)
            ],
            [
                tf.zeros([width]) if norm is None or not width else _widened(norm, width)
                for norm, width in zip(norms, self._norm_widths, strict=False)
            ],
        )

    def take(self, stack: Stack, kept: Kept, batch: int | None) -> Kept:
        """What a stack kept, out of the slots, with its static shapes."""
        maps = []
        for slot, size in self._of[stack.name]:
            value = kept.maps[slot]
            value = value[..., : size[-1]] if self._static else tf.identity(value)
            value.set_shape([batch, *size])
            maps.append(value)
        widths = [width for most in stack.norm_widths for width in (most, most, 0)]
        norms = list(kept.norms[: len(widths)])
        if self._static:
            norms = [norm[:width] for norm, width in zip(norms, widths, strict=True)]
        return Kept(maps, norms)


def _widened(value: tf.Tensor, channels: int) -> tf.Tensor:
    """The tensor with zeros at the end of its last axis, to so many channels."""
    left = channels - value.shape[-1]
    return tf.pad(value, [[0, 0]] * (value.shape.rank - 1) + [[0, left]]) if left else value


class _Member:
    """The weights of the chosen operator of a stack, out of its row."""

    def __init__(self, stack: Stack, row: tf.Tensor, member: tf.Tensor):
        self.stack, self.member = stack, member
        self._pieces = _pieces(stack, row)

    def weight(self, role: str, number: int = 0) -> tf.Tensor:
        """The weight of a role, shaped as that of the stack's operator `number`."""
        return _beginning(self._pieces[role], self.stack.shape(number, role))

    def convolved(
        self, step: Step, number: int, function: Callable[..., Any], x: tf.Tensor, *dy: tf.Tensor
    ) -> Any:
        """`function(x, kernel, stride, *dy)` with the kernel of the chosen operator; step is `number`.

        With dy that is (the gradient by x, by the kernel): the second comes back as it lies in the
        row, flat and filled up with zeros.
        """
        role, stride = f"{step.role}/kernel", step.stride
        sizes = [steps[number].kernel for steps in self.stack.steps]
        different = sorted(set(sizes))

        place = self._pieces[role]

        def kernel(place: tf.Tensor, size: int) -> tf.Tensor:
            return _beginning(place, self.stack.shape(sizes.index(size), role))

        def flat(gradient: tf.Tensor) -> tf.Tensor:
            return _widened(tf.reshape(gradient, [-1]), self.stack.places[role].size)

        def run_with(size: int, place: tf.Tensor, x: tf.Tensor, *dy: tf.Tensor) -> Any:
            result = function(x, kernel(place, size), stride, *dy)
            return (result[0], flat(result[1])) if dy else result

        if len(different) == 1:
            return run_with(different[0], place, x, *dy)
        which, order = self.member, [different.index(size) for size in sizes]
        if order != list(range(len(order))):  # more operators than sizes, or the largest first
            with on_host():
                which = tf.gather(tf.constant(order), which)
        alike = len({size % 2 for size in different}) == 1
        if not (in_xla() and step.kind == "depthwise" and alike):
            branches = [functools.partial(run_with, size) for size in different]
            return switch(which, branches, (place, x, *dy))
        # For XLA every branch is another program to compile: a small depthwise kernel runs as a
        # large one with zeros around it. A 3×3 kernel among 5×5 ones has a border of 1.
        borders = [(different[-1] - size) // 2 for size in different]
        padded = [
            tf.pad(kernel(place, size), [[b, b], [b, b], [0, 0], [0, 0]])
            for size, b in zip(different, borders, strict=True)
        ]
        result = function(x, _select(which, padded), stride, *dy)
        if not dy:
            return result
        dx, dkernel = result
        side = different[-1]
        return dx, _select(which, [flat(dkernel[b : side - b, b : side - b]) for b in borders])


def _pieces(stack: Stack, row: tf.Tensor) -> dict[str, tf.Tensor]:
    """What lies at each place of a row, by role, in lines of `ALIGNMENT` numbers.

    One operation for all, which copies nothing where every piece begins aligned.
    """
    offsets = [place.offset for place in stack.places.values()] + [stack.width]
    ends = [*offsets, row.shape[0]] if row.shape[0] > stack.width else offsets
    lines = [(b - a) // ALIGNMENT for a, b in itertools.pairwise(ends)]
    parts = tf.split(tf.reshape(row, [-1, ALIGNMENT]), lines)
    return dict(zip(stack.places, parts, strict=False))


def _beginning(place: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """A weight of this shape, with which its place begins."""
    flat, count = tf.reshape(place, [-1]), math.prod(shape)
    return tf.reshape(flat if flat.shape[0] == count else flat[:count], shape)


def _select(which: tf.Tensor, values: Sequence[tf.Tensor]) -> tf.Tensor:
    """The value number `which` (int32 scalar) of several of one shape."""
    chosen = values[0]
    for number, value in enumerate(values[1:], 1):
        chosen = tf.where(which == number, value, chosen)
    return chosen


class Forward(_Member):
    """A stack's program; `moments` are its batch normalisations', `kept` what the gradient needs.

    With `statistics`, (2, C') each, it keeps neither.
    """

    def __init__(self, stack, row, member, statistics):
        super().__init__(stack, row, member)
        self.moments: list[functional.Moments] = []
        self.kept = Kept([], [])
        self._statistics = None if statistics is None else iter(statistics)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """The operator's output (B, H, W, C), without the residual connection."""
        steps = self.stack.steps[0]
        for number, step in enumerate(steps):
            if step.kind == "squeeze_excite":
                x = self._squeeze(x)
            else:
                x = self._convolve(x, step, number, step is steps[-1])
        return x

    def _convolve(self, x, step, number, is_last):
        function = (
            convolutions.convolve_channels if step.kind == "depthwise" else convolutions.convolve
        )
        x = self.convolved(step, number, function, x)
        name = f"{step.role}_bn"
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        if self._statistics is not None:
            y, _ = functional.batch_norm(x, gamma, beta, next(self._statistics))
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
        if _keeps_output(step, is_last):
            self.kept.maps.append(y)
        return y

    def _squeeze(self, x):
        *kept, y = functional.squeeze_excite(x, *map(self.weight, SQUEEZE))
        self.kept.maps.extend(kept)
        return y


class Backward(_Member):
    """The gradient of `Forward` by its input and by the row."""

    def __init__(self, stack, row, member, kept):
        super().__init__(stack, row, member)
        self._kept, self._parts = kept, {}

    def __call__(self, dy: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The gradient by x."""
        steps, inputs, groups = self.stack.steps[0], [x], []
        maps, norms = iter(self._kept.maps), iter(self._kept.norms)
        for step, sizes in zip(steps, _sizes(self.stack), strict=True):
            own = list(itertools.islice(maps, len(sizes)))
            reserve = list(itertools.islice(norms, 3)) if step.has_batch_norm else []
            groups.append((own, reserve))
            is_gated = step.kind == "squeeze_excite"
            inputs.append(inputs[-1] * functional.gate(own[-1]) if is_gated else own[-1])
        for number in reversed(range(len(steps))):
            step, x, (own, reserve) = steps[number], inputs[number], groups[number]
            if step.kind == "squeeze_excite":
                dy = self._squeeze_back(dy, x, own)
            else:
                dy = self._normalise_back(dy, step, own, reserve)
                dy = self._convolve_back(dy, x, step, number)
        return dy

    def _add(self, role: str, gradient: tf.Tensor) -> None:
        self._parts[role] = tf.cast(tf.reshape(gradient, [-1]), tf.float32)

    def row_gradient(self, width: int) -> tf.Tensor:
        """The gradient by the row, filled up with zeros to `width` numbers."""
        pieces, end = [], 0
        for place in self.stack.places.values():
            if place.offset > end:
                pieces.append(tf.zeros([place.offset - end]))
            part = self._parts[place.role]
            part.set_shape([place.size])
            pieces.append(part)
            end = place.offset + place.size
        if width > end:
            pieces.append(tf.zeros([width - end]))
        return tf.concat(pieces, 0)

    def _normalise_back(self, dy, step, own, reserve):
        result, *rest = own
        if step.activation == "swish":
            gate, y = rest
            dy = dy * (gate + (y - y * gate))
        elif step.activation == "relu":
            dy = tf.raw_ops.ReluGrad(gradients=dy, features=rest[-1])
        name = f"{step.role}_bn"
        dy, dgamma, dbeta = functional.normalise_batch_gradient(
            dy, result, self.weight(f"{name}/gamma"), reserve
        )
        self._add(f"{name}/gamma", dgamma)
        self._add(f"{name}/beta", dbeta)
        return dy

    def _convolve_back(self, dy, x, step, number):
        function = (
            convolutions.depthwise_gradients
            if step.kind == "depthwise"
            else convolutions.convolution_gradients
        )
        dx, dkernel = self.convolved(step, number, function, x, dy)
        self._add(f"{step.role}/kernel", dkernel)
        return dx

    def _squeeze_back(self, dy, x, own):
        mean, hidden, bounded = own
        reduce, _, expand, _ = (tf.cast(self.weight(role), x.dtype) for role in SQUEEZE)
        dgate = tf.reduce_sum(dy * x, [1, 2])
        dlinear = tf.raw_ops.Relu6Grad(gradients=dgate * (1.0 / 6.0), features=bounded)
        expand, reduce = (tf.squeeze(kernel, [0, 1]) for kernel in (expand, reduce))
        self._add("se_expand/kernel", tf.linalg.matmul(hidden, dlinear, transpose_a=True))
        self._add("se_expand/bias", tf.reduce_sum(dlinear, 0))
        dhidden = tf.linalg.matmul(dlinear, expand, transpose_b=True)
        dhidden = tf.raw_ops.ReluGrad(gradients=dhidden, features=hidden)
        self._add("se_reduce/kernel", tf.linalg.matmul(mean, dhidden, transpose_a=True))
        self._add("se_reduce/bias", tf.reduce_sum(dhidden, 0))
        dmean = tf.linalg.matmul(dhidden, reduce, transpose_b=True)
        pixels = tf.constant(x.shape[1] * x.shape[2], x.dtype)
        return dy * functional.gate(bounded) + functional.as_map(dmean / pixels)
