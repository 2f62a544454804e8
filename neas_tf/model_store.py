"""A trained stand-alone ensemble on disk, with all that a later stage must know about it.

A model folder holds `architecture.json`, `model.json` (space, class names, normalisation,
versions) and `weights.weights.h5` (tf_keras, trainable form, averaged weights applied).
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import neas_tf
from neas_tf.architecture import Architecture
from neas_tf.errors import NeasError, check
from neas_tf.files import read_json, write_json_atomic
from neas_tf.normalisation import Normalisation
from neas_tf.space import SearchSpace

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
    """

    architecture: Architecture
    space: SearchSpace
    class_names: tuple[str, ...]
    normalisation: Normalisation
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self):
        self.architecture.check_in(self.space)
        names = self.class_names
        ok = all(isinstance(n, str) and n and not set(n) & set("\n\r\0") for n in names)
        check(ok, "class_names", list(names)[:5], "non-empty names of one line each")
        count = self.space.num_classes
        check(len(names) == count, "class_names", f"{len(names)} names", f"{count} names")
        self.normalisation.check_channels(self.space.input_channels)


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

    Returns:
      The folder.

    Raises:
      NeasError: when the parts do not agree, or the folder holds something else or cannot be
        written.
    """
    from neas_tf.ensemble import model_slots, weight_slots

    folder = Path(folder)
    info = LoadedInfo(
        architecture,
        space,
        tuple(class_names),
        Normalisation.of(normalisation),
        library_versions("tensorflow", "tf-keras", "numpy"),
    )
    if tuple(model_slots(model)) != weight_slots(architecture, space):
        raise NeasError(f"model: its layers are not those of architecture {architecture.key!r}.")
    check_replaceable(folder, info)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            new = Path(temporary) / "new"
            new.mkdir()
            write_json_atomic(new / ARCHITECTURE_FILE, architecture.to_dict())
            write_json_atomic(new / MODEL_FILE, _to_dict(info))
            model.save_weights(str(new / WEIGHTS_FILE))
            replace_path(new, folder)
    except OSError as error:
        raise NeasError(f"model folder {str(folder)!r}: cannot be written ({error}).") from None
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
    )


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
    architecture: Architecture, space: SearchSpace, weights: str | os.PathLike[str]
) -> Any:
    """Builds the trainable form of an architecture (float32) with weights from a file.

    Raises:
      NeasError: when there is no `.weights.h5` file or it is another model's.
    """
    from neas_tf.ensemble import build_ensemble

    architecture.check_in(space)
    path = str(weights)
    check(path.endswith(".weights.h5"), "weights", path, "a file that ends with '.weights.h5'")
    check(os.path.isfile(path), "weights", path, "an existing file")
    model = build_ensemble(architecture, space, dtype="float32")
    try:
        model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:160]
        raise NeasError(
            f"weights {path!r}: not the weights of architecture "
            f"{architecture.name or architecture.key!r} in space {space.name!r} ({reason})."
        ) from None
    return model


def replace_path(new: Path, target: Path) -> None:
    """Renames a file or folder to `target`; what was there goes only after that has worked.

    `new` lies in a temporary folder of its own beside `target`, where the old one waits meanwhile.
    """
    _sync(new)
    old = None
    if target.exists():
        old = new.parent / "old"
        os.rename(target, old)
    try:
        os.rename(new, target)
    except OSError:
        if old is not None:
            os.rename(old, target)
        raise
    if old is not None:
        shutil.rmtree(old) if old.is_dir() else old.unlink()


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
