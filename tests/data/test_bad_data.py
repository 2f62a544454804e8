"""Every kind of bad data has one defined result: it is read, left out and counted, or named."""

from __future__ import annotations

import os

import bad_images
import image_files
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.data import DataConfig
from neas_tf.data.reading.decoding import MOST_PIXELS, Decoder

DECODABLE, DAMAGED = bad_images.decodable(), bad_images.damaged()


def folder_config(root, **fields):
    values = {"source": "image_folder", "data_dir": str(root), "input_size": [16, 16]}
    return DataConfig(**{**values, "search_fraction": 0.2, **fields})


def tfds_config(root, **fields):
    values = {"source": "tfds", "name": "small", "data_dir": str(root), "input_size": [16, 16]}
    return DataConfig(**{**values, "search_fraction": 0.2, **fields})


def good(count, first=0):
    return [
        (bad_images.encoded(bad_images.sound(i % 3, first + i), "PNG"), i % 3) for i in range(count)
    ]


def level(image) -> float:
    return float(np.mean(image, dtype=np.float64))


@pytest.fixture
def log(monkeypatch):
    """Lines that are warned of."""
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.mark.parametrize("name", DECODABLE)
@pytest.mark.parametrize("channels", [1, 3])
def test_unusual_images_are_read(name, channels):
    """Grey, CMYK, 16 bits, alpha, palette; by content, not by name; a GIF's first frame."""
    image = Decoder(16, 16, channels).fixed(tf.constant(DECODABLE[name])).numpy()
    assert image.shape == (16, 16, channels)
    assert abs(level(image) - 100) < 4
    seed = tf.constant([1, 2], tf.int64)
    crop = Decoder(16, 16, channels).random_crop(tf.constant(DECODABLE[name]), seed, (0.5, 1.0))
    assert crop.shape == (16, 16, channels) and abs(level(crop) - 100) < 6


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("crop", [False, True])
def test_damaged_images_are_errors_of_their_own(name, crop):
    """Of the kind that the readers count; also where only a part is decoded."""
    decoder, image = Decoder(16, 16, 3), tf.constant(DAMAGED[name])
    with pytest.raises(tf.errors.InvalidArgumentError):
        if crop:
            decoder.random_crop(image, tf.constant([1, 2], tf.int64), (0.08, 1.0))
        else:
            decoder.fixed(image)


def test_what_is_too_large_is_not_unpacked():
    """The limit is on what a header says; below it sizes do not matter."""
    bombs = [DAMAGED[name] for name in ("bomb.png", "bomb_gif.jpg", "bomb.jpg")]
    for bomb in (*bombs, bad_images.webp_bomb()):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            Decoder(16, 16, 3).fixed(tf.constant(bomb))
    large = bad_images.encoded(np.full((3000, 2000, 3), 77, np.uint8), "PNG")
    assert MOST_PIXELS > 3000 * 2000
    assert abs(level(Decoder(16, 16, 3).fixed(tf.constant(large))) - 77) < 1


def test_exif_rotation_is_not_applied():
    """As in TensorFlow and Model Garden: pixels are taken as they are stored."""
    image = Decoder(32, 16, 3).fixed(tf.constant(bad_images.rotated())).numpy()
    assert image[:12].max() < 60 and image[20:].min() > 180


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_exif_rotation_is_said_once(tmp_path, cache, log):
    image_files.folder(tmp_path)
    for part in ("train", "test"):
        (tmp_path / part / "dog" / "turned.jpg").write_bytes(bad_images.rotated())
    data.load(folder_config(tmp_path, cache=cache))
    (line,) = [text for text in log if "orientation" in text]
    assert "2 of 29 pictures looked at (of 29)" in line and "turned.jpg" in line


def test_exif_rotation_in_records_is_said(tmp_path, log):
    train = [*good(11), (bad_images.rotated(), 2)]
    bad_images.tfds_set(tmp_path, {"train": train, "test": good(6, 50)})
    data.load(tfds_config(tmp_path, cache="none"))
    (line,) = [text for text in log if "orientation" in text]
    assert "1 of 18 pictures" in line and "record 11 of" in line


