"""The registered experiments: quickstart (digits), CIFAR-10 and the paper's ImageNet recipe."""

from __future__ import annotations

from typing import Any

from official.core import exp_factory

from neas_tf.config import settings as configs
from neas_tf.config.parse import with_stage_shapes

NAMES = ("neas_quickstart", "neas_cifar10", "neas_imagenet")

_QUICKSTART: dict[str, Any] = {
    "data": {"source": "digits", "augment": "crop_flip", "flip": False, "crop_padding": 1},
    "space": {
        "name": "digits",
        "stem_stride": 1,
        "stem_channels": 16,
        "block_channels": 0,
        "stages": [[16, 2, 1], [24, 2, 2], [32, 2, 2]],
        "operators": ["k3e2", "k3e4", "k5e2", "k5e4", "skip"],
        "min_split": 2,
        "max_split": 4,
        "head_channels": 96,
        "feature_channels": 96,
    },
    "supernet": {
        "epochs": 60.0,
        "batch_size": 64,
        "warmup_epochs": 1.0,
        "trainer": {
            "optimizer_config": {"learning_rate": {"polynomial": {"initial_learning_rate": 0.3}}}
        },
    },
    "shrink": {
        "every_epochs": 20.0,
        "remove": 6,
        "num_samples": 60,
        "images": 256,
        "batch_size": 256,
        "min_pair_count": 3,
    },
    "search": {
        "population": 16,
        "parents": 5,
        "generations": 6,
        "crossover": 8,
        "mutation": 8,
        "max_macs": 700_000,
        "calibration_images": 512,
        "calibration_batch": 128,
    },
    "retrain": {
        "epochs": 40.0,
        "warmup_epochs": 2.0,
        "batch_size": 64,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
        "dropout": 0.1,
        "batch_norm_momentum": 0.9,
        "trainer": {
            "optimizer_config": {
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
                "ema": {"average_decay": 0.99, "trainable_weights_only": False},
                "learning_rate": {"cosine": {"initial_learning_rate": 0.1}},
            }
        },
    },
    "export": {"fine_tune_epochs": 20.0},  # 11 steps each
}

_CIFAR10: dict[str, Any] = {
    "data": {"source": "tfds", "name": "cifar10", "augment": "crop_flip", "crop_padding": 4},
    "space": {
        "name": "cifar10",
        "stem_stride": 1,
        "min_split": 9,
        "max_split": 20,
        "stages": [[24, 4, 1], [40, 4, 2], [80, 4, 2], [112, 4, 1], [160, 4, 2]],
    },
    "supernet": {
        "epochs": 120.0,
        "batch_size": 256,
        "trainer": {
            "optimizer_config": {"learning_rate": {"polynomial": {"initial_learning_rate": 0.1}}}
        },
    },
    "search": {"max_macs": 80_000_000},
    "retrain": {
        "epochs": 200.0,
        "warmup_epochs": 5.0,
        "batch_size": 256,
        "weight_decay": 5e-4,
        "trainer": {
            "optimizer_config": {
                "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9, "nesterov": True}},
                "ema": {"average_decay": 0.999, "trainable_weights_only": False},
                "learning_rate": {"cosine": {"initial_learning_rate": 0.2}},
            }
        },
    },
}

_IMAGENET: dict[str, Any] = {
    "runtime": {"distribution_strategy": "mirrored"},
    # The labels of its split `test` are not told.
    "data": {
        "source": "tfds",
        "name": "imagenet2012",
        "test_split": "validation",
        "input_size": [224, 224],
        "augment": "imagenet",
    },
    "search": {"max_macs": 300_000_000, "validation_images": 10_000},
    "retrain": {"auto_augment": "v0"},
}


def _register(name: str, settings: dict[str, Any], about: str) -> None:
    def factory() -> configs.NeasConfig:
        config = configs.NeasConfig()
        config.override(with_stage_shapes(settings), is_strict=True)
        return config

    factory.__doc__ = about
    exp_factory.register_config_factory(name)(factory)


_register(
    "neas_quickstart",
    _QUICKSTART,
    "Handwritten digits that ship with scikit-learn: minutes on CPU.",
)
_register("neas_cifar10", _CIFAR10, "CIFAR-10 in the paper's 20-layer space at 32² strides.")
_register("neas_imagenet", _IMAGENET, "The paper's recipe on ImageNet.")
