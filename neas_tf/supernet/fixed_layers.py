"""The supernet's layers without a choice: weights by role, stem, heads."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.operators import squeeze_width
from neas_tf.supernet import functional

# Roles of squeeze-excite's weights, in the order of `functional.squeeze_excite`.
SQUEEZE = ("se_reduce/kernel", "se_reduce/bias", "se_expand/kernel", "se_expand/bias")


def initial_value(
    seed: int, name: str, shape: tuple[int, ...], kind: str, count: int = 1
) -> np.ndarray:
    """Initial weights (count, *shape), a function of the seed and the name.

    Args:
      seed: of all weights.
      name: of the weight.
      shape: of one weight.
      kind: conv, dense, zeros or ones.
      count: how many are drawn, each initialised by itself.
    """
    full = (count, *shape)
    if kind not in ("conv", "dense"):
        return np.full(full, float(kind == "ones"), np.float32)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if kind == "dense":
        limit = shape[-1] ** -0.5
        return rng.uniform(-limit, limit, full).astype(np.float32)
    # He initialisation by fan-out, as in MobileNet and EfficientNet; a depthwise kernel
    # (k, k, C, 1) sends each value to k·k others.
    fan_out = shape[0] * shape[1] * shape[3]
    return (rng.standard_normal(full) * (2.0 / fan_out) ** 0.5).astype(np.float32)


class FixedLayer(tf_keras.layers.Layer):
    """A layer without a choice: its weights, by role.

    Args:
      seed: of the initial weights, which depend on it, the layer's name and the role only.
    """

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.roles: dict[str, tf.Variable] = {}

    def add(self, role: str, value: np.ndarray, trainable: bool = True) -> tf.Variable:
        """Creates the variable of a role; one that is not trained holds running statistics."""
        variable = self.add_weight(
            name=f"{self.name}/{role}",
            shape=value.shape,
            dtype=tf.float32,
            initializer=lambda *_, **__: tf.constant(value),
            trainable=trainable,
            experimental_autocast=False,
            synchronization=(
                tf.VariableSynchronization.AUTO if trainable else tf.VariableSynchronization.ON_READ
            ),
            aggregation=(tf.VariableAggregation.NONE if trainable else tf.VariableAggregation.MEAN),
        )
        self.roles[role] = variable
        return variable

    def add_weight_of(self, role: str, shape: tuple[int, ...], kind: str) -> tf.Variable:
        """Creates a weight with the initial value of its kind, see `initial_value`."""
        value = initial_value(self.seed, f"{self.name}/{role}", shape, kind)[0]
        return self.add(role, value)

    def add_batch_norm(self, name: str, channels: int) -> None:
        """Creates gamma, beta and the moving statistics of a batch normalisation."""
        self.add_weight_of(f"{name}/gamma", (channels,), "ones")
        self.add_weight_of(f"{name}/beta", (channels,), "zeros")
        self.add(f"{name}/moving_mean", np.zeros(channels, np.float32), trainable=False)
        self.add(f"{name}/moving_variance", np.ones(channels, np.float32), trainable=False)

    def normalise(self, x, name: str, statistics):
        """Batch normalisation `name` of a map."""
        gamma, beta = self.roles[f"{name}/gamma"], self.roles[f"{name}/beta"]
        return functional.batch_norm(x, gamma, beta, statistics)

    def update_moving(self, moments: dict[str, tf.Tensor], momentum: float) -> None:
        """Moves the running statistics towards the moments (name → (2, C))."""
        for name, value in moments.items():
            for i, role in enumerate(("moving_mean", "moving_variance")):
                variable = self.roles[f"{name}/{role}"]
                variable.assign(variable * momentum + value[i] * (1.0 - momentum))


class Stem(FixedLayer):
    """3×3 convolution, BN, activation, and the depthwise-separable residual layer with SE."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        block_channels: int,
        block_stride: int,
        activation: str = "swish",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.channels, self.kernel, self.stride = channels, kernel, stride
        self.block_channels, self.block_stride = block_channels, block_stride
        self.activation = activation

    def build(self, input_shape):
        """Creates the weights for images (B, H, W, C)."""
        self.add_weight_of(
            "conv/kernel", (self.kernel, self.kernel, input_shape[-1], self.channels), "conv"
        )
        self.add_batch_norm("bn", self.channels)
        if self.block_channels:
            squeezed = squeeze_width(self.channels)
            self.add_weight_of("block/dw/kernel", (3, 3, self.channels, 1), "conv")
            self.add_batch_norm("block/dw_bn", self.channels)
            self.add_weight_of("block/se_reduce/kernel", (1, 1, self.channels, squeezed), "conv")
            self.add_weight_of("block/se_reduce/bias", (squeezed,), "zeros")
            self.add_weight_of("block/se_expand/kernel", (1, 1, squeezed, self.channels), "conv")
            self.add_weight_of("block/se_expand/bias", (self.channels,), "zeros")
            self.add_weight_of(
                "block/pw/kernel", (1, 1, self.channels, self.block_channels), "conv"
            )
            self.add_batch_norm("block/pw_bn", self.block_channels)
        super().build(input_shape)

    def call(self, images, statistics=None):
        """Images (B, H, W, C) → (map, moments by name)."""
        statistics, moments, w = statistics or {}, {}, self.roles
        activate = functional.ACTIVATIONS[self.activation]
        x = functional.convolution(images, w["conv/kernel"], self.stride)
        x, moments["bn"] = self.normalise(x, "bn", statistics.get("bn"))
        x = activate(x)
        if not self.block_channels:
            return x, moments
        y = functional.depthwise(x, w["block/dw/kernel"], self.block_stride)
        y, moments["block/dw_bn"] = self.normalise(y, "block/dw_bn", statistics.get("block/dw_bn"))
        y = activate(y)
        *_, y = functional.squeeze_excite(y, *(w[f"block/{role}"] for role in SQUEEZE))
        y = functional.convolution(y, w["block/pw/kernel"])
        y, moments["block/pw_bn"] = self.normalise(y, "block/pw_bn", statistics.get("block/pw_bn"))
        residual = self.block_stride == 1 and self.channels == self.block_channels
        return (x + y if residual else y), moments

    def get_config(self):
        """Keras configuration."""
        names = ("channels", "kernel", "stride", "block_channels", "block_stride", "activation")
        return super().get_config() | {name: getattr(self, name) for name in ("seed", *names)}


