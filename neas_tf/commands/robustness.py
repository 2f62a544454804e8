"""Measures how an ensemble errs on corrupted pictures: 15 kinds in 5 severities.

neas robustness --model_dir=RUN --output=FOLDER
neas robustness --model_dir=RUN --compare=SINGLE --images=2000 --output=FOLDER

Stopped, the same command continues. Needs the extra: pip install neas-tf[robustness].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags

from neas_tf.commands import evaluate
from neas_tf.common import command_line, console
from neas_tf.common.errors import check, check_int
from neas_tf.common.files import (
    check_writable,
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
from neas_tf.uncertainty.corruptions import check_size, library
from neas_tf.uncertainty.robustness import Counts, Named, measure, names_of, relative

if TYPE_CHECKING:
    from neas_tf.data import DatasetInfo

FORMAT = "neas-robustness/1"
FILES = ("robustness.json", "README.md", "robustness.png")
COUNTS_FILE = "robustness.counts.json"  # until the measurement is done


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
    """What a stored ensemble names, and its number of paths."""
    from neas_tf.ensemble.store import load_model

    model, info = load_model(folder)
    return names_of(model, info.normalisation), info.architecture.num_paths


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
    identity = digest_of(_identity([folder, other], opened, values))
    counts = Counts(output / COUNTS_FILE, identity)
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
