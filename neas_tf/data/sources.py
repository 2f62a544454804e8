"""Opens the four kinds of sources: digits, TFDS, image folders, TFRecords."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from neas_tf.data import splits
from neas_tf.data.stores import ArrayStore, FileStore, RecordFile, RecordStore, Store
from neas_tf.errors import NeasError, fail
from neas_tf.paths import resolve_user_path

if TYPE_CHECKING:
    from neas_tf.data.data_config import DataConfig

_EXTENSIONS = (".jpg", ".jpeg", ".png")
_TEST_FOLDERS = ("test", "val", "validation")
_DIGITS_TEST = 360
# The digits' test part is the same whatever seeds a run uses.
_DIGITS_SEED = 20210401


@dataclasses.dataclass(frozen=True)
class Source:
    """What opening a source tells.

    Attributes:
      name: for reports.
      train, test: the two splits.
      class_names: None where the source does not tell.
      size: (height, width) that all images have; None where they differ.
      channels: of the images.
    """

    name: str
    train: Store
    test: Store
    class_names: tuple[str, ...] | None
    size: tuple[int, int] | None
    channels: int


def open_source(config: DataConfig, test_only: bool = False) -> Source:
    """Opens the source that the config names; reads no image but the digits.

    Args:
      config: what to open.
      test_only: the training split need not exist; `train` is then the test split too.

    Raises:
      NeasError: when something is missing, empty or contradictory.
    """
    if test_only and config.source == "image_folder":
        return _open_test_folder(config)
    return {
        "digits": _open_digits,
        "tfds": _open_tfds,
        "image_folder": _open_folder,
        "tfrecord": _open_records,
    }[config.source](config)


def _open_digits(config: DataConfig) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Grey levels of 0..16 in the source.
    images = np.round(digits.images[..., None] * (255 / 16)).astype(np.uint8)  # (1797, 8, 8, 1)
    labels = digits.target.astype(np.int32)
    test = splits.stratified_indices(labels, _DIGITS_TEST, np.random.default_rng(_DIGITS_SEED))
    train = splits.complement(len(labels), test)
    return Source(
        config.name or "digits",
        ArrayStore.of(images[train], labels[train]),
        ArrayStore.of(images[test], labels[test]),
        tuple(str(digit) for digit in range(10)),
        (8, 8),
        1,
    )


def _open_folder(config: DataConfig) -> Source:
    root = resolve_user_path(config.data_dir)
    if not tf.io.gfile.isdir(root):
        raise NeasError(
            f"data.data_dir: there is no folder {root!r}; allowed is one with train/<class>/*.jpg "
            "and test/<class>/*.jpg."
        )
    folders = [name for name in _TEST_FOLDERS if tf.io.gfile.isdir(os.path.join(root, name))]
    if not folders:
        raise NeasError(
            f"data.data_dir: {root!r} holds none of the folders {', '.join(_TEST_FOLDERS)}; one "
            "with test images is needed."
        )
    if not tf.io.gfile.isdir(os.path.join(root, "train")):
        raise NeasError(f"data.data_dir: {root!r} holds no folder 'train' with training images.")
    classes = _subfolders(os.path.join(root, "train"))
    if not classes:
        raise NeasError(
            f"data.data_dir: {os.path.join(root, 'train')!r} is empty; allowed is one folder for "
            "each class."
        )
    unknown = sorted(set(_subfolders(os.path.join(root, folders[0]))) - set(classes))
    if unknown:
        raise NeasError(
            f"data.data_dir: {folders[0]}/{unknown[0]} of {root!r} is no class of train/, which "
            f"has {_some(classes)}."
        )
    return Source(
        config.name or os.path.basename(os.path.normpath(root)),
        _folder_store(os.path.join(root, "train"), classes),
        _folder_store(os.path.join(root, folders[0]), classes),
        tuple(classes),
        None,
        3,
    )


def _open_test_folder(config: DataConfig) -> Source:
    """Test images in test/, val/ or validation/, or in the folder itself; classes of train/."""
    root = resolve_user_path(config.data_dir)
    if not tf.io.gfile.isdir(root):
        raise NeasError(
            f"data.data_dir: there is no folder {root!r}; allowed is one with test/<class>/*.jpg or "
            "<class>/*.jpg."
        )
    inside = _subfolders(root)
    path = next((os.path.join(root, name) for name in _TEST_FOLDERS if name in inside), root)
    classes = _subfolders(path)
    if path != root and "train" in inside:
        classes = sorted({*classes, *_subfolders(os.path.join(root, "train"))})
    store = _folder_store(path, classes)
    name = config.name or os.path.basename(os.path.normpath(root))
    return Source(name, store, store, tuple(classes), None, 3)


def _subfolders(path: str) -> list[str]:
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(path))
    return sorted(n for n in names if n[0] != "." and tf.io.gfile.isdir(os.path.join(path, n)))


def _folder_store(path: str, classes: list[str]) -> FileStore:
    paths, labels = [], []
    for label, name in enumerate(classes):
        folder = os.path.join(path, name)
        files = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
        for file in sorted(files):
            if file.lower().endswith(_EXTENSIONS) and not file.startswith("."):
                paths.append(os.path.join(folder, file))
                labels.append(label)
    if not paths:
        raise NeasError(
            f"data.data_dir: {path!r} holds no image; allowed are files {', '.join(_EXTENSIONS)} "
            "in one folder for each class."
        )
    return FileStore(tuple(paths), np.array(labels, np.int32))


def _open_records(config: DataConfig) -> Source:
    return Source(
        config.name or "tfrecord",
        _pattern_store(config, "train_pattern"),
        _pattern_store(config, "test_pattern"),
        None,
        None,
        3,
    )


def _pattern_store(config: DataConfig, field: str) -> RecordStore:
    text = getattr(config, field)
    root = resolve_user_path(config.data_dir)
    paths: list[str] = []
    for pattern in (part.strip() for part in text.split(",")):
        full = os.path.join(root, pattern) if root else resolve_user_path(pattern)
        paths += sorted(glob.glob(full)) if "://" not in full else sorted(tf.io.gfile.glob(full))
    if not paths:
        fail(f"data.{field}", text, f"a glob that matches TFRecord files{_below(root)}")
    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(count_records, paths))
    files = tuple(RecordFile(p, 0, n) for p, n in zip(paths, counts, strict=True) if n)
    if not files:
        fail(f"data.{field}", text, "a glob of TFRecord files that are not empty")
    return RecordStore(files, "image/encoded", "image/class/label", config.label_offset)


def count_records(path: str) -> int:
    """Number of records of an uncompressed TFRecord file; reads the lengths only.

    Raises:
      NeasError: when the file ends inside a record.
    """
    remote = "://" in path
    size = tf.io.gfile.stat(path).length if remote else os.path.getsize(path)
    count = position = 0
    with tf.io.gfile.GFile(path, "rb") if remote else open(path, "rb") as stream:
        while position < size:
            stream.seek(position)
            head = stream.read(8)
            # Layout of a record: length (8), its checksum (4), data, checksum (4).
            position += 16 + (struct.unpack("<Q", head)[0] if len(head) == 8 else size)
            count += 1
    if position != size:
        raise NeasError(
            f"data: {path!r} is no whole uncompressed TFRecord file (record {count} goes beyond "
            "its end)."
        )
    return count


def _open_tfds(config: DataConfig) -> Source:
    import tensorflow_datasets as tfds

    data_dir = resolve_user_path(config.data_dir) or os.environ.get("TFDS_DATA_DIR", "")
    data_dir = data_dir or os.path.expanduser("~/tensorflow_datasets")
    builder = _tfds_builder(config, data_dir)
    info = builder.info
    image_key, label_key = info.supervised_keys or ("image", "label")
    features = dict(info.features.items()) if hasattr(info.features, "items") else {}
    if not (
        isinstance(features.get(image_key), tfds.features.Image)
        and isinstance(features.get(label_key), tfds.features.ClassLabel)
        and features[image_key].np_dtype == np.uint8
    ):
        fail("data.name", config.name, "a TFDS data set of 8-bit images with one class label each")
    if info.file_format is not tfds.core.FileFormat.TFRECORD:
        fail("data.name", f"{config.name} in {info.file_format}", "a TFDS data set in TFRecords")
    height, width, channels = features[image_key].shape
    stores = {}
    for field in ("train_split", "test_split"):
        stores[field] = _tfds_store(info, config, field, image_key, label_key)
    if config.train_split != config.test_split:
        _warn_of_overlap(stores["train_split"], stores["test_split"], config)
    return Source(
        config.name,
        stores["train_split"],
        stores["test_split"],
        tuple(features[label_key].names),
        (height, width) if height and width else None,
        1 if channels == 1 else 3,
    )


def _tfds_builder(config: DataConfig, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    absent = (
        f"data.name: the TFDS data set {config.name!r} is not prepared in data_dir {data_dir!r}; "
        "set data_dir to where it is, or download: true to fetch and prepare it."
    )
    try:
        builder = tfds.builder(config.name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = sorted({*tfds.list_builders(), *_prepared(data_dir)})
        near = difflib.get_close_matches(config.name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise NeasError(
            f"data.name: TFDS knows no data set {config.name!r}, and there is none in data_dir "
            f"{data_dir!r}{hint}"
        ) from None
    except Exception as error:  # damaged descriptions of a set raise errors of many kinds
        raise NeasError(
            f"data.name: {config.name!r} cannot be opened ({type(error).__name__}: {_line(error)})."
        ) from None
    if not builder.info.splits:
        if not config.download:
            raise NeasError(absent)
        try:
            builder.download_and_prepare()
        except Exception as error:  # whatever a builder's own download code raises
            raise NeasError(
                f"data.download: {config.name!r} could not be prepared in {data_dir!r} "
                f"({type(error).__name__}: {_line(error)})."
            ) from error
    return builder


def _tfds_store(
    info: Any, config: DataConfig, field: str, image_key: str, label_key: str
) -> RecordStore:
    expression = getattr(config, field)
    try:
        instructions = info.splits[expression].file_instructions
    except (ValueError, KeyError, AssertionError):
        allowed = f"made of {', '.join(info.splits)}, such as '{next(iter(info.splits))}[:90%]'"
        fail(f"data.{field}", expression, f"a split expression of {config.name!r} {allowed}")
    files = []
    for file in instructions:
        take = file.examples_in_shard - file.skip if file.take < 0 else file.take
        if not tf.io.gfile.exists(os.fspath(file.filename)):
            raise NeasError(f"data.data_dir: the record file {str(file.filename)!r} is missing.")
        files.append(RecordFile(os.fspath(file.filename), int(file.skip), int(take)))
    if not sum(file.take for file in files):
        fail(f"data.{field}", expression, "a split expression with at least one example")
    return RecordStore(tuple(files), image_key, label_key)


def _warn_of_overlap(train: RecordStore, test: RecordStore, config: DataConfig) -> None:
    from absl import logging

    for a in train.files:
        for b in test.files:
            if a.path == b.path and a.skip < b.skip + b.take and b.skip < a.skip + a.take:
                logging.warning(
                    "data.test_split %r shares examples with data.train_split %r: its accuracy "
                    "says nothing about new images.",
                    config.test_split,
                    config.train_split,
                )
                return


def _prepared(data_dir: str) -> list[str]:
    return os.listdir(data_dir) if os.path.isdir(data_dir) else []


def _below(root: str) -> str:
    return f" in {root!r}" if root else ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".")
