"""The parts of a stand-alone ensemble, spelled with standard layers of a given Keras module.

No activation is fused into a convolution and no layer is custom, so that quantization and pruning
tools know every layer. Shapes are NHWC. Every layer's name begins with the `prefix` of its part.
"""

from __future__ import annotations

import zlib
from typing import Any

from neas_tf.ensemble.rewrites import NO_REWRITES, Part, Rewrites, depthwise_parts, part_name
from neas_tf.operators import Operator, divisible
from neas_tf.space.search_space import LayerSpec

BATCH_NORM_EPSILON = 1e-5


class LayerFactory:
    """Makes the layers of one model with one Keras module and one set of options.

    Attributes:
      keras: the `tf_keras` or `keras` module.
      momentum: of the batch-normalisation averages.
      synchronized: whether batch moments are taken over all replicas.
      dtype: dtype or policy of every layer; None takes the global policy.
      seed: makes every initial weight a function of the seed and the layer's name.
      rewrites: of a deployed model; a trained one has none.
    """

    def __init__(
        self,
        keras: Any,
        *,
        momentum: float = 0.99,
        synchronized: bool = False,
        dtype: Any = None,
        seed: int | None = None,
        rewrites: Rewrites = NO_REWRITES,
    ):
        self.keras = keras
        self.momentum = momentum
        self.synchronized = synchronized
        self.seed = seed
        self.rewrites = rewrites
        self._options = {} if dtype is None else {"dtype": dtype}

    def _normal(self, name: str):
        """He-normal by fan-out; for a depthwise kernel the fan-out is k² (one output each)."""
        return self.keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=self._seed(name)
        )

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else zlib.crc32(f"{self.seed}/{name}".encode())

    def _padded(self, x, name: str, kernel: int, stride: int) -> tuple[Any, str]:
        """Pads k//2 on each side where SAME would not (stride 2 over an even side)."""
        if stride == 1 or kernel == 1 or all(side and side % 2 for side in x.shape[1:3]):
            return x, "same"
        pad = self.keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad", **self._options)
        return pad(x), "valid"

    def conv(self, x, name: str, filters: int, kernel: int = 1, stride: int = 1, bias=False):
        """k×k convolution, (b, h, w, c) to (b, ⌈h/stride⌉, ⌈w/stride⌉, filters)."""
        x, padding = self._padded(x, name, kernel, stride)
        return self.keras.layers.Conv2D(
            filters,
            kernel,
            strides=stride,
            padding=padding,
            use_bias=bias,
            kernel_initializer=self._normal(name),
            name=name,
            **self._options,
        )(x)

    def depthwise(self, x, name: str, kernel: int, stride: int):
        """k×k depthwise convolution and its BN `<name>_bn`, (b, h, w, c) to (b, ⌈h/stride⌉, …, c).

        Large kernels become a sum of convolutions, with BN inside, where the rewrites say so.
        """
        parts: tuple[Part, ...] = ()
        if self.rewrites.depthwise:
            parts = depthwise_parts(kernel, stride, tuple(x.shape[1:3]))
        if parts:
            return self._depthwise_sum(x, name, kernel, stride, parts)
        x, padding = self._padded(x, name, kernel, stride)
        x = self.keras.layers.DepthwiseConv2D(
            kernel,
            strides=stride,
            padding=padding,
            use_bias=False,
            depthwise_initializer=self._normal(name),
            name=name,
            **self._options,
        )(x)
        return self.batch_norm(x, f"{name}_bn")

    def _depthwise_sum(self, x, name: str, kernel: int, stride: int, parts: tuple[Part, ...]):
        layers, total = self.keras.layers, None
        for part in parts:
            own, y = part_name(name, part), x
            if any(part.crop):
                crop = (part.crop, (0, 0))
                y = layers.Cropping2D(crop, name=f"{own}_crop", **self._options)(y)
            y = layers.ZeroPadding2D(part.pad, name=f"{own}_pad", **self._options)(y)
            y = layers.DepthwiseConv2D(
                (len(part.rows), kernel),
                strides=stride,
                padding="valid",
                use_bias=kernel // 2 in part.rows,
                depthwise_initializer=self._normal(own),
                name=own,
                **self._options,
            )(y)
            if total is not None:
                y = layers.Add(name=f"{own}_add", **self._options)([total, y])
            total = y
        return total

    def dense(self, x, name: str, units: int, dtype: Any = None):
        """Dense layer with bias over the last axis; small uniform weights as in EfficientNet."""
        options = self._options if dtype is None else {"dtype": dtype}
        return self.keras.layers.Dense(
            units,
            kernel_initializer=self.keras.initializers.VarianceScaling(
                1.0 / 3.0, "fan_out", "uniform", seed=self._seed(name)
            ),
            name=name,
            **options,
        )(x)

    def batch_norm(self, x, name: str):
        """Batch normalisation over the last axis."""
        options = dict(self._options)
        if self.synchronized:
            options["synchronized"] = True
        return self.keras.layers.BatchNormalization(
            momentum=self.momentum, epsilon=BATCH_NORM_EPSILON, name=name, **options
        )(x)

    def activate(self, x, name: str, activation: str | None):
        """Swish (x · sigmoid(x)) as `<name>_swish`, ReLU as `<name>_relu`, or x itself."""
        if activation is None:
            return x
        name = f"{name}_{activation}"
        if activation == "relu":
            return self.keras.layers.ReLU(name=name, **self._options)(x)
        return self.keras.layers.Activation(activation, name=name, **self._options)(x)

    def pool(self, x, name: str):
        """Global mean, (b, h, w, c) to (b, 1, 1, c)."""
        return self.keras.layers.GlobalAveragePooling2D(keepdims=True, name=name, **self._options)(
            x
        )

    def dropout(self, x, name: str, rate: float | None, noise_shape=None):
        """Dropout; None leaves the layer out.

        A rate of 0 does not: Keras sorts layers by their depth, so the order of the weights would
        come to depend on the rate.
        """
        if rate is None:
            return x
        return self.keras.layers.Dropout(rate, noise_shape=noise_shape, name=name, **self._options)(
            x
        )

    def squeeze_excite(self, x, prefix: str):
        """Scales channels by relu6(x + 3) / 6 of a two-layer bottleneck of their global means.

        The bottleneck has a quarter of the channels of `x` itself, which for an MBConv is the
        expanded width. Where the rewrites say so, the neighbouring convolutions hold the constants.
        """
        layers, channels = self.keras.layers, x.shape[-1]
        gate = self.pool(x, f"{prefix}_se_pool")
        gate = self.conv(gate, f"{prefix}_se_reduce", divisible(channels / 4), bias=True)
        gate = layers.ReLU(name=f"{prefix}_se_relu", **self._options)(gate)
        gate = self.conv(gate, f"{prefix}_se_expand", channels, bias=True)
        if not self.rewrites.gates:
            gate = layers.Rescaling(1.0, 3.0, name=f"{prefix}_se_shift", **self._options)(gate)
        gate = layers.ReLU(6.0, name=f"{prefix}_se_relu6", **self._options)(gate)
        if not self.rewrites.gates:
            gate = layers.Rescaling(1.0 / 6.0, name=f"{prefix}_se_scale", **self._options)(gate)
        return layers.Multiply(name=f"{prefix}_se_apply", **self._options)([x, gate])

    def residual(self, x, shortcut, prefix: str, drop_path: float | None = None):
        """x + shortcut; in training a whole image's x is dropped at the rate `drop_path`."""
        x = self.dropout(x, f"{prefix}_drop_path", drop_path, (None, 1, 1, 1))
        return self.keras.layers.Add(name=f"{prefix}_add", **self._options)([x, shortcut])


