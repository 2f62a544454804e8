import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from small_ensembles import ENSEMBLES, SPACE

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.images import open_data, representative_images, test_pixels, training_pixels
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

test_pixels.__test__ = False
INFO = LoadedInfo(ENSEMBLES["two_paths"], SPACE, tuple("abcde"), Normalisation())


@pytest.fixture
def digits():
    space = SearchSpace(
        name="digits",
        input_size=(8, 8),
        input_channels=1,
        num_classes=10,
        stages=(Stage(8, 2, 1),),
        min_split=0,
        max_split=2,
    )
    architecture = Architecture(2, (("k3e4", "k3e4"),))
    return LoadedInfo(architecture, space, tuple("0123456789"), Normalisation((0.3,), (0.4,)))


def write_image(path, value, size=(30, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = tf.fill((*size, 3), tf.constant(value, tf.uint8))
    path.write_bytes(tf.io.encode_png(image).numpy())


def test_the_runs_own_data(digits, tmp_path):
    (tmp_path / "params.yaml").write_text("data: {source: digits, search_fraction: 0.2}\n")
    images = representative_images("run", digits, 20, model_dir=str(tmp_path))
    assert images.shape == (20, 8, 8, 1) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 255 and np.all(images == images.round())
    dataset = open_data("run", digits, str(tmp_path))
    assert dataset.normalisation.mean == (0.3,)
    pixels, labels = test_pixels(dataset, 300, digits)
    assert pixels.shape == (300, 8, 8, 1) and labels.shape == (300,)
    stored = tf.gather(dataset.part("test").store.images, range(300))
    np.testing.assert_array_equal(pixels, stored)
    np.testing.assert_array_equal(labels, dataset.part("test").labels[:300])
    assert len(test_pixels(dataset, 10**6, digits)[1]) == 360
    assert len(np.unique(training_pixels(dataset, 10).reshape(10, -1), axis=0)) == 10


def test_classes_must_be_the_models(digits, tmp_path):
    (tmp_path / "params.yaml").write_text("data: {source: digits}\n")
    dataset = open_data("run", digits, str(tmp_path))
    with pytest.raises(NeasError, match="evaluate"):
        test_pixels(dataset, 5, INFO)


def test_any_folder_of_images(tmp_path):
    for i in range(5):
        write_image(tmp_path / "a" / f"{i}.png", 50 * i)
    (tmp_path / "notes.txt").write_text("no image")
    images = representative_images(str(tmp_path), INFO, 3)
    assert images.shape == (3, 24, 20, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 100, 200])


def test_a_folder_with_classes(tmp_path):
    for part in ("train", "test"):
        for name in "abcde":
            write_image(tmp_path / part / name / "0.png", 10 if part == "train" else 20)
    images = representative_images(str(tmp_path), INFO, 8)
    assert images.shape == (5, 24, 20, 3) and np.all(images == 10)
    pixels, labels = test_pixels(open_data(str(tmp_path), INFO), 8, INFO)
    assert np.all(pixels == 20) and sorted(labels) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("files", "values"),
    [
        (["train/a/0.png", "train/b/1.png"], [0, 50]),
        (["test/a/0.png"], [0]),
        (["train/a/0.png", "test/a/1.png", "2.png"], [0]),
        (["images/train/0.png", "images/val/1.png", "labels/train/0.txt"], [0]),
        (["train/notes.txt", "other/deep/er/1.png"], [50]),
        (["a/.hidden.png", ".cache/1.png", "__MACOSX/2.png", "b/3.PNG"], [150]),
    ],
)
def test_folders_laid_out_in_any_way(files, values, tmp_path):
    for number, name in enumerate(files):
        if name.endswith("txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("0 0.5 0.5 1 1")
        else:
            write_image(tmp_path / name, 50 * number)
    images = representative_images(str(tmp_path), INFO, 8)
    assert images[:, 0, 0, 0].tolist() == values


def test_what_is_no_picture_is_made_up_for(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", 50 * i)
    (tmp_path / "0.png").write_bytes(b"no image")
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:40])
    (tmp_path / "dir.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "round").symlink_to(tmp_path)
    os.rename(tmp_path / "2.png", os.fsencode(tmp_path) + b"/2\xff.png")
    assert representative_images(str(tmp_path), INFO, 3)[:, 0, 0, 0].tolist() == [100, 50, 150]


def test_pixels_are_taken_as_stored(tmp_path):
    """EXIF's orientation 6 (lying on a side) turns nothing, as in training."""
    picture = np.zeros((24, 20, 3), np.uint8)
    picture[:12] = 255
    jpeg = tf.io.encode_jpeg(picture, quality=100, chroma_downsampling=False).numpy()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "x.jpg").write_bytes(jpeg[:2] + marker + jpeg[2:])
    image = representative_images(str(tmp_path), INFO, 1)[0]
    assert image[:10].min() > 240 and image[-10:].max() < 15


def test_missing_data_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"no image")
    for name, message in (
        ("run", "model_dir"),
        (str(tmp_path / "empty"), "holds no image"),
        (str(tmp_path / "bad"), "cannot be decoded"),
        ("no_such_set", "no_such_set"),
    ):
        with pytest.raises(NeasError, match=message):
            representative_images(name, INFO, 4, data_dir=str(tmp_path))
    with pytest.raises(NeasError, match=r"params\.yaml"):
        representative_images("run", INFO, 4, model_dir=str(tmp_path))


def test_classes_in_another_order_are_refused(digits, tmp_path):
    (tmp_path / "params.yaml").write_text("data: {source: digits}\n")
    dataset = open_data("run", digits, str(tmp_path))
    names = (*digits.class_names[1:], "0")
    with pytest.raises(NeasError, match="another order"):
        test_pixels(dataset, 5, dataclasses.replace(digits, class_names=names))


def test_data_of_a_run_that_have_changed_are_refused(digits, tmp_path):
    (tmp_path / "params.yaml").write_text("data: {source: digits}\n")
    record = open_data("run", digits, str(tmp_path)).describe()
    (tmp_path / "data.json").write_text(json.dumps(record))
    open_data("run", digits, str(tmp_path))
    record["classes"][3] = "three"
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises(NeasError, match="class 3 was 'three', is '3'"):
        open_data("run", digits, str(tmp_path))
