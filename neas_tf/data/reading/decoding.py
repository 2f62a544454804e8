"""From encoded images to pixels of the size that the network takes."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import NeasError
from neas_tf.data.reading.pictures import no_file

# Where no crop fits after ten draws, the middle is taken, as Model Garden does.
_ATTEMPTS = 10
MOST_PIXELS = 100_000_000  # a file of a few kB can declare, and unfold to, many times more
_TOO_LARGE = "an image of too many pixels:"
_ASPECT_RATIOS = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Decodes JPEG and PNG images (and what else TensorFlow can: GIF, BMP, WebP).

    The kind is told by the content, not by the file's name. Of an animation the first frame is
    taken, of 16 bits the upper eight; transparency is not regarded. Pixels are taken as they are
    stored: EXIF's orientation turns nothing, here as in TensorFlow and Model Garden's records.

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
        """Encoded image → uint8 (h', w', channels) of its own size.

        One that says it has more than `MOST_PIXELS` is an error before it is unpacked.
        """
        shape = declared_shape(encoded)
        with tf.control_dependencies([_within_bounds(shape)]):
            encoded = tf.identity(encoded)
        if self.channels == 3:
            image = _colour(encoded)
        else:
            # Only JPEGs that are not CMYK, and PNGs, can be read as grey.
            image = tf.cond(
                (shape[2] >= 1) & (shape[2] <= 3),
                lambda: tf.io.decode_image(encoded, channels=1, expand_animations=False),
                lambda: tf.image.rgb_to_grayscale(_colour(encoded)),
            )
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
            shape = tf.image.extract_jpeg_shape(encoded)
            with tf.control_dependencies([_within_bounds(shape)]):
                window = self._window(tf.identity(shape), seed, area)
            part = tf.image.decode_and_crop_jpeg(encoded, window, channels=self.channels)
            part.set_shape([None, None, self.channels])
            return self._resize(part)

        # A CMYK image cannot be read in part and as grey at once.
        in_part = tf.io.is_jpeg(encoded)
        if self.channels == 1:
            in_part &= declared_shape(encoded)[2] <= 3
        return tf.cond(
            in_part,
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


@functools.lru_cache(maxsize=16)
def traced(decoder: Decoder, method: str) -> Callable[..., tf.Tensor]:
    """A method of a decoder as a graph that all functions of data sets share: traced once, not in each.

    Only for such functions: outside them TensorFlow optimises graphs, which can change the last bit.
    """
    return tf.function(getattr(decoder, method), autograph=False)


def declared_shape(encoded: tf.Tensor) -> tf.Tensor:
    """What an image's header says: height, width, channels, int32 (3,).

    Channels are 3 for every PNG and 0 where they are not known; all are 0 of other kinds of files.
    """

    def of_header() -> tf.Tensor:
        head, data = _head(encoded)
        kind = tf.strings.substr(head, 0, 4)
        cases = [
            (kind == b"\x89PNG", lambda: tf.stack([_number(data[20:24]), _number(data[16:20]), 3])),
            (kind == b"GIF8", lambda: tf.stack([_little(data[8:10]), _little(data[6:8]), 0])),
            (_is_webp(head), lambda: _webp_shape(head, data)),
        ]
        return tf.case(cases, default=lambda: tf.zeros([3], tf.int32))

    return tf.cond(tf.io.is_jpeg(encoded), lambda: tf.image.extract_jpeg_shape(encoded), of_header)


def _webp_shape(head: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """What the first 30 bytes of a WebP image say; as `declared_shape`."""
    kind, bits = tf.strings.substr(head, 12, 4), _little(data[21:24]) + (data[24] % 16) * (1 << 24)
    lossless = tf.stack([bits // (1 << 14) + 1, bits % (1 << 14) + 1, 0])
    extended = tf.stack([_little(data[27:30]) + 1, _little(data[24:27]) + 1, 0])
    plain = tf.stack([_little(data[28:30]) % (1 << 14), _little(data[26:28]) % (1 << 14), 0])
    return tf.where(kind == b"VP8L", lossless, tf.where(kind == b"VP8X", extended, plain))


def _head(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first 30 bytes of a file, zeros where it is shorter: as a string and as int32 (30,)."""
    head = tf.strings.substr(tf.strings.join([encoded, tf.constant(b"\0" * 30)]), 0, 30)
    return head, tf.cast(tf.io.decode_raw(head, tf.uint8, fixed_length=30), tf.int32)


def _is_webp(head: tf.Tensor) -> tf.Tensor:
    return (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")


def _colour(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded image → uint8 (h, w, 3)."""

    def without_alpha() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=4, expand_animations=False)[..., :3]

    # WebP with transparency can be read with that only; other kinds drop it themselves.
    image = tf.cond(
        _is_clear_webp(encoded),
        without_alpha,
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _is_clear_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a WebP image has transparency and is no animation.

    Animations must only ever be asked for with three channels, which is refused: with others,
    TensorFlow 2.20 can write beyond its memory.
    """
    head, data = _head(encoded)
    kind, flags = tf.strings.substr(head, 12, 4), data[20]
    extended = (kind == b"VP8X") & (flags // 16 % 2 == 1) & (flags // 2 % 2 == 0)
    lossless = (kind == b"VP8L") & (data[24] // 16 % 2 == 1)
    return _is_webp(head) & (extended | lossless)


def _within_bounds(shape: tf.Tensor) -> tf.Operation:
    """Fails where a declared shape has more than `MOST_PIXELS`."""
    pixels = tf.reduce_prod(tf.cast(shape[:2], tf.int64))
    return tf.debugging.Assert(pixels <= MOST_PIXELS, [_TOO_LARGE, shape[:2]])


def _number(octets: tf.Tensor) -> tf.Tensor:
    """Four bytes, the highest first; what is beyond int32 becomes its largest."""
    high = tf.minimum(octets[0], 127)
    low = (octets[1] * 256 + octets[2]) * 256 + octets[3]
    return tf.where(octets[0] > 127, tf.int32.max, high * (1 << 24) + low)


def _little(octets: tf.Tensor) -> tf.Tensor:
    """Two or three bytes, the lowest first."""
    return tf.reduce_sum(octets * tf.constant([1, 1 << 8, 1 << 16][: octets.shape[0]]))


def read_image(path: str, decoder: Decoder, field: str = "data") -> np.ndarray:
    """Reads an image file as every part of the project does; uint8 (height, width, channels).

    Args:
      path: of the file.
      decoder: to which size.
      field: for messages.

    Raises:
      NeasError: names the file, when it cannot be read or decoded.
    """
    what = no_file(path)
    if what:
        raise NeasError(f"{field}: {path!r} cannot be read: it is no file ({what}).")
    try:
        return decoder.fixed(tf.io.read_file(os.fsencode(path))).numpy()
    except (tf.errors.OpError, UnicodeDecodeError):  # the latter of messages about odd names
        raise NeasError(f"{field}: {path!r} cannot be decoded.") from None


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Rounds to the nearest grey level of 0..255."""
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
