"""Opens the four kinds of sources: digits, TFDS, image folders (`folders`), TFRecords."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import os
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from absl import logging

from neas_tf.common.errors import NeasError, fail
from neas_tf.common.paths import resolve_user_path
from neas_tf.data import splits
from neas_tf.data.reading import folders
from neas_tf.data.reading.contents import file_size
from neas_tf.data.reading.pictures import named, no_file
from neas_tf.data.stores import ArrayStore, RecordFile, RecordStore, Store

if TYPE_CHECKING:
    from neas_tf.data.data_config import DataConfig

Counts = Mapping[tuple[str, int], int]

_SIDE_BY_SIDE = 16
_DIGITS_TEST = 360
# The digits' test part is the same whatever seeds a run uses.
_DIGITS_SEED = 20210401


@dataclasses.dataclass(frozen=True)
class Source:
    """What opening a source tells.

    Attributes:
      name: for reports.
      train, test: the two splits.
      validation: images that judge the search; None where it holds out some of `train`.
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
    validation: Store | None = None

    @property
    def stores(self) -> dict[str, Store]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: store for name, store in named.items() if store is not None}


def open_source(
    config: DataConfig, test_only: bool = False, counted: Counts | None = None
) -> Source:
    """Opens the source that the config names; decodes no image but the digits.

    Args:
      config: what to open.
      test_only: the training split need not exist; `train` is then the test split too.
      counted: records of files, as `contents.recorded_counts` tells; others are counted.

    Raises:
      NeasError: when something is missing, empty or contradictory.
    """
    return {
        "digits": _open_digits,
        "tfds": _open_tfds,
        "image_folder": _open_folder,
        "tfrecord": _open_records,
    }[config.source](config, test_only, counted or {})


def _open_digits(config: DataConfig, _: bool, __: Counts) -> Source:
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


def _open_folder(config: DataConfig, test_only: bool, _: Counts) -> Source:
    root = resolve_user_path(config.data_dir)
    if test_only and (not config.test_fraction or folders.has_test(root)):
        test, names = folders.open_test(root)
        train, validation = test, None
    else:
        train, validation, test, names = folders.open_parts(
            root, config.test_fraction, config.split_seed
        )
    name = config.name or os.path.basename(os.path.normpath(root))
    return Source(name, train, test, names, None, 3, validation)


def _open_records(config: DataConfig, test_only: bool, counted: Counts) -> Source:
    test = _pattern_store(config, "test_pattern", counted)
    train = test if test_only else _pattern_store(config, "train_pattern", counted)
    source = Source(config.name or "tfrecord", train, test, None, None, 3)
    if test_only:
        return source
    if config.validation_pattern:
        validation = _pattern_store(config, "validation_pattern", counted)
        source = dataclasses.replace(source, validation=validation)
        _warn_of_same_files(train, validation, "validation", config)
    _warn_of_same_files(train, test, "test", config)
    return source


def _warn_of_same_files(
    train: RecordStore, other: RecordStore, part: str, config: DataConfig
) -> None:
    judging = {_identity(file.path) for file in other.files}
    shared = [file.path for file in train.files if _identity(file.path) in judging]
    if shared:
        logging.warning(
            "data.%s_pattern %r matches files of data.train_pattern %r too, whose records "
            "are training and %s at once: its accuracy says nothing about new images: %s.",
            *(part, getattr(config, f"{part}_pattern"), config.train_pattern, part, named(shared)),
        )


def _pattern_store(config: DataConfig, field: str, counted: Counts) -> RecordStore:
    paths = _record_paths(config, field)
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        counts = list(pool.map(lambda path: count_records(path, counted), paths))
    empty = [path for path, count in zip(paths, counts, strict=True) if not count]
    if len(empty) == len(paths):
        fail(f"data.{field}", getattr(config, field), "a glob of TFRecord files that are not empty")
    if empty:
        text = "data.%s: %d of %d files hold no record: %s."
        logging.warning(text, field, len(empty), len(paths), named(empty))
    files = tuple(RecordFile(p, 0, n) for p, n in zip(paths, counts, strict=True) if n)
    return RecordStore(files, "image/encoded", "image/class/label", config.label_offset)


def _record_paths(config: DataConfig, field: str) -> list[str]:
    """The files that the patterns of a field match, each once, by pattern and name."""
    text, root = getattr(config, field), resolve_user_path(config.data_dir)
    paths: dict[str, str] = {}  # by what they are in the end, whatever links lead there
    folders_found, again = [], []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        found = _matches(part, root)
        if not found and root and not tf.io.gfile.isdir(os.fsencode(root)):
            raise NeasError(
                f"data.data_dir: there is no folder {root!r}; expected the folder that "
                f"data.{field} lies in (data_dir is no glob)."
            )
        if not found:
            fail(f"data.{field}", part, f"a glob that matches TFRecord files{_below(root)}")
        for path in found:
            what, identity = no_file(path), _identity(path)
            if what == "a folder":
                folders_found.append(path)
            elif what:
                raise NeasError(
                    f"data.{field}: {path!r} is no file ({what}); expected TFRecord files."
                )
            elif identity in paths:
                again.append(path)
            else:
                paths[identity] = path
    if not paths:
        what = f", which matches folders only, such as {folders_found[0]!r}" if parts else ""
        raise NeasError(f"data.{field}: received {text!r}{what}; expected globs of TFRecord files.")
    for some, what in ((folders_found, "are folders"), (again, "are there already")):
        if some:
            text = "data.%s: %d of what it matches %s and are not read%s: %s."
            times = " twice" * (some is again)
            logging.warning(text, field, len(some), what, times, named(some))
    return list(paths.values())


