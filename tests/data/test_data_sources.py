"""Opening each kind of source, and what is said when it cannot be opened."""

import dataclasses
import gzip
import os
import shutil

import image_files
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.data import DataConfig
from neas_tf.data.reading.sources import count_records


def folder_config(root, **fields):
    return DataConfig(
        **{
            "source": "image_folder",
            "data_dir": str(root),
            "input_size": [16, 16],
            "search_fraction": 0.2,
            **fields,
        }
    )


def record_config(root, **fields):
    values = {
        "source": "tfrecord",
        "data_dir": str(root),
        "train_pattern": image_files.records(root, "train", 3, 10),
        "test_pattern": image_files.records(root, "test", 1, 7),
        "input_size": [16, 16],
        "num_classes": 3,
        "search_fraction": 0.2,
    }
    return DataConfig(**{**values, **fields})


def grey_level(info, part):
    """Mean grey level of each image of a part, and its label."""
    images, labels = data.make_arrays(info, part, 0, 0)
    images = images * np.float32(info.normalisation.std) + np.float32(info.normalisation.mean)
    return 255 * images.mean((1, 2, 3)), labels


def test_digits():
    info = data.load(DataConfig())
    assert info.sizes == {"train": 1437, "test": 360, "supernet": 1293, "search": 144}
    assert info.input_shape == (8, 8, 1)
    assert info.class_names == tuple("0123456789")
    images, labels = data.make_arrays(info, "train", 0, 0)
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01
    assert np.bincount(labels).min() >= 139


def test_digits_parts_are_disjoint():
    info = data.load(DataConfig(search_fraction=0.3, split_seed=5))
    supernet, search = (info.parts[name].indices for name in ("supernet", "search"))
    assert sorted([*supernet, *search]) == list(range(1437))
    counts = np.bincount(info.parts["search"].labels)
    assert counts.max() - counts.min() <= 2
    other = data.load(DataConfig(search_fraction=0.3, split_seed=6))
    assert info.describe()["search_indices_sha256"] != other.describe()["search_indices_sha256"]
    np.testing.assert_array_equal(info.parts["test"].labels, other.parts["test"].labels)