def pixel_input(
    keras: Any,
    shape: tuple[int | None, int | None, int],
    scale: Any,
    offset: Any,
    *,
    batch_size: int | None = None,
) -> tuple[Any, Any]:
    """The input `image` of a network that takes pixels, and those normalised.

    Args:
      keras: the Keras module.
      shape: (height, width, channels).
      scale, offset: so that normalised = image · scale + offset, for pixels in 0..255.
      batch_size: fixed batch size; None leaves it open.

    Returns:
      float32 (batch, height, width, channels) twice: as it comes in, and normalised.
    """
    image = keras.Input(shape, batch_size=batch_size, name="image", dtype="float32")
    layer = keras.layers.Rescaling(scale, offset, name="normalisation", dtype="float32")
    return image, layer(image)


class OperatorLayers:
    """The `Maker` of a stand-alone network: an operator's steps as Keras layers.

    Args:
      make: of the network.
      prefix: of the layers' names; `<prefix>_<role>`, `<prefix>_<role>_bn`, `<prefix>_se_reduce`…
    """

    def __init__(self, make: LayerFactory, prefix: str):
        self._make, self._prefix = make, prefix

    def conv(self, x, role, filters, kernel=1, stride=1, activation=None):
        """See `Maker.conv`."""
        name = f"{self._prefix}_{role}"
        x = self._make.conv(x, name, filters, kernel, stride)
        return self._make.activate(self._make.batch_norm(x, f"{name}_bn"), name, activation)

    def depthwise(self, x, role, kernel, stride=1, activation=None):
        """See `Maker.depthwise`."""
        name = f"{self._prefix}_{role}"
        return self._make.activate(self._make.depthwise(x, name, kernel, stride), name, activation)

    def squeeze_excite(self, x):
        """See `Maker.squeeze_excite`."""
        return self._make.squeeze_excite(x, self._prefix)


