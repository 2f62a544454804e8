"""Measures how an ensemble errs on corrupted pictures: 15 kinds in 5 severities.

neas robustness --model_dir=RUN --output=FOLDER
neas robustness --model_dir=RUN --compare=SINGLE --images=2000 --output=FOLDER

Stopped, the same command continues. Needs the extra: pip install neas-tf[robustness].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from neas_tf.commands import evaluate
from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, check, check_int
from neas_tf.common.files import (
    check_writable,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.ensemble.store import (
    WEIGHTS_FILE,
    LoadedInfo,
    library_versions,
    read_info,
    weights_digest,
)
from neas_tf.run.record import digest_of
from neas_tf.uncertainty.corruptions import KINDS, SEVERITIES, check_size, corrupted, library

if TYPE_CHECKING:
    from neas_tf.data import DatasetInfo

FORMAT = "neas-robustness/1"
COUNTS_FORMAT = "neas-robustness-counts/1"
FILES = ("robustness.json", "README.md", "robustness.png")
COUNTS_FILE = "robustness.counts.json"  # until the measurement is done
_CELLS = [(kind, severity) for kind in KINDS for severity in SEVERITIES]
# From pixels (n, h, w, c) in 0..255 to classes (n, members): paths, then the ensemble.
Named = Callable[[np.ndarray], np.ndarray]


class Counts:
    """Errors by cell so far, in a file from which an interrupted measurement continues.

    Args:
      path: of the file; None keeps nothing.
      identity: what the counts depend on, as JSON; a file of something else is begun anew.

    Attributes:
      seen: int64 (1 + cells,), pictures of each cell that are counted; the first cell is as they are.
      wrong: by name of a network, int64 (1 + cells, paths + 1).
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]):
        self._path, self._identity = path, digest_of(identity)
        self.seen = np.zeros(1 + len(_CELLS), np.int64)
        self.wrong: dict[str, np.ndarray] = {}

    def begin(self, paths: Mapping[str, int]) -> None:
        """Reads what an earlier session left, for networks with so many paths by name."""
        self.wrong = {
            name: np.zeros((1 + len(_CELLS), count + 1), np.int64) for name, count in paths.items()
        }
        if self._path is None or not self._path.is_file():
            return
        try:
            found = read_json(self._path, "counts")
            if found["format"] != COUNTS_FORMAT or found["identity"] != self._identity:
                console.say(
                    f"{str(self._path)!r} is of another model, other data or other flags; "
                    "the measurement begins anew."
                )
                return
            seen = np.array(found["seen"], np.int64).reshape(self.seen.shape)
            wrong = {
                name: np.array(found["wrong"][name], np.int64).reshape(zeros.shape)
                for name, zeros in self.wrong.items()
            }
        except (NeasError, KeyError, TypeError, ValueError, OverflowError):
            console.say(f"{str(self._path)!r} cannot be read; the measurement begins anew.")
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

    Returns:
      A mapping with `examples`, `seed`, `kinds`, `severities` and by name `networks`: `clean` and
      `errors` (kinds, severities) of the `ensemble` and each of the `paths`, and `mean`, the mean
      corruption error over all cells.
    """
    from neas_tf import data

    total = info.sizes["test"] if not count else min(count, info.sizes["test"])
    counts = counts or Counts(None, {})
    counts.begin({name: paths for name, (_, paths) in members.items()})
    seen = 0
    with console.bar(
        "robustness", total * len(_CELLS), "pictures", int(counts.seen[1:].sum())
    ) as bar:
        for images, labels in data.batches_of(
            data.make_dataset(info, "test", batch_size, training=False, seed=0, pixels=True)
        ):
            pixels = images.numpy()[: total - seen]
            truth = labels.numpy()[: total - seen, None]
            for cell in range(1 + len(_CELLS)):
                if counts.seen[cell] > seen:  # it is in the counts that were kept
                    continue
                shown = pixels
                if cell:
                    shown = np.stack(
                        [
                            corrupted(x, *_CELLS[cell - 1], seed, seen + i)
                            for i, x in enumerate(pixels)
                        ]
                    )
                pictures = shown.astype(np.float32)
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


def rows_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The errors of every path and ensemble by name; the compared network's last."""
    rows: dict[str, Mapping[str, Any]] = {}
    for prefix, found in result["networks"].items():
        label = "compared: " if prefix == "compared" else ""
        if len(found["paths"]) > 1:
            rows |= {f"{label}path {k}": row for k, row in enumerate(found["paths"], 1)}
        rows[f"{label}ensemble" if len(found["paths"]) > 1 else f"{label}network"] = found[
            "ensemble"
        ]
    return rows


