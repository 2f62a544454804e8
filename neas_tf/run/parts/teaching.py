"""The teacher of a retraining (`retrain.distillation`): what it is, and its logits of a batch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf import data
from neas_tf.common.class_names import compare_classes
from neas_tf.common.errors import NeasError, fail
from neas_tf.common.paths import literal_path, resolve_user_path
from neas_tf.config.distillation import PATHS, DistillationConfig
from neas_tf.ensemble import store
from neas_tf.export.artifacts import SIGNATURE

Teacher = Callable[[tf.Tensor], tf.Tensor]
_FIELD = "retrain.distillation.teacher"
_PROBES = 4  # images


def teacher_identity(settings: DistillationConfig, begun: bool) -> dict[str, Any]:
    """What the teacher is, for the retraining's identity; {} without one on disk.

    `begun`: the retraining has a record of it, so that the teacher may be gone.
    """
    if settings.teacher in ("", PATHS):
        return {}
    path = Path(resolve_user_path(settings.teacher))
    if begun and not path.exists():
        return {}
    path = _place(settings.teacher)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            own = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(path).as_posix()}\0{own}\n".encode())
    return {"teacher": digest.hexdigest()}


def load_teacher(settings: DistillationConfig, info: data.DatasetInfo) -> Teacher | None:
    """A function from normalised images (B, h, w, c) to the teacher's logits, float32 (B, classes).

    A run or model folder of ours normalises by itself; other models take pixels in 0..255 and give
    `logits`, `probabilities` or one output, whose logarithm is taken where it is probabilities.

    Returns:
      None for no teacher, or paths.

    Raises:
      NeasError: for what is no model, or one of other classes or input.
    """
    if settings.teacher in ("", PATHS):
        return None
    place = _place(settings.teacher)
    run, names = _model(place)
    classes, shape = info.num_classes, tuple(info.input_shape)
    if names:
        _check_names(names, info)
    probes = np.random.default_rng(0).integers(0, 256, (_PROBES, *shape)).astype(np.float32)
    try:
        found = np.asarray(run(tf.constant(probes)))
    except Exception as error:  # whatever a foreign model stumbles over is its input
        reason = " ".join(str(error).split())[:200]
        raise NeasError(
            f"{_FIELD}: received {settings.teacher!r}, expected a model of images {shape} ({reason})."
        ) from None
    if found.shape != (_PROBES, classes) or not np.isfinite(found).all():
        given = f"{settings.teacher} with outputs of shape {found.shape[1:]}"
        fail(_FIELD, given, f"finite ones of shape ({classes},), the data's classes")
    # Logits of several images hardly ever all sum to 1.
    shares = bool(np.all(found >= 0) and np.allclose(found.sum(-1), 1.0, atol=1e-3))

    def teach(images: tf.Tensor) -> tf.Tensor:
        pixels = info.normalisation.undo(tf.cast(images, tf.float32))
        given = tf.cast(run(pixels), tf.float32)
        return tf.math.log(tf.maximum(given, 1e-12)) if shares else given

    return teach


def _place(teacher: str) -> Path:
    """The file or folder, of a run its model."""
    path = Path(resolve_user_path(teacher))
    folder = store.model_folder(teacher)
    saved = (path / "saved_model.pb").is_file()
    if folder is None and not saved and not (path.is_file() and path.suffix == ".keras"):
        fail(
            _FIELD,
            teacher,
            f"'{PATHS}', the folder of a run, model or SavedModel, or a .keras file",
        )
    return folder or path


def _model(place: Path) -> tuple[Callable[[tf.Tensor], tf.Tensor], tuple[str, ...]]:
    """From pixels to what a teacher says (B, classes), and the names of its classes, where known."""
    if (place / store.MODEL_FILE).is_file():
        model, info = store.load_model(place)
        take = info.normalisation.apply
        return (
            lambda images: tf.reduce_mean(model(take(images), training=False), 1),
            info.class_names,
        )
    if place.is_dir():
        try:
            loaded = tf.saved_model.load(literal_path(place))
            serve = loaded.signatures[SIGNATURE]
            (name,) = serve.structured_input_signature[1]
        except (OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise NeasError(
                f"{_FIELD}: {os.fspath(place)!r} has no signature {SIGNATURE!r} of one input ({reason})."
            ) from None
        return lambda images, _keeps=loaded: _answers(serve(**{name: images})), ()
    import keras

    try:
        network = keras.saving.load_model(str(place), compile=False)
    except Exception as error:  # zip, JSON, HDF5 and Keras have their own
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"{_FIELD}: {os.fspath(place)!r} is no Keras model ({reason}).") from None
    return lambda images: _answers(network(images, training=False)), ()


def _answers(found: Any) -> tf.Tensor:
    """The output that counts of a model with several."""
    if not isinstance(found, dict):
        return found
    for name in ("logits", "probabilities"):
        if name in found:
            return found[name]
    (only,) = found.values()
    return only


def _check_names(names: tuple[str, ...], info: data.DatasetInfo) -> None:
    try:
        compare_classes(names, info.class_names, info.name)
    except NeasError as error:
        raise NeasError(f"{_FIELD}: {error}") from None
