"""Finished runs in the columns of the paper's Table 6.

neas detect compare runs/neas_s runs/mobilenet_v2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from neas_tf.common import command_line
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json
from neas_tf.common.paths import resolve_user_path
from neas_tf.detection.pictures import evaluations

FLAGS = flags.FLAGS
# By Table 6's names, Model Garden's.
METRICS = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP_S": "APs", "AP_M": "APm", "AP_L": "APl"}
_CLASSIFIER = Path("retrain", "results.json")


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string(
        "annotations",
        None,
        "Which evaluations: a part of the annotation file's name; default: the last.",
    )
    flags.DEFINE_multi_string(
        "top1", [], "FOLDER=PERCENT: ImageNet accuracy of a backbone that no run here has tested."
    )
    flags.DEFINE_bool("unfinished", False, "Show runs that have steps to go, too.")
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def read_run(folder: Path, annotations: str | None, unfinished: bool) -> dict[str, Any]:
    """What a run's files say.

    Args:
      annotations: a part of the annotation file's name, or None for the last evaluation.
      unfinished: whether a run with steps to go is allowed.

    Returns:
      `run`, `step`, `steps`, `annotations`, the settings `backbone` and `init_checkpoint`, and
      the metrics by their name in Table 6, in percent (None where the COCO API has none).
    """
    from neas_tf.config.parse import load_file  # loads TensorFlow

    path = folder / "params.yaml"
    params = load_file(str(path)) if path.is_file() else {}
    task, trainer = params.get("task") or {}, params.get("trainer") or {}
    backbone = (task.get("model") or {}).get("backbone") or {}
    if not backbone.get("type"):
        raise NeasError(f"run: {str(folder)!r} holds no params.yaml of a detector.")
    rows = evaluations.read(folder)
    if annotations:
        rows = [row for row in rows if annotations in row["annotations"]]
    if not rows:
        raise NeasError(f"run: {str(folder)!r} was not evaluated on {annotations or 'anything'!r}.")
    last, steps = rows[-1], int(trainer.get("train_steps") or 0)
    if last["step"] < steps and not unfinished:
        raise NeasError(
            f"run: {str(folder)!r} was evaluated at step {last['step']} of {steps}; --unfinished "
            "shows it all the same."
        )
    values = {name: last["metrics"].get(key, -1.0) for name, key in METRICS.items()}
    return {
        "run": str(folder),
        "step": last["step"],
        "steps": steps,
        "annotations": last["annotations"],
        "backbone": backbone,
        "init_checkpoint": task.get("init_checkpoint") or "",
        **{name: None if value < 0 else 100 * value for name, value in values.items()},
    }


def backbone_name(backbone: dict[str, Any]) -> str:
    """What a table calls a backbone: its architecture or model_id."""
    kind = backbone["type"]
    own = backbone.get(kind) or {}
    if kind != "neas":
        return str(own.get("model_id") or kind)
    name = Path(str(own.get("architecture"))).stem
    return f"NEAS {name}" if len(name) < 24 else f"NEAS {name[:20]}…"


def top1_of(init_checkpoint: str) -> float | None:
    """Accuracy in percent of the classifier that the backbone comes from, where a run tested it."""
    if not init_checkpoint:
        return None
    path = Path(resolve_user_path(init_checkpoint)) / _CLASSIFIER
    if not path.is_file():
        return None
    value = read_json(path, "top1")
    found = value.get("ensemble_accuracy") if isinstance(value, dict) else None
    return 100 * float(found) if isinstance(found, (int, float)) else None


def given_top1(texts: Sequence[str]) -> dict[str, float]:
    """`FOLDER=PERCENT` texts by folder."""
    result = {}
    for text in texts:
        folder, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        good = equals and folder and 0 <= number <= 100
        check(bool(good), "top1", text, "FOLDER=PERCENT, such as runs/v2=72.0")
        result[str(Path(folder))] = number
    return result


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text, in the order of Table 6's columns."""
    heads = ["backbone", "MACs (M)", *METRICS, "top-1", "step", "run"]
    cells = [heads]
    for row in rows:
        numbers = [_number(row[name]) for name in (*METRICS, "top1")]
        macs = f"{row['macs'] / 1e6:.1f}"
        cells.append([row["name"], macs, *numbers, str(row["step"]), row["run"]])
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    left = (0, len(heads) - 1)
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command_line.quiet_exit_code("detection.compare", lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    check(len(argv) > 1, "arguments", "none", "folders of runs (see --help)")
    given = given_top1(FLAGS.top1)
    rows = [
        read_run(Path(resolve_user_path(folder)), FLAGS.annotations, FLAGS.unfinished)
        for folder in argv[1:]
    ]
    print("Counting the backbones' MACs …", file=sys.stderr, flush=True)
    from neas_tf.detection.macs import macs_of_settings

    for folder, row in zip(argv[1:], rows, strict=True):
        row["name"] = backbone_name(row["backbone"])
        row["macs"] = macs_of_settings(row["backbone"])
        row["top1"] = given.get(str(Path(folder)), top1_of(row["init_checkpoint"]))
    kinds = {row["annotations"] for row in rows}
    if len(kinds) > 1:
        print(f"warning: evaluated on different data: {', '.join(sorted(kinds))}", file=sys.stderr)
    print(json.dumps(rows, indent=2) if FLAGS.format == "json" else table(rows), end="")


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
