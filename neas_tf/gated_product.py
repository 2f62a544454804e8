"""Squeeze-excite's gate and the 1×1 convolution behind it as one product per image.

On large maps of few output channels it costs less to scale the kernel's rows by an image's gate than
its map, and the scaled map need not be kept. Found with `python -m benchmarks.convolution_gradients`.
"""

from __future__ import annotations

import tensorflow as tf

from neas_tf.convolutions import cpu_only
from neas_tf.operators import Step

# Pixels for each output channel from which on it is faster on a CPU.
_PIXELS = 6


def is_worthwhile(squeeze: Step, project: Step) -> bool:
    """Whether a squeeze-excite step and the one behind it are to be one product."""
    if project.kind != "conv" or (project.kernel, project.stride) != (1, 1):
        return False
    return cpu_only() and squeeze.out_size[0] * squeeze.out_size[1] >= _PIXELS * project.c_out


def product(x: tf.Tensor, gate: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution of x · gate. x (B, H, W, C), gate (B, C), kernel (1, 1, C, C')."""
    rows, matrix = _rows(x), _matrix(kernel, x.dtype)
    y = tf.linalg.matmul(rows, gate[:, :, None] * matrix)
    return tf.reshape(y, [-1, *x.shape[1:3], matrix.shape[1]])


def gradients(
    x: tf.Tensor, gate: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of `product` by x, gate and kernel, from dy (B, H, W, C')."""
    across = tf.transpose(_matrix(kernel, x.dtype))  # (C', C)
    rows = _rows(dy)
    dx = tf.reshape(tf.linalg.matmul(rows, gate[:, None, :] * across), [-1, *x.shape[1:]])
    products = tf.linalg.matmul(rows, _rows(x), transpose_a=True)  # (B, C', C)
    dgate = tf.reduce_sum(products * across, 1)
    dkernel = tf.transpose(tf.reduce_sum(products * gate[:, None, :], 0))
    return dx, dgate, tf.reshape(dkernel, kernel.shape)


def _rows(x: tf.Tensor) -> tf.Tensor:
    """A map as (B, H·W, C)."""
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2], x.shape[3]])


def _matrix(kernel: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.reshape(tf.cast(kernel, dtype), kernel.shape[2:])
