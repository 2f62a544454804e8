"""Records are looked at before any work: features, labels, and what the images are."""

from __future__ import annotations

import bad_images
import image_files
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.data import DataConfig
from neas_tf.data.reading import inspection

PNG = bad_images.encoded(bad_images.sound(), "PNG")


def feature(*values) -> tf.train.Feature:
    if not values or isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def sound(number: int) -> dict[str, tf.train.Feature]:
    return {"image/encoded": feature(PNG), "image/class/label": feature(number % 3)}


def write(path, records) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            if isinstance(record, dict):
                features = tf.train.Features(feature=record)
                record = tf.train.Example(features=features).SerializeToString()
            writer.write(record)


def config(root, **fields) -> DataConfig:
    values = {"source": "tfrecord", "data_dir": str(root), "train_pattern": "train-*"}
    values |= {"test_pattern": "test-*", "num_classes": 3, "input_size": [16, 16]}
    return DataConfig(**{**values, "search_fraction": 0.25, **fields})


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image/class/label": None}, "no feature 'image/class/label'.* image/encoded .bytes.[.]"),
        ({"image/class/label": feature(b"1")}, "1 bytes values in its feature 'image/class/label'"),
        ({"image/class/label": feature(1.0)}, "1 float values in its feature 'image/class/label'"),
        ({"image/class/label": feature(1, 2)}, "2 int64 values in its feature 'image/class/label'"),
        ({"image/class/label": feature()}, "0 int64 values in its feature 'image/class/label'"),
        (
            {"image/encoded": None, "image": feature(PNG)},
            r"no feature 'image/encoded'; .* the features image \(bytes\), image/class/label",
        ),
        ({"image/encoded": feature(1, 2)}, "2 int64 values in its feature 'image/encoded'"),
    ],
)
def test_features_are_named(tmp_path, changed, words, cache):
    """All records of a kind; and one among others, however late it comes."""
    record = {k: v for k, v in {**sound(0), **changed}.items() if v is not None}
    write(tmp_path / "test-0", map(sound, range(6)))
    write(tmp_path / "train-0", [record] * 12)
    with pytest.raises(NeasError, match=f"data: record 0 of .*train-0' .*{words}"):
        data.load(config(tmp_path, cache=cache))


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_what_comes_after_those_looked_at(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_RECORDS", 4)
    write(tmp_path / "test-0", map(sound, range(6)))
    write(tmp_path / "train-0", [*map(sound, range(7)), {"image/encoded": feature(PNG)}])
    if cache == "memory":
        with pytest.raises(NeasError, match=r"record 7 of .* has no feature 'image/class/label'"):
            data.load(config(tmp_path, cache=cache))
        return
    info = data.load(config(tmp_path, cache=cache))
    with pytest.raises(NeasError, match=r"record 7 of .* has no feature 'image/class/label'"):
        data.make_arrays(info, "train", 0, 0)
    with pytest.raises(NeasError, match="image/class/label"):
        list(data.batches_of(data.make_dataset(info, "train", 4, False)))


def test_what_is_no_example_or_no_image(tmp_path):
    write(tmp_path / "test-0", map(sound, range(6)))
    write(tmp_path / "train-0", [b"no example"] * 3)
    with pytest.raises(NeasError, match=r"record 0 of .* is no tf\.train\.Example"):
        data.load(config(tmp_path))
    pixels = feature(image_files.image(0, 0).tobytes())
    write(tmp_path / "train-0", [{**sound(i), "image/encoded": pixels} for i in range(3)])
    with pytest.raises(NeasError, match=r"holds 1440 bytes .*'image/encoded'.* not pixels"):
        data.load(config(tmp_path))


@pytest.mark.parametrize("test_only", [False, True])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_labels_that_are_not_told(tmp_path, cache, test_only):
    write(tmp_path / "train-0", map(sound, range(12)))
    unknown = {**sound(0), "image/class/label": feature(-1)}
    write(tmp_path / "test-0", [unknown] * 6)
    with pytest.raises(NeasError, match=r"data.test_pattern: the 6 records .* the label -1"):
        data.load(config(tmp_path, cache=cache), test_only=test_only)


def test_the_look_is_bounded_and_reaches_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "MOST_RECORDS", 8)
    for shard in range(4):
        write(tmp_path / f"train-{shard}", map(sound, range(50)))
    write(tmp_path / "test-0", map(sound, range(6)))
    seen = []
    check = inspection.check_record
    monkeypatch.setattr(
        inspection, "check_record", lambda s, c, where: seen.append(where) or check(s, c, where)
    )
    data.load(config(tmp_path, cache="none"))
    train = [where for where in seen if "train" in where]
    assert sorted(train) == sorted(
        f"record {i} of {str(tmp_path / f'train-{shard}')!r}" for shard in range(4) for i in (0, 1)
    )


def test_imagenet_is_opened_with_its_validation_split(tmp_path, monkeypatch):
    """As TFDS prepares it: 1,000 names, and a test split whose labels are not told."""
    monkeypatch.setattr(logging, "warning", lambda *_: None)
    examples = [(bad_images.encoded(bad_images.sound(i % 3), "JPEG"), i * 99) for i in range(10)]
    unknown = [(image, -1) for image, _ in examples]
    bad_images.tfds_set(
        tmp_path,
        {"train": examples, "validation": examples[:6], "test": unknown},
        classes=1000,
        name="imagenet2012",
        version="5.1.0",
    )
    settings = load_config("neas_imagenet").data.replace(data_dir=str(tmp_path))
    info = data.load(settings)
    assert info.input_shape == (224, 224, 3) and info.num_classes == 1000
    assert (info.sizes["train"], info.sizes["test"]) == (10, 6)
    (images, labels), *_ = data.make_dataset(info, "test", 6, False)
    assert images.shape == (6, 224, 224, 3)
    np.testing.assert_array_equal(labels, np.arange(6) * 99)
    with pytest.raises(NeasError, match=r"data.test_split: .* label -1.* 'validation'"):
        data.load(settings.replace(test_split="test"))
