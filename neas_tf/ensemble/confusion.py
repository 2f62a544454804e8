"""Which classes an ensemble takes for which, and how often its paths disagree: counts of one test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_int
from neas_tf.common.files import read_json

FORMAT = "neas-confusion/1"
CONFUSION_FILE = "retrain/confusion.json"


class Confusion:
    """Counts over the batches of a test; all numbers are integers."""

    def __init__(self, num_classes: int, num_paths: int):
        self.num_classes, self.num_paths, self.examples = num_classes, num_paths, 0
        self._pairs: dict[tuple[int, int], int] = {}
        self._differ = np.zeros((num_paths, num_paths), np.int64)
        self._both_wrong = np.zeros((num_paths, num_paths), np.int64)

    def add(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Counts one batch.

        Args:
          labels: integers (n,).
          predictions: integers (n, K + 1): the class that each path names, then the ensemble.
        """
        paths = predictions[:, :-1]
        self.examples += len(labels)
        codes = labels.astype(np.int64) * self.num_classes + predictions[:, -1]
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            pair = divmod(int(code), self.num_classes)
            self._pairs[pair] = self._pairs.get(pair, 0) + int(count)
        wrong = (paths != labels[:, None]).astype(np.int64)
        self._differ += (paths[:, :, None] != paths[:, None, :]).sum(0)
        self._both_wrong += wrong.T @ wrong

    def to_dict(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """JSON form `neas-confusion/1`.

        `counts` has [label, predicted class, images] for what occurred; `differ` and `both_wrong`
        are K × K counts of images (the diagonal of `both_wrong` has each path's own errors).
        """
        return {
            "format": FORMAT,
            "part": "test",
            "examples": self.examples,
            "num_classes": self.num_classes,
            "class_names": list(class_names),
            "counts": [[*pair, self._pairs[pair]] for pair in sorted(self._pairs)],
            "differ": self._differ.tolist(),
            "both_wrong": self._both_wrong.tolist(),
        }


def read_confusion(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads the JSON form.

    Raises:
      NeasError: when the file is absent, damaged or of another form.
    """
    value = read_json(path, "confusion")
    check(isinstance(value, Mapping), "confusion", value, "a JSON object")
    check(value.get("format") == FORMAT, "confusion.format", value.get("format"), FORMAT)
    classes = check_int("confusion.num_classes", value.get("num_classes"), 1, 1 << 20)
    check_int("confusion.examples", value.get("examples"), 0)
    counts = value.get("counts")
    check(isinstance(counts, list), "confusion.counts", counts, "a list of three integers each")
    for row in counts:
        check(isinstance(row, list) and len(row) == 3, "confusion.counts", row, "three integers")
        for number in row[:2]:
            check_int("confusion.counts", number, 0, classes - 1)
        check_int("confusion.counts", row[2], 0)
    size = len(value["differ"]) if isinstance(value.get("differ"), list) else -1
    for name in ("differ", "both_wrong"):
        rows = value.get(name)
        fits = isinstance(rows, list) and len(rows) == size
        fits = fits and all(isinstance(row, list) and len(row) == size for row in rows)
        check(fits, f"confusion.{name}", rows, "a square of integers, a row a path")
        for row in rows:
            for number in row:
                check_int(f"confusion.{name}", number, 0)
    names = value.get("class_names", [])
    fits = isinstance(names, list) and len(names) in (0, classes)
    check(fits, "confusion.class_names", names, f"{classes} names or none")
    return value
