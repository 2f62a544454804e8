"""Unsound configs are refused in one sentence that names the field."""

import pytest

from neas_tf.common.errors import NeasError
from neas_tf.data import DataConfig


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": "digit"}, "data.source: .*'digit'.*Did you mean 'digits'"),
        ({"augment": "crop_flop"}, "data.augment: .*Did you mean 'crop_flip'"),
        ({"cache": "disk"}, "data.cache: .*auto, memory, none"),
        ({"auto_augment": "reduced_cifar"}, "Did you mean 'reduced_cifar10'"),
        ({"source": "tfds"}, "data.name"),
        ({"source": "image_folder"}, "data.data_dir"),
        ({"source": "tfrecord", "test_pattern": "a"}, "data.train_pattern"),
        ({"input_size": [32]}, "data.input_size"),
        ({"input_size": [32, 0]}, "data.input_size"),
        ({"input_channels": 2}, "data.input_channels"),
        ({"search_fraction": 1.0}, "data.search_fraction"),
        ({"search_fraction": -0.1}, "data.search_fraction"),
        ({"search_fraction": float("nan")}, "data.search_fraction"),
        ({"std": [0.0]}, "data.std"),
        ({"crop_area": [0.5, 0.1]}, "data.crop_area"),
        ({"crop_padding": -1}, "data.crop_padding"),
        ({"rand_augment": 2}, "data.augment"),
        ({"augment": "imagenet", "rand_augment": 2, "auto_augment": "v0"}, "data.rand_augment"),
        ({"flip": "yes"}, "data.flip"),
    ],
)
def test_refused(fields, words):
    with pytest.raises(NeasError, match=words) as caught:
        DataConfig(**fields).check()
    assert str(caught.value).count("\n") == 0


def test_survives_its_dictionary():
    config = DataConfig(source="tfds", name="cifar10", input_size=[32, 32], mean=[0.5] * 3)
    again = DataConfig(**config.as_dict())
    assert again.as_dict() == config.as_dict()
    assert again.check() is again
