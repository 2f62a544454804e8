"""The arithmetic of the supernet's layers on plain tensors: no state, no Keras.

Batch normalisation here takes its statistics as arguments and returns the batch's moments, so
that one traced graph trains, recalibrates and evaluates (method: every candidate has statistics
of its own, and none of them is the supernet's).
"""

from __future__ import annotations

import tensorflow as tf

EPSILON = 1e-5
ACTIVATIONS = {"swish": tf.nn.silu, "relu": tf.nn.relu, None: lambda x: x}


def convolution(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Convolution with symmetric padding k//2. x (B, H, W, C), kernel (k, k, C, C')."""
    kernel = tf.cast(kernel, x.dtype)
    padding = symmetric_padding(kernel.shape[0], stride)
    return tf.nn.conv2d(x, kernel, strides=stride, padding=padding)


def depthwise(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Depthwise convolution with symmetric padding. x (B, H, W, C), kernel (k, k, C, 1)."""
    kernel = tf.cast(kernel, x.dtype)
    size = int(kernel.shape[0])
    if stride == 1:
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")
    # An explicit pad is several times faster on CPU than the op's own explicit padding.
    pad = size // 2
    x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "VALID")


def symmetric_padding(kernel: int, stride: int) -> str | list[list[int]]:
    """k//2 on each side; SAME is that at stride 1, and another thing at stride 2."""
    if stride == 1 or kernel == 1:
        return "SAME"
    pad = kernel // 2
    return [[0, 0], [pad, pad], [pad, pad], [0, 0]]


def batch_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, statistics: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalises with the batch's moments, or with the given ones.

    Args:
      x: (B, H, W, C).
      gamma, beta: (C,) float32.
      statistics: float32 (2, C'), C' ≥ C: mean and variance; None takes the batch's.

    Returns:
      The normalised map and the (2, C) mean and (biased) variance used.
    """
    channels = x.shape[-1]
    if statistics is None:
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=EPSILON, is_training=True
        )
        # The op returns the unbiased variance n/(n-1)·v; for one value a channel v itself.
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
        variance = variance * tf.where(count > 1, (count - 1) / tf.maximum(count, 1), 1.0)
        return y, tf.stack([mean, variance])
    statistics = statistics[:, :channels]
    scale = gamma * tf.math.rsqrt(statistics[1] + EPSILON)
    offset = beta - statistics[0] * scale
    return x * tf.cast(scale, x.dtype) + tf.cast(offset, x.dtype), statistics


def squeeze_excite(
    x: tf.Tensor,
    reduce_kernel: tf.Tensor,
    reduce_bias: tf.Tensor,
    expand_kernel: tf.Tensor,
    expand_bias: tf.Tensor,
) -> tf.Tensor:
    """SE with ReLU inside and the gate relu6(x + 3)/6; kernels (1, 1, C, C')."""
    squeezed = tf.reduce_mean(x, [1, 2])
    hidden = tf.nn.relu(dense(squeezed, reduce_kernel, reduce_bias))
    gate = tf.nn.relu6(dense(hidden, expand_kernel, expand_bias) + 3.0) * (1.0 / 6.0)
    return x * gate[:, None, None, :]


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x (B, C) times a kernel of (C, C') or (1, 1, C, C'), plus the bias."""
    kernel = tf.cast(kernel, x.dtype)
    if kernel.shape.rank == 4:
        kernel = tf.squeeze(kernel, [0, 1])
    return tf.linalg.matmul(x, kernel) + tf.cast(bias, x.dtype)
