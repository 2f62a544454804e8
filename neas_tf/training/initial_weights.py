"""Weights that a training starts from: read from a file, compared with a model, put into it.

An ensemble's *head* is here its classifiers, one a path: all that knows the classes. A stored
ensemble of other classes, or for another input size, gives everything but them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import resolve_user_path
from neas_tf.ensemble import store
from neas_tf.ensemble.model import Slot, build_ensemble, model_slots
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet.inheritance import give_weights
from neas_tf.supernet.model import Supernet

AUTO, SCRATCH, SUPERNET = "auto", "scratch", "supernet"
CHOICES = (AUTO, SCRATCH, SUPERNET)
_EXPECTED = "a model folder, a .keras or .weights.h5 file, or the output of neas convert"
_FUSED = "classifier"  # of the deployed form, for the features of all paths


def is_path(init: str) -> bool:
    """Whether `retrain.init` names a file or folder."""
    return init not in CHOICES


def is_head(slot: Slot) -> bool:
    """Whether a weight is one of a classifier."""
    return slot.role.startswith("classifier/")


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """The weights of a stored ensemble, by the place that each has in the trainable form.

    Attributes:
      field: the setting that names them, for messages.
      path: where they lie.
      values: arrays; the classifiers too, where the file has them.
      class_names: of the classifiers; None where the file does not say.
    """

    field: str
    path: str
    values: Mapping[Slot, np.ndarray]
    class_names: tuple[str, ...] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of names and numbers, whatever kind of file they lie in."""
        result = hashlib.sha256()
        for slot, value in sorted(
            self.values.items(), key=lambda item: dataclasses.astuple(item[0])
        ):
            result.update(f"{dataclasses.astuple(slot)}{value.shape}\0".encode())
            result.update(np.ascontiguousarray(value, np.float32).tobytes())
        return result.hexdigest()

    def fitted(
        self, architecture: Architecture, space: SearchSpace, class_names: Sequence[str]
    ) -> dict[Slot, np.ndarray]:
        """What a model of the architecture takes: everything, or all but the classifiers.

        Raises:
          NeasError: for the weights of another architecture, or of layers with other widths.
        """
        model = build_ensemble(architecture, space, dtype="float32")
        wanted = {
            slot: tuple(variable.shape)
            for slot, variable in zip(model_slots(model), model.weights, strict=True)
        }
        self._check_paths(architecture.num_paths)
        self._check_layers(wanted, architecture)
        heads = {slot for slot in wanted if is_head(slot)}
        for slot in (slot for slot in wanted if slot not in heads):
            found = self.values[slot].shape
            if found != wanted[slot]:
                what = f"weights {found} of {_words(slot)}"
                self._refuse(what, f"{wanted[slot]} as in space {space.name!r}")
        same = self.class_names is None or self.class_names == tuple(class_names)
        fits = all(
            slot in self.values and self.values[slot].shape == wanted[slot] for slot in heads
        )
        taken = wanted.keys() if same and fits else wanted.keys() - heads
        return {slot: self.values[slot] for slot in taken}

    def _check_paths(self, count: int) -> None:
        found = 1 + max((slot.path for slot in self.values if slot.part == "head"), default=-1)
        if found != count:
            self._refuse(f"an ensemble of {found} path(s)", f"one of {count}")

    def _check_layers(self, wanted: Mapping[Slot, Any], architecture: Architecture) -> None:
        """Names the first place where the operators are others."""

        def operators(slots: Any) -> dict[tuple[str, int, int], str]:
            return {(s.part, s.layer, s.path): s.operator for s in slots if not is_head(s)}

        mine, own = operators(self.values), operators(wanted)
        for place in sorted(mine.keys() | own.keys()):
            received, expected = mine.get(place, "none"), own.get(place, "none")
            if received != expected:
                where = f"layer {place[1]}, path {place[2] + 1}" if place[1] else place[0]
                self._refuse(
                    f"another architecture (operator of {where}: {received or 'some'})",
                    f"{expected or 'some'} there, as in {architecture.key!r}",
                )
        missing = {s for s in wanted if not is_head(s)} - self.values.keys()
        if missing:
            first = min(missing, key=dataclasses.astuple)
            self._refuse(f"no weights of {_words(first)}", "those of a whole ensemble")

    def _refuse(self, received: str, expected: str) -> None:
        raise NeasError(f"{self.field}: {self.path!r} holds {received}, expected {expected}.")

    def told(self, taken: Mapping[Slot, Any]) -> str:
        """One line on what is taken and what is new."""
        new = not any(map(is_head, taken))
        layers = len({(s.layer, s.path) for s in taken if s.part == "layer"})
        heads = "new classifiers" if new else "classifiers as well"
        return (
            f"starts from {self.path}: stem, {layers} operators and features are taken "
            f"({len(taken)} weights), {heads}"
        )


