"""A trained stand-alone ensemble on disk, with all that a later stage must know about it.

A model folder holds `architecture.json`, `model.json` (space, class names, normalisation,
versions) and `weights.weights.h5` (tf_keras, trainable form, averaged weights applied).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import neas_tf
from neas_tf.common.errors import NeasError, check, is_number
from neas_tf.common.files import (
    OLD,
    read_json,
    temporary_folder,
    told,
    write_bytes_atomic,
    write_json_atomic,
)
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import resolve_user_path
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-model/1"
ARCHITECTURE_FILE = "architecture.json"
MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.weights.h5"
# Where a run has its retrained model.
RUN_MODEL = Path("retrain") / "model"


@dataclasses.dataclass(frozen=True)
class LoadedInfo:
    """What a model folder says about its model.

    Attributes:
      architecture: of the ensemble.
      space: that the architecture was chosen from; gives widths, input size and classes.
      class_names: one per class, in the order of the logits.
      normalisation: from pixels to the model's input.
      versions: of the libraries that wrote the folder.
      temperature: that the ensemble's logits are divided by for calibrated probabilities; None where
        none was fitted.
    """

    architecture: Architecture
    space: SearchSpace
    class_names: tuple[str, ...]
    normalisation: Normalisation
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)
    temperature: float | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        self.architecture.check_in(self.space)
        names = self.class_names
        ok = all(isinstance(n, str) and n and not set(n) & set("\n\r\0") for n in names)
        check(ok, "class_names", list(names)[:5], "non-empty names of one line each")
        count = self.space.num_classes
        check(len(names) == count, "class_names", f"{len(names)} names", f"{count} names")
        self.normalisation.check_channels(self.space.input_channels)
        heat = self.temperature
        fits = heat is None or (is_number(heat) and heat > 0)
        check(fits, "model.json temperature", heat, "a number above 0, or none")


def library_versions(*packages: str) -> dict[str, str]:
    """Versions of this package, of Python and of the named distributions that are installed."""
    versions = {"neas_tf": neas_tf.__version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def save_model(
    folder: str | os.PathLike[str],
    model: Any,
    architecture: Architecture,
    space: SearchSpace,
    class_names: Sequence[str],
    normalisation: Any,
    temperature: float | None = None,
) -> Path:
    """Writes a model folder, whole or not at all.

    A folder that holds the same architecture, space, classes and normalisation is replaced (new
    weights of the same model); anything else that is there is left alone.

    Args:
      folder: to write; its parents are created.
      model: tf_keras, trainable form (`build_ensemble(architecture, space)`).
      architecture: of the model.
      space: of the model.
      class_names: one per class.
      normalisation: anything that `Normalisation.of` reads.
      temperature: of the ensemble's logits, where one was fitted.

    Returns:
      The folder.

    Raises:
      NeasError: when the parts do not agree, or the folder holds something else or cannot be
        written.
    """
    from neas_tf.ensemble.model import model_slots, weight_slots

    folder = Path(folder)
    info = LoadedInfo(
        architecture,
        space,
        tuple(class_names),
        Normalisation.of(normalisation),
        library_versions("tensorflow", "tf-keras", "numpy"),
        temperature,
    )
    if tuple(model_slots(model)) != weight_slots(architecture, space):
        raise NeasError(f"model: its layers are not those of architecture {architecture.key!r}.")
    check_replaceable(folder, info)
    with told(f"model folder {str(folder)!r}"), temporary_folder(folder) as temporary:
        new = temporary / "new"
        new.mkdir()
        write_json_atomic(new / ARCHITECTURE_FILE, architecture.to_dict())
        write_json_atomic(new / MODEL_FILE, _to_dict(info))
        write_bytes_atomic(new / WEIGHTS_FILE, weights_content(model))
        replace_path(new, folder)
    return folder


def read_info(folder: str | os.PathLike[str]) -> LoadedInfo:
    """Reads what a model folder says, without TensorFlow and without the weights.

    Raises:
      NeasError: when it is no model folder, or its parts do not agree.
    """
    folder = Path(folder)
    value = read_json(folder / MODEL_FILE, "model")
    check(isinstance(value, Mapping), "model.json", value, "a JSON object")
    check(value.get("format") == FORMAT, "model.json format", value.get("format"), FORMAT)
    architecture = Architecture.from_dict(read_json(folder / ARCHITECTURE_FILE, "architecture"))
    names = value.get("class_names")
    check(isinstance(names, list), "model.json class_names", names, "a list of names")
    versions = value.get("versions", {})
    check(isinstance(versions, Mapping), "model.json versions", versions, "a mapping")
    return LoadedInfo(
        architecture,
        SearchSpace.from_dict(value.get("space")),
        tuple(names),
        Normalisation.of(value.get("normalisation")),
        dict(versions),
        value.get("temperature"),
    )


def model_folder(path: str | os.PathLike[str]) -> Path | None:
    """The model folder that a path is or, as a run's, has; None where there is none."""
    folder = Path(resolve_user_path(path))
    for candidate in (folder, folder / RUN_MODEL):
        if (candidate / MODEL_FILE).is_file():
            return candidate
    return None


