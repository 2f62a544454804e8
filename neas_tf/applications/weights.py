"""Where an ensemble and its weights come from, as arrays by the names of layers.

Every network of an architecture, whatever its outputs, names its layers alike: so the weights of a
classifier fit a feature extractor, and those of one Keras the other.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neas_tf.common import console
from neas_tf.common.errors import NeasError, fail, shown
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import resolve_user_path
from neas_tf.ensemble.store import WEIGHTS_FILE, load_weights, model_folder, read_info
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture, load_space

OWN = "own"
# What a damaged file raises in the libraries that read it.
_UNSOUND = (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile)
Arrays = dict[str, list[np.ndarray]]
_CLASSIFIER = re.compile(r"path(\d+)_classifier", re.ASCII)
_HEAD = re.compile(r"path\d+_(head_conv|head_bn|feature|classifier)", re.ASCII)
_SEARCHED = re.compile(r"(?:trunk|path\d+)_l\d+_", re.ASCII)
_FORMS = (
    "the folder of a run, a stored model or a converted checkpoint, a .keras or a .weights.h5 file, "
    "a model, or None"
)


@dataclasses.dataclass(frozen=True)
class Found:
    """An ensemble that somebody asked for.

    Attributes:
      architecture: lies in `space`.
      space: of the ensemble.
      folder: where it is stored with its weights; None where it is not.
    """

    architecture: Architecture
    space: SearchSpace
    folder: Path | None = None


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights and what is known of them.

    Attributes:
      layers: arrays by the layer's name.
      where: they were, for messages.
      normalisation: that they were trained with, where it is known.
    """

    layers: Arrays
    where: str
    normalisation: Normalisation | None = None

    def put(self, model: Any, architecture: Architecture) -> None:
        """Sets a model's weights; all or none, but for classifiers of other classes.

        Raises:
          NeasError: when they are not the architecture's.
        """
        name = architecture.name or architecture.key
        known = tuple(_searched(architecture))
        others = [layer for layer in self.layers if _SEARCHED.match(layer)]
        strange = [layer for layer in others if not layer.startswith(known)]
        pairs, wrong, new = [], [], []
        for layer in model.layers:
            wanted = [tuple(weight.shape) for weight in layer.weights]
            values = self.layers.get(layer.name, [])
            if wanted == [value.shape for value in values]:
                pairs += [(layer, values)] if wanted else []
            elif _CLASSIFIER.fullmatch(layer.name) or (_HEAD.fullmatch(layer.name) and not values):
                new.append(layer.name)
            else:
                there = ", ".join(str(value.shape) for value in values) or "none"
                wrong.append(f"{layer.name}: {there} for {', '.join(map(str, wanted))}")
        if wrong or strange:
            listed = "; ".join([*wrong, *(f"{layer}: not in it" for layer in strange)][:3])
            raise NeasError(
                f"weights: received {self.where}, expected those of {name!r}; "
                f"{len(wrong) + len(strange)} layers do not fit ({listed})."
            )
        for layer, values in pairs:
            layer.set_weights(values)
        if new:
            has = self.layers.get("path1_classifier")
            has_text = f"classifiers for {has[1].shape[0]} classes" if has else "no classifiers"
            console.say(
                f"{name}: {self.where} has {has_text}; new are {', '.join(new)}, all other weights "
                "are loaded."
            )


def find(architecture: Any, space: Any = None) -> Found:
    """Reads an ensemble in any of its forms, see `ensemble_model`.

    Raises:
      NeasError: when there is none, or it does not lie in the space.
    """
    if isinstance(architecture, str | os.PathLike):
        path = Path(resolve_user_path(architecture))
        if path.is_dir():
            if space is not None:
                fail("space", space, "None, as the folder of an ensemble says its space")
            return _in_folder(path)
    if space is None:
        space = SearchSpace()
    elif isinstance(space, Mapping):
        space = SearchSpace.from_dict(space)
    elif isinstance(space, str | os.PathLike):
        space = load_space(os.fspath(space))
    elif not isinstance(space, SearchSpace):
        fail("space", space, "a SearchSpace, a mapping, the path of a file, or None")
    return Found(load_architecture(architecture, space), space)


def _in_folder(path: Path) -> Found:
    folder = model_folder(path)
    if folder is not None:
        info = read_info(folder)
        return Found(info.architecture, info.space, folder)
    best, params = path / "search" / "best.json", path / "params.yaml"
    if not (best.is_file() and params.is_file()):
        fail("architecture", str(path), "the folder of a run that has found an ensemble")
    space = load_space(str(params))
    console.say(f"{path}: no retrained model is there yet; the ensemble it found gets new weights.")
    return Found(load_architecture(best, space), space)


def read_weights(weights: Any, found: Found, keras: Any) -> Weights | None:
    """Reads weights in any of their forms, see `ensemble_model`; None where they are random.

    Raises:
      NeasError: when there are none, or they are another architecture's.
    """
    if isinstance(weights, str) and weights == OWN:
        weights = found.folder
    if weights is None:
        return None
    if hasattr(weights, "layers") and hasattr(weights, "get_weights"):
        return _model_weights(weights, f"model {weights.name!r}")
    if not isinstance(weights, str | os.PathLike):
        fail("weights", weights, _FORMS)
    path = Path(resolve_user_path(weights))
    where = shown(str(path))
    if path.is_dir():
        return _stored(path, found, keras)
    if not path.is_file():
        hint = ""
        if str(weights).lower() == "imagenet":
            hint = (
                " (no weights come with the package; neas convert makes them of the authors' files)"
            )
        fail("weights", str(weights), f"{_FORMS}{hint}")
    if path.name.endswith(".weights.h5"):
        return Weights(_h5_layers(path, found, keras), where)
    if path.name.endswith(".keras"):
        return _keras_file(path)
    hint = " (neas convert makes a folder of the authors' checkpoints)"
    fail("weights", str(weights), f"{_FORMS}{hint}")