def read_weights(
    path: str,
    field: str,
    architecture: Architecture | None = None,
    space: SearchSpace | None = None,
) -> StoredWeights:
    """Reads the weights of a stored ensemble.

    Args:
      path: a model folder, the model_dir of a run or of a conversion, a `.keras` file, or a
        `.weights.h5` file.
      field: the setting that names it, for messages.
      architecture, space: of the model that they are for; a `.weights.h5` file needs them, for it
        does not say what it holds.

    Raises:
      NeasError: for anything that is missing or cannot be read.
    """
    place = Path(resolve_user_path(path))
    if not place.exists():
        expected = (
            f"{_EXPECTED}; or {SCRATCH} or {SUPERNET}" if field == "retrain.init" else _EXPECTED
        )
        raise NeasError(f"{field}: received {path!r}, which does not exist; expected {expected}.")
    if place.is_dir():
        folder = next(
            (p for p in (place, place / store.RUN_MODEL) if (p / store.MODEL_FILE).exists()), None
        )
        check(folder is not None, field, path, f"{_EXPECTED}; the folder holds no model")
        assert folder is not None
        try:
            model, info = store.load_model(folder)
        except NeasError as error:
            raise NeasError(f"{field}: {error}") from None
        return StoredWeights(field, path, _by_slot(model, field, path), info.class_names)
    if place.name.endswith(".weights.h5"):
        if architecture is None or space is None:
            raise NeasError(
                f"{field}: {path!r} does not say which ensemble its weights are of; expected a "
                "model folder or a .keras file."
            )
        model = _of_weights_file(place, field, architecture, space)
        return StoredWeights(field, path, _by_slot(model, field, path))
    check(place.suffix == ".keras", field, path, _EXPECTED)
    return StoredWeights(field, path, _by_slot(_keras_file(place, field), field, path))


def digest_of_stored(
    path: str,
    field: str,
    record: Path,
    architecture: Architecture | None = None,
    space: SearchSpace | None = None,
) -> dict[str, str]:
    """What a stage's identity says of the stored weights that it starts from.

    Nothing where they are gone and the stage has begun: its checkpoints have what it needs.

    Args:
      path, field, architecture, space: as in `read_weights`.
      record: the stage's identity, which is there once it has begun.
    """
    if record.exists() and not Path(resolve_user_path(path)).exists():
        return {}
    return {"initial_weights": read_weights(path, field, architecture, space).digest}


def _of_weights_file(
    path: Path, field: str, architecture: Architecture, space: SearchSpace
) -> tf_keras.Model:
    """The ensemble that a `.weights.h5` file is of, with as many classes as it has."""
    shapes = _shapes(path, field)
    classes = {shape[1] for shape in shapes if len(shape) == 2}  # the classifiers' kernels
    check(len(classes) == 1, field, str(path), "the weights of an ensemble's trainable form")
    own = dataclasses.replace(space, num_classes=classes.pop())
    try:
        return store.load_weights(architecture, own, path)
    except NeasError as error:
        first = error
    keras: Any = importlib.import_module("keras")  # Keras 3 names things otherwise
    model = build_ensemble(architecture, own, keras=keras, dtype="float32")
    # Keras would leave out what it does not find.
    if sorted(tuple(v.shape) for v in model.weights) != shapes:
        raise NeasError(f"{field}: {first}")
    try:
        model.load_weights(str(path))
    except Exception:  # Keras raises errors of many kinds; tf_keras' sentence is as good
        raise NeasError(f"{field}: {first}") from None
    return model


