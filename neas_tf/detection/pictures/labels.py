"""Names of the classes, by id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import write_text_atomic
from neas_tf.common.paths import config_file, resolve_user_path
from neas_tf.export.artifacts import read_label_file

RUN_LABELS = "labels.txt"  # in a model_dir: the names of its annotations' categories
BACKGROUND = "background"


def read_labels(path: str | None = None) -> list[str]:
    """Names of a text file, one a line, the first that of id 0; without a path COCO's 91.

    Raises:
      NeasError: when the file cannot be read.
    """
    file = resolve_user_path(path) if path else config_file("detection", "coco_labels.txt")
    return read_label_file(file)


def names_of_categories(categories: Iterable[Mapping[str, Any]], num_classes: int) -> list[str]:
    """Names by class id, of clean annotations; ids in place of names where there are none."""
    names = [BACKGROUND, *map(str, range(1, num_classes))]
    for category in categories:
        if category["name"] and 0 < category["id"] < num_classes:
            names[category["id"]] = category["name"]
    return names


def store_names(model_dir: str | Path, names: Iterable[str]) -> None:
    """Keeps the names in the folder of a run."""
    path = Path(model_dir) / RUN_LABELS
    try:
        write_text_atomic(path, "".join(f"{name}\n" for name in names))
    except OSError as error:
        raise NeasError(f"model_dir: {str(path)!r} cannot be written ({error.strerror}).") from None


def names_of_run(model_dir: str | Path, num_classes: int, labels: str | None = None) -> list[str]:
    """Names of the classes that a run's detector finds; never another data set's.

    They are those of the user's text file `labels`, else those that the run keeps, else none.

    Raises:
      NeasError: when a file cannot be read, or has another number of names.
    """
    path = resolve_user_path(labels) if labels else str(Path(model_dir) / RUN_LABELS)
    if not labels and not Path(path).exists():
        return []
    names = read_label_file(path)
    expected = f"{num_classes} names, the first that of the background ({path!r})"
    check(len(names) == num_classes, "labels", f"{len(names)} names", expected)
    return names
