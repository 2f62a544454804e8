"""A deployed network as one flat graph of plain layers, with batch normalisation folded away.

Quantization-aware training takes neither nested models nor, in depthwise layers, a normalisation
between kernel and fake quantization. The flat graph is what a device runs, layer for layer: pixels,
normalisation, convolutions with bias, mean logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tf_keras

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.layers import BATCH_NORM_EPSILON
from neas_tf.ensemble.rewrites import Rewrites, folded_depthwise, input_constants

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")


@dataclasses.dataclass
class FlatLayer:
    """One layer of a flat graph.

    Attributes:
      name: unique; of the layer of the deployed network.
      kind: class name in `tf_keras.layers`.
      config: of the layer.
      inputs: names of the layers that it takes; `image` is the input.
      weights: arrays in the layer's order; empty where there are none.
    """

    name: str
    kind: str
    config: dict[str, Any]
    inputs: list[str]
    weights: list[np.ndarray]

    def make(self) -> Any:
        """A new layer without weights."""
        return getattr(tf_keras.layers, self.kind).from_config(self.config)


def flat_layers(fused: Any, normalisation: Normalisation, rewrites: Rewrites) -> list[FlatLayer]:
    """The layers between pixels and mean logits, in an order in which they can be run.

    `fused` is `fold_for_deployment`'s model, float32, made with the same rewrites.

    Raises:
      NeasError: for a batch normalisation without a convolution before it, or an activation other
        than swish, sigmoid and relu.
    """
    scale, offset = input_constants(
        normalisation.scale, normalisation.offset, fused.input_shape[2], rewrites
    )
    layers, source = _normalisation_layers(scale, offset), {}
    source[fused.input_names[0]] = layers[-1].name
    for layer in fused.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        (node,) = layer.inbound_nodes
        inputs = [source[t._keras_history.layer.name] for t in node.keras_inputs]
        kind, weights = type(layer).__name__, layer.get_weights()
        source[layer.name] = layer.name
        if kind == "BatchNormalization":
            # What it would have got from the convolution, it gives itself.
            source[layer.name] = inputs[0]
            _fold(next(entry for entry in layers if entry.name == inputs[0]), weights, layer)
            continue
        if kind == "Activation":
            layers += _activation_layers(layer, inputs)
            continue
        config = {**layer.get_config(), "dtype": "float32"}
        layers.append(FlatLayer(layer.name, kind, config, inputs, weights))
    return layers


def consumers(layers: list[FlatLayer]) -> dict[str, list[FlatLayer]]:
    """The layers that take each layer's output, by its name."""
    result: dict[str, list[FlatLayer]] = {layer.name: [] for layer in layers}
    for layer in layers:
        for name in layer.inputs:
            if name in result:
                result[name].append(layer)
    return result


def build(
    layers: list[FlatLayer],
    image_shape: tuple[int, int, int],
    *,
    batch_size: int | None = None,
    wrap: Callable[[FlatLayer, Any], Any] | None = None,
    begin: Callable[[Any], Any] | None = None,
) -> Any:
    """Builds the flat graph with its weights.

    Args:
      layers: of `flat_layers`.
      image_shape: (h, w, c).
      batch_size: fixed batch size; None leaves it open.
      wrap: makes what stands in the graph for a layer.
      begin: applied to the pixels.

    Returns:
      A `tf_keras.Model` from `image`, float32 (batch, h, w, c) in 0..255, to mean logits
      (batch, classes).
    """
    image = tf_keras.Input(image_shape, batch_size=batch_size, name="image", dtype="float32")
    tensors, made = {"image": begin(image) if begin else image}, []
    for entry in layers:
        layer = entry.make()
        inputs = [tensors[name] for name in entry.inputs]
        node = wrap(entry, layer) if wrap else layer
        tensors[entry.name] = node(inputs if len(inputs) > 1 else inputs[0])
        made.append((entry, node))
    for entry, node in made:  # a wrapper takes its layer's kernel away, but lists it first
        for variable, value in zip(node.trainable_weights, entry.weights, strict=True):
            variable.assign(value)
    return tf_keras.Model(image, tensors[layers[-1].name], name="flat")


def _normalisation_layers(scale: Any, offset: Any) -> list[FlatLayer]:
    """x · scale + offset as a product and a sum: each is one operation of the integer graph."""
    layers, source = [], "image"
    if not np.all(np.equal(scale, 1.0)):
        config = {"name": "normalisation_scale", "scale": scale, "offset": 0.0, "dtype": "float32"}
        layers.append(FlatLayer(config["name"], "Rescaling", config, [source], []))
        source = config["name"]
    config = {"name": "normalisation", "scale": 1.0, "offset": offset, "dtype": "float32"}
    layers.append(FlatLayer("normalisation", "Rescaling", config, [source], []))
    return layers


def _activation_layers(layer: Any, inputs: list[str]) -> list[FlatLayer]:
    """An activation as the operations of the integer graph, which rounds after each."""
    name, function = layer.name, layer.get_config()["activation"]
    if function == "relu":
        return [FlatLayer(name, "ReLU", {"name": name, "dtype": "float32"}, inputs, [])]
    sigmoid = name if function == "sigmoid" else f"{name}_gate"
    config = {"name": sigmoid, "activation": "sigmoid", "dtype": "float32"}
    layers = [FlatLayer(sigmoid, "Activation", config, inputs, [])]
    if function in ("swish", "silu"):  # x · sigmoid(x)
        config = {"name": name, "dtype": "float32"}
        layers.append(FlatLayer(name, "Multiply", config, [*inputs, sigmoid], []))
    elif function != "sigmoid":
        raise NeasError(f"model: {name!r} has the activation {function!r}, not swish or relu.")
    return layers


def _fold(convolution: FlatLayer, batch_norm: list[np.ndarray], layer: Any) -> None:
    """Puts a batch normalisation into the convolution before it."""
    known = convolution.kind in _CONVOLUTIONS and not convolution.config["use_bias"]
    if not known or layer.epsilon != BATCH_NORM_EPSILON or len(batch_norm) != 4:
        raise NeasError(f"model: {layer.name!r} does not stand after a plain convolution.")
    kernel = convolution.weights[0]
    if convolution.kind == "DepthwiseConv2D":
        weights = folded_depthwise(kernel, batch_norm, layer.epsilon)
    else:  # (h, w, in, out): as if the outputs were the channels of a depthwise kernel
        folded, bias = folded_depthwise(kernel[..., None], batch_norm, layer.epsilon)
        weights = folded[..., 0], bias
    convolution.weights = list(weights)
    convolution.config["use_bias"] = True
