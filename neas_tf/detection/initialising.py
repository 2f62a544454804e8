"""First weights of a backbone, with a check that every one of them was found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import literal_path, resolve_user_path
from neas_tf.detection.backbone import NeasBackboneModel
from neas_tf.ensemble.store import LoadedInfo, load_model, model_folder, read_info
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

_FIELD = "task.init_checkpoint"
# What a backbone does not share with the classifier that its weights come from.
_FREE = ("name", "input_size", "num_classes", "head_channels", "feature_channels")


def load_backbone(backbone: Any, folder: Path) -> LoadedInfo:
    """Copies the weights of a model folder, BN statistics included, into a `NeasBackboneModel`.

    Raises:
      NeasError: when it is another architecture's or space's; the backbone then keeps its weights.
    """
    info = read_info(folder)
    check_fits(backbone, info, folder)
    model, _ = load_model(folder)
    sources = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    pairs, wrong = [], []
    for layer in backbone.layers:
        if layer.weights:
            values = sources.get(layer.name, [])
            if [v.shape for v in values] == [tuple(w.shape) for w in layer.weights]:
                pairs.append((layer, values))
            else:
                wrong.append(layer.name)
    if wrong:
        listed = ", ".join(wrong[:5]) + (" …" if len(wrong) > 5 else "")
        raise NeasError(
            f"{_FIELD}: {str(folder)!r} lacks the weights of {len(wrong)} layers of the backbone "
            f"({listed})."
        )
    for layer, values in pairs:
        layer.set_weights(values)
    return info


def check_fits(backbone: Any, info: LoadedInfo, folder: Path) -> None:
    """Raises `NeasError` unless a model folder's trunk and paths are the backbone's."""
    if not isinstance(backbone, NeasBackboneModel):
        raise NeasError(
            f"{_FIELD}: {str(folder)!r} holds a NEAS ensemble, but task.model.backbone.type is "
            "another network."
        )
    check_same_ensemble(folder, info, backbone.architecture)
    if _widths(backbone.space) != _widths(info.space):
        raise NeasError(
            f"{_FIELD}: {str(folder)!r} holds a model of space {info.space.name!r}, whose stages "
            f"are not those of the backbone's space {backbone.space.name!r}."
        )


def check_same_ensemble(
    folder: Path, info: LoadedInfo, ours: Architecture | None, other: str = ""
) -> None:
    """Raises `NeasError` unless a model folder holds our architecture; `other` is what else we have."""
    theirs = info.architecture
    if ours != theirs:
        name = (ours.name or ours.key) if ours else other
        raise NeasError(
            f"{_FIELD}: {str(folder)!r} holds the weights of "
            f"{theirs.name or theirs.key!r}, but the backbone is {name!r}."
        )


def _widths(space: SearchSpace) -> dict[str, Any]:
    free = (*_FREE, "operators", "min_split", "max_split")
    return {key: value for key, value in space.to_dict().items() if key not in free}


def find_checkpoint(path: str) -> Path | str:
    """What `task.init_checkpoint` names: a model folder, or the prefix of a TensorFlow checkpoint.

    Raises:
      NeasError: when it is neither.
    """
    path = resolve_user_path(path)
    folder = model_folder(path)
    if folder is not None:
        return folder
    found = newest_checkpoint(path)
    if not found:
        raise NeasError(
            f"{_FIELD}: received {path!r}, expected the folder of a run with a retrained or "
            "converted model, or a TensorFlow checkpoint."
        )
    return found


def newest_checkpoint(path: str) -> str:
    """The prefix of the newest checkpoint in a folder, or of the one that is named; '' for none."""
    if tf.io.gfile.isdir(path):
        found = tf.train.latest_checkpoint(literal_path(path))
        path = os.path.join(path, os.path.basename(found)) if found else ""
    return path if path and tf.io.gfile.exists(f"{path}.index") else ""


def check_modules(modules: Any) -> None:
    """Raises unless only the backbone is asked for, which is all that a classifier has."""
    if modules not in ("backbone", ["backbone"], ("backbone",)):
        raise NeasError(
            f"task.init_checkpoint_modules: received {modules!r}, expected 'backbone' when "
            "init_checkpoint is a classifier."
        )
