"""Validation images: where they come from, and that they are no training images."""

import shutil

import image_files
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.data import DataConfig
from neas_tf.data.reading import contents

SIZES = {"train": 18, "supernet": 18, "search": 6, "test": 9}


def three_parts(root, name="val"):
    """train/, test/ and a folder of brighter images, two of each class."""
    image_files.folder(root)
    for label, kind in enumerate(("cat", "dog", "owl")):
        (root / name / kind).mkdir(parents=True)
        for number in range(2):
            encoded = tf.io.encode_png(image_files.image(label, number) + np.uint8(40))
            (root / name / kind / f"{number}.png").write_bytes(encoded.numpy())
    return root


def opened(root, **fields):
    values = {"source": "image_folder", "data_dir": str(root), "input_size": [8, 8]}
    return data.load(DataConfig(**{**values, **fields}))


def levels(info, part):
    """Mean grey level of the images of a part, and their labels."""
    images, labels = data.make_arrays(info, part, 0, 0)
    images = images * np.float32(info.normalisation.std) + np.float32(info.normalisation.mean)
    return 255 * images.mean((1, 2, 3)), labels


@pytest.mark.parametrize("name, cache", [("val", "memory"), ("validation", "none")])
def test_a_folder_with_three_parts(tmp_path, name, cache):
    info = opened(three_parts(tmp_path, name), cache=cache, search_fraction=0.3)
    assert info.sizes == SIZES and info.has_validation
    for part, brighter in (("search", 40), ("supernet", 0), ("train", 0), ("test", 0)):
        level, labels = levels(info, part)
        np.testing.assert_allclose(level, 40 + 60 * labels + brighter, atol=4)
    record = info.describe()
    assert record["search_judged_by"] == "validation images"
    assert record["search_indices_sha256"] is None and len(record["files"]["validation"]) == 3
    assert data.load(info.config, test_only=True).sizes == {"test": 9}
    shutil.rmtree(tmp_path / name / "owl")
    (change,) = contents.changes(record, opened(tmp_path, cache=cache).describe())
    assert change.startswith("validation/owl is gone (2 files")


def test_without_validation_images_the_record_says_so(tmp_path):
    record = opened(image_files.folder(tmp_path), search_fraction=0.2).describe()
    assert record["search_judged_by"] == "training images" and record["search_indices_sha256"]
    assert "validation" not in record["files"]


def test_what_a_validation_folder_may_not_be(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    image_files.folder(tmp_path)
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    opened(tmp_path)
    assert any("the training and the validation images of 'cat'" in x.lower() for x in lines)
    (tmp_path / "val" / "owl").rename(tmp_path / "val" / "Owl")
    with pytest.raises(
        NeasError, match=r"val/Owl of .* is no class of train/.*'owl' differs in ca"
    ):
        opened(tmp_path)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_records(tmp_path, cache, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    names = ("train", "test", "validation")
    patterns = {f"{name}_pattern": image_files.records(tmp_path, name, 2, 3) for name in names}
    config = DataConfig(
        source="tfrecord",
        data_dir=str(tmp_path),
        num_classes=3,
        input_size=[8, 8],
        cache=cache,
        **patterns,
    )
    info = data.load(config)
    assert info.sizes == {"train": 6, "supernet": 6, "search": 6, "test": 6} and not lines
    level, labels = levels(info, "search")
    np.testing.assert_allclose(level, 40 + 60 * labels, atol=4)
    assert data.load(config, test_only=True).sizes == {"test": 6}
    data.load(config.replace(validation_pattern="train-00001*,validation-*"))
    assert "data.validation_pattern 'train-00001*,validation-*' matches files of" in lines[0]
    with pytest.raises(NeasError, match=r"data.validation_pattern: received 'judge-\*'"):
        data.load(config.replace(validation_pattern="judge-*"))


def test_splits_of_a_tfds_set(shared_dir, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    config = DataConfig(
        source="tfds",
        name="cifar10",
        data_dir=str(shared_dir / "data" / "tfds"),
        train_split="train[:40]",
        validation_split="train[40:60]",
        test_split="test[:10]",
        cache="none",
    )
    info = data.load(config)
    assert info.sizes == {"train": 40, "supernet": 40, "search": 20, "test": 10} and not lines
    data.load(config.replace(validation_split="train[30:50]"))
    assert "data.validation_split 'train[30:50]' shares examples with" in lines[0]
