"""The supernet's parts as compiled functions of a map, weights and statistics, on one device.

A candidate's layer is one call here, without the switch of the traced supernet. Layers of one
shape share a function, for the weights are an argument: a layer's function is traced when it is
first needed, once for BN's recalculation and once with given statistics, for any batch size.

A part's statistics are one float32 tensor (2, C): the channels of all its batch normalisations
side by side, in the order in which they run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from neas_tf.common.normalisation import Normalisation, network_input
from neas_tf.operators import Operator, operator_steps
from neas_tf.space.search_space import LayerSpec
from neas_tf.supernet import functional
from neas_tf.supernet.fixed_layers import SQUEEZE, FixedLayer
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.searchable_layer import SearchableLayer


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the supernet, ready to run.

    Attributes:
      recalculate: (x, sums (2, C)) → (y, sums + the batch's mean and mean square); BN normalises
        with the batch's own moments.
      run: (x, statistics (2, C)) → y.
      widths: channels of each batch normalisation; they add up to C.
      names: of each batch normalisation.
    """

    recalculate: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    run: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    widths: tuple[int, ...]
    names: tuple[str, ...]

    def zeros(self) -> tf.Tensor:
        """Sums of no batch."""
        return tf.zeros([2, sum(self.widths)])

    def split(self, statistics: tf.Tensor) -> dict[str, tf.Tensor]:
        """(2, C) of each batch normalisation, by name."""
        return dict(zip(self.names, tf.split(statistics, self.widths, axis=1), strict=True))


def statistics_of(sums: tf.Tensor, batches: int) -> tf.Tensor:
    """Mean and variance (2, C) from the sums over so many batches (docs/method.md, Search)."""
    mean, square = tf.unstack(sums / float(batches))
    return tf.stack([mean, tf.maximum(square - tf.square(mean), 0.0)])


