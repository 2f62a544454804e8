"""Image folders: which folders are classes, and which files their images."""

from __future__ import annotations

import dataclasses
import functools
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from neas_tf.common.errors import NeasError, check, shown
from neas_tf.data import splits
from neas_tf.data.reading import pictures
from neas_tf.data.reading.path_list import PathList
from neas_tf.data.stores import FileStore

VALIDATION_FOLDERS = ("val", "validation")
TEST_FOLDERS = ("test", *VALIDATION_FOLDERS)
_FIELD = "data.data_dir"
_SIDE_BY_SIDE = 16

Parts = tuple[FileStore, FileStore | None, FileStore, tuple[str, ...]]


def open_parts(root: str, test_fraction: float = 0.2, seed: int = 0) -> Parts:
    """Training, validation and test images of `root`, and the classes.

    Where the folder has no test pictures of its own, those of val/ are the test, and without these
    some of each class are held out. So there are validation images only beside test/.

    Args:
      root: folder with `train/<class>/` and `test/<class>/` or `val/<class>/` (or validation) or
        both, with `train/` alone, or with the classes themselves.
      test_fraction: of each class, where it is split here.
      seed: of that split.

    Raises:
      NeasError: when a folder is missing, empty, unreadable or contradicts another one.
    """
    if not _is_folder(root):
        raise NeasError(
            f"{_FIELD}: there is no folder {root!r}; expected one with <class>/*.jpg, or with "
            "train/<class>/*.jpg and test/<class>/*.jpg."
        )
    inside = _parts(root)
    others = [name for name in TEST_FOLDERS if name in inside]
    if not others:
        return _divided(
            os.path.join(root, "train") if "train" in inside else root, test_fraction, seed
        )
    if "train" not in inside:
        raise NeasError(f"{_FIELD}: {root!r} holds no folder 'train' with training images.")
    used = others[:2] if others[0] == "test" else others[:1]
    if others != used:
        logging.warning(
            "%s: of the folders of %r, %s is the %s; %s is not read.",
            *(_FIELD, root, used[-1], "validation" if len(used) > 1 else "test", others[-1]),
        )
    train = os.path.join(root, "train")
    classes = _classes(train)
    names, stores = tuple(classes), []
    for part in used:
        found = _classes(os.path.join(root, part))
        unknown = sorted(found.keys() - classes.keys())
        if unknown:
            near = [name for name in classes if name.casefold() == unknown[0].casefold()]
            hint = f"; {near[0]!r} differs in case only" if near else ""
            raise NeasError(
                f"{_FIELD}: {part}/{unknown[0]} of {root!r} is no class of train/, which "
                f"has {_some(list(classes))}{hint}."
            )
        stores.append(_store(os.path.join(root, part), names, found))
    return _store(train, names, classes), stores[1] if len(used) > 1 else None, stores[0], names


def open_test(root: str) -> tuple[FileStore, tuple[str, ...]]:
    """Test images in test/, val/ or validation/, or in `root` itself; classes also of train/.

    Raises:
      NeasError: as `open_parts`.
    """
    if not _is_folder(root):
        raise NeasError(
            f"{_FIELD}: there is no folder {root!r}; expected one with test/<class>/*.jpg or "
            "<class>/*.jpg."
        )
    inside = _parts(root)
    path = next((os.path.join(root, name) for name in TEST_FOLDERS if name in inside), root)
    folders = _classes(path)
    names = set(folders)
    if path != root and "train" in inside:
        names |= _classes(os.path.join(root, "train"), quiet=True).keys()
    classes = tuple(sorted(names))
    return _store(path, classes, folders), classes


def _is_folder(path: str) -> bool:
    if "://" in path:
        import tensorflow as tf

        return tf.io.gfile.isdir(path)
    return os.path.isdir(path)


def has_test(root: str) -> bool:
    """Whether a folder has test pictures of its own."""
    return any(name in _parts(root) for name in TEST_FOLDERS)


def _parts(root: str) -> list[str]:
    """Those folders of `root` that are a part of the data.

    Beside folders of other names, one with pictures alone is a class that is called so.
    """
    known, found = ("train", *TEST_FOLDERS), _folders(root)
    named = [name for name in found if name in known]
    if len(named) == len(found):
        return named
    return [name for name in named if _folders(os.path.join(root, name))]


def _folders(path: str) -> list[str]:
    return [
        name
        for name, kind in pictures.entries(path, _FIELD)
        if kind == "folder" and not pictures.is_hidden(name)
    ]


