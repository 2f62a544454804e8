"""Images for an export: what int8 ranges are measured on, and what accuracy is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from neas_tf.common.class_names import compare_classes
from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import resolve_user_path
from neas_tf.data.reading.pictures import ENDINGS, list_pictures
from neas_tf.ensemble.store import LoadedInfo

RUN = "run"


def open_data(name: str, info: LoadedInfo, model_dir: str = "", data_dir: str = "") -> Any:
    """Opens the data set that a flag names.

    Args:
      name: `run`, the data of the run in `model_dir`; a folder with `train/<class>/` and
        `test/<class>/`; or the name of a TFDS data set.
      info: of the model; gives size and channels of the images.
      model_dir: folder of the run.
      data_dir: where TFDS sets lie; empty means TFDS's own place, or the run's.

    Returns:
      A `neas_tf.data.DatasetInfo`.

    Raises:
      NeasError: when there are no such data, or the run's have changed since.
    """
    from neas_tf import data

    if name == RUN:
        check(bool(model_dir), "representative_dataset", name, "'run' only with --model_dir")
        config = data.DataConfig()
        config.override(_params(model_dir).get("data") or {}, is_strict=True)
    elif (folder := Path(resolve_user_path(name))).is_dir():
        config = data.DataConfig(source="image_folder", data_dir=str(folder))
    else:
        config = data.DataConfig(source="tfds", name=name, data_dir=data_dir)
    if name == RUN and data_dir:
        config = config.replace(data_dir=data_dir)
    space = info.space
    config = config.replace(
        input_size=list(space.input_size),
        input_channels=space.input_channels,
        mean=list(info.normalisation.mean),
        std=list(info.normalisation.std),
        search_fraction=0.0,
    )
    dataset = data.load(config)
    if name == RUN:
        record = Path(resolve_user_path(model_dir)) / "data.json"
        changed = data.changed_since(record, dataset.describe())
        if changed:
            raise NeasError(
                f"data: {dataset.name!r} is not what the run {model_dir!r} was trained on "
                f"({changed}); expected are the same images and classes."
            )
    return dataset


def run_training(info: LoadedInfo, model_dir: str, data_dir: str = "") -> tuple[Any, float]:
    """What the retraining of a run was made of: data with its augmentation, and label smoothing.

    Raises:
      NeasError: when there are no such data.
    """
    from neas_tf.config.resolve import OF_A_STAGE, with_augmentation
    from neas_tf.config.settings import StageConfig

    dataset = open_data(RUN, info, model_dir, data_dir)
    classes, wanted = dataset.num_classes, info.space.num_classes
    check(classes == wanted, "--model_dir", f"data with {classes} classes", f"{wanted} classes")
    check_same_classes(dataset, info)
    names = (*OF_A_STAGE, "label_smoothing")
    given = _params(model_dir).get("retrain") or {}
    stage = StageConfig()
    stage.override({name: given[name] for name in names if name in given})
    return with_augmentation(dataset, stage), stage.label_smoothing


def _params(model_dir: str) -> dict[str, Any]:
    """The settings of a run."""
    from neas_tf.config.parse import load_file

    path = Path(resolve_user_path(model_dir)) / "params.yaml"
    check(path.is_file(), "--model_dir", model_dir, f"a run with a file {path}")
    return load_file(str(path))


def representative_images(
    name: str, info: LoadedInfo, count: int, *, model_dir: str = "", data_dir: str = ""
) -> np.ndarray:
    """Training images as an exported model takes them: float32 (n, h, w, c) in 0..255.

    Args:
      name: as for `open_data`, but of a folder its pictures at any depth, whatever the folders
        are called; those in folders named `train` only, where there are some.
      count: of images; fewer where there are fewer.

    Raises:
      NeasError: when there are no such data, or no picture of a folder can be decoded.
    """
    folder = Path(resolve_user_path(name))
    if name != RUN and folder.is_dir():
        return _images_of_folder(folder, info, count)
    return training_pixels(open_data(name, info, model_dir, data_dir), count)


def training_pixels(dataset: Any, count: int, seed: int = 0) -> np.ndarray:
    """Training images of an opened data set, the classes evenly: float32 (n, h, w, c), 0..255."""
    from neas_tf import data

    images, _ = data.make_images(dataset, "train", count, seed)
    return images.astype(np.float32)


def test_pixels(dataset: Any, count: int, info: LoadedInfo) -> tuple[np.ndarray, np.ndarray]:
    """The first test images, float32 (n, h, w, c) in 0..255, and their labels, int32 (n,).

    Raises:
      NeasError: when the classes are not the model's, or in another order.
    """
    from neas_tf import data

    classes, wanted = dataset.num_classes, info.space.num_classes
    check(classes == wanted, "evaluate", f"data with {classes} classes", f"{wanted} classes")
    check_same_classes(dataset, info)
    images, labels, seen = [], [], 0
    batches = data.make_dataset(dataset, "test", 256, training=False, pixels=True)
    for batch, batch_labels in data.batches_of(batches):
        images.append(batch.numpy()[: count - seen])
        labels.append(batch_labels.numpy()[: count - seen])
        seen += len(labels[-1])
        if seen >= count:
            break
    return np.concatenate(images).astype(np.float32), np.concatenate(labels)


def check_same_classes(dataset: Any, info: LoadedInfo) -> None:
    """Refuses labels that mean other classes than the model's; says where only names differ."""
    if warning := compare_classes(info.class_names, dataset.class_names, dataset.name):
        logging.warning("%s", warning.removeprefix("warning: "))


def _images_of_folder(folder: Path, info: LoadedInfo, count: int) -> np.ndarray:

    from neas_tf.data.reading.decoding import Decoder, read_image

    found = list_pictures(str(folder), "representative_dataset").paths
    if not found:
        raise NeasError(
            f"representative_dataset: {str(folder)!r} holds no image; expected files "
            f"{', '.join(ENDINGS)}, at any depth."
        )
    places = [Path(path) for path in found]
    training = [path for path in places if "train" in path.relative_to(folder).parts[:-1]]
    paths = training or places
    first = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    decoder = Decoder(*info.space.input_size, info.space.input_channels)
    images: list[np.ndarray] = []
    bad: list[str] = []
    # Evenly over all; what cannot be decoded is made up for with others.
    for i in dict.fromkeys((*first.tolist(), *range(len(paths)))):
        if len(images) == len(first):
            break
        try:
            images.append(read_image(str(paths[i]), decoder, "representative_dataset"))
        except NeasError:
            bad.append(str(paths[i]))
    if not images:
        raise NeasError(
            f"representative_dataset: {bad[0]!r} cannot be decoded, nor can any other of the "
            f"{len(bad)} images of {str(folder)!r}; expected JPEG or PNG files."
        )
    if bad:
        logging.warning(
            "representative_dataset: %d images cannot be decoded and are left out, such as %r.",
            *(len(bad), bad[0]),
        )
    return np.stack(images).astype(np.float32)
