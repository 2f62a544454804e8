"""From encoded images to pixels of the size that the network takes."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

# Where no crop fits after ten draws, the middle is taken, as Model Garden does.
_ATTEMPTS = 10
_ASPECT_RATIOS = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Decodes JPEG and PNG images.

    Attributes:
      height, width: of the result, in pixels.
      channels: 1 or 3; colour becomes grey and grey is repeated.
      center_fraction: share of the shorter side kept in the middle of larger images.
      antialias: low-pass filter where images shrink; Model Garden's ImageNet recipes do without.
    """

    height: int
    width: int
    channels: int
    center_fraction: float = 0.875
    antialias: bool = True

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded image → uint8 (h', w', channels) of its own size."""
        image = tf.io.decode_image(encoded, channels=self.channels, expand_animations=False)
        image.set_shape([None, None, self.channels])
        return image

    def fixed(self, encoded: tf.Tensor) -> tf.Tensor:
        """Encoded image → uint8 (height, width, channels), without any randomness.

        An image of the wanted size is left as it is. Of others the largest part in the middle with
        the wanted proportions is taken (of larger ones `center_fraction` of it) and resized.
        """
        return self.fit(self.decode(encoded))

    def fit(self, image: tf.Tensor) -> tf.Tensor:
        """The same for a decoded image, uint8 (h', w', channels)."""
        size = tf.shape(image)[:2]
        wanted = tf.constant([self.height, self.width])

        def resized() -> tf.Tensor:
            scale = tf.reduce_min(tf.cast(size, tf.float32) / tf.cast(wanted, tf.float32))
            scale *= tf.where(scale > 1.0, self.center_fraction, 1.0)
            # The small number makes up for rounding, so that 7/8 of 40 is 35. Offsets are Model
            # Garden's.
            exact = scale * tf.cast(wanted, tf.float32) + 1e-3
            crop = tf.maximum(tf.cast(exact, tf.int32), 1)
            offset = tf.cast((tf.cast(size, tf.float32) - exact) / 2.0 + 1e-3, tf.int32)
            offset = tf.minimum(offset, size - crop)
            part = tf.image.crop_to_bounding_box(image, offset[0], offset[1], crop[0], crop[1])
            return to_uint8(tf.image.resize(part, wanted, antialias=self.antialias))

        same = tf.reduce_all(tf.equal(size, wanted))
        result = tf.cond(same, lambda: image, resized)
        result.set_shape([self.height, self.width, self.channels])
        return result

    def random_crop(
        self, encoded: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]
    ) -> tf.Tensor:
        """A random part of an encoded image, resized: 'Inception' cropping.

        Only the part is decoded where the image is a JPEG.

        Args:
          encoded: scalar string.
          seed: int64 (2,).
          area: smallest and largest share of the image's area.

        Returns:
          uint8 (height, width, channels).
        """

        def from_jpeg() -> tf.Tensor:
            window = self._window(tf.image.extract_jpeg_shape(encoded), seed, area)
            part = tf.image.decode_and_crop_jpeg(encoded, window, channels=self.channels)
            part.set_shape([None, None, self.channels])
            return self._resize(part)

        return tf.cond(
            tf.io.is_jpeg(encoded),
            from_jpeg,
            lambda: self.random_crop_decoded(self.decode(encoded), seed, area),
        )

    def random_crop_decoded(
        self, image: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]
    ) -> tf.Tensor:
        """The same for a decoded image, uint8 (h', w', channels)."""
        window = self._window(tf.shape(image), seed, area)
        part = tf.image.crop_to_bounding_box(image, window[0], window[1], window[2], window[3])
        return self._resize(part)

    def _resize(self, part: tf.Tensor) -> tf.Tensor:
        image = to_uint8(tf.image.resize(part, [self.height, self.width]))
        image.set_shape([self.height, self.width, self.channels])
        return image

    def _window(self, shape: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]) -> tf.Tensor:
        """(top, left, height, width) of a random part; int32 (4,)."""
        offset, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=seed,
            min_object_covered=area[0],
            aspect_ratio_range=_ASPECT_RATIOS,
            area_range=area,
            max_attempts=_ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        side = tf.cast(
            self.center_fraction * tf.cast(tf.reduce_min(shape[:2]), tf.float32), tf.int32
        )
        side = tf.maximum(side, 1)
        middle = tf.concat([(shape[:2] - side) // 2, [side, side]], 0)
        whole = tf.reduce_all(tf.equal(size[:2], shape[:2]))
        return tf.where(whole, middle, tf.concat([offset[:2], size[:2]], 0))


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Rounds to the nearest grey level of 0..255."""
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
