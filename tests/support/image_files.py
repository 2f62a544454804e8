"""Makes small image folders and record files for the tests."""

import pathlib

import numpy as np
import tensorflow as tf


def image(label: int, number: int, size: tuple[int, int] = (24, 20), channels: int = 3):
    """uint8 image whose mean grey level tells its label."""
    rng = np.random.default_rng([label, number])
    noise = rng.integers(-8, 9, (*size, channels))
    return np.clip(noise + 40 + 60 * label, 0, 255).astype(np.uint8)


def folder(root: pathlib.Path, per_class: int = 6, classes=("cat", "dog", "owl"), test="test"):
    """train/<class>/*.png and *.jpg, and half as many in the test folder; returns the root."""
    for split, count in (("train", per_class), (test, per_class // 2)):
        for label, name in enumerate(classes):
            directory = root / split / name
            directory.mkdir(parents=True)
            for number in range(count):
                pixels = image(label, number + (100 if split == test else 0))
                if number % 2:
                    encoded, suffix = tf.io.encode_jpeg(pixels, quality=95), "jpg"
                else:
                    encoded, suffix = tf.io.encode_png(pixels), "png"
                (directory / f"{number:03}.{suffix}").write_bytes(encoded.numpy())
    return root


def records(root: pathlib.Path, name: str, shards: int, per_shard: int, first_label: int = 0):
    """TFRecords with Model Garden's ImageNet keys; labels 0, 1, 2, 0, …; returns the glob."""
    number = 0 if name == "train" else 999
    for shard in range(shards):
        path = str(root / f"{name}-{shard:05}-of-{shards:05}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(per_shard):
                label = number % 3
                encoded = tf.io.encode_jpeg(image(label, number, (40, 30)), quality=95).numpy()
                writer.write(example(encoded, label + first_label))
                number += 1
    return f"{name}-*"


def example(encoded: bytes, label: int) -> bytes:
    """A serialised example."""
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