def load_model(folder: str | os.PathLike[str]) -> tuple[Any, LoadedInfo]:
    """Reads a model folder.

    Returns:
      The tf_keras model in its trainable form, float32, logits (batch, K, classes), and what the
      folder says about it.

    Raises:
      NeasError: when it is no model folder, or its parts do not agree.
    """
    info = read_info(folder)
    return load_weights(info.architecture, info.space, Path(folder) / WEIGHTS_FILE), info


def load_weights(
    architecture: Architecture,
    space: SearchSpace,
    weights: str | os.PathLike[str],
    keras: Any = None,
) -> Any:
    """Builds the trainable form of an architecture (float32) with weights from a file.

    Args:
      architecture: lies in `space`.
      space: of the weights.
      weights: a `.weights.h5` file of either Keras.
      keras: module to build with; None is `tf_keras`.

    Raises:
      NeasError: when there is no `.weights.h5` file or it is another model's.
    """
    from neas_tf.ensemble.model import build_ensemble

    architecture.check_in(space)
    path = str(weights)
    check(path.endswith(".weights.h5"), "weights", path, "a file that ends with '.weights.h5'")
    check(os.path.isfile(path), "weights", path, "an existing file")
    model = build_ensemble(architecture, space, keras=keras, dtype="float32")
    try:
        with warnings.catch_warnings():
            # Keras 3 would remark on every container that tf_keras's files do not have.
            warnings.filterwarnings("ignore", "Skipping nested container")
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NeasError(
            f"weights {path!r}: not the weights of architecture "
            f"{architecture.name or architecture.key!r} in space {space.name!r} ({reason})."
        ) from None
    return model


def weights_content(model: Any) -> bytes:
    """What `model.save_weights` would write into a `.weights.h5` file; of tf_keras or of Keras 3.

    It is made in memory: HDF5 ends the whole process where it cannot write to a disk.
    """
    library = type(model).__module__.partition(".")[0]
    saving = importlib.import_module(f"{library}.src.saving.saving_lib")
    content: dict[str, bytes] = {}
    # What a store knows of an archive is this method; it then writes into memory.
    archive = types.SimpleNamespace(writestr=content.__setitem__)
    store = saving.H5IOStore(WEIGHTS_FILE, archive=archive, mode="w")
    saving._save_state(model, store, None, "", set())
    store.close()
    return content[WEIGHTS_FILE]


def weights_digest(weights: str | os.PathLike[str] | bytes) -> str:
    """SHA-256 of the arrays in a `.weights.h5` file, or in what it holds, whatever wrote them.

    Raises:
      NeasError: when the file cannot be read.
    """
    import h5py

    arrays: dict[str, np.ndarray] = {}

    def take(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = np.ascontiguousarray(node[()])

    try:
        source = io.BytesIO(weights) if isinstance(weights, bytes) else weights
        with h5py.File(source, "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NeasError(f"weights {str(weights)!r}: cannot be read ({reason}).") from None
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name}\0{value.dtype.str}{value.shape}\0".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def replace_path(new: Path, target: Path) -> None:
    """Renames a file or folder to `target`; what was there goes only after that has worked.

    `new` lies in a `temporary_folder` of `target`, where an old folder waits meanwhile.
    """
    _sync(new)
    if not target.is_dir() or target.is_symlink():
        os.replace(new, target)
        return
    old = new.parent / OLD
    os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        os.rename(old, target)
        raise
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    """Has the content on the disk before the name: else a power cut could leave the name alone."""
    for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _to_dict(info: LoadedInfo) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "space": info.space.to_dict(),
        "class_names": list(info.class_names),
        "normalisation": info.normalisation.to_dict(),
        "versions": dict(info.versions),
        **({} if info.temperature is None else {"temperature": info.temperature}),
    }


def check_replaceable(folder: Path, info: LoadedInfo) -> None:
    """Raises `NeasError` where a folder holds anything but a model of which `info` is true."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    try:
        there = read_info(folder)
    except NeasError:
        raise NeasError(
            f"model folder {str(folder)!r}: holds something that is not a model; it is left as it "
            "is, choose another folder."
        ) from None
    if there != info:
        raise NeasError(
            f"model folder {str(folder)!r}: holds a different model "
            f"({there.architecture.key!r}); it is left as it is, choose another folder."
        )
