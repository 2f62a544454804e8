"""What a data set is made of, in a few lines of JSON, so that a later stage notices another one.

Where the data lie does not count. Noticed are other classes, names, numbers and sizes of files;
files of the same names and sizes are taken to be the same ones.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from neas_tf.common.errors import NeasError
from neas_tf.common.files import listed, read_json
from neas_tf.data.stores import FileStore, RecordStore, Store

# Sizes are asked of so many files of a part at most, evenly spaced: the names of all are known.
MOST_SIZES = 20_000
_DIGEST = ", sha256 "
_WHOLE = re.compile(r"(\d+) records, (\d+) bytes")  # of a file that is read from its beginning


def describe_files(store: Store) -> dict[str, str]:
    """The files of a store: of record files one line each, of images one line a folder."""
    if isinstance(store, RecordStore):
        return _records(store)
    return _folders(store) if isinstance(store, FileStore) else {}


def contents(class_names: Iterable[str], files: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What `data.json` records, for `changes`."""
    return {"classes": list(class_names), "files": {k: dict(v) for k, v in files.items()}}


def changes(recorded: Any, now: Mapping[str, Any]) -> list[str]:
    """What differs between two records of data, one short text each.

    Args:
      recorded: of `data.json`; what an older version did not record, or this one does not
        understand, is not compared.
      now: the same of the data as they are; with `files` of some parts only, those are compared.
    """
    if not isinstance(recorded, Mapping):
        return []
    result = _classes(recorded.get("classes"), now["classes"])
    files = recorded.get("files")
    for part, lines in now["files"].items():
        before = files.get(part) if isinstance(files, Mapping) else None
        if isinstance(before, Mapping):
            result += _lines(part, before, lines)
    same_split = all(recorded.get(k) == now.get(k) for k in ("sizes", "split_seed"))
    digest = recorded.get("search_indices_sha256")
    if not result and same_split and digest and digest != now.get("search_indices_sha256", digest):
        result.append("other images are held out for the search")
    return result


def changed_since(path: Path, now: Mapping[str, Any]) -> str:
    """What differs from a run's `data.json`; '' where nothing does, or nothing is recorded."""
    if not path.exists():
        return ""
    try:
        recorded = read_json(path, "data")
    except NeasError as error:
        logging.warning("%s So it cannot be told whether the data are the same as before.", error)
        return ""
    return listed(changes(recorded, now), 4)


def shared_folders(files: Mapping[str, Mapping[str, str]], part: str = "test") -> list[str]:
    """Folders whose training files and those of a part have the same names and sizes."""
    train, other = files.get("train", {}), files.get(part, {})
    return [name for name, line in other.items() if _DIGEST in line and train.get(name) == line]


def recorded_counts(path: Path) -> dict[tuple[str, int], int]:
    """Records in files of a name and size, as a run's `data.json` tells; empty where it does not.

    Counting reads the length of every record, which is long for a million of them, and longer
    elsewhere.
    """
    try:
        recorded = read_json(path, "data") if path.exists() else {}
    except NeasError:
        return {}
    files = recorded.get("files") if isinstance(recorded, Mapping) else None
    result = {}
    for lines in files.values() if isinstance(files, Mapping) else ():
        for name, line in lines.items() if isinstance(lines, Mapping) else ():
            if found := _WHOLE.fullmatch(str(line)):
                result[str(name), int(found[2])] = int(found[1])
    return result


def file_size(path: str) -> int:
    """Bytes of a file, here or elsewhere."""
    if "://" not in path:
        return os.stat(path).st_size
    import tensorflow as tf

    return tf.io.gfile.stat(path).length


def _records(store: RecordStore) -> dict[str, str]:
    result: dict[str, str] = {}
    with ThreadPoolExecutor(16) as pool:
        sizes = pool.map(_record_size, [file.path for file in store.files])
    for file, size in zip(store.files, sizes, strict=True):
        name = os.path.basename(file.path)
        if name in result:  # of two folders
            name = f"{name} ({len(result)})"
        begin = f" from {file.skip}" if file.skip else ""
        result[name] = f"{file.take} records{begin}" + ("" if size is None else f", {size} bytes")
    return result


def _folders(store: FileStore) -> dict[str, str]:
    asked = np.unique(np.linspace(0, store.size - 1, min(store.size, MOST_SIZES)).astype(int))
    shares = np.array_split(asked, 64)  # a task for each file would cost more than the asking
    with ThreadPoolExecutor(16) as pool:
        found = pool.map(lambda share: [_size(store.paths[i]) for i in share.tolist()], shares)
        sizes = dict(zip(asked.tolist(), itertools.chain.from_iterable(found), strict=True))
    result = {}
    for folder, places, names in store.paths.by_folder():
        # Two classes may have sub-folders of one name.
        inside = os.path.relpath(folder, store.root) if store.root else os.path.basename(folder)
        lines = sorted(
            f"{os.fsdecode(name)}\0{sizes.get(i)}\n"
            for i, name in zip(places.tolist(), names, strict=True)
        )
        text = "".join(lines).encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(text).hexdigest()[:16]
        result[inside] = f"{len(lines)} file{'s' * (len(lines) > 1)}{_DIGEST}{digest}"
    return result


def _record_size(path: str) -> int | None:
    try:
        return file_size(path)
    except Exception:  # of an address, whatever TensorFlow raises; reading says what is wrong
        return None


def _size(path: str) -> int | None:
    """Bytes of a file of this machine; None elsewhere, where asking takes long."""
    try:
        return None if "://" in path else os.stat(path).st_size
    except OSError:
        return None


def _classes(before: Any, now: list[str]) -> list[str]:
    if not isinstance(before, list) or before == now:
        return []
    if len(before) != len(now):
        lost, new = [x for x in before if x not in now], [x for x in now if x not in before]
        words = [f"{what} {_few(names)}" for what, names in (("lost", lost), ("new", new)) if names]
        return [f"there were {len(before)} classes, are {len(now)}: {', '.join(words)}"]
    pairs = [(i, old, new) for i, (old, new) in enumerate(zip(before, now, strict=True))]
    texts = [f"class {i} was {old!r}, is {new!r}" for i, old, new in pairs if old != new]
    return texts[:3] + [f"{len(texts) - 3} more classes differ"] * (len(texts) > 3)


def _lines(part: str, before: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    result = []
    for name in [*before, *(n for n in now if n not in before)]:
        old, new = (str(lines[name]) if name in lines else "" for lines in (before, now))
        was, is_now = (line.partition(_DIGEST)[0] for line in (old, new))
        if old == new:
            continue
        if not old or not new:
            result.append(f"{part}/{name} is {'new' if new else 'gone'} ({was or is_now})")
        elif was != is_now:
            result.append(f"{part}/{name} had {was}, has {is_now}")
        else:
            result.append(f"{part}/{name} has {is_now} of other names or sizes")
    return result


def _few(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + ", …" * (len(names) > 3)
