"""Opens a data set: classes, size of the images, memory or files, held-out part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from absl import logging
from official.vision.ops import preprocess_ops

from neas_tf.common.class_names import check_class_names
from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.normalisation import Normalisation
from neas_tf.data import splits
from neas_tf.data.bad_records import report_damaged
from neas_tf.data.data_config import DataConfig
from neas_tf.data.dataset_info import DatasetInfo, Part
from neas_tf.data.reading.contents import describe_files, shared_folders
from neas_tf.data.reading.decoding import Decoder
from neas_tf.data.reading.images import decode_all
from neas_tf.data.reading.inspection import inspect
from neas_tf.data.reading.sources import Source, open_source
from neas_tf.data.stores import FileStore, Store

# Decoded images are kept below this many bytes where the config leaves it open.
MEMORY_LIMIT = 1 << 30
# Mean and standard deviation per channel of the training sets, scaled to 0..1.
_KNOWN = {
    "digits": ((0.3053,), (0.3760,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}
_NAMES = {"train": "training", "validation": "validation", "test": "test"}
_GREY = ((0.5,), (0.25,))
_RGB = (preprocess_ops.MEAN_NORM, preprocess_ops.STDDEV_NORM)


def load(
    config: DataConfig,
    *,
    test_only: bool = False,
    counted: Mapping[tuple[str, int], int] | None = None,
) -> DatasetInfo:
    """Opens the data set; small ones are decoded into memory.

    Args:
      config: what to open.
      test_only: opens the test split alone; training data need not exist, and a folder may hold
        the classes' folders itself. Images are decoded as they are needed.
      counted: records of files by name and size, as `recorded_counts` reads them from the
        `data.json` of a run; files of another name or size are counted.

    Returns:
      The data set with its part `test`, and unless `test_only` its parts `train`, `supernet` and
      `search`. `search` are the validation images, where there are some; else it is drawn from the
      training split with `split_seed`, in the proportions of the classes where the labels are
      known without reading every record.

    Raises:
      NeasError: for an unsound config, or data that are missing, empty, damaged or do not fit it.
    """
    if test_only:
        config = config.replace(
            train_split=config.test_split,
            train_pattern=config.test_pattern,
            validation_split="",
            validation_pattern="",
            cache="none",
        )
    config.check()
    source = open_source(config, test_only, counted)
    shape = _input_shape(config, source)
    names = class_names_of(config, source)
    splits.loss_weights(np.ones(len(names)), names, config.weight_setting)  # are these classes?
    inspect(_stores_by_field(config, source, test_only), len(names))
    if test_only:
        return _test_only(config, source, shape, names)
    stores = source.stores
    files = {part: describe_files(store) for part, store in stores.items()}
    _warn_of_shared(files)
    skipped = _report_unusable(stores, source, config)
    if _wants_memory(config, source, shape):
        decoder = make_decoder(config, shape)
        for part, store in stores.items():
            what = _called(part, source)
            stores[part], damaged = decode_all(
                store, decoder, what, len(names), config.on_bad_record
            )
            skipped[part] = skipped.get(part, 0) + damaged
    for part, store in stores.items():
        _check_labels(store, names, config)
        _warn_of_absent(store, names, _NAMES[part])
    train, test = stores["train"], stores["test"]
    if (validation := stores.get("validation")) is None:
        judged = _hold_out(train, config)
    else:
        judged = {"supernet": Part(train), "search": Part(validation)}
    parts = {"train": Part(train), "test": Part(test), **judged}
    normalisation = _normalisation(config, source, shape)
    info = DatasetInfo(source.name, config, names, shape, normalisation, parts, skipped, files)
    logging.info("Data set: %s", info.describe())
    return info


def _test_only(
    config: DataConfig, source: Source, shape: tuple[int, int, int], names: tuple[str, ...]
) -> DatasetInfo:
    store, files = source.test, {"test": describe_files(source.test)}
    if config.source == "digits":  # arrays already; in the size that is asked for
        what = _called("test", source)
        store, _ = decode_all(store, make_decoder(config, shape), what, len(names))
    _check_labels(store, names, config)
    skipped = _report_unusable({"test": store}, source, config)
    normalisation = _normalisation(config, source, shape)
    parts = {"test": Part(store)}
    return DatasetInfo(source.name, config, names, shape, normalisation, parts, skipped, files)


def _called(part: str, source: Source) -> str:
    return f"{source.name}, {_NAMES[part]} images"


def _report_unusable(
    stores: dict[str, Store], source: Source, config: DataConfig
) -> dict[str, int]:
    """Reports what has an image's name and is no file, as damaged; how many there are."""
    skipped = {}
    for part, store in stores.items():
        if isinstance(store, FileStore) and store.unusable:
            count = len(store.unusable)
            total = store.size + count
            report_damaged(_called(part, source), store.unusable, total, config.on_bad_record)
            skipped[part] = count
    return skipped