def _divided(path: str, test_fraction: float, seed: int) -> Parts:
    """Training and test images of a folder of classes, the same share of each."""
    classes = _classes(path)
    names = tuple(classes)
    if len(names) < 2:
        raise NeasError(
            f"{_FIELD}: {path!r} holds one folder, {names[0]!r}; expected one for each of two "
            "classes or more."
        )
    store = _store(path, names, classes)
    check(
        test_fraction > 0,
        "data.test_fraction",
        test_fraction,
        f"a share above 0, since {path!r} has no test pictures of its own",
    )
    test = splits.test_indices(store.labels, test_fraction, np.random.default_rng(seed))
    if not len(test):
        raise NeasError(
            f"{_FIELD}: no class of {path!r} has more than one picture; expected two of a class "
            "at least, one of them for the test."
        )
    _warn_once(
        f"{_FIELD}: {path!r} has no test pictures of its own: {len(test)} of its {store.size} "
        "pictures, the same share of each class, are held out as the test (data.test_fraction "
        f"{test_fraction}, data.split_seed {seed})."
    )
    rest = splits.complement(store.size, test)
    return _some_of(store, rest), None, _some_of(store, test, unusable=()), names


@functools.cache
def _warn_once(text: str) -> None:
    """A plan opens the data before the run does."""
    logging.warning("%s", text)


def _some_of(store: FileStore, indices: np.ndarray, **changes) -> FileStore:
    paths, labels = store.paths.take(indices), store.labels[indices]
    return dataclasses.replace(store, paths=paths, labels=labels, **changes)


def _classes(path: str, quiet: bool = False) -> dict[str, str]:
    """Name and folder of each class, by name; says what else lies there.

    A name counts in its composed Unicode form: macOS and Linux write the same name differently.
    """
    found: dict[str, str] = {}
    others = []
    for name, kind in pictures.entries(path, _FIELD):
        folder = os.path.join(path, name)
        if kind != "folder":
            if not name.startswith(".") and not pictures.is_litter(name):
                others.append(name if kind == "file" else f"{name} ({kind})")
        elif pictures.is_hidden(name):
            others.append(f"{name} (hidden)")
        elif pictures.leads_back(folder):
            others.append(f"{name} (a link to a folder that it lies in)")
        else:
            class_name = unicodedata.normalize("NFC", name)
            if not _is_text(name):
                raise NeasError(
                    f"{_FIELD}: the class folder {shown(folder)} has a name that is no UTF-8; "
                    "expected one that can be written: rename it."
                )
            if class_name in found:
                raise NeasError(
                    f"{_FIELD}: the names of {found[class_name]!a} and {folder!a} "
                    "differ in their Unicode form only; expected one folder for each class: "
                    "merge them."
                )
            found[class_name] = folder
    if not found:
        holds = f"holds no folder but {pictures.named(others)}" if others else "is empty"
        raise NeasError(f"{_FIELD}: {path!r} {holds}; expected one folder for each class.")
    if others and not quiet:
        logging.warning(
            "%s: %r holds %d more that are no classes and are not read: %s.",
            *(_FIELD, path, len(others), pictures.named(others)),
        )
    found = dict(sorted(found.items()))
    if not quiet:
        _warn_of_case(list(found), path)
    return found


def _warn_of_case(names: list[str], path: str) -> None:
    first: dict[str, str] = {}
    alike = [
        f"{other} and {name}"
        for name in names
        if (other := first.setdefault(name.casefold(), name)) != name
    ]
    if alike:
        logging.warning(
            "%s: the names of these classes of %r differ in case only, and count as different: %s.",
            *(_FIELD, path, _some(alike)),
        )


def _store(path: str, names: tuple[str, ...], folders: dict[str, str]) -> FileStore:
    listing = pictures.Listing()
    labels = [label for label, name in enumerate(names) if name in folders]
    paths = []
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:  # what takes long elsewhere is the waiting
        for part in pool.map(lambda i: pictures.list_pictures(folders[names[i]], _FIELD), labels):
            paths.append(PathList.of(part.paths))
            listing.add_all_but_paths(part)
    said = listing.said()
    unusable = tuple(f"{place!r} ({what})" for place, what in listing.unusable)
    if not any(paths):
        found = f" ({said})" * bool(said)
        raise NeasError(
            f"{_FIELD}: {path!r} holds no image; expected files {', '.join(pictures.ENDINGS)} "
            f"in one folder for each class{found}."
        )
    if said:
        logging.warning("%s: of %r, %s.", _FIELD, path, said)
    of_all = np.repeat(np.array(labels, np.int32), [len(part) for part in paths])
    return FileStore(PathList.joined(paths), of_all, unusable, path)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
