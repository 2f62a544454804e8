"""Arrays and datasets, written once into a run's folder as TFRecords of PNG images.

Memory stays bounded by a batch of images, whatever their number. A store is made beside its place
and renamed when it is whole, so that a call that was killed or failed leaves none.
"""

from __future__ import annotations

import collections
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.api.arrays import Example, Reading, examples_of
from neas_tf.common import console
from neas_tf.common.class_names import check_class_names
from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.files import read_json, temporary_folder, told, write_json_atomic
from neas_tf.common.folder_lock import lock_folder

FOLDER, FILE, FORMAT = "data", "store.json", "neas-store/1"
_SHARD = 1 << 26  # bytes of a record file
_SEEN = 64  # examples that tell whether it is the same data again
_FREE = 1 << 28  # bytes that stay free on the disk
_KEYS = ("image/encoded", "image/class/label")


def store(
    model_dir: Path,
    data: Any,
    test: Any = None,
    validation: Any = None,
    class_names: Sequence[str] = (),
    test_fraction: float = 0.2,
) -> dict[str, Any]:
    """Writes the examples into `model_dir/data`, or finds them there.

    Args:
      model_dir: folder of the run.
      data: training images and labels, as `examples_of` takes them.
      test: the same for the test; None holds out every so many-th example of each class of `data`.
      validation: the same for what judges the search; None leaves that to some of `data`.
      class_names: of the class numbers; names as labels need none.
      test_fraction: share of each class, where `test` is None.

    Returns:
      The record in `store.json`: `class_names`, counts of each class by part, `channels`.

    Raises:
      NeasError: for data that cannot be taken, a folder with other data, or a full disk.
    """
    folder = model_dir / FOLDER
    parts = {"data": data, "validation": validation, "test": test}
    with told(f"model_dir {str(model_dir)!r}"):
        model_dir.mkdir(parents=True, exist_ok=True)
        with lock_folder(model_dir):
            if (folder / FILE).is_file():
                return _found(folder, parts)
            if folder.exists():
                raise NeasError(
                    f"model_dir: {str(folder)!r} is there without {FILE}, expected a new folder, "
                    "or one that this call was begun in."
                )
            with temporary_folder(folder) as temporary:
                made = temporary / "new"
                made.mkdir()
                record = _write(made, parts, tuple(class_names), test_fraction)
                write_json_atomic(made / FILE, record)
                made.rename(folder)
                return record


