"""A flat graph with the rounding of an int8 device in it, for quantization-aware training.

Wrappers, quantizers and fake quantization are the Model Optimization Toolkit's (tfmot); what is
quantized is said here, layer for layer, because its default registry knows no Multiply and no
Rescaling, gives a depthwise kernel one range for all channels, and lets ranges begin at ±6.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.model import PATH_LOGITS
from neas_tf.export.flat_graph import FlatLayer, build, consumers

_quantization = tfmot.quantization.keras
_quantizers = _quantization.quantizers
_KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
# They hand their input on as it is, so that its range is theirs.
_SAME_RANGE = ("ZeroPadding2D", "Cropping2D", "Flatten", "Reshape", "Dropout")
# Devices compute these in one operation with a ReLU after them.
_FUSED_WITH_RELU = ("Conv2D", "DepthwiseConv2D", "Dense", "Add")
_PIXELS = "pixels"
# Whole numbers lose nothing in steps of 1; devices have one range for every sigmoid.
_FIXED = {_PIXELS: (0.0, 255.0), "Activation": (0.0, 255 / 256)}
# Layers that give logits.
_LOGITS = re.compile(rf"(path\d+_)?classifier|paths_flat|{PATH_LOGITS}|mean")
_BATCH = 64
_SMALLEST_SHARE, _SMALLEST_KERNEL = 1e-3, 1e-6
# A bias is held in 32 bits, in steps of (step of the input) · (step of the kernel). Training leaves some
# layers without effect: squeeze-excites with kernels and hidden maps of nearly nothing before biases of
# 4, which would be cut off. So a map's range reaches this far, and a kernel's a thousandth of the bias:
# 2³¹ · (2⁻⁶ / 255) · (1e-3 · bias / 127) is 1.04 · bias.
_SMALLEST_RANGE, _SMALLEST_TO_BIAS = 2.0**-6, 1e-3


class _KernelQuantizer(tfmot.quantization.keras.quantizers.LastValueQuantizer):
    """tfmot's quantizer of weights with the ranges of `_reach`.

    Args:
      kind: of the layer. A dense layer has one range, a convolution one for each output channel,
        and so has a depthwise kernel (h, w, c, 1), where tfmot would take one for all of it.
      bias: of the layer, (output channels,); None where it has none.
    """

    def __init__(self, kind: str, bias: tf.Variable | None):
        self.bias = bias
        self.depthwise = kind == "DepthwiseConv2D"
        super().__init__(8, per_axis=kind != "Dense", symmetric=True, narrow_range=True)

    def build(self, tensor_shape, name, layer):
        channels = tensor_shape[2 if self.depthwise else -1]
        return self._add_range_weights(layer, name, self.per_axis, tf.TensorShape([channels]))

    def __call__(self, inputs, training, weights, **kwargs):
        kernel = tf.transpose(inputs, [0, 1, 3, 2]) if self.depthwise else inputs
        low, high = weights["min_var"], weights["max_var"]
        if training:
            reach = _reach(kernel, self.bias, self.per_axis)
            low, high = low.assign(-reach), high.assign(reach)
        functions = tf.quantization
        fake = functions.fake_quant_with_min_max_vars
        if self.per_axis:
            fake = functions.fake_quant_with_min_max_vars_per_channel
        kernel = fake(kernel, low, high, num_bits=self.num_bits, narrow_range=True)
        return tf.transpose(kernel, [0, 1, 3, 2]) if self.depthwise else kernel


def _reach(kernel: tf.Tensor, bias: tf.Tensor | None, per_axis: bool) -> tf.Tensor:
    """Largest magnitude of each last index with `per_axis`, or as much as its bias takes.

    A channel of (nearly) nothing, as pruning leaves some, has a thousandth of the kernel's: devices
    divide by its step.
    """
    magnitude = tf.abs(kernel)
    largest = tf.reduce_max(magnitude)
    room = _SMALLEST_TO_BIAS * (0.0 if bias is None else tf.abs(bias))
    least = tf.maximum(room, _SMALLEST_KERNEL)
    if not per_axis:
        return tf.maximum(largest, tf.reduce_max(least))
    axes = list(range(len(kernel.shape) - 1))
    least = tf.maximum(least, _SMALLEST_SHARE * largest)
    return tf.maximum(tf.reduce_max(magnitude, axes), least)


class _OutputQuantizer(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):
    """tfmot's moving average of a map's range, which stays `_SMALLEST_RANGE` wide."""

    def __init__(self):
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)

    def __call__(self, inputs, training, weights, **kwargs):
        rounded = super().__call__(inputs, training, weights, **kwargs)
        if training:
            low, high = weights["min_var"], weights["max_var"]
            high.assign(tf.maximum(high, low + _SMALLEST_RANGE))
        return rounded

    def get_config(self):
        return {}


class _Config(tfmot.quantization.keras.QuantizeConfig):
    """What of one layer is rounded: its kernel, where it has one, and perhaps its output."""

    def __init__(self, kind: str, output: bool):
        self.kind, self.output = kind, output

    def get_weights_and_quantizers(self, layer):
        name = _KERNELS.get(self.kind)
        if not name:
            return []
        return [(getattr(layer, name), _KernelQuantizer(self.kind, layer.bias))]

    def set_quantize_weights(self, layer, quantize_weights):
        for value in quantize_weights:
            setattr(layer, _KERNELS[self.kind], value)

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        if not self.output:
            return []
        if self.kind in _FIXED:
            low, high = _FIXED[self.kind]
            options = {"init_min": low, "init_max": high, "narrow_range": False}
            return [_quantizers.FixedQuantizer(num_bits=8, **options)]
        return [_OutputQuantizer()]

    def get_config(self):
        return {"kind": self.kind, "output": self.output}


def quantized_outputs(layers: list[FlatLayer]) -> set[str]:
    """Names of the layers whose output has a range of its own in the integer graph."""
    after, result = consumers(layers), set()
    for layer in layers:
        kinds = {other.kind for other in after[layer.name]}
        shared = layer.kind in _SAME_RANGE or kinds == {"Concatenate"}  # the range after it
        fused = layer.kind in _FUSED_WITH_RELU and kinds == {"ReLU"}
        if not shared and not fused:
            result.add(layer.name)
    return result


def quantization_aware(
    layers: list[FlatLayer],
    image_shape: tuple[int, int, int],
    images: np.ndarray,
    *,
    batch_size: int | None = None,
) -> Any:
    """Builds the flat graph with fake quantization, its ranges measured.

    tfmot's ranges begin at ±6 and move by a thousandth a step: a short fine-tuning would end with
    ranges that have nothing to do with the network. So each begins as the mean over batches of
    what the float graph's maps reach on training images (n, h, w, c) in 0..255.

    Returns:
      A `tf_keras.Model` from `image`, float32 (batch, h, w, c) in 0..255, to mean logits
      (batch, classes).

    Raises:
      NeasError: when there are no images.
    """
    if not len(images):
        raise NeasError("images: received none, expected 1 or more to measure ranges on.")
    own = quantized_outputs(layers)

    def wrap(entry: FlatLayer, layer: Any) -> Any:
        config = _Config(entry.kind, entry.name in own)
        return _quantization.QuantizeWrapperV2(layer, config, dtype="float32")

    identity = tf_keras.layers.Activation("linear", name=_PIXELS, dtype="float32")
    pixels = _quantization.QuantizeWrapperV2(identity, _Config(_PIXELS, True), dtype="float32")
    model = build(layers, image_shape, batch_size=batch_size, wrap=wrap, begin=pixels)
    wrappers = {w.layer.name: w for w in model.layers if hasattr(w, "quantize_config")}
    _measure_kernels(wrappers)
    _measure_outputs(layers, image_shape, images, {name: wrappers[name] for name in own})
    return model


def _measure_kernels(wrappers: dict[str, Any]) -> None:
    """Training measures them in every step; this is for a model that is used without any."""
    for wrapper in wrappers.values():
        for kernel, quantizer, ranges in wrapper._weight_vars:
            quantizer(kernel, True, ranges)


def _measure_outputs(
    layers: list[FlatLayer],
    image_shape: tuple[int, int, int],
    images: np.ndarray,
    wrappers: dict[str, Any],
) -> None:
    plain = build(layers, image_shape)
    probe = tf_keras.Model(plain.input, [plain.get_layer(name).output for name in wrappers])

    @tf.function(autograph=False)
    def reach(batch):
        maps = probe(batch, training=False)
        return [tf.stack([tf.reduce_min(m), tf.reduce_max(m)]) for m in maps]

    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    found = np.mean([np.stack(reach(np.float32(batch))) for batch in batches], axis=0)
    for wrapper, (low, high) in zip(wrappers.values(), found, strict=True):
        ranges = wrapper._output_quantizer_vars
        if ranges is None:  # fixed
            continue
        low = min(low, 0.0)  # zero is always a value: padding needs it
        ranges["min_var"].assign(low)
        ranges["max_var"].assign(max(high, 0.0, low + _SMALLEST_RANGE))


def with_path_logits(network: Any) -> Any:
    """The graph with both outputs of a deployed form that has `path_logits`, by name."""
    (found,) = (w for w in network.layers if _inner_name(w) == PATH_LOGITS)
    return tf_keras.Model(network.input, {"logits": network.output, PATH_LOGITS: found.output})


def divide_logits(network: Any, temperature: float) -> None:
    """Divides the logits: classifiers, and the ranges of what they and what follows give."""
    for wrapper in network.layers:
        if _LOGITS.fullmatch(_inner_name(wrapper)):
            values = wrapper.get_weights()
            wrapper.set_weights([v / temperature if v.dtype.kind == "f" else v for v in values])


def _inner_name(wrapper: Any) -> str:
    return getattr(wrapper, "layer", wrapper).name
