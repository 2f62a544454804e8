"""What lies beside an exported file, and what an export may replace. No TensorFlow here.

An export `<file>` has its report `<file>.json` and its class names `<file>.labels.txt`.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import (
    check_writable,
    decode_text,
    read_bytes,
    read_json,
    write_json_atomic,
    write_text_atomic,
)
from neas_tf.common.paths import check_local_path
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.store import LoadedInfo, library_versions, replace_path

FORMAT = "neas-export/1"
SIGNATURE = "serving_default"
# Kinds of exports: what their names end with, what they are, who writes them.
_KINDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "tflite": ((".tflite",), "a TFLite file", "export/to_tflite.py"),
    "keras": ((".keras", ".h5"), "a Keras file", "export/to_keras.py"),
    "saved_model": ((".pb",), "a SavedModel's folder", "export/to_saved_model.py"),
}
_MOST_LABELS = 1 << 24  # bytes
# Inside a model_dir: checkpoints and logs of pruning and quantization-aware training.
FINE_TUNING = Path("export") / "fine_tuning"


def report_file(output: Path) -> Path:
    """The report of an export."""
    return output.with_name(output.name + ".json")


def labels_file(output: Path) -> Path:
    """The class names of an export."""
    return output.with_name(output.name + ".labels.txt")


def labels_text(info: LoadedInfo) -> str:
    """Class names, one a line, in the order of the logits."""
    return "".join(f"{name}\n" for name in info.class_names)


def read_label_file(path: str | os.PathLike[str], field: str = "labels") -> list[str]:
    """The class names of a text file, one a line: the first is that of class 0.

    Every reader of label files is this one: `labels_text` of ours, and what editors write (UTF-8
    or UTF-16, with or without a byte order mark, lines that end as on Unix, Windows or old Macs).
    Only these ends separate names: a form feed or U+2028 inside of a name stays in it. Empty lines
    at the end are dropped; a name may occur twice, as ImageNet's "crane" does.

    Args:
      path: of the file.
      field: begins a message, such as "--labels".

    Raises:
      NeasError: for a file that cannot be read, is no text, holds nothing, or has an empty line
        between names, which could be left out or stand for a class.
    """
    where = f"{field}: {os.fspath(path)!r}"
    lines = re.split("\r*\n|\r", decode_text(read_bytes(path, field, _MOST_LABELS), where))
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip() or "\0" in line:
            what = "holds a zero byte" if "\0" in line else "is empty"
            raise NeasError(f"{where}: line {number} {what}; expected a class name on every line.")
    if not lines:
        raise NeasError(f"{where}: holds no name; expected a class name on every line.")
    return lines


def check_ending(output: str | os.PathLike[str], kind: str) -> None:
    """Refuses a name that ends as another kind of export's does, which would mislead its readers.

    Kinds are 'tflite', 'saved_model' and 'keras'.
    """
    name = os.path.basename(os.fspath(output).rstrip("/"))
    if kind == "keras":
        kinds = (".keras", ".weights.h5")
        check(name.endswith(kinds), "output", name, f"a file that ends with {' or '.join(kinds)}")
        return
    name = name.lower()
    for other, (endings, what, command) in _KINDS.items():
        if other != kind and name.endswith(endings):
            raise NeasError(
                f"output: received {os.fspath(output)!r}, a name of {what}, which {command} "
                f"writes; expected one of {_KINDS[kind][1]}."
            )


def check_output(output: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuses an output where something lies that an export must not replace.

    Raises:
      NeasError: when the output, its report or its labels exist, unless they are an earlier
        export's and `overwrite` is set; and for a place that takes no files.
    """
    check_local_path("output", output)
    output = Path(output)
    check_writable("output", output)
    there = [
        p
        for p in (output, report_file(output), labels_file(output))
        if p.exists() or p.is_symlink()
    ]
    if not there:
        return
    if read_report(output):
        # A report without its export is the rest of an interrupted run.
        if overwrite or not output.exists():
            return
        raise NeasError(
            f"output {str(output)!r}: holds an earlier export; choose another name or allow "
            "overwriting."
        )
    raise NeasError(f"output {str(there[0])!r}: is there already and is not an export of ours.")


def put_in_place(new: Path, output: Path, report: dict[str, Any], labels: str) -> None:
    """Renames an export to its place, with its report and class names; all is written beforehand.

    `new` is the export in a `temporary_folder` of `output`.
    """
    write_json_atomic(report_file(new), report)
    write_text_atomic(labels_file(new), labels)
    again = report_file(output).exists()
    # Killed between these lines: a new report must not be beside an old export, and an export
    # without any report would not be known for ours.
    if not again:
        os.replace(report_file(new), report_file(output))
    os.replace(labels_file(new), labels_file(output))
    replace_path(new, output)
    if again:
        os.replace(report_file(new), report_file(output))


def describe_export(
    info: LoadedInfo, output: Path, new: Path, kind: str, result: dict, found: dict[str, Any]
) -> dict[str, Any]:
    """The report of an export.

    Args:
      output, new: where the export will lie, and where it lies now.
      kind: 'tflite', 'saved_model' or 'keras'.
      result: of the parity check.
      found: what the writer knows; takes precedence. For graphs it has `ops`.
    """
    cost = CostTable(info.space).cost(info.architecture)
    batch = 1 if kind == "tflite" else None
    size, digest = _size_and_digest(new)
    return {
        "format": FORMAT,
        "file": output.name,
        "kind": kind,
        "quantize": "none",
        "bytes": size,
        "sha256": digest,
        "labels": labels_file(output).name,
        "parity": result,
        "signature": SIGNATURE,
        "inputs": [
            {
                "name": "image",
                "shape": [batch, *info.space.input_size, info.space.input_channels],
                "dtype": "float32",
                "range": [0, 255],
            }
        ],
        "outputs": [
            {"name": name, "shape": [batch, info.space.num_classes], "dtype": "float32"}
            for name in ("logits", "probabilities")
        ],
        "architecture": info.architecture.key,
        "architecture_name": info.architecture.name,
        "macs": int(cost.macs),
        "params": int(cost.params),
        "class_names": list(info.class_names),
        "normalisation": info.normalisation.to_dict(),
        "versions": library_versions("tensorflow", "tf-keras", "ai-edge-litert", "numpy"),
        **found,
    }


def read_report(output: Path) -> dict[str, Any] | None:
    """The report of an export; None where there is none, or it is of something else."""
    try:
        report = read_json(report_file(output), "report")
    except NeasError:
        return None
    ours = isinstance(report, dict) and report.get("format") == FORMAT
    return report if ours and report.get("file") == output.name else None


def _size_and_digest(path: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, or of a folder's files with their names in sorted order."""
    if path.is_file():
        content = path.read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()
    size, digest = 0, hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        count, own = _size_and_digest(file)
        size += count
        digest.update(f"{file.relative_to(path).as_posix()}\0{own}\n".encode())
    return size, digest.hexdigest()