def _matches(pattern: str, root: str) -> list[str]:
    """What a pattern matches below a folder, by name; only the pattern is a glob."""
    if os.path.isabs(pattern) or "://" in pattern:
        base = ""
    elif pattern.startswith("~"):
        home, _, pattern = pattern.partition("/")
        base = os.path.expanduser(home)
    else:
        base = root or resolve_user_path(os.curdir)
    base = "" if base == os.curdir else base
    plain, full = os.path.join(base, pattern), os.path.join(glob.escape(base), pattern)
    if "://" in full:
        return sorted(tf.io.gfile.glob(full))
    # A name may have brackets of its own.
    return sorted(glob.glob(full)) or [plain] * os.path.lexists(plain)


def _identity(path: str) -> str:
    return path if "://" in path else os.path.realpath(path)


def count_records(path: str, counted: Counts | None = None) -> int:
    """Number of records of an uncompressed TFRecord file; reads the lengths only.

    Args:
      path: of the file.
      counted: by name and size, of files that were counted before.

    Raises:
      NeasError: when the file ends inside a record, or cannot be read.
    """
    try:
        size = file_size(path)
        known = counted.get((os.path.basename(path), size)) if counted else None
        return _count_records(path, size) if known is None else known
    except (OSError, tf.errors.OpError) as error:
        why = getattr(error, "strerror", None) or _line(error)
        raise NeasError(f"data: the record file {path!r} cannot be read ({why}).") from None


def _count_records(path: str, size: int) -> int:
    count = position = 0
    with tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb") as stream:
        while position < size:
            stream.seek(position)
            head = stream.read(8)
            # Layout of a record: length (8), its checksum (4), data, checksum (4).
            position += 16 + (struct.unpack("<Q", head)[0] if len(head) == 8 else size)
            count += 1
        if position != size:
            stream.seek(0)
            kind = _kind_of_file(stream.read(16))
    if position != size:
        raise NeasError(
            f"data: {path!r} is no whole uncompressed TFRecord file ("
            + (kind or f"record {count} goes beyond its end")
            + ")."
        )
    return count


def _kind_of_file(head: bytes) -> str:
    """What a file that is no TFRecord file may be."""
    for start, kind in (
        (b"\x1f\x8b", "it is compressed with gzip: unpack it with gunzip"),
        (b"PK\x03\x04", "it is a ZIP archive: unpack it"),
        (b"\xff\xd8\xff", "it is a JPEG image"),
        (b"\x89PNG", "it is a PNG image"),
        (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it"),
    ):
        if head.startswith(start):
            return kind
    if head[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
        return "it seems to be compressed with zlib: unpack it"
    return ""


def _open_tfds(config: DataConfig, test_only: bool, _: Counts) -> Source:
    import tensorflow_datasets as tfds

    data_dir = resolve_user_path(config.data_dir) or os.environ.get("TFDS_DATA_DIR", "")
    data_dir = data_dir or os.path.expanduser("~/tensorflow_datasets")
    builder = _tfds_builder(config, data_dir)
    info = builder.info
    keys = info.supervised_keys
    plain = isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(k, str) for k in keys)
    image_key, label_key = keys if plain else ("image", "label")
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
    parts = (
        "train",
        "test",
        *(["validation"] if config.validation_split and not test_only else []),
    )
    stores = {
        part: _tfds_store(info, config, f"{part}_split", image_key, label_key) for part in parts
    }
    for part in parts[1:] if not test_only else ():
        _warn_of_overlap(stores["train"], stores[part], part, config)
    return Source(
        config.name,
        stores["train"],
        stores["test"],
        tuple(features[label_key].names),
        (height, width) if height and width else None,
        1 if channels == 1 else 3,
        stores.get("validation"),
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
        path = os.fspath(file.filename)
        if no_file(path) or not tf.io.gfile.exists(path):
            raise NeasError(f"data.data_dir: the record file {str(file.filename)!r} is missing.")
        files.append(RecordFile(os.fspath(file.filename), int(file.skip), int(take)))
    if not sum(file.take for file in files):
        fail(f"data.{field}", expression, "a split expression with at least one example")
    return RecordStore(tuple(files), image_key, label_key)


def _warn_of_overlap(train: RecordStore, other: RecordStore, part: str, config: DataConfig) -> None:
    for a in train.files:
        for b in other.files:
            if a.path == b.path and a.skip < b.skip + b.take and b.skip < a.skip + a.take:
                logging.warning(
                    "data.%s_split %r shares examples with data.train_split %r: its accuracy "
                    "says nothing about new images.",
                    *(part, getattr(config, f"{part}_split"), config.train_split),
                )
                return


def _prepared(data_dir: str) -> list[str]:
    return os.listdir(data_dir) if os.path.isdir(data_dir) else []


def _below(root: str) -> str:
    return f" in {root!r}" if root else ""


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".")