def _stored(path: Path, found: Found, keras: Any) -> Weights:
    folder = model_folder(path)
    if folder is None:
        fail("weights", str(path), "a folder with a stored model, or the run's that has one")
    info = read_info(folder)
    ours, theirs = found.architecture, info.architecture
    if ours != theirs:
        raise NeasError(
            f"weights: {str(path)!r} holds those of {theirs.name or theirs.key!r}, expected those of "
            f"{ours.name or ours.key!r}."
        )
    layers = _h5_layers(folder / WEIGHTS_FILE, Found(theirs, info.space), keras)
    return Weights(layers, shown(str(path)), info.normalisation)


def _model_weights(model: Any, where: str) -> Weights:
    layers: Arrays = {}
    normalisation = None
    queue = list(model.layers)
    while queue:
        layer = queue.pop()
        if hasattr(layer, "layers"):
            queue += layer.layers
        elif layer.weights:
            layers[layer.name] = [np.asarray(value) for value in layer.get_weights()]
        elif layer.name == "normalisation":
            normalisation = _normalisation(layer.get_config())
    return Weights(_unfused(layers), where, normalisation)


def _normalisation(config: Mapping[str, Any]) -> Normalisation:
    """That of a layer `Rescaling`."""
    scale, offset = np.atleast_1d(config["scale"]), np.atleast_1d(config["offset"])
    return Normalisation.of(types.SimpleNamespace(scale=scale, offset=offset))


def _keras_file(path: Path) -> Weights:
    """A `.keras` file of either Keras: without building the model where the layers are named."""
    where = shown(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
                layers = _named_layers(file)
        if not layers:  # tf_keras does not name them
            import tf_keras

            return _model_weights(tf_keras.models.load_model(str(path), compile=False), where)
        normalisation = next(map(_normalisation, _configs(config, "normalisation")), None)
    except _UNSOUND as error:
        raise NeasError(
            f"weights: {where} cannot be read as a .keras file ({_said(error)})."
        ) from None
    return Weights(_unfused(layers), where, normalisation)


def _configs(node: Any, name: str) -> list[Mapping[str, Any]]:
    """The configs of all layers of a name, in a model's config."""
    if isinstance(node, Mapping):
        config = node.get("config")
        if isinstance(config, Mapping) and config.get("name") == name and "scale" in config:
            return [config]
    children = node.values() if isinstance(node, Mapping) else node
    if not isinstance(node, Mapping | list):
        return []
    return [found for child in children for found in _configs(child, name)]


def _h5_layers(path: Path, found: Found, keras: Any) -> Arrays:
    """The layers of a `.weights.h5` file; Keras 3 names them, with tf_keras their order tells."""
    try:
        with h5py.File(path) as file:
            layers = _named_layers(file)
            if layers:
                return _unfused(layers)
            classes = {
                int(group["vars/0"].shape[-1])
                for name, group in file["layers"].items()
                if name.startswith("dense") and "vars/0" in group
            }
    except _UNSOUND as error:
        raise NeasError(
            f"weights: {shown(str(path))} cannot be read as a .weights.h5 file ({_said(error)})."
        ) from None
    space = found.space
    if len(classes) == 1:
        space = dataclasses.replace(space, num_classes=classes.pop())
    model = load_weights(found.architecture, space, path, keras)
    return _model_weights(model, "").layers


def _named_layers(file: h5py.File) -> Arrays:
    layers: Arrays = {}

    def take(path: str, node: Any) -> None:
        if isinstance(node, h5py.Group) and path.endswith("vars") and "name" in node.attrs:
            keys = sorted((key for key in node if key.isdigit()), key=int)
            if keys:
                layers[str(node.attrs["name"])] = [np.asarray(node[key]) for key in keys]

    file.visititems(take)
    return layers


def _unfused(layers: Arrays) -> Arrays:
    """Turns the one classifier of a deployed form into K, whose mean it is.

    The kernels are exact; of the biases only the mean is known, which each path gets.
    """
    count = sum(1 for name in layers if re.fullmatch(r"path\d+_feature", name))
    fused = layers.get("classifier", [])
    if len(fused) == 2 and count and len(fused[0]) % count == 0:
        for k, part in enumerate(np.split(fused[0], count), 1):
            layers[f"path{k}_classifier"] = [part * count, fused[1]]
    return layers


def _searched(architecture: Architecture) -> list[str]:
    """What the names of an architecture's searchable layers begin with."""
    split, result = architecture.split_point, []
    parts = [("trunk", architecture.shared, 0)]
    parts += [(f"path{k}", row[split:], split) for k, row in enumerate(architecture.paths, 1)]
    for part, operators, first in parts:
        result += [f"{part}_l{i:02d}_{name}_" for i, name in enumerate(operators, first + 1)]
    return result


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