def _shapes(path: Path, field: str) -> list[tuple[int, ...]]:
    """Of the weights in a `.weights.h5` file, sorted; states of random generators are none."""
    import h5py

    found: list[tuple[int, ...]] = []

    def look(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "f":
            found.append(tuple(map(int, node.shape)))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(look)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NeasError(f"{field}: {str(path)!r} cannot be read ({reason}).") from None
    return sorted(found)


def _keras_file(path: Path, field: str) -> Any:
    """The model in a `.keras` file, of Keras 3 or of tf_keras."""
    keras: Any = importlib.import_module("keras")
    reasons = []
    for library in (keras, tf_keras):
        try:
            return library.models.load_model(os.fspath(path), compile=False)
        except Exception as error:  # of many kinds, of the zip file, the JSON and the layers
            reasons.append(" ".join(str(error).split())[:160])
    raise NeasError(f"{field}: {str(path)!r} is no model that can be loaded ({reasons[0]}).")


def _by_slot(model: Any, field: str, path: str) -> dict[Slot, np.ndarray]:
    """The weights of a model's layers, those of inner models included, by their names."""
    values: dict[Slot, np.ndarray] = {}
    fused: list[np.ndarray] = []
    for layer in model._flatten_layers(recursive=True, include_self=False):
        if not layer.weights or hasattr(layer, "layers"):
            continue
        if layer.name == _FUSED:
            fused = [np.asarray(value) for value in layer.get_weights()]
            continue
        try:
            slots = model_slots(types.SimpleNamespace(layers=[layer]))
        except NeasError:  # a layer around the ensemble
            continue
        values |= {s: np.asarray(v) for s, v in zip(slots, layer.get_weights(), strict=True)}
    check(any(slot.part == "stem" for slot in values), field, path, _EXPECTED)
    if fused:
        # One classifier for all features, divided by K: the paths' own are its parts (store.fold).
        kernel, bias = fused
        count = 1 + max(slot.path for slot in values if slot.part == "head")
        for path_number, part in enumerate(np.split(kernel, count)):
            values[Slot("head", 0, path_number, "", "classifier/kernel")] = part * count
            values[Slot("head", 0, path_number, "", "classifier/bias")] = bias
    return values


def put_weights(model: Any, values: Mapping[Slot, np.ndarray]) -> None:
    """Gives a model of the trainable form the weights of some of its slots."""
    for slot, variable in zip(model_slots(model), model.weights, strict=True):
        if slot in values:
            variable.assign(values[slot])


def start_supernet(supernet: Supernet, stored: StoredWeights, class_names: Sequence[str]) -> str:
    """Gives a supernet the weights of the operators that a stored ensemble has too.

    Returns:
      What was taken, as a line.

    Raises:
      NeasError: where no operator fits.
    """
    same = stored.class_names is None or stored.class_names == tuple(class_names)
    values = {
        (slot.part, slot.layer, slot.path, slot.operator, slot.role): value
        for slot, value in stored.values.items()
        if same or not is_head(slot)
    }
    taken = give_weights(supernet, values)
    if not taken.layers:
        raise NeasError(
            f"{stored.field}: no operator of {stored.path!r} fits a layer of space "
            f"{supernet.space.name!r}; expected an ensemble with the widths of the space."
        )
    fixed = [name for name, fits in (("stem", taken.stem),) if fits]
    fixed += [f"{taken.heads} of {supernet.num_paths} heads"] if taken.heads else []
    return (
        f"starts from {stored.path}: {taken.operators} operators in {taken.layers} of "
        f"{supernet.space.num_layers} layers fit" + "".join(f", {part}" for part in fixed)
    )


def _words(slot: Slot) -> str:
    where = f"layer {slot.layer}, path {slot.path + 1}, " if slot.layer else f"{slot.part} "
    return f"{where}{slot.role!r}"