class Head(FixedLayer):
    """One path's 1×1 convolution, pooling, hidden features and classifier."""

    def __init__(
        self,
        channels: int,
        features: int,
        num_classes: int,
        activation: str = "swish",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.channels, self.features, self.num_classes = channels, features, num_classes
        self.activation = activation

    def build(self, input_shape):
        """Creates the weights for maps (B, H, W, C)."""
        self.add_weight_of("head_conv/kernel", (1, 1, input_shape[-1], self.channels), "conv")
        self.add_batch_norm("head_bn", self.channels)
        self.add_weight_of("feature/kernel", (1, 1, self.channels, self.features), "conv")
        self.add_weight_of("feature/bias", (self.features,), "zeros")
        self.add_weight_of("classifier/kernel", (self.features, self.num_classes), "dense")
        self.add_weight_of("classifier/bias", (self.num_classes,), "zeros")
        super().build(input_shape)

    def call(self, x, statistics=None):
        """Map (B, H, W, C) → (logits (B, classes) float32, moments by name)."""
        moments, w = {}, self.roles
        activate = functional.ACTIVATIONS[self.activation]
        x = functional.convolution(x, w["head_conv/kernel"])
        x, moments["head_bn"] = self.normalise(x, "head_bn", (statistics or {}).get("head_bn"))
        x = tf.reduce_mean(activate(x), [1, 2])
        x = activate(functional.dense(x, w["feature/kernel"], w["feature/bias"]))
        x = tf.cast(x, tf.float32)
        return functional.dense(x, w["classifier/kernel"], w["classifier/bias"]), moments

    def get_config(self):
        """Keras configuration."""
        names = ("channels", "features", "num_classes", "activation")
        return super().get_config() | {name: getattr(self, name) for name in ("seed", *names)}