def format_markdown(result: Mapping[str, Any]) -> str:
    """A table of the mean error by kind, over the severities."""
    rows = rows_of(result)
    lines = [
        "# Errors on corrupted pictures",
        "",
        f"{result['model']}, {result['data']}: {result['examples']:,} test images, seed {result['seed']}. "
        "Mean over five severities; the last line is the mean corruption error.",
        "",
        f"| | {' | '.join(rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]
    table = {"as they are": [row["clean"] for row in rows.values()]}
    for i, kind in enumerate(result["kinds"]):
        table[kind.replace("_", " ")] = [np.mean(row["errors"][i]) for row in rows.values()]
    table["**mean**"] = [row["mean"] for row in rows.values()]
    for name, errors in table.items():
        lines.append(f"| {name} | {' | '.join(f'{error:.2%}' for error in errors)} |")
    if result.get("mce") is not None:
        lines += ["", f"mCE of the ensemble relative to {result['compared']}: {result['mce']:.3f}."]
    return "\n".join([*lines, "", "![Errors by severity](robustness.png)"]) + "\n"


def picture(result: Mapping[str, Any]) -> bytes:
    """PNG: the mean error over the kinds by severity; 0 are the pictures as they are."""
    from neas_tf.report import style

    rows = rows_of(result)
    points = [
        {"x": severity, "y": error, "s": name}
        for name, row in rows.items()
        for severity, error in enumerate([row["clean"], *np.mean(row["errors"], 0).tolist()])
    ]
    spec = style.series(
        points, list(rows), ("severity", "error, mean over 15 kinds"), (460, 300), lines=True,
        palette=style.MANY,
    )  # fmt: skip
    note = f"{result['data']}, {result['examples']:,} test images"
    return style.to_png(spec, "Errors on corrupted pictures", note)


def _named(folder: Path) -> tuple[Named, int]:
    """What a stored ensemble names, from pixels."""
    import tensorflow as tf

    from neas_tf.ensemble.store import load_model

    model, info = load_model(folder)
    forward = tf.function(lambda images: model(images, training=False), autograph=False)

    def named(pixels: np.ndarray) -> np.ndarray:
        logits = forward(info.normalisation.apply(pixels)).numpy().astype(np.float64)
        return np.concatenate([logits.argmax(-1), logits.mean(1).argmax(-1)[:, None]], 1)

    return named, info.architecture.num_paths


def define_flags() -> None:
    """Defines the command's flags."""
    evaluate.define_flags()
    flags.DEFINE_integer("images", 1000, "Test images, the first ones; 0 takes all.", 0)
    flags.DEFINE_integer("seed", 0, "Of the corruptions.", 0)


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    output = flags.FLAGS.output
    return command_line.exit_code("neas robustness", output, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    command_line.flags_only(argv)
    folder = evaluate.model_folder(values.model_dir, values.model)
    info = read_info(folder)
    check_size(*info.space.input_size, info.space.input_channels)
    library()
    other = evaluate.compared_folder(values.compare, info)
    if other is not None:
        _check_input(read_info(other), info)
    run = Path(resolve_user_path(values.model_dir)) if values.model_dir else None
    check(bool(values.output), "--output", values.output, "a folder for the table and the picture")
    check_local_path("--output", values.output)
    output = Path(resolve_user_path(values.output))
    check(not output.is_file(), "--output", values.output, "a folder, not a file")
    check_writable("--output", output / FILES[0], "file")
    command_line.start_tensorflow(values.threads)
    from neas_tf import data

    config = evaluate.data_config(info, run, values.config_file, values.data)
    opened = data.load(config, test_only=True)
    size = opened.sizes.get("test", 0)
    check_int("data: images of the test part", size, 1)
    if warning := evaluate.check_classes(info, opened):
        print(warning, file=sys.stderr)
    members = {"tested": _named(folder)} | ({"compared": _named(other)} if other else {})
    result: dict[str, Any] = {"format": FORMAT, "model": str(folder), "data": opened.name}
    counts = Counts(output / COUNTS_FILE, _identity([folder, other], opened, values))
    result |= measure(members, opened, values.images, values.batch_size, values.seed, counts)
    if other is not None:
        networks = result["networks"]
        mce = relative(networks["tested"]["ensemble"], networks["compared"]["ensemble"])
        result |= {"compared": str(other), "mce": mce}
    text = format_markdown(result)
    write_json_atomic(output / FILES[0], result)
    write_bytes_atomic(output / FILES[2], picture(result))
    write_text_atomic(output / FILES[1], text)
    counts.remove()
    console.show(
        json.dumps(result, indent=2) if values.format == "json" else text.removesuffix("\n")
    )


def _identity(folders: Sequence[Path | None], opened: DatasetInfo, values: Any) -> dict[str, Any]:
    """What the counts of a measurement depend on: networks, images, corruptions, and in which batches."""
    networks = [
        folder and [read_info(folder).architecture.key, weights_digest(folder / WEIGHTS_FILE)]
        for folder in folders
    ]
    names = ("images", "batch_size", "seed")
    images = ("name", "class_names", "sizes", "skipped", "files")  # digests, of the test part alone
    return {
        "networks": networks,
        "data": {name: getattr(opened, name) for name in images},
        "settings": opened.config.as_dict(),
        "flags": {name: getattr(values, name) for name in names},
        "library": library_versions("imagecorruptions", "numpy", "tensorflow"),
    }


def _check_input(other: LoadedInfo, info: LoadedInfo) -> None:
    sizes = [(*found.space.input_size, found.space.input_channels) for found in (other, info)]
    check(sizes[0] == sizes[1], "--compare", sizes[0], f"a network of images {sizes[1]}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
