"""A trained-like ensemble for the digits that ship inside scikit-learn, small enough to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_ensembles import randomise

from neas_tf import data
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

SPACE = SearchSpace(
    name="digits",
    input_size=(8, 8),
    input_channels=1,
    num_classes=10,
    stem_channels=8,
    stem_stride=1,
    block_channels=0,
    stages=(Stage(8, 1, 1), Stage(16, 1, 2)),
    operators=("k3e2", "k7e2", "skip"),
    min_split=0,
    max_split=2,
    head_channels=16,
    feature_channels=16,
)
ARCHITECTURE = Architecture(1, (("k7e2", "k3e2"), ("k7e2", "k7e2")))


def dataset() -> data.DatasetInfo:
    """The digits."""
    return data.load(data.DataConfig(source="digits", search_fraction=0.0))


def ensemble(info: data.DatasetInfo, seed: int = 0) -> tuple[Any, LoadedInfo]:
    """An ensemble with random weights and what it is."""
    model = build_ensemble(ARCHITECTURE, SPACE, dtype="float32")
    randomise(model, seed)
    return model, LoadedInfo(ARCHITECTURE, SPACE, info.class_names, info.normalisation)


def tuning(info: data.DatasetInfo, folder: Path, **settings: Any) -> Any:
    """Settings of a fine-tuning of a dozen steps."""
    from neas_tf.export.fine_tuning import FineTuning

    given = {"epochs": 1.0, "batch_size": 128, "calibration_images": 32, **settings}
    return FineTuning(info, folder, **given)
