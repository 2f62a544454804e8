"""Augmentation of whole batches: a few large operations instead of many small ones."""

from __future__ import annotations

import tensorflow as tf


def shift_and_flip(
    images: tf.Tensor, offsets: tf.Tensor, flips: tf.Tensor, padding: int
) -> tf.Tensor:
    """Random crop of the padded images, mirrored where asked.

    Args:
      images: uint8 (b, h, w, c).
      offsets: int32 (b, 2), top and left corner in the padded image, 0..2·padding.
      flips: bool (b,).
      padding: black pixels added on each side.

    Returns:
      uint8 (b, h, w, c).
    """
    _, height, width, _ = images.shape
    batch = tf.shape(images)[0]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = offsets[:, :1] + tf.range(height)  # (b, h)
    columns = tf.range(width)
    columns = tf.where(flips[:, None], width - 1 - columns, columns)  # (b, w)
    columns = tf.broadcast_to((offsets[:, 1:] + columns)[:, None, :], [batch, height, width])
    part = tf.gather(padded, rows, axis=1, batch_dims=1)  # (b, h, w + 2·padding, c)
    result = tf.gather(part, columns, axis=2, batch_dims=2)  # (b, h, w, c)
    return tf.ensure_shape(result, images.shape)


def flip(images: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Mirrors the images (b, h, w, c) where the bool (b,) says so."""
    return tf.where(flips[:, None, None, None], images[:, :, ::-1], images)


def cutout(images: tf.Tensor, centers: tf.Tensor, side: int) -> tf.Tensor:
    """Sets a square of `side` pixels to 0, cut off at the border.

    Args:
      images: float32 (b, h, w, c), normalised, so that 0 is the mean.
      centers: int32 (b, 2), row and column of the square's middle.
      side: pixels.

    Returns:
      float32 (b, h, w, c).
    """
    _, height, width, _ = images.shape
    first = centers - side // 2  # (b, 2)
    rows = tf.range(height) - first[:, :1]
    columns = tf.range(width) - first[:, 1:]
    inside_rows = (rows >= 0) & (rows < side)  # (b, h)
    inside_columns = (columns >= 0) & (columns < side)  # (b, w)
    mask = inside_rows[:, :, None] & inside_columns[:, None, :]  # (b, h, w)
    return tf.where(mask[..., None], tf.zeros([], images.dtype), images)
