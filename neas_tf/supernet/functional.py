"""The arithmetic of the supernet's layers on plain tensors: no state, no Keras.

Batch normalisation here takes its statistics as arguments and returns the batch's moments, so
that one traced graph trains, recalibrates and evaluates (every candidate has statistics
of its own, and none of them is the supernet's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from neas_tf.supernet import convolutions

EPSILON = 1e-5
ACTIVATIONS = {"swish": tf.nn.silu, "relu": tf.nn.relu, None: lambda x: x}


def sigmoid(x: tf.Tensor) -> tf.Tensor:
    """The logistic function; in float32 whatever x is, since bfloat16's own is slow on a CPU."""
    return tf.cast(tf.sigmoid(tf.cast(x, tf.float32)), x.dtype)


def _with_gradients(function, gradients):
    """A convolution whose gradient is that of `convolutions`."""

    def call(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
        @tf.custom_gradient
        def run(x, kernel):
            def gradient(dy):
                dx, dkernel = gradients(x, kernel, stride, dy)
                return dx, tf.cast(dkernel, kernel.dtype)

            return function(x, kernel, stride), gradient

        return run(x, tf.convert_to_tensor(kernel))

    call.__doc__ = function.__doc__
    return call


convolution = _with_gradients(convolutions.convolve, convolutions.convolution_gradients)
depthwise = _with_gradients(convolutions.convolve_channels, convolutions.depthwise_gradients)


class Moments(NamedTuple):
    """Of a batch, per channel.

    Attributes:
      mean: (C,).
      unbiased: (C,), the variance with n − 1 in the denominator.
      share: (n − 1) / n, a number where n is known while the graph is built.
    """

    mean: tf.Tensor
    unbiased: tf.Tensor
    share: np.float32 | tf.Tensor


def normalise_batch(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
) -> tuple[tf.Tensor, Moments, tuple[tf.Tensor, ...]]:
    """Batch normalisation with the batch's own moments.

    Returns:
      The normalised map (B, H, W, C), the moments, and what `normalise_batch_gradient` needs.
    """
    y, mean, variance, *reserve = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=EPSILON, is_training=True
    )
    # The op returns the unbiased variance n/(n-1)·v; for one value a channel v itself.
    known = x.shape[:3].num_elements()
    if known is not None:  # mostly: a number in the graph instead of eight operations
        share = np.float32(known - 1) / np.float32(known) if known > 1 else np.float32(1.0)
    else:
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
        share = tf.where(count > 1, (count - 1) / tf.maximum(count, 1), 1.0)
    return y, Moments(mean, variance, share), tuple(reserve)


def normalise_batch_gradient(
    dy: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor, reserve: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of `normalise_batch` by x, gamma and beta."""
    dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy,
        x=x,
        scale=gamma,
        reserve_space_1=reserve[0],
        reserve_space_2=reserve[1],
        reserve_space_3=reserve[2],
        epsilon=EPSILON,
        is_training=True,
    )
    return dx, dgamma, dbeta


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
        y, found, _ = normalise_batch(x, gamma, beta)
        return y, tf.stack([found.mean, found.unbiased * found.share])
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
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """SE with ReLU inside and the gate relu6(linear)/6; kernels (1, 1, C, C').

    Returns:
      What its gradient needs: mean (B, C), hidden (B, C'), bounded (B, C), the sixfold gate; and last
      the map.
    """
    mean = tf.reduce_mean(x, [1, 2])
    hidden = tf.nn.relu(dense(mean, reduce_kernel, reduce_bias))
    bounded = tf.nn.relu6(dense(hidden, expand_kernel, expand_bias) + 3.0)
    return mean, hidden, bounded, x * gate(bounded)


def gate(bounded: tf.Tensor) -> tf.Tensor:
    """The factors of `squeeze_excite`, from 0..6 (B, C) to (B, 1, 1, C)."""
    return as_map(bounded * (1.0 / 6.0))


def as_map(x: tf.Tensor) -> tf.Tensor:
    """(B, C) to (B, 1, 1, C), without an operation that computes."""
    return tf.expand_dims(tf.expand_dims(x, 1), 1)


def dense(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """x (B, C) times a kernel of (C, C') or (1, 1, C, C'), plus the bias."""
    kernel = tf.cast(kernel, x.dtype)
    if kernel.shape.rank == 4:
        kernel = tf.squeeze(kernel, [0, 1])
    return tf.linalg.matmul(x, kernel) + tf.cast(bias, x.dtype)