def odd(name: str, folder):
    """Puts something that has an image's name and is none into a folder."""
    path = folder / "odd.jpg"
    if name == "folder":
        path.mkdir()
        (path / "inside.png").write_bytes(DECODABLE["alpha.png"])
    elif name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"dead link": "nothing", "circle": "odd.jpg", "device": "/dev/zero"}[name])


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("name", ["folder", "pipe", "dead link", "circle", "device"])
def test_what_is_no_file_is_damaged_and_never_opened(tmp_path, name, cache, log):
    odd(name, image_files.folder(tmp_path) / "train" / "dog")
    info = data.load(folder_config(tmp_path, cache=cache))
    assert info.sizes["train"] == 18 and info.skipped["train"] == 1
    (line,) = [text for text in log if "damaged" in text]
    assert "1 of 19 are damaged" in line and "odd.jpg' (a " in line
    with pytest.raises(NeasError, match=r"data.on_bad_record: .*odd.jpg"):
        data.load(folder_config(tmp_path, cache=cache, on_bad_record="stop"))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file that cannot be read")
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_file_that_cannot_be_read_is_damaged(tmp_path, cache, log):
    """Reading this one is an error of the system, whoever reads; its name is no UTF-8."""
    image_files.folder(tmp_path)
    os.symlink(b"/proc/self/mem", os.fsencode(tmp_path / "train" / "dog") + b"/caf\xe9.jpg")
    info = data.load(folder_config(tmp_path, cache=cache))
    assert len(data.make_arrays(info, "train", 0, 0)[0]) == 18
    assert any("1 of 19 are damaged" in line and r"caf\udce9.jpg" in line for line in log)
    with pytest.raises(NeasError, match=r"data.on_bad_record: .*caf\\+udce9"), data.failures():
        info = data.load(folder_config(tmp_path, cache=cache, on_bad_record="stop"))
        list(data.make_dataset(info, "train", 4, False))


def spoiled_folder(root, names=tuple(DAMAGED)):
    image_files.folder(root)
    for name in names:
        (root / "train" / "dog" / name).write_bytes(DAMAGED[name])
    return root


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_folder_skips_and_counts(tmp_path, cache, log):
    info = data.load(folder_config(spoiled_folder(tmp_path), cache=cache))
    images, labels = data.make_arrays(info, "train", 0, 0)
    assert np.bincount(labels).tolist() == [6, 6, 6] and np.isfinite(images).all()
    count = len(DAMAGED)
    assert info.skipped == ({"train": count, "test": 0} if cache == "memory" else {})
    (line,) = [text for text in log if "damaged" in text]
    assert f"{count} of {18 + count} are damaged" in line and "bomb.jpg" in line
    # So many together that batches of evaluation hold nothing else.
    seen = [int(y) for _, ys in data.make_dataset(info, "train", 3, False) for y in ys]
    assert np.bincount(seen).tolist() == [6, 6, 6]
    for _, labels in data.make_dataset(info, "train", 1, True).take(40):
        assert len(labels) == 1


def test_training_ends_where_nothing_can_be_decoded(tmp_path):
    info = data.load(folder_config(image_files.folder(tmp_path), cache="none"))
    for path in tmp_path.glob("train/*/*"):
        path.write_bytes(b"")
    with pytest.raises(NeasError, match="data: no image of a batch can be decoded"):
        for _ in data.batches_of(data.make_dataset(info, "train", 6, True).take(20)):
            pass


@pytest.mark.parametrize("cache", ["memory", "none"])
@pytest.mark.parametrize("name", ["truncated.jpg", "text.jpg", "bomb.png", "empty.png"])
def test_folder_stops_and_names(tmp_path, cache, name):
    config = folder_config(spoiled_folder(tmp_path, [name]), cache=cache, on_bad_record="stop")
    with pytest.raises(NeasError, match=rf"data.on_bad_record: .*train/dog/{name}"):
        data.make_arrays(data.load(config), "train", 0, 0)
    if cache == "none":
        info = data.load(config)
        with (
            pytest.raises(NeasError, match=f"data.on_bad_record.*train/dog/{name}"),
            data.failures(),
        ):
            for _ in data.make_dataset(info, "train", 19, True).take(2):
                pass


def test_a_file_that_goes_away_is_damaged(tmp_path):
    info = data.load(folder_config(image_files.folder(tmp_path), cache="none"))
    (tmp_path / "test" / "cat" / "000.png").unlink()
    seen = [int(y) for _, ys in data.make_dataset(info, "test", 4, False) for y in ys]
    assert np.bincount(seen).tolist() == [2, 3, 3]


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_tfds_skips_and_counts(tmp_path, cache, log):
    spoiled = [*good(12), (DAMAGED["truncated.jpg"], 1), (DAMAGED["empty.png"], 2)]
    bad_images.tfds_set(tmp_path, {"train": spoiled, "test": good(6, 50)})
    info = data.load(tfds_config(tmp_path, cache=cache))
    _, labels = data.make_arrays(info, "train", 0, 0)
    assert np.bincount(labels).tolist() == [4, 4, 4]
    assert info.skipped == ({"train": 2, "test": 0} if cache == "memory" else {})
    (line,) = [text for text in log if "damaged" in text]
    assert "2 of 14 are damaged" in line and "record 12 of" in line and "record 13 of" in line


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_tfds_stops_and_names(tmp_path, cache):
    spoiled = [*good(12), (DAMAGED["text.jpg"], 1)]
    bad_images.tfds_set(tmp_path, {"train": spoiled, "test": good(6, 50)})
    config = tfds_config(tmp_path, cache=cache, on_bad_record="stop")
    with pytest.raises(NeasError, match=r"data.on_bad_record: .*record 12 of '.*small-train"):
        data.make_arrays(data.load(config), "train", 0, 0)
    if cache == "none":
        with pytest.raises(NeasError, match="record 12 of the split"), data.failures():
            list(data.make_dataset(data.load(config), "train", 13, True).take(1))


