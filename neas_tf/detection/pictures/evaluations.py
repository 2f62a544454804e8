"""What COCO's evaluator found, kept in `evaluations.json` of a model_dir."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic

FILE = "evaluations.json"
FORMAT = "neas-detection-evaluations/1"


def record(
    folder: Path, *, step: int, metrics: Mapping[str, float], annotations: str, records: str
) -> None:
    """Adds an evaluation; one of the same step and data replaces the earlier one.

    Args:
      metrics: by Model Garden's names (`AP`, `AP50`, `APs`, …), 0..1; -1 where the COCO API has
        nothing to measure.
      annotations: annotation file, '' for the records' own boxes.
      records: pattern of the records.
    """
    path = folder / FILE
    rows = read(folder) if path.exists() else []
    row = {
        "step": step,
        "annotations": annotations,
        "records": records,
        "metrics": {k: v for k, v in metrics.items() if math.isfinite(v)},
    }
    same = ("step", "annotations", "records")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)]
    write_json_atomic(path, {"format": FORMAT, "evaluations": [*rows, row]})


def read(folder: Path) -> list[dict[str, Any]]:
    """All evaluations of a model_dir, in the order they were made.

    Raises:
      NeasError: when there are none, or the file is something else.
    """
    path = folder / FILE
    value = read_json(path, "evaluations")
    rows = value.get("evaluations") if isinstance(value, dict) else None
    if not isinstance(rows, list) or value.get("format") != FORMAT:
        raise NeasError(f"evaluations: {str(path)!r} is no file of format {FORMAT!r}.")
    return rows