def test_digits_resized_and_coloured():
    info = data.load(DataConfig(input_size=[12, 10], input_channels=3, mean=[0] * 3, std=[1] * 3))
    images, _ = data.make_arrays(info, "test", 5, 0)
    assert images.shape == (5, 12, 10, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    assert images.min() >= 0
    assert 0.9 < images.max() <= 1


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_folder(tmp_path, cache, test_folder):
    image_files.folder(tmp_path, test=test_folder)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    info = data.load(folder_config(tmp_path, cache=cache))
    assert info.class_names == ("cat", "dog", "owl")
    assert info.in_memory == (cache == "memory")
    assert info.sizes == {"train": 18, "test": 9, "supernet": 14, "search": 4}
    level, labels = grey_level(info, "test")
    np.testing.assert_array_equal(np.bincount(labels), [3, 3, 3])
    np.testing.assert_allclose(level, 40 + 60 * labels, atol=4)


def test_folder_in_grey(tmp_path):
    info = data.load(folder_config(image_files.folder(tmp_path), input_channels=1))
    assert info.input_shape == (16, 16, 1)
    level, labels = grey_level(info, "train")
    np.testing.assert_allclose(level, 40 + 60 * labels, atol=4)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_damaged_images_are_counted_and_left_out(tmp_path, cache):
    image_files.folder(tmp_path)
    (tmp_path / "train" / "dog" / "001.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "test" / "owl" / "000.png").write_bytes(b"")
    info = data.load(folder_config(tmp_path, cache=cache))
    images, labels = data.make_arrays(info, "train", 0, 0)
    assert len(images) == len(labels) == 17
    seen = [y for _, ys in data.make_dataset(info, "test", 4, False) for y in ys.numpy()]
    assert np.bincount(seen).tolist() == [3, 3, 2]
    if cache == "memory":
        assert info.skipped == {"train": 1, "test": 1}
        assert info.sizes["train"] == 17
    else:  # training puts grey in their place
        taken = data.make_dataset(info, "train", 18, True).take(1)
        images, labels = next(taken.as_numpy_iterator())
        assert np.bincount(labels).tolist() == [6, 6, 6]
        assert (np.ptp(images, (1, 2)).max(-1) == 0).sum() == 1
        for path in tmp_path.glob("test/*/*"):
            path.write_bytes(b"nothing")
        with pytest.raises(tf.errors.InvalidArgumentError, match="data: no image of a batch"):
            list(data.make_dataset(info, "test", 4, False))


def test_all_damaged(tmp_path):
    image_files.folder(tmp_path, per_class=2)
    for path in tmp_path.glob("train/*/*.*"):
        path.write_bytes(b"nothing")
    with pytest.raises(NeasError, match="none of 6 images can be decoded"):
        data.load(folder_config(tmp_path))


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("offset", [0, 1])
def test_records(tmp_path, cache, offset):
    config = record_config(tmp_path, cache=cache, label_offset=offset)
    if offset:
        image_files.records(tmp_path, "train", 3, 10, first_label=1)
        image_files.records(tmp_path, "test", 1, 7, first_label=1)
    info = data.load(config)
    assert info.sizes == {"train": 30, "test": 7, "supernet": 24, "search": 6}
    assert info.in_memory == (cache == "memory")
    for part in ("supernet", "search", "test"):
        level, labels = grey_level(info, part)
        assert len(labels) == info.sizes[part]
        np.testing.assert_allclose(level, 40 + 60 * labels, atol=4)
    _, labels = data.make_arrays(info, "train", 12, 0)
    assert np.bincount(labels).tolist() == [4, 4, 4]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_records_with_more_classes_than_said(tmp_path, cache):
    config = record_config(tmp_path, cache=cache, num_classes=2)
    with pytest.raises(NeasError, match=r"data.num_classes: received 2"):
        data.load(config)
    if cache == "none":  # as beyond the records that are looked at before
        info = data.load(config.replace(num_classes=3))
        info = dataclasses.replace(info, class_names=("0", "1"))
        with pytest.raises(NeasError, match=r"data.num_classes: received 2"):
            data.make_arrays(info, "train", 30, 0)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"outside 0\.\.1"):
            list(data.make_dataset(info, "train", 8, True).take(1))


def test_counting_records(tmp_path):
    image_files.records(tmp_path, "train", 1, 5)
    path = next(tmp_path.glob("train-*"))
    assert count_records(str(path)) == 5
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(NeasError, match="no whole uncompressed TFRecord file"):
        count_records(str(path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_dir": "{}/nowhere"}, "there is no folder '.*nowhere'"),
        ({"num_classes": 4}, "data.num_classes: received 4, expected 0 or 3"),
        ({"class_names": ["a"]}, "data.class_names"),
        ({"input_size": []}, "data.input_size"),
        ({"search_fraction": 0.01}, "data.search_fraction"),
        ({"mean": [0.5]}, "data.mean"),
        (
            {"input_channels": 1, "augment": "crop_flip", "rand_augment": 1},
            "data.input_channels",
        ),
    ],
)
def test_folder_that_does_not_fit(tmp_path, change, words):
    image_files.folder(tmp_path)
    change = {k: v.format(tmp_path) if isinstance(v, str) else v for k, v in change.items()}
    with pytest.raises(NeasError, match=words):
        data.load(folder_config(tmp_path, **change))


def test_folders_that_lack_something(tmp_path):
    image_files.folder(tmp_path)
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(NeasError, match=r"test/cow .* is no class of train/, which has cat, dog"):
        data.load(folder_config(tmp_path))
    shutil.rmtree(tmp_path / "test" / "cow")
    for path in tmp_path.glob("test/*/*"):
        path.unlink()
    with pytest.raises(NeasError, match="test' holds no image"):
        data.load(folder_config(tmp_path))
    shutil.rmtree(tmp_path / "test")
    assert data.load(folder_config(tmp_path)).sizes["test"] == 3  # some of each class of train/
    with pytest.raises(NeasError, match=r"has no test pictures of its own"):
        data.load(folder_config(tmp_path, test_fraction=0.0))


def test_pattern_without_files(tmp_path):
    with pytest.raises(NeasError, match=r"data.test_pattern: received 'val-\*'"):
        data.load(record_config(tmp_path, test_pattern="val-*"))
    with pytest.raises(NeasError, match=r"data.num_classes"):
        data.load(record_config(tmp_path, num_classes=0))


def test_class_names_can_be_replaced(tmp_path):
    image_files.folder(tmp_path)
    assert data.load(folder_config(tmp_path, class_names=["K", "H", "E"])).class_names == (
        "K",
        "H",
        "E",
    )


def test_empty_part():
    info = data.load(DataConfig(search_fraction=0.0))
    assert info.sizes["search"] == 0
    assert info.sizes["supernet"] == info.sizes["train"]
    with pytest.raises(NeasError, match=r"data.search_fraction"):
        data.make_dataset(info, "search", 8, False)
    with pytest.raises(NeasError, match=r"part: .*Did you mean 'search'"):
        info.part("serch")


@pytest.fixture
def log(monkeypatch):
    """Lines that are warned of."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


def test_all_kinds_of_names_and_sub_folders_are_read(tmp_path, log):
    cat = image_files.folder(tmp_path) / "train" / "cat"
    for path, name in zip(
        sorted(cat.glob("*.jpg")), ["day/1/a.JPE", "b.jfif", "c.Jpeg"], strict=True
    ):
        (cat / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(cat / name)
    os.rename(cat / "000.png", os.fsencode(cat) + b"/caf\xe9.png")
    (cat / "here").symlink_to(".")
    (cat / "up").symlink_to("../..")
    info = data.load(folder_config(tmp_path, cache="none"))
    assert info.sizes["train"] == 18
    assert [path.rsplit("/", 1)[1] for path in info.part("train").store.paths[:6]] == [
        *("002.png", "004.png", "b.jfif", "c.Jpeg", "caf\udce9.png", "a.JPE")
    ]
    levels, labels = grey_level(info, "train")
    np.testing.assert_allclose(levels, 40 + 60 * labels, atol=4)
    (line,) = log
    assert "2 links to folders already read" in line


def test_what_is_not_read_is_said(tmp_path, log):
    train = image_files.folder(tmp_path) / "train"
    for name in ("a.tiff", "b.HEIC", "._c.jpg", "Thumbs.db", ".DS_Store", "plain"):
        (train / "cat" / name).write_bytes(b"x")
    (train / "loose.jpg").write_bytes(b"x")
    for name in (".git", "__MACOSX", "cat/.thumbnails"):
        (train / name).mkdir()
    (train / "all").symlink_to(".")
    (train / "gone").symlink_to("nowhere")
    shutil.copytree(tmp_path / "test", tmp_path / "val")
    (tmp_path / "validation" / "cat").mkdir(parents=True)
    info = data.load(folder_config(tmp_path))
    assert info.class_names == ("cat", "dog", "owl") and info.sizes["train"] == 18
    first, second, third = log
    assert "val is the validation; validation is not read" in first
    assert "5 more that are no classes" in second
    for name in ("loose.jpg", ".git (hidden)", "__MACOSX", "all (a link", "gone (a link to noth"):
        assert name in second
    assert "5 files or folders are not read" in third
    for kind in ("1 .tiff", "1 .heic", "1 hidden,", "1 hidden folders", "1 without an ending"):
        assert kind in third


def test_class_folders_whose_names_are_nearly_the_same(tmp_path, log):
    image_files.folder(tmp_path, classes=("caf\u00e9", "Dog", "dog"))
    (tmp_path / "test" / "caf\u00e9").rename(tmp_path / "test" / "cafe\u0301")
    info = data.load(folder_config(tmp_path))  # as a Mac writes it
    assert info.class_names == ("Dog", "caf\u00e9", "dog") and info.sizes["test"] == 9
    assert sum("differ in case only" in line and "Dog and dog" in line for line in log) == 2
    (tmp_path / "train" / "cafe\u0301").mkdir()
    with pytest.raises(NeasError, match="differ in their Unicode form only"):
        data.load(folder_config(tmp_path))
    (tmp_path / "train" / "cafe\u0301").rmdir()
    (tmp_path / "test" / "Dog").rename(tmp_path / "test" / "DOG")
    with pytest.raises(NeasError, match=r"test/DOG .* is no class .*'Dog' differs in case only"):
        data.load(folder_config(tmp_path))
    os.mkdir(os.fsencode(tmp_path / "train") + b"/caf\xe9")
    with pytest.raises(NeasError, match="a name that is no UTF-8"):
        data.load(folder_config(tmp_path))


def test_a_folder_of_loose_images_has_no_classes(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.png").write_bytes(b"x")
    with pytest.raises(NeasError, match=r"train' holds no folder but 'a.png'; expected one folder"):
        data.load(folder_config(tmp_path))


def test_data_dir_is_no_glob(tmp_path):
    (root := tmp_path / "shards[1]*").mkdir()
    assert data.load(record_config(root)).sizes["train"] == 30
    with pytest.raises(NeasError, match=r"data.data_dir: there is no folder .*data_dir is no glob"):
        data.load(record_config(root, data_dir=f"{tmp_path}/sh*"))


def test_patterns_say_what_they_match_beside_record_files(tmp_path, log):
    config = record_config(tmp_path, train_pattern="train-*, ,train-00001*,")
    (tmp_path / "train-old").mkdir()
    (tmp_path / "train-empty").write_bytes(b"")
    (tmp_path / "train-link").symlink_to("train-00000-of-00003")
    assert data.load(config).sizes["train"] == 30
    folders, again, empty = log
    assert "1 of what it matches are folders" in folders and "train-old" in folders
    assert "2 of what it matches are there already" in again and "train-link" in again
    assert "1 of 4 files hold no record" in empty and "train-empty" in empty
    for pattern, words in (
        ("train-*,more-*", "received 'more-\\*'"),
        (" , ", "data.train_pattern: received ' , '; expected globs"),
        ("train-old", "matches folders only"),
    ):
        with pytest.raises(NeasError, match=words):
            data.load(config.replace(train_pattern=pattern))
    os.mkfifo(tmp_path / "train-pipe")
    with pytest.raises(NeasError, match=r"train-pipe' is no file \(a pipe\)"):
        data.load(config)


def test_records_in_training_and_test_are_warned_of(tmp_path, log):
    config = record_config(tmp_path)
    assert data.load(config, test_only=True).sizes == {"test": 7} and not log
    data.load(config.replace(test_pattern="t*-00000*"))
    (line,) = log
    assert "training and test at once" in line and "train-00000-of-00003" in line
    assert "test-00000" not in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(bytes(100), mtime=0), "compressed with gzip"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "it is a PNG image"),
        (b"<html></html>" * 9, "goes beyond its end"),
        (bytes(160), r"the records are damaged \(corrupted record at 0.*train-bad"),
    ],
)
def test_files_that_hold_no_records(tmp_path, content, words):
    config = record_config(tmp_path, cache="none")
    (tmp_path / "train-bad").write_bytes(content)
    with pytest.raises(NeasError, match=words):
        data.load(config)