@pytest.mark.parametrize("label", [-1, 3, 1 << 40])
def test_tfds_labels_out_of_range_are_named(tmp_path, label):
    spoiled = [*good(7), (good(1)[0][0], label)]
    bad_images.tfds_set(tmp_path, {"train": spoiled, "test": good(6)})
    with pytest.raises(NeasError, match=r"data.num_classes: .* record 7 of .* has the label"):
        data.load(tfds_config(tmp_path))
    with pytest.raises(NeasError, match=r"data.num_classes: .* record 7 of .* has the label"):
        data.load(tfds_config(tmp_path, cache="none"))


def test_damaged_records_are_refused(tmp_path):
    """A flipped bit in a record, and a description that is no description."""
    folder = bad_images.tfds_set(tmp_path, {"train": good(9), "test": good(6)})
    path = next(folder.glob("small-train*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(NeasError, match=r"data: .*the records are damaged"):
        data.load(tfds_config(tmp_path))
    with pytest.raises(NeasError, match="data: the records are damaged"), data.failures():
        info = data.load(tfds_config(tmp_path, cache="none"))
        list(data.make_dataset(info, "train", 9, True).take(1))


def test_damaged_records_and_images_together(tmp_path):
    """A broken record file is refused, whatever else is wrong: what follows the break is lost."""
    examples = [*good(5), (DAMAGED["text.jpg"], 1), *good(6, 20)]
    folder = bad_images.tfds_set(tmp_path, {"train": examples, "test": good(6)})
    path = next(folder.glob("small-train*"))
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(NeasError, match=r"the records are damaged \(corrupted record at \d+\)"):
        data.load(tfds_config(tmp_path))


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"splits": 3}', b'{"a": NaN}']
)
def test_damaged_descriptions_are_refused(tmp_path, file, content):
    folder = bad_images.tfds_set(tmp_path, {"train": good(9), "test": good(6)})
    (folder / file).write_bytes(content)
    with pytest.raises(NeasError, match=r"data\.") as caught:
        data.load(tfds_config(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_class_is_said(tmp_path, log):
    """It is no error: parts of large sets, and classes to come, are wanted at times."""
    image_files.folder(tmp_path)
    for path in tmp_path.glob("train/owl/*"):
        path.unlink()
    info = data.load(folder_config(tmp_path))
    assert info.class_names == ("cat", "dog", "owl") and info.sizes["train"] == 12
    assert "1 of 3 classes have no training image: owl." in log
    assert not any("no test image" in line for line in log)


def test_an_empty_validation_or_test_is_refused(tmp_path):
    image_files.folder(tmp_path)
    with pytest.raises(NeasError, match=r"data.search_fraction: received 0.0, which leaves no"):
        data.load(folder_config(tmp_path, search_fraction=0.0)).part("search")
    for path in tmp_path.glob("test/*/*"):
        path.unlink()
    with pytest.raises(NeasError, match="test' holds no image"):
        data.load(folder_config(tmp_path))
    bad_images.tfds_set(tmp_path / "tfds", {"train": good(9), "test": []})
    with pytest.raises(NeasError, match=r"data.test_split: .*at least one example"):
        data.load(tfds_config(tmp_path / "tfds"))


def test_one_image(tmp_path):
    """Nothing can be held out of it; without a held-out part it is a data set."""
    for part, name in (("train", "a"), ("train", "b"), ("test", "a")):
        (tmp_path / part / name).mkdir(parents=True)
    for part in ("train", "test"):
        (tmp_path / part / "a" / "0.png").write_bytes(good(1)[0][0])
    with pytest.raises(NeasError, match=r"data.search_fraction"):
        data.load(folder_config(tmp_path))
    info = data.load(folder_config(tmp_path, search_fraction=0.0))
    images, labels = next(iter(data.make_dataset(info, "train", 1, True)))
    assert images.shape == (1, 16, 16, 3) and labels.numpy().tolist() == [0]


def test_a_batch_larger_than_the_data(tmp_path):
    """Training's batches wrap around (stages refuse it, see `config/resolve`); evaluation takes all."""
    info = data.load(folder_config(image_files.folder(tmp_path)))
    images, _ = next(iter(data.make_dataset(info, "train", 40, True)))
    assert len(images) == 40
    assert [len(y) for _, y in data.make_dataset(info, "test", 40, False)] == [9]


def test_nan_is_refused(tmp_path):
    for field in ("mean", "std"):
        with pytest.raises(NeasError, match=f"data.{field}"):
            data.load(DataConfig(**{field: [float("nan")]}))