def _stores_by_field(config: DataConfig, source: Source, test_only: bool) -> dict[str, Store]:
    ending = {"tfds": "_split", "tfrecord": "_pattern"}.get(config.source, "")
    stores = {"test": source.test} if test_only else source.stores
    return {f"data.{part}{ending}": store for part, store in stores.items()}


def make_decoder(config: DataConfig, shape: tuple[int, int, int]) -> Decoder:
    """The decoder for images of this (height, width, channels)."""
    antialias = config.augment != "imagenet"
    return Decoder(*shape, center_fraction=config.center_crop_fraction, antialias=antialias)


def _input_shape(config: DataConfig, source: Source) -> tuple[int, int, int]:
    channels = config.input_channels or source.channels
    size = config.input_size or source.size
    if size is None:
        fail("data.input_size", list(config.input_size), "[height, width], for images of any size")
    height, width = size
    if (config.auto_augment or config.rand_augment) and channels != 3:
        fail("data.input_channels", channels, "3 where auto_augment or rand_augment is set")
    return int(height), int(width), channels


def class_names_of(config: DataConfig, source: Source) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels.

    Raises:
      NeasError: where the data or the settings name none, or contradict each other.
    """
    found = len(source.class_names) if source.class_names else 0
    wanted = config.num_classes or found or len(config.class_names)
    if not wanted:
        fail("data.num_classes", 0, "the number of classes, which TFRecords do not tell")
    if found and wanted != found:
        fail("data.num_classes", config.num_classes, f"0 or {found}, as {source.name!r} has")
    check(wanted >= 2, "data.num_classes", wanted, "at least 2 classes")
    if config.class_names and len(config.class_names) != wanted:
        fail("data.class_names", list(config.class_names), f"{wanted} names or none")
    if config.class_names:
        return tuple(config.class_names)
    names = source.class_names or tuple(str(label) for label in range(wanted))
    return check_class_names(names, f"data: classes of {source.name!r}")


def _wants_memory(config: DataConfig, source: Source, shape: tuple[int, int, int]) -> bool:
    if config.source == "digits" or config.cache == "memory":
        return True
    size = sum(store.size for store in source.stores.values()) * int(np.prod(shape))
    return config.cache == "auto" and config.augment != "imagenet" and size < MEMORY_LIMIT


def _check_labels(store: Store, names: tuple[str, ...], config: DataConfig) -> None:
    labels = store.labels
    if labels is None or not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(names):
        raise NeasError(
            f"data.num_classes: received {len(names)} classes, but the labels go from {low} to "
            f"{high} (label_offset {config.label_offset} is already taken off)."
        )


def _warn_of_absent(store: Store, names: tuple[str, ...], what: str) -> None:
    """Says which classes have no image: nothing can be learned, or is known, of those."""
    if store.labels is None:
        return
    absent = [names[i] for i in np.setdiff1d(np.arange(len(names)), store.labels)]
    if absent:
        more = f" and {len(absent) - 10} more" * (len(absent) > 10)
        text = "%d of %d classes have no %s image: %s%s."
        logging.warning(text, len(absent), len(names), what, ", ".join(absent[:10]), more)


def _warn_of_shared(files: dict[str, dict[str, str]]) -> None:
    for part in ("validation", "test"):
        if shared := shared_folders(files, part):
            text = "The training and the %s images of %s have the same names and sizes%s: the %s "
            text += "says nothing about new images."
            more = f", and of {len(shared) - 3} more classes" * (len(shared) > 3)
            logging.warning(text, part, ", ".join(map(repr, shared[:3])), more, part)


def _hold_out(train: Store, config: DataConfig) -> dict[str, Part]:
    """The training split in two: what trains the supernet, and what the search is judged by."""
    count = round(train.size * config.search_fraction)
    if config.search_fraction > 0 and not 0 < count < train.size:
        fail(
            "data.search_fraction",
            config.search_fraction,
            f"a share that holds out 1..{train.size - 1} of {train.size} training examples",
        )
    rng = np.random.default_rng(config.split_seed)
    if train.labels is None:
        search = splits.random_indices(train.size, count, rng)
    else:
        search = splits.stratified_indices(train.labels, count, rng)
    rest = splits.complement(train.size, search)
    return {"supernet": Part(train, rest), "search": Part(train, search)}


def _normalisation(
    config: DataConfig, source: Source, shape: tuple[int, int, int]
) -> Normalisation:
    channels = shape[2]
    key = "digits" if config.source == "digits" else source.name.split("/")[0].split(":")[0]
    default = _KNOWN.get(key, _GREY)
    if len(default[0]) != channels:
        default = _GREY if channels == 1 else _RGB
    values = []
    for field, fallback in zip(("mean", "std"), default, strict=True):
        given = tuple(float(v) for v in getattr(config, field) or fallback)
        if len(given) != channels:
            fail(f"data.{field}", list(given), f"one number for each of {channels} channels")
        values.append(given)
    return Normalisation(*values)
