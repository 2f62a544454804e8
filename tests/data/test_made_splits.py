"""Folders of classes without a test part; weights of classes."""

import shutil

import numpy as np
import pytest
from image_files import folder, records

from neas_tf import data
from neas_tf.commands.evaluate import data_config
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.data import splits
from neas_tf.data.data_config import DataConfig
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage


@pytest.fixture
def photos(tmp_path):
    """<class>/*: 10 pictures of each class, 5 of the last."""
    root = folder(tmp_path / "made", per_class=10)
    shutil.rmtree(root / "test")
    (root / "train").rename(tmp_path / "photos")
    for path in sorted((tmp_path / "photos" / "owl").iterdir())[5:]:
        path.unlink()
    return tmp_path / "photos"


def opened(root, **settings):
    config = {"source": "image_folder", "data_dir": str(root), "input_size": [8, 8], **settings}
    return data.load(DataConfig(**config))


def paths(info, part):
    files = opened(info.config.data_dir, cache="none", split_seed=info.config.split_seed)
    return set(files.parts[part].store.paths)


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_folder_of_classes_is_divided(photos, inside, caplog):
    root = photos
    if inside:
        root = photos.parent / "with_train"
        root.mkdir()
        photos.rename(root / inside)
    info = opened(root)
    assert np.bincount(info.parts["test"].labels).tolist() == [2, 2, 1]
    assert np.bincount(info.parts["train"].labels).tolist() == [8, 8, 4]
    assert info.class_names == ("cat", "dog", "owl")
    assert "5 of its 25 pictures, the same share of each class, are held out" in caplog.text
    test, train = paths(info, "test"), paths(info, "train")
    assert not test & train and len(test | train) == 25
    assert paths(opened(root), "test") == test
    assert paths(opened(root, split_seed=1), "test") != test
    assert opened(root).describe() == info.describe()


def test_a_class_may_be_called_train_or_test(photos):
    (photos / "cat").rename(photos / "train")
    (photos / "dog").rename(photos / "test")
    assert opened(photos).class_names == ("owl", "test", "train")


@pytest.mark.parametrize(
    "counts, said",
    [
        ({"owl": 3}, r"holds one folder, 'owl'; expected one for each of two classes or more"),
        ({"owl": 1, "cat": 1}, r"has more than one picture; expected two of a class at least"),
    ],
)
def test_what_cannot_be_divided(photos, counts, said):
    for path in photos.rglob("*.*"):
        if int(path.stem) >= counts.get(path.parent.name, 0):
            path.unlink()
    for name in ("cat", "dog", "owl"):
        if name not in counts:
            (photos / name).rmdir()
    with pytest.raises(NeasError, match=said):
        opened(photos)


def test_two_pictures_of_a_class_are_one_for_each_part(photos):
    for path in photos.rglob("*.*"):
        if int(path.stem) >= 2:
            path.unlink()
    sizes = opened(photos, search_fraction=0.34).sizes
    assert sizes == {"train": 3, "test": 3, "supernet": 2, "search": 1}


def test_evaluation_of_a_run_takes_its_own_test_and_of_another_folder_all(photos):
    space = SearchSpace(
        input_size=(8, 8), num_classes=3, stages=(Stage(8, 2, 1),), min_split=0, max_split=2
    )
    names, norm = ("cat", "dog", "owl"), Normalisation((0.5,) * 3, (0.25,) * 3)
    info = LoadedInfo(Architecture(0, (("k3e4", "k3e4"),)), space, names, norm)
    run = photos.parent / "run"
    run.mkdir()
    settings = f"source: image_folder, data_dir: {photos}, test_fraction: 0.2, split_seed: 0"
    (run / "params.yaml").write_text(f"data: {{{settings}}}\n")
    own = data.load(data_config(info, run, [], []), test_only=True)
    assert own.sizes["test"] == 5
    other = data_config(info, None, [], [f"source=image_folder,data_dir='{photos}'"])
    assert data.load(other, test_only=True).sizes["test"] == 25


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("none", None),
        ("balanced", [25 / 30, 25 / 30, 25 / 15]),
        ({"owl": 3.0}, [25 / 35, 25 / 35, 75 / 35]),
        ({"cat": 0, "owl": 0}, [0, 2.5, 0]),
    ],
)
def test_weights_have_a_mean_of_one(setting, expected):
    counts = np.array([10, 10, 5])
    weights = splits.loss_weights(counts, ("cat", "dog", "owl"), setting)
    if expected is None:
        assert weights is None
    else:
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
        assert (weights * counts).sum() == pytest.approx(25)


def test_weights_of_records_are_counted_by_reading_them(tmp_path):
    patterns = {f"{name}_pattern": records(tmp_path, name, 2, 4) for name in ("train", "test")}
    common = {"source": "tfrecord", "data_dir": str(tmp_path), "num_classes": 3, **patterns}
    config = DataConfig(**common, input_size=[8, 8], cache="none", class_weights="balanced")
    info = data.load(config)
    counts = np.array([3, 3, 2])  # labels 0, 1, 2, 0, …
    np.testing.assert_allclose(data.class_weights(info, "train"), 8 / 3 / counts, rtol=1e-6)


@pytest.mark.parametrize(
    "setting, said",
    [
        ("fair", "data.class_weights: unknown name 'fair'"),
        ({"owl": -1}, "expected none, balanced or {name of a class: weight of 0 or more}"),
        ({"owl": "much"}, "expected none, balanced or"),
        ([1, 2, 3], "expected none, balanced or"),
        ({"ow": 2}, "Did you mean 'owl'"),
        ({"cat": 0, "dog": 0, "owl": 0}, "expected a weight above 0"),
    ],
)
def test_wrong_weights(photos, setting, said):
    with pytest.raises(NeasError, match=said):
        opened(photos, class_weights=setting)
