"""Errors on corrupted pictures, counted kind by kind and severity by severity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.normalisation import Normalisation
from neas_tf.uncertainty.corruptions import KINDS, SEVERITIES, corrupted

if TYPE_CHECKING:
    from neas_tf.data import DatasetInfo

COUNTS_FORMAT = "neas-robustness-counts/1"
CELLS = [(kind, severity) for kind in KINDS for severity in SEVERITIES]
# From pixels (n, h, w, c) in 0..255 to classes (n, members): paths, then the ensemble.
Named = Callable[[np.ndarray], np.ndarray]


def names_of(model: Any, normalisation: Normalisation) -> Named:
    """What an ensemble, (n, h, w, c) to logits (n, K, classes), names."""
    import tensorflow as tf

    forward = tf.function(lambda images: model(images, training=False), autograph=False)

    def named(pixels: np.ndarray) -> np.ndarray:
        logits = forward(normalisation.apply(pixels)).numpy().astype(np.float64)
        return np.concatenate([logits.argmax(-1), logits.mean(1).argmax(-1)[:, None]], 1)

    return named


class Counts:
    """Errors by cell so far, in a file from which an interrupted measurement continues.

    Args:
      path: of the file; None keeps nothing.
      identity: a digest of what the counts depend on; a file of something else is begun again.

    Attributes:
      seen: int64 (1 + cells,), pictures of each cell that are counted; the first cell is as they are.
      wrong: by name of a network, int64 (1 + cells, paths + 1).
    """

    def __init__(self, path: Path | None, identity: str):
        self._path, self._identity = path, identity
        self.seen = np.zeros(1 + len(CELLS), np.int64)
        self.wrong: dict[str, np.ndarray] = {}

    def begin(self, paths: Mapping[str, int]) -> None:
        """Reads what an earlier session left, for networks with so many paths by name."""
        self.wrong = {
            name: np.zeros((1 + len(CELLS), count + 1), np.int64) for name, count in paths.items()
        }
        if self._path is None or not self._path.is_file():
            return
        try:
            found = read_json(self._path, "counts")
            if found["format"] != COUNTS_FORMAT or found["identity"] != self._identity:
                console.say(
                    f"{str(self._path)!r} is of another model, other data or other flags; "
                    "the measurement starts again."
                )
                return
            seen = np.array(found["seen"], np.int64).reshape(self.seen.shape)
            wrong = {
                name: np.array(found["wrong"][name], np.int64).reshape(zeros.shape)
                for name, zeros in self.wrong.items()
            }
        except (NeasError, KeyError, TypeError, ValueError, OverflowError):
            console.say(f"{str(self._path)!r} cannot be read; the measurement starts again.")
            return
        self.seen, self.wrong = seen, wrong
        console.say(f"Continues after {int(seen[1:].sum()):,} corrupted pictures.")

    def add(self, cell: int, pictures: int, wrong: Mapping[str, np.ndarray]) -> None:
        """Adds what pictures of a cell gave, and writes the file."""
        self.seen[cell] += pictures
        for name, errors in wrong.items():
            self.wrong[name][cell] += errors
        if self._path is not None:
            value = {name: counts.tolist() for name, counts in self.wrong.items()}
            head = {"format": COUNTS_FORMAT, "identity": self._identity}
            write_json_atomic(
                self._path, {**head, "seen": self.seen.tolist(), "wrong": value}, indent=None
            )

    def remove(self) -> None:
        """Removes the file of a measurement that is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def measure(
    members: Mapping[str, tuple[Named, int]],
    info: DatasetInfo,
    count: int,
    batch_size: int,
    seed: int,
    counts: Counts | None = None,
    read: Callable[[np.ndarray], np.ndarray] = lambda pictures: pictures,
) -> dict[str, Any]:
    """Errors of networks on the first test images, as they are and corrupted.

    One batch is held at a time; of each cell only counts are kept.

    Args:
      members: by name, a network and its number of paths.
      info: the data.
      count: images; 0 takes all.
      batch_size: images of one forward pass.
      seed: of the corruptions.
      counts: of an interrupted measurement of the same; None begins one that is kept nowhere.
      read: from pictures, uint8 (n, h, w, c), to those that the networks take.

    Returns:
      A mapping with `examples`, `seed`, `kinds`, `severities` and by name `networks`: `clean` and
      `errors` (kinds, severities) of the `ensemble` and each of the `paths`, and `mean`, the mean
      corruption error over all cells.
    """
    from neas_tf import data

    total = info.sizes["test"] if not count else min(count, info.sizes["test"])
    counts = counts or Counts(None, "")
    counts.begin({name: paths for name, (_, paths) in members.items()})
    seen = 0
    with console.bar(
        "robustness", total * len(CELLS), "pictures", int(counts.seen[1:].sum())
    ) as bar:
        for images, labels in data.batches_of(
            data.make_dataset(info, "test", batch_size, training=False, seed=0, pixels=True)
        ):
            pixels = images.numpy()[: total - seen]
            truth = labels.numpy()[: total - seen, None]
            for cell in range(1 + len(CELLS)):
                if counts.seen[cell] > seen:  # it is in the counts that were kept
                    continue
                shown = pixels
                if cell:
                    shown = np.stack(
                        [
                            corrupted(x, *CELLS[cell - 1], seed, seen + i)
                            for i, x in enumerate(pixels)
                        ]
                    )
                pictures = read(shown).astype(np.float32)
                wrong = {
                    name: np.sum(named(pictures) != truth, 0)
                    for name, (named, _) in members.items()
                }
                counts.add(cell, len(pixels), wrong)
                bar.update(len(pixels) if cell else 0)
            seen += len(truth)
            if seen >= total:
                break
    if not seen:
        raise NeasError(f"data: none of the test images of {info.name!r} can be decoded.")
    networks = {name: _shares(wrong / seen) for name, wrong in counts.wrong.items()}
    result = {"examples": seen, "seed": seed, "kinds": list(KINDS), "severities": list(SEVERITIES)}
    return {**result, "networks": networks}


def _shares(errors: np.ndarray) -> dict[str, Any]:
    """From (1 + cells, paths + 1)."""

    def row(values: np.ndarray) -> dict[str, Any]:
        cells = values[1:].reshape(len(KINDS), len(SEVERITIES))
        return {"clean": float(values[0]), "errors": cells.tolist(), "mean": float(cells.mean())}

    *paths, ensemble = (row(values) for values in errors.T)
    return {"ensemble": ensemble, "paths": paths}


def relative(errors: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    """mCE: mean over the kinds of Σ_s E(s) / Σ_s E_baseline(s); None where the baseline is faultless."""
    own, other = (np.sum(value["errors"], 1) for value in (errors, baseline))
    return float(np.mean(own / other)) if np.all(other > 0) else None