def stem(make: LayerFactory, x, channels: int, kernel: int, stride: int, activation="swish"):
    """Convolution, BN, activation."""
    x = make.conv(x, "stem_conv", channels, kernel, stride)
    return make.activate(make.batch_norm(x, "stem_bn"), "stem", activation)


def separable_block(make: LayerFactory, x, channels: int, stride: int, activation="swish"):
    """The fixed layer after the stem: 3×3 depthwise, SE, 1×1; residual where shapes agree."""
    shortcut, prefix = x, "block"
    x = make.depthwise(x, f"{prefix}_dw", 3, stride)
    x = make.activate(x, f"{prefix}_dw", activation)
    x = make.squeeze_excite(x, prefix)
    x = make.batch_norm(make.conv(x, f"{prefix}_pw", channels), f"{prefix}_pw_bn")
    if stride == 1 and shortcut.shape[-1] == channels:
        x = make.residual(x, shortcut, prefix)
    return x


def searchable_layer(
    make: LayerFactory,
    x,
    prefix: str,
    layer: LayerSpec,
    operator: Operator,
    drop_path: float | None,
):
    """One operator of a searchable layer; `skip` is the identity and adds no layer.

    Where the layer keeps its shape, the input is added; in training a whole image's branch is
    dropped at the rate `drop_path` (None: never).
    """
    if operator.is_skip:
        return x
    y = operator.build(OperatorLayers(make, prefix), x, layer)
    return make.residual(y, x, prefix, drop_path) if layer.keeps_shape else y


def head_map(make: LayerFactory, x, prefix: str, channels: int, activation="swish"):
    """The convolution of a path's head with BN and activation, (b, h, w, c) to (b, h, w, channels)."""
    x = make.batch_norm(make.conv(x, f"{prefix}_head_conv", channels), f"{prefix}_head_bn")
    return make.activate(x, f"{prefix}_head", activation)


def head_features(
    make: LayerFactory, x, prefix: str, channels: int, features: int, activation="swish"
):
    """A path's head up to its hidden features: 1×1 conv, mean, 1×1 conv with bias, activation.

    (b, h, w, c) to (b, 1, 1, features).
    """
    x = make.pool(head_map(make, x, prefix, channels, activation), f"{prefix}_head_pool")
    x = make.conv(x, f"{prefix}_feature", features, bias=True)
    return make.activate(x, f"{prefix}_feature", activation)
