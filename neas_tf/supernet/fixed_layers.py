"""The supernet's layers without a choice: weights by role, stem, heads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.operators import squeeze_width
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet import functional

# Roles of squeeze-excite's weights, in the order of `functional.squeeze_excite`.
SQUEEZE = ("se_reduce/kernel", "se_reduce/bias", "se_expand/kernel", "se_expand/bias")


def initial_value(
    seed: int, name: str, shape: tuple[int, ...], kind: str, count: int = 1
) -> np.ndarray:
    """`count` initial weights (count, *shape) of a kind (conv, dense, zeros, ones), by seed and name."""
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
    """A layer without a choice: its weights by role, which begin as the seed, its name and the role say."""

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

    @property
    def norm_widths(self) -> dict[str, int]:
        """Channels of each batch normalisation, by name."""
        return {
            role.removesuffix("/gamma"): int(variable.shape[0])
            for role, variable in self.roles.items()
            if role.endswith("/gamma")
        }

    def normalise(self, x, name: str, statistics):
        """Batch normalisation `name` of a map."""
        gamma, beta = self.roles[f"{name}/gamma"], self.roles[f"{name}/beta"]
        return functional.batch_norm(x, gamma, beta, statistics)

    def moving_of(self, moments: dict[str, tf.Tensor]) -> list[tuple[list[tf.Variable], tf.Tensor]]:
        """Mean's and variance's running statistics of each batch normalisation, and its moments (2, C)."""
        kinds = ("moving_mean", "moving_variance")
        return [([self.roles[f"{n}/{kind}"] for kind in kinds], v) for n, v in moments.items()]


def update_moving(
    pairs: Sequence[tuple[Sequence[tf.Variable], tf.Tensor]], momentum: float
) -> None:
    """Moves running statistics towards moments, all with one product and sum; see `FixedLayer.moving_of`."""
    variables = [variable for own, _ in pairs for variable in own]
    before = tf.concat(variables, 0)
    values = tf.concat([tf.reshape(moments, [-1]) for _, moments in pairs], 0)
    after = before * momentum + values * (1.0 - momentum)
    sizes = [int(variable.shape[0]) for variable in variables]
    for variable, value in zip(variables, tf.split(after, sizes), strict=True):
        variable.assign(value)


class Stem(FixedLayer):
    """A space's stem: convolution, BN, activation, and the depthwise-separable layer with SE."""

    def __init__(self, space: SearchSpace, **kwargs: Any):
        super().__init__(**kwargs)
        self.space = space

    def build(self, input_shape):
        """Creates the weights for images (B, H, W, C)."""
        space, channels = self.space, self.space.stem_channels
        side = space.stem_kernel
        self.add_weight_of("conv/kernel", (side, side, input_shape[-1], channels), "conv")
        self.add_batch_norm("bn", channels)
        if space.block_channels:
            squeezed = squeeze_width(channels)
            self.add_weight_of("block/dw/kernel", (3, 3, channels, 1), "conv")
            self.add_batch_norm("block/dw_bn", channels)
            self.add_weight_of("block/se_reduce/kernel", (1, 1, channels, squeezed), "conv")
            self.add_weight_of("block/se_reduce/bias", (squeezed,), "zeros")
            self.add_weight_of("block/se_expand/kernel", (1, 1, squeezed, channels), "conv")
            self.add_weight_of("block/se_expand/bias", (channels,), "zeros")
            self.add_weight_of("block/pw/kernel", (1, 1, channels, space.block_channels), "conv")
            self.add_batch_norm("block/pw_bn", space.block_channels)
        super().build(input_shape)

    def call(self, images, statistics=None):
        """Images (B, H, W, C) → (map, moments by name)."""
        statistics, moments, w, space = statistics or {}, {}, self.roles, self.space
        activate = functional.ACTIVATIONS[space.activation]
        x = functional.convolution(images, w["conv/kernel"], space.stem_stride)
        x, moments["bn"] = self.normalise(x, "bn", statistics.get("bn"))
        x = activate(x)
        if not space.block_channels:
            return x, moments
        y = functional.depthwise(x, w["block/dw/kernel"], space.block_stride)
        y, moments["block/dw_bn"] = self.normalise(y, "block/dw_bn", statistics.get("block/dw_bn"))
        y = activate(y)
        *_, y = functional.squeeze_excite(y, *(w[f"block/{role}"] for role in SQUEEZE))
        y = functional.convolution(y, w["block/pw/kernel"])
        y, moments["block/pw_bn"] = self.normalise(y, "block/pw_bn", statistics.get("block/pw_bn"))
        residual = space.block_stride == 1 and space.stem_channels == space.block_channels
        return (x + y if residual else y), moments


class Head(FixedLayer):
    """One path's 1×1 convolution, pooling, hidden features and classifier."""

    def __init__(self, space: SearchSpace, **kwargs: Any):
        super().__init__(**kwargs)
        self.space = space

    def build(self, input_shape):
        """Creates the weights for maps (B, H, W, C)."""
        space, channels = self.space, self.space.head_channels
        self.add_weight_of("head_conv/kernel", (1, 1, input_shape[-1], channels), "conv")
        self.add_batch_norm("head_bn", channels)
        self.add_weight_of("feature/kernel", (1, 1, channels, space.feature_channels), "conv")
        self.add_weight_of("feature/bias", (space.feature_channels,), "zeros")
        classifier = (space.feature_channels, space.num_classes)
        self.add_weight_of("classifier/kernel", classifier, "dense")
        self.add_weight_of("classifier/bias", (space.num_classes,), "zeros")
        super().build(input_shape)

    def call(self, x, statistics=None):
        """Map (B, H, W, C) → (logits (B, classes) float32, moments by name)."""
        moments, w = {}, self.roles
        activate = functional.ACTIVATIONS[self.space.activation]
        x = functional.convolution(x, w["head_conv/kernel"])
        x, moments["head_bn"] = self.normalise(x, "head_bn", (statistics or {}).get("head_bn"))
        x = tf.reduce_mean(activate(x), [1, 2])
        x = activate(functional.dense(x, w["feature/kernel"], w["feature/bias"]))
        x = tf.cast(x, tf.float32)
        return functional.dense(x, w["classifier/kernel"], w["classifier/bias"]), moments