def settings_of(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The section `data` of a run's settings that reads a store."""
    settings: dict[str, Any] = {
        "source": "tfrecord",
        "name": "own_data",
        "data_dir": str(folder),
        "train_pattern": "train-*.tfrecord",
        "test_pattern": "test-*.tfrecord",
        "label_offset": record["label_offset"],
        "class_names": record["class_names"],
        "input_channels": record["channels"],
    }
    if "validation" in record["counts"]:
        settings["validation_pattern"] = "validation-*.tfrecord"
    if record["size"]:
        settings["input_size"] = record["size"]
    return settings


def training_counts(folder: Path) -> list[int]:
    """Training images of each class in a store; [] where a folder is none."""
    path = folder / FILE
    return list(read_json(path, "store")["counts"]["train"]) if path.is_file() else []


def _found(folder: Path, parts: dict[str, Any]) -> dict[str, Any]:
    """The record of a store that is there, if it was made of these parts."""
    record = read_json(folder / FILE, "store")
    check(
        isinstance(record, dict) and record.get("format") == FORMAT,
        f"store {str(folder)!r}",
        record,
        FORMAT,
    )
    others = record.get("first_sha256_of")  # which stores of before there were any lack
    begun = {"data": record["first_sha256"], **(others or {})}
    given = [part for part, data in parts.items() if data is not None]
    if set(given) != set(begun) if others is not None else "validation" in given:
        raise NeasError(
            f"data: received {', '.join(given)}, and {str(folder.parent)!r} was begun with "
            f"{', '.join(begun) if others is not None else 'no validation of its own'}; expected "
            "the same, or another model_dir."
        )
    for part in given:
        if part not in begun or hasattr(parts[part], "__next__"):  # it gives its examples once only
            continue
        examples = examples_of(parts[part], Reading(part, lambda text: None))
        if _digest(_first(examples)) != begun[part]:
            raise NeasError(
                f"{part}: not those that {str(folder.parent)!r} was begun with (its first {_SEEN} "
                "examples differ); expected the same data, or another model_dir."
            )
    return record


def _first(examples: Iterator[Example]) -> list[Example]:
    return [example for example, _ in zip(examples, range(_SEEN), strict=False)]


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for image, label in examples:
        digest.update(f"{label!r} {image.shape}\0".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


class _Writer:
    """Record files of one part, each of a bounded size."""

    def __init__(self, folder: Path, part: str):
        self.folder, self.part = folder, part
        self.counts: collections.Counter[int | str] = collections.Counter()
        self._writer: Any = None
        self._bytes = self._shards = 0

    def write(self, image: np.ndarray, label: int | str) -> None:
        import cv2
        import tensorflow as tf

        if self._writer is None or self._bytes > _SHARD:
            self.close()
            free = shutil.disk_usage(self.folder).free
            if free < _FREE:
                raise NeasError(
                    f"model_dir: {free >> 20} MiB are left on the disk of {str(self.folder)!r} "
                    f"after {self.counts.total():,} examples; expected room for all of them (a "
                    "dataset without end has none)."
                )
            name = f"{self.part}-{self._shards:05d}.tfrecord"
            self._writer, self._bytes = tf.io.TFRecordWriter(str(self.folder / name)), 0
            self._shards += 1
        pixels = image[..., ::-1] if image.shape[-1] == 3 else image
        encoded = cv2.imencode(".png", pixels)[1].tobytes()
        text = label.encode() if isinstance(label, str) else None
        kinds = {
            _KEYS[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
            _KEYS[1]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            if text is not None
            else tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        }
        features = tf.train.Features(feature=kinds)
        content = tf.train.Example(features=features).SerializeToString()
        self._writer.write(content)
        self._bytes += len(content)
        self.counts[label] += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _write(
    folder: Path, parts: dict[str, Any], names: tuple[str, ...], test_fraction: float
) -> dict[str, Any]:
    names_of = {"data": "train", "validation": "validation", "test": "test"}
    given = {part: data for part, data in parts.items() if data is not None}
    writers = {names_of[part]: _Writer(folder, names_of[part]) for part in (*given, "test")}
    sizes: set[tuple[int, int]] = set()
    first: dict[str, list[Example]] = {part: [] for part in given}
    channels = 0
    period = max(2, round(1 / test_fraction)) if parts["test"] is None else 0
    seen: collections.Counter[int | str] = collections.Counter()
    try:
        with console.bar("Images", None, "images") as shown:
            for part, data in given.items():
                reading = Reading(part, console.say, channels=channels)
                for image, label in examples_of(data, reading):
                    if len(first[part]) < _SEEN:
                        first[part].append((image, label))
                    held_out = period and part == "data" and seen[label] % period == 1
                    seen[label] += part == "data"
                    writers["test" if held_out else names_of[part]].write(image, label)
                    sizes.add(image.shape[:2])
                    shown.update(1)
                channels = reading.channels
    finally:
        for writer in writers.values():
            writer.close()
    counts = {part: writer.counts for part, writer in writers.items()}
    if not counts["train"]:
        fail("data", "no example", "(image, label) of two classes at least")
    if "validation" in given and not counts["validation"]:
        fail("validation", "no example", "(image, label) of classes of the training data")
    if not counts["test"]:
        raise NeasError(
            "data: no class has more than one image; expected two of a class at least, one of them "
            "for the test."
        )
    if period:
        console.say(
            f"No test data were given: every {period}th image of each class is held out, "
            f"{counts['test'].total():,} in all."
        )
    class_names, offset, index = _classes(counts, names)
    alone = [label for label, count in counts["train"].items() if count < 2]
    if alone and "validation" not in given:
        raise NeasError(
            f"data labels: the class {alone[0]!r} has 1 training image, expected two at least, one "
            "of them to judge the search by."
        )
    if any(isinstance(label, str) for label in index):
        for path in sorted(folder.glob("*.tfrecord")):
            _number_labels(path, index)
    return {
        "format": FORMAT,
        "class_names": list(class_names),
        "label_offset": offset,
        "channels": channels,
        "size": list(next(iter(sizes))) if len(sizes) == 1 else [],
        "counts": {
            part: [found[label] for label in sorted(index, key=lambda k: index[k])]
            for part, found in counts.items()
        },
        "first_sha256": _digest(first.pop("data")),
        "first_sha256_of": {part: _digest(examples) for part, examples in first.items()},
    }


def _classes(
    counts: dict[str, collections.Counter[int | str]], names: tuple[str, ...]
) -> tuple[tuple[str, ...], int, dict[int | str, int]]:
    """Names of the classes, what is taken off class numbers, and the place of every label."""
    labels = sorted(set().union(*counts.values()), key=lambda v: (isinstance(v, str), v))
    texts = [label for label in labels if isinstance(label, str)]
    numbers = [label for label in labels if not isinstance(label, str)]
    if texts and numbers:
        fail("data labels", f"{numbers[0]} and {texts[0]!r}", "class numbers or names, not both")
    if texts:
        for name in texts:
            if names and name not in names:
                fail("data labels", name, f"one of class_names: {', '.join(names[:10])}")
        known = check_class_names(names or tuple(texts), "data labels")
        index: dict[int | str, int] = {name: known.index(name) for name in texts}
        offset = 0
    else:
        offset = 1 if numbers[0] == 1 and (not names or numbers[-1] == len(names)) else 0
        if offset:
            console.say(
                "Labels count from 1: 1 is taken off, and the classes keep their numbers as names."
                if not names
                else "Labels count from 1; 1 is taken off."
            )
        count = len(names) or numbers[-1] + 1 - offset
        if numbers[-1] - offset >= count:
            fail("data labels", numbers[-1], f"0 to {count - 1}, for {count} class_names")
        if len(numbers) < count and count > 2 * len(numbers) + 8:
            few = ", ".join(map(str, numbers[:5]))
            fail("data labels", f"{few}, … up to {numbers[-1]}", "class numbers from 0, or names")
        own = tuple(str(number + offset) for number in range(count))
        known = check_class_names(names or own, "class_names")
        index = {number: number - offset for number in numbers}
    if len(labels) < 2:
        raise NeasError(
            f"data labels: all examples have the label {labels[0]!r}, expected two classes at "
            "least."
        )
    for part, found in counts.items():
        missing = [str(label) for label in labels if found[label] and not counts["train"][label]]
        if missing:
            raise NeasError(
                f"data labels: the {part} has the class {missing[0]!r}, of which there is no "
                "training image; expected classes of the training data."
            )
    return known, offset, index


def _number_labels(path: Path, index: dict[int | str, int]) -> None:
    """Puts class numbers for names into a record file."""
    import tensorflow as tf

    renamed = path.with_suffix(".numbered")
    with tf.io.TFRecordWriter(str(renamed)) as writer:
        for content in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(content)
            feature = example.features.feature[_KEYS[1]]
            name = feature.bytes_list.value[0].decode()
            feature.CopyFrom(tf.train.Feature(int64_list=tf.train.Int64List(value=[index[name]])))
            writer.write(example.SerializeToString())
    renamed.rename(path)