class LayerFunctions:
    """Stem, operators and heads of a supernet on one device.

    Args:
      supernet: only read; the weights of an operator are copied to the device when it is first
        needed, so that later training needs a new object.
      device: its name; None for TensorFlow's choice.
      xla: whether XLA compiles the functions, once each for every size of batch.
      normalisation: of the pixels that the stem then takes, uint8; None where images come normalised.
    """

    def __init__(
        self,
        supernet: Supernet,
        device: str | None = None,
        xla: bool = False,
        normalisation: Normalisation | None = None,
    ):
        self._supernet, self._device, self._xla = supernet, device, xla
        self._normalisation = normalisation
        self._traced: dict[Any, tuple[Callable, Callable]] = {}
        self._parts: dict[Any, Part] = {}

    def on_device(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which the parts must be made and called."""
        return tf.device(self._device) if self._device else contextlib.nullcontext()

    def stem(self) -> Part:
        """Images (B, H, W, channels) → the first searchable layer's input."""
        if "stem" not in self._parts:
            net, space = self._supernet, self._supernet.space
            dtype = tf.float32 if self._normalisation is None else tf.uint8
            spec = tf.TensorSpec([None, *space.input_size, space.input_channels], dtype)
            self._parts["stem"] = self._fixed(net.stem, spec)
        return self._parts["stem"]

    def head(self, path: int) -> Part:
        """The 0-based path's head: a map after the last layer → logits (B, classes) float32."""
        if path not in self._parts:
            net, space = self._supernet, self._supernet.space
            shape = [None, *space.layers[-1].out_size, space.out_channels]
            spec = tf.TensorSpec(shape, net.compute_dtype)
            self._parts[path] = self._fixed(net.heads[path], spec)
        return self._parts[path]

    def operator(self, number: int, name: str) -> Part:
        """The operator `name` of the 1-based layer, with the residual where there is one."""
        key = (number, name)
        if key not in self._parts:
            self._parts[key] = self._operator(self._supernet.searchable[number - 1], name)
        return self._parts[key]

    def _operator(self, layer: SearchableLayer, name: str) -> Part:
        operator, spec = Operator.parse(name), layer.spec
        weights, norms = {}, {}
        for step in operator_steps(operator, spec):
            if step.kind == "squeeze_excite":
                roles = list(SQUEEZE)
            else:
                norms[f"{step.role}_bn"] = step.c_out
                roles = [f"{step.role}/kernel"]
                roles += [f"{step.role}_bn/{kind}" for kind in ("gamma", "beta")]
            for role in roles:
                weights[role] = tf.constant(layer.weight(name, role))
        widths = tuple(norms.values())
        # What a layer computes does not depend on its place or on its other operators.
        shape = dataclasses.replace(spec, number=0, stage=0, operators=())
        if (name, shape) not in self._traced:
            self._traced[name, shape] = self._trace_operator(operator, spec, weights, sum(widths))
        recalculate, run = self._traced[name, shape]
        return Part(
            lambda x, sums: recalculate(x, weights, sums),
            lambda x, statistics: run(x, weights, statistics),
            widths,
            tuple(norms),
        )

    def _trace_operator(self, operator: Operator, spec: LayerSpec, weights, channels: int):
        signature = (
            tf.TensorSpec([None, *spec.in_size, spec.c_in], self._supernet.compute_dtype),
            tf.nest.map_structure(tf.TensorSpec.from_tensor, weights),
            tf.TensorSpec([2, channels]),
        )

        def recalculate(x, own, sums):
            make = _WeightsMaker(own, None)
            y = _with_residual(operator.build(make, x, spec), x, spec)
            return y, sums + _raw(make.moments)

        def run(x, own, statistics):
            return _with_residual(operator.build(_WeightsMaker(own, statistics), x, spec), x, spec)

        return self._compiled(recalculate, signature), self._compiled(run, signature)

    def _fixed(self, layer: FixedLayer, spec: tf.TensorSpec) -> Part:
        """A part without a choice: the layer itself, on its own variables."""
        norms = layer.norm_widths
        widths, dtype = tuple(norms.values()), self._supernet.compute_dtype
        signature = (spec, tf.TensorSpec([2, sum(widths)]))

        def taken(x):
            return tf.cast(network_input(x, self._normalisation), dtype)

        def recalculate(x, sums):
            y, moments = layer(taken(x), None)
            return y, sums + _raw([moments[name] for name in norms])

        def run(x, statistics):
            parts = dict(zip(norms, tf.split(statistics, widths, axis=1), strict=True))
            return layer(taken(x), parts)[0]

        made = self._compiled(recalculate, signature), self._compiled(run, signature)
        return Part(*made, widths, tuple(norms))

    def _compiled(self, function: Callable, signature: tuple[Any, ...]) -> Callable:
        """A traced function, traced when it is first called."""

        @functools.cache
        def traced():
            # A concrete function: calls are cheaper, and TensorFlow does not warn of many traces.
            made = tf.function(
                function,
                input_signature=signature,
                autograph=False,
                jit_compile=True if self._xla else None,
            )
            return made.get_concrete_function()

        return lambda *arguments: traced()(*arguments)


def _with_residual(y: tf.Tensor, x: tf.Tensor, spec: LayerSpec) -> tf.Tensor:
    return x + y if spec.keeps_shape else y


def _raw(moments: list[tf.Tensor]) -> tf.Tensor:
    """(2, C_i) means and variances → (2, ΣC_i) means and mean squares, which average exactly."""
    mean, variance = tf.unstack(tf.concat(moments, 1))
    return tf.stack([mean, variance + tf.square(mean)])


class _WeightsMaker:
    """The maker that runs an operator's program on its own weights, by role."""

    def __init__(self, weights: dict[str, tf.Tensor], statistics: tf.Tensor | None):
        self.moments: list[tf.Tensor] = []
        self._weights, self._statistics, self._channel = weights, statistics, 0

    def conv(self, x, role, filters, kernel=1, stride=1, activation=None):
        """See `Maker.conv`."""
        x = functional.convolution(x, self._weights[f"{role}/kernel"], stride)
        return self._finish(x, role, activation)

    def depthwise(self, x, role, kernel, stride=1, activation=None):
        """See `Maker.depthwise`."""
        x = functional.depthwise(x, self._weights[f"{role}/kernel"], stride)
        return self._finish(x, role, activation)

    def squeeze_excite(self, x):
        """See `Maker.squeeze_excite`."""
        return functional.squeeze_excite(x, *(self._weights[role] for role in SQUEEZE))[-1]

    def _finish(self, x, role, activation):
        gamma, beta = (self._weights[f"{role}_bn/{kind}"] for kind in ("gamma", "beta"))
        given, end = None, self._channel + int(gamma.shape[0])
        if self._statistics is not None:
            given = self._statistics[:, self._channel : end]
        self._channel = end
        x, moments = functional.batch_norm(x, gamma, beta, given)
        self.moments.append(moments)
        return functional.ACTIVATIONS[activation](x)
