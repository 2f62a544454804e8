"""Decoding to a fixed size agrees with Model Garden's, and crops repeat."""

import os

import image_files
import numpy as np
import pytest
import tensorflow as tf
from official.vision.ops import preprocess_ops

from neas_tf.common.errors import NeasError
from neas_tf.data import policies
from neas_tf.data.reading.decoding import Decoder, read_image, to_uint8


def encoded(size, channels=3, kind="png", label=1):
    pixels = image_files.image(label, 0, size, channels)
    return {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}[kind](pixels), pixels


def test_own_size_is_left_alone():
    data, pixels = encoded((20, 16))
    np.testing.assert_array_equal(Decoder(20, 16, 3).fixed(data), pixels)


@pytest.mark.parametrize("size", [(50, 40), (41, 77), (64, 65), (33, 90)])
def test_larger_images_as_model_garden_does(size):
    data, pixels = encoded(size)
    crop = preprocess_ops.center_crop_image(tf.constant(pixels))
    expected = to_uint8(tf.image.resize(crop, [16, 16])).numpy().astype(int)
    result = Decoder(16, 16, 3, antialias=False).fixed(data).numpy().astype(int)
    assert result.shape == (16, 16, 3)
    np.testing.assert_array_equal(result, expected)


def test_smaller_images_are_kept_whole():
    data, pixels = encoded((8, 8))
    expected = to_uint8(tf.image.resize(pixels, [16, 16], antialias=True))
    np.testing.assert_array_equal(Decoder(16, 16, 3).fixed(data), expected)


def test_proportions_are_kept():
    data, pixels = encoded((40, 40))
    expected = to_uint8(tf.image.resize(pixels[10:30], [10, 20], antialias=True))
    result = Decoder(10, 20, 3, center_fraction=1.0).fixed(data)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize(("stored", "channels"), [(1, 3), (3, 1), (1, 1)])
def test_channels(kind, stored, channels):
    data, pixels = encoded((16, 16), stored, kind)
    result = Decoder(16, 16, channels).fixed(data)
    assert result.shape == (16, 16, channels)
    assert abs(float(tf.reduce_mean(tf.cast(result, tf.float32))) - pixels.mean()) < 3


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_random_crop_repeats(kind):
    data, _ = encoded((60, 50), kind=kind)
    decoder = Decoder(16, 16, 3)
    crop = lambda seed: decoder.random_crop(data, tf.constant([seed, 1], tf.int64), (0.08, 1.0))  # noqa: E731
    np.testing.assert_array_equal(crop(3), crop(3))
    assert len({crop(seed).numpy().tobytes() for seed in range(8)}) > 6


@pytest.mark.parametrize(
    "policy", [policies.rand_augment(2, 9.0, 32), policies.auto_augment("reduced_imagenet", 32)]
)
def test_policies_depend_on_the_seed_only(policy, rng):
    image = tf.constant(rng.integers(0, 256, (32, 32, 3)), tf.uint8)
    distort = tf.function(policy)
    results = [distort(image, tf.constant([seed, 0], tf.int64)).numpy() for seed in range(12)]
    again = [distort(image, tf.constant([seed, 0], tf.int64)).numpy() for seed in range(12)]
    np.testing.assert_array_equal(results, again)
    assert len({result.tobytes() for result in results}) >= 6
    assert results[0].dtype == np.uint8


def test_every_operation_runs(rng):
    image = tf.constant(rng.integers(0, 256, (32, 32, 3)), tf.uint8)
    operations = policies._Operations(32, translate=100.0, cutout=40.0)
    from official.vision.ops import augment

    for name in augment.RandAugment().available_ops:
        result = operations.apply(name, 9.0, image, tf.constant([1, 2], tf.int64))
        assert result.shape == (32, 32, 3), name
        assert result.dtype == tf.uint8, name
        assert (result.numpy() != image.numpy()).any() or name in ("AutoContrast", "Posterize"), (
            name
        )


def test_an_image_file_is_read_as_everywhere(tmp_path):
    data, pixels = encoded((24, 20))
    place = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(place, "wb") as stream:
        stream.write(data.numpy())
    np.testing.assert_array_equal(read_image(os.fsdecode(place), Decoder(24, 20, 3)), pixels)
    (tmp_path / "text.png").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe.png")
    for name, words in (("text.png", "cannot be decoded"), ("pipe.png", r"no file \(a pipe\)")):
        with pytest.raises(NeasError, match=f"images: .*{name}.*{words}"):
            read_image(str(tmp_path / name), Decoder(24, 20, 3), "images")
