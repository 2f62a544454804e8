"""TFDS sets that lie in the shared folder; skipped where they are not there."""

import numpy as np
import pytest

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.data import DataConfig


@pytest.fixture(scope="module")
def tfds_dir(shared_dir):
    folder = shared_dir / "data" / "tfds"
    if not (folder / "cifar10").is_dir() or not (folder / "imagenet_free_mini").is_dir():
        pytest.skip("no TFDS data sets in the shared folder")
    return str(folder)


def mini(tfds_dir, **fields):
    values = {
        "source": "tfds",
        "name": "imagenet_free_mini",
        "data_dir": tfds_dir,
        "train_split": "train[:36]",
        "test_split": "train[36:]",
        "input_size": [64, 64],
        "augment": "imagenet",
    }
    return DataConfig(**{**values, **fields})


def test_cifar10(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", tfds_dir)
    info = data.load(
        DataConfig(
            source="tfds", name="cifar10", train_split="train[:6000]", test_split="test[:9%]"
        )
    )
    assert info.sizes == {"train": 6000, "test": 900, "supernet": 5400, "search": 600}
    assert info.class_names[:3] == ("airplane", "automobile", "bird")
    assert info.input_shape == (32, 32, 3)
    images, labels = data.make_arrays(info, "train", 0, 0)
    # The first images of the usual download: frog, truck, truck, deer, automobile do not come
    # first in TFDS's order, which is shuffled; the statistics are those of the whole set.
    np.testing.assert_allclose(images.mean((0, 1, 2), dtype=np.float64), 0, atol=0.03)
    np.testing.assert_allclose(images.std((0, 1, 2), dtype=np.float64), 1, atol=0.03)
    assert np.bincount(labels).min() > 500


def test_photographs_are_streamed(tfds_dir):
    info = data.load(mini(tfds_dir))
    assert not info.in_memory
    assert info.num_classes == 1000
    assert info.sizes == {"train": 36, "test": 10, "supernet": 32, "search": 4}
    test = list(data.make_dataset(info, "test", 4, False).as_numpy_iterator())
    assert [x.shape for x, _ in test] == [(4, 64, 64, 3), (4, 64, 64, 3), (2, 64, 64, 3)]
    # The same records, read into memory, say the same.
    kept = data.load(mini(tfds_dir, cache="memory"))
    again = list(data.make_dataset(kept, "test", 4, False).as_numpy_iterator())
    for (x, y), (x2, y2) in zip(test, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


@pytest.mark.parametrize("policy", [{"rand_augment": 2}, {"auto_augment": "simple"}])
def test_policies_repeat(tfds_dir, policy):
    info = data.load(mini(tfds_dir, **policy))
    runs = [
        list(data.make_dataset(info, "supernet", 8, True, 3, start).take(3).as_numpy_iterator())
        for start in (0, 2)
    ]
    np.testing.assert_array_equal(runs[0][2][0], runs[1][0][0])
    np.testing.assert_array_equal(runs[0][2][1], runs[1][0][1])
    assert np.isfinite(runs[0][0][0]).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "cifar100"}, "not prepared in data_dir '.*'; set data_dir .* download: true"),
        ({"name": "imagenet_free_mina"}, "did you mean 'imagenet_free_mini'"),
        ({"train_split": "training"}, "data.train_split: received 'training', .* made of train"),
        ({"test_split": "train[:x%]"}, r"data.test_split: received 'train\[:x%\]'"),
        ({"test_split": "train[:0]"}, "data.test_split: .*at least one example"),
        ({"num_classes": 20}, "data.num_classes: received 20, expected 0 or 1000"),
        ({"input_size": []}, "data.input_size"),
    ],
)
def test_refused(tfds_dir, fields, words):
    with pytest.raises(NeasError, match=words) as caught:
        data.load(mini(tfds_dir, **fields))
    assert "\n" not in str(caught.value)
