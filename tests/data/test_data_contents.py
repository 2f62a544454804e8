"""That other data are noticed, and the same ones in another place are not."""

import logging
import os
import shutil

import image_files

from neas_tf import data
from neas_tf.data import DataConfig
from neas_tf.data.reading import contents


def opened(root, **changes):
    config = {"source": "image_folder", "data_dir": str(root), "input_size": [16, 16]}
    return data.load(DataConfig(**config | {"search_fraction": 0.25} | changes))


def test_the_same_data(tmp_path):
    image_files.folder(tmp_path / "photos")
    before = opened(tmp_path / "photos").describe()
    assert before["classes"] == ["cat", "dog", "owl"]
    assert before["files"]["train"]["cat"].startswith("6 files, sha256 ")
    shutil.move(tmp_path / "photos", tmp_path / "elsewhere")
    os.utime(tmp_path / "elsewhere" / "train" / "cat" / "000.png")
    assert contents.changes(before, opened(tmp_path / "elsewhere", cache="none").describe()) == []
    # What an earlier version recorded, or what somebody spoiled, is not compared.
    old = {k: v for k, v in before.items() if k not in ("classes", "files")}
    now = opened(tmp_path / "elsewhere").describe()
    for record in (old, [], None, before | {"files": 3, "classes": "x"}):
        assert contents.changes(record, now) == []


def test_what_changed(tmp_path):
    image_files.folder(tmp_path)
    before = opened(tmp_path).describe()

    def changed():
        return contents.changes(before, opened(tmp_path).describe())

    cats = tmp_path / "train" / "cat"
    (cats / "000.png").rename(cats / "0.png")
    assert changed() == ["train/cat has 6 files of other names or sizes"]
    (cats / "0.png").rename(cats / "000.png")
    a, b = cats / "000.png", tmp_path / "train" / "dog" / "000.png"
    content = a.read_bytes(), b.read_bytes()
    assert len(content[0]) != len(content[1])
    a.write_bytes(content[1])
    assert changed() == ["train/cat has 6 files of other names or sizes"]
    a.write_bytes(content[0])
    shutil.copy(b, cats / "new.png")
    assert changed() == ["train/cat had 6 files, has 7 files"]
    (cats / "new.png").unlink()
    assert changed() == []
    for part in ("train", "test"):
        (tmp_path / part / "cat").rename(tmp_path / part / "zebra")
    assert changed()[:2] == ["class 0 was 'cat', is 'dog'", "class 1 was 'dog', is 'owl'"]
    assert "train/cat is gone (6 files)" in changed()
    assert "test/zebra is new (3 files)" in changed()


def test_fewer_classes_and_another_held_out_part():
    now = {"sizes": {"search": 3}, "split_seed": 0, "search_indices_sha256": "a"}
    now |= contents.contents(["cat", "dog"], {})
    assert contents.changes(now | {"search_indices_sha256": "b"}, now) == [
        "other images are held out for the search"
    ]
    assert contents.changes(now | {"split_seed": 1, "search_indices_sha256": "b"}, now) == []
    assert contents.changes({"classes": ["cat", "dog", "owl"]}, now) == [
        "there were 3 classes, are 2: lost 'owl'"
    ]


def test_records(tmp_path):
    for part in ("train", "test"):
        image_files.records(tmp_path, part, 2, 6)

    def described():
        config = DataConfig(source="tfrecord", data_dir=str(tmp_path), num_classes=3)
        config = config.replace(train_pattern="train-*", test_pattern="test-*")
        return data.load(config.replace(input_size=[16, 16], cache="none")).describe()

    before = described()
    assert before["files"]["train"]["train-00000-of-00002"].startswith("6 records, ")
    (tmp_path / "train-00001-of-00002").rename(tmp_path / "train-x")
    assert contents.changes(before, described()) == [
        f"train/train-00001-of-00002 is gone ({before['files']['train']['train-00001-of-00002']})",
        f"train/train-x is new ({before['files']['train']['train-00001-of-00002']})",
    ]


def test_a_test_of_training_images(tmp_path, caplog):
    image_files.folder(tmp_path)
    with caplog.at_level(logging.WARNING):
        opened(tmp_path)
    assert "same names and sizes" not in caplog.text
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with caplog.at_level(logging.WARNING):
        opened(tmp_path)
    assert "images of 'cat', 'dog', 'owl' have the same names and sizes" in caplog.text


def test_a_picture_that_changed_its_class_in_sub_folders_of_one_name(tmp_path):
    image_files.folder(tmp_path)
    for name in ("cat", "dog"):
        folder = tmp_path / "train" / name / "day1"
        folder.mkdir()
        shutil.copy(tmp_path / "train" / name / "000.png", folder / f"{name}.png")
    before = opened(tmp_path).describe()
    shutil.move(
        tmp_path / "train" / "cat" / "day1" / "cat.png", tmp_path / "train" / "dog" / "day1"
    )
    found = contents.changes(before, opened(tmp_path).describe())
    assert found == [
        "train/cat/day1 is gone (1 file)",
        "train/dog/day1 had 1 file, has 2 files",
    ]
