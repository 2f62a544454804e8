"""Convolutions and their gradients, in the form that is fastest on a CPU.

Measured on layers of 16²×144 to 4²×960: oneDNN's gradient of a depthwise kernel is
fast up to a width of 3 at any height, and up to 20 times slower beyond; so wider kernels are taken
apart by columns. With TensorFlow's own gradients 52 % of a supernet's step (K = 2, 32²) went into
those of depthwise kernels; now depthwise convolutions and their gradients are 17 %, the matrix
products 38 %, and a step takes 1.30 s of processor time instead of 1.76. The gradient of a depthwise convolution's input is another depthwise convolution, with
the kernel turned around, at a stride with zeros between the gradient's pixels. 1×1 convolutions are matrix products.
On other devices the libraries' own operations are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from neas_tf.supernet.switches import accelerated, in_xla

# Columns of a kernel whose gradient is taken at once.
_COLUMNS = 3
# Width up to which padding beforehand is faster than oneDNN's own.
_SMALL = 4


def cpu_only() -> bool:
    """Whether the graph being built runs on the CPU's own operations: no accelerator, no XLA."""
    return not in_xla() and not accelerated()


def symmetric_padding(kernel: int, stride: int) -> str | list[list[int]]:
    """k//2 on each side; SAME is that at stride 1, and another thing at stride 2."""
    if stride == 1 or kernel == 1:
        return "SAME"
    pad = kernel // 2
    return [[0, 0], [pad, pad], [pad, pad], [0, 0]]


def _is_product(kernel: tf.Tensor, stride: int) -> bool:
    return kernel.shape[0] == kernel.shape[1] == stride == 1


def convolve(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Convolution with symmetric padding k//2. x (B, H, W, C), kernel (k, k, C, C')."""
    kernel = tf.cast(kernel, x.dtype)
    if _is_product(kernel, stride):
        c_in, c_out = kernel.shape[2:]
        y = tf.linalg.matmul(tf.reshape(x, [-1, c_in]), tf.reshape(kernel, [c_in, c_out]))
        return tf.reshape(y, [*_sizes(x)[:3], c_out])
    return tf.nn.conv2d(
        x, kernel, strides=stride, padding=symmetric_padding(kernel.shape[0], stride)
    )


def convolution_gradients(
    x: tf.Tensor, kernel: tf.Tensor, stride: int, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of `convolve` by x and by the kernel, both in x's type."""
    kernel = tf.cast(kernel, x.dtype)
    if _is_product(kernel, stride):
        c_in, c_out = kernel.shape[2:]
        rows, flat = tf.reshape(dy, [-1, c_out]), tf.reshape(kernel, [c_in, c_out])
        dx = tf.reshape(tf.linalg.matmul(rows, flat, transpose_b=True), _sizes(x))
        dkernel = tf.linalg.matmul(tf.reshape(x, [-1, c_in]), rows, transpose_a=True)
        return dx, tf.reshape(dkernel, [1, 1, c_in, c_out])
    settings = _attributes(stride, symmetric_padding(kernel.shape[0], stride))
    dx = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **settings
    )
    dkernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=dy, **settings
    )
    return dx, dkernel


def convolve_channels(x: tf.Tensor, kernel: tf.Tensor, stride: int = 1) -> tf.Tensor:
    """Depthwise convolution with symmetric padding. x (B, H, W, C), kernel (k, k, C, 1)."""
    kernel = tf.cast(kernel, x.dtype)
    padding = symmetric_padding(kernel.shape[0], stride)
    return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], padding)


def depthwise_gradients(
    x: tf.Tensor, kernel: tf.Tensor, stride: int, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradients of `convolve_channels` by x and by the kernel, both in x's type."""
    kernel = tf.cast(kernel, x.dtype)
    size = kernel.shape[0]
    if not cpu_only() or (stride == 1 and size <= _COLUMNS):
        return _depthwise_gradients(x, kernel, stride, dy, symmetric_padding(size, stride))
    spread = _spread(dy, stride, _sizes(x))
    dx = convolve_channels(spread, kernel[::-1, ::-1])
    if stride == 1:
        return dx, _kernel_gradient_by_columns(x, size, dy)
    # In bfloat16 the library's gradient with stride is many times slower.
    dtype, padding = x.dtype, symmetric_padding(size, stride)
    x, dy = tf.cast(x, tf.float32), tf.cast(dy, tf.float32)
    return dx, tf.cast(_library_kernel_gradient(x, kernel.shape, stride, dy, padding), dtype)


def _depthwise_gradients(x, kernel, stride, dy, padding):
    """The library's own operations."""
    dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **_attributes(stride, padding)
    )
    return dx, _library_kernel_gradient(x, kernel.shape, stride, dy, padding)


def _library_kernel_gradient(x, shape, stride, dy, padding):
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x, filter_sizes=shape, out_backprop=dy, **_attributes(stride, padding)
    )


def _spread(dy: tf.Tensor, stride: int, sizes: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """dy's pixels with zeros between, to the map (B, H, W, C) that a stride has taken them from."""
    if stride == 1:
        return dy
    batch, rows, columns, channels = _sizes(dy)
    gap = stride - 1
    # One padding, after each row and, as more channels, after each column.
    flat = tf.reshape(dy, [batch * rows, 1, columns, channels])
    flat = tf.pad(flat, [[0, 0], [0, gap], [0, 0], [0, gap * channels]])
    spread = tf.reshape(flat, [batch, rows * stride, columns * stride, channels])
    return spread[:, : sizes[1], : sizes[2]]


def _kernel_gradient_by_columns(x: tf.Tensor, size: int, dy: tf.Tensor) -> tf.Tensor:
    """The gradient of a depthwise kernel at stride 1, a few of its columns at a time."""
    pad, columns = size // 2, _sizes(dy)[2]
    padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])

    def gradient(x, taken, padding):
        return _library_kernel_gradient(x, [size, taken, x.shape[3], 1], 1, dy, padding)

    def from_padded(first, last):
        parts = []
        for column in range(first, last, _COLUMNS):
            taken = min(_COLUMNS, last - column)
            seen = padded[:, :, column : column + columns - 1 + taken]
            parts.append(gradient(seen, taken, "VALID"))
        return parts

    if isinstance(columns, int) and columns <= _SMALL:
        return tf.concat(from_padded(0, size), 1)
    # The middle columns see x as it is.
    middle = pad - _COLUMNS // 2
    parts = [*from_padded(0, middle), gradient(x, _COLUMNS, "SAME")]
    return tf.concat(parts + from_padded(middle + _COLUMNS, size), 1)


def _sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """The sizes of x's axes, as numbers where they are known."""
    return [tf.shape(x)[i] if n is None else n for i, n in enumerate(x.shape)]


def _attributes(stride: int, padding: str | list[list[int]]) -> dict[str, Any]:
    """Stride and padding as the operations' attributes."""
    strides = [1, stride, stride, 1]
    if isinstance(padding, str):
        return {"strides": strides, "padding": padding}
    explicit = [n for pair in padding for n in pair]
    return {"strides": strides, "padding": "EXPLICIT", "explicit_paddings": explicit}
