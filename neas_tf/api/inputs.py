"""What a caller hands in as data, as settings of a run and as facts that a plan is made of."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.api import store as stores
from neas_tf.api.plan import Facts
from neas_tf.common import console
from neas_tf.common.errors import NeasError, fail
from neas_tf.common.paths import resolve_user_path
from neas_tf.data.data_config import DataConfig
from neas_tf.data.loading import class_names_of
from neas_tf.data.reading import pictures
from neas_tf.data.reading.folders import VALIDATION_FOLDERS
from neas_tf.data.reading.sources import Source, open_source
from neas_tf.data.stores import ArrayStore, FileStore, RecordStore

_LOOK = 200  # pictures whose size is asked
_ONLY_VALIDATION = (
    "No test pictures beside the validation pictures: those are the test, which nothing is chosen "
    "by, and some of the training pictures judge the search."
)


def data_settings(
    data: Any, test: Any, validation: Any, model_dir: Path, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The section `data` of the settings; arrays and datasets are stored first.

    Args:
      data: a folder, the name of a TFDS set, (images, labels), or a dataset.
      test, validation: the same as arrays or datasets, or None; `validation` alone is the test.
      model_dir: folder of the run.
      given: the user's own settings of that section.

    Raises:
      NeasError: for what cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        for name, value in (("test", test), ("validation", validation)):
            if value is not None:
                has = "nothing beside a folder, which has its own test/ and validation/"
                fail(name, type(value).__name__, has)
        return _of_name(os.fspath(data))
    if test is None and validation is not None:
        test, validation = validation, None  # as the folders val/ and test/ of pictures
        console.say(_ONLY_VALIDATION)
    record = stores.store(
        model_dir,
        data,
        test,
        validation,
        tuple(given.get("class_names") or ()),
        float(given.get("test_fraction") or DataConfig.test_fraction),
    )
    return stores.settings_of(model_dir / stores.FOLDER, record)


def _of_name(text: str) -> dict[str, Any]:
    """A folder, or the name of a TFDS set."""
    path = resolve_user_path(text)
    if os.path.isdir(path) or "://" in text:
        return {
            "source": "image_folder",
            "data_dir": str(path if "://" in text else Path(path).absolute()),
        }
    if os.path.exists(path):
        fail("data", text, "a folder of pictures, and this is a file")
    import tensorflow_datasets as tfds

    if os.sep not in text and text.partition(":")[0] in tfds.list_builders(
        with_community_datasets=False
    ):
        return {"source": "tfds", "name": text}
    raise NeasError(
        f"data: received {text!r}, expected a folder of pictures (there is none of this name), or the "
        "name of a TFDS data set."
    )


def facts_of(config: DataConfig) -> Facts:
    """What the data are, without reading more than a few pictures.

    Raises:
      NeasError: as `neas_tf.data.load`.
    """
    config.check()
    source = open_source(config)
    names = class_names_of(config, source)
    labels = source.train.labels
    if labels is not None:
        counts = np.bincount(labels, minlength=len(names)).tolist()
    else:
        counts = stores.training_counts(Path(config.data_dir))
    side, same = _sides(source, config.input_size)
    roots = [s.root for s in (source.train, source.test) if isinstance(s, FileStore)]
    if len(set(roots)) == 2 and os.path.basename(roots[1]) in VALIDATION_FOLDERS:
        console.say(_ONLY_VALIDATION)
    judges = source.validation.size if source.validation else 0
    if not judges and isinstance(source.train, FileStore) and min(counts, default=2) < 2:
        short = [names[i] for i, count in enumerate(counts) if count < 2]
        raise NeasError(
            f"data: the class {short[0]!r} has {counts[names.index(short[0])]} training image(s), "
            "expected two at least, one of them to judge the search by."
        )
    return Facts(
        source.name,
        source.train.size,
        source.test.size,
        len(names),
        counts,
        side,
        same,
        config.input_channels or source.channels,
        judges,
    )


def _sides(source: Source, given: Sequence[int]) -> tuple[int, tuple[int, int] | None]:
    """Median of the shorter side, and the size where all have one."""
    if source.size:
        return min(source.size), (int(source.size[0]), int(source.size[1]))
    if given:
        return min(given), None
    sizes = [size for size in map(_size, _heads(source)) if size]
    if not sizes:
        raise NeasError(
            f"data: no picture of {source.name!r} that was looked at can be read, so that their size "
            "is unknown; expected pictures, or data.input_size."
        )
    same = len(set(sizes)) == 1 and len(sizes) < _LOOK
    return int(np.median([min(size) for size in sizes])), sizes[0] if same else None


def _heads(source: Source) -> list[bytes]:
    """The beginnings of some pictures, evenly spread."""
    train = source.train
    if isinstance(train, FileStore):
        some = np.unique(np.linspace(0, train.size - 1, min(_LOOK, train.size)).astype(int))
        return [pictures.head(train.paths[i]) for i in some]
    if isinstance(train, RecordStore):
        records = train.records().take(_LOOK).map(lambda _, record: train.parse(record)[0])
        return list(records.as_numpy_iterator())
    assert isinstance(train, ArrayStore)
    return []


def _size(head: bytes) -> tuple[int, int] | None:
    """(height, width) of an encoded picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(head)) as picture:
            return picture.height, picture.width
    except Exception:  # reading it for its pixels says what is wrong
        return None
