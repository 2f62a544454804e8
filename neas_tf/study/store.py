"""What a study's folder holds: one JSON a unit, written whole, and the units' runs.

study.json             what the units' results depend on (the base settings)
units/<key>.json       `neas-study-unit/1`: the unit and its result, nothing of time or machine
seconds/<key>.json     what the unit took
work/<key>/            the unit's own run: checkpoints, models
studies/<study>/       tables, sentences, pictures
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError
from neas_tf.common.files import check_same, difference, read_json, write_json_atomic
from neas_tf.common.folder_lock import is_leftover
from neas_tf.common.moved import FORMER, without_removed
from neas_tf.common.paths import check_local_path
from neas_tf.study.units import Result, Unit, found

STUDY_FORMAT = "neas-study/1"
UNIT_FORMAT = "neas-study-unit/1"
# What a unit leaves at its end that other units read.
_MODEL = "retrain/model/model.json"
_WEIGHTS = {"supernet": "shrink/alive.json", "training": _MODEL, "taught": _MODEL}


def check_folder(folder: str | os.PathLike[str]) -> Mapping[str, Any] | None:
    """The base settings of the studies in a folder; None for a missing or empty one.

    Raises:
      NeasError: for a folder of something else.
    """
    check_local_path("model_dir", folder)
    folder = Path(folder).absolute()
    path = folder / "study.json"
    try:
        if folder.exists() and not folder.is_dir():
            raise NeasError(f"model_dir: {str(folder)!r} is a file, expected a folder.")
        if not path.exists():
            names = list(folder.iterdir()) if folder.is_dir() else []
            if not all(is_leftover(name) for name in names):
                raise NeasError(
                    f"model_dir: {str(folder)!r} holds files of something else (no study.json); "
                    "expected an empty or new folder, or one of earlier studies."
                )
            return None
    except OSError as error:
        raise NeasError(f"model_dir: {str(folder)!r} cannot be read ({error.strerror}).") from None
    value = read_json(path, "study.json")
    if not isinstance(value, Mapping) or value.get("format") != STUDY_FORMAT:
        raise NeasError(f"study.json: {str(path)!r} is not of format {STUDY_FORMAT!r}.")
    base = value.get("base")
    if not isinstance(base, Mapping):
        raise NeasError(f"study.json: {str(path)!r} has no base settings.")
    return base


class Store:
    """The units that are done, in a folder that several studies share.

    Args:
      folder: of the studies; it may be missing or empty.
      base: the settings that all results depend on, as JSON.
      defaults: what settings have that nobody gave; studies that were begun before a setting
        existed ran with its default.

    Raises:
      NeasError: for a folder of something else or of other settings; nothing is written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        base: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ):
        found = check_folder(folder)
        self.folder = Path(folder).absolute()
        self._base = json.loads(json.dumps(base, allow_nan=False))
        self._known: dict[str, Result] = {}
        if found is not None:
            self._check(found, defaults or {})
            self._base = found  # the units bear its digest
        text = json.dumps(self._base, sort_keys=True)
        self._digest = hashlib.sha256(text.encode()).hexdigest()[:16]

    def _check(self, found: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        completed = _completed(without_removed(found), self._base, FORMER)
        completed = _completed(completed, self._base, defaults)
        remedy = "the same settings, or another folder"
        where = f"model_dir: {str(self.folder)!r}"
        check_same(where, "set of studies", completed, self._base, remedy)

    def begin(self) -> None:
        """Makes the folder and records the settings."""
        try:
            path = self.folder / "study.json"
            if not path.exists():
                write_json_atomic(path, {"format": STUDY_FORMAT, "base": self._base})
            for name in ("units", "seconds", "work"):
                (self.folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise NeasError(
                f"model_dir: {str(self.folder)!r} cannot be written ({error.strerror or error})."
            ) from None

    def get(self, unit: Unit) -> Result | None:
        """The result of a resolved unit, None when it is not done.

        Raises:
          NeasError: for a file that is not this unit's.
        """
        key = unit.key
        if key not in self._known:
            path = self.folder / "units" / f"{key}.json"
            if not path.exists():
                return None
            value = read_json(path, "unit")
            expected = {"format": UNIT_FORMAT, "base": self._digest, "unit": unit.to_dict()}
            received = (
                {name: value.get(name) for name in expected} if isinstance(value, dict) else {}
            )
            if received != json.loads(json.dumps(expected)):
                changes = difference(received, expected)
                raise NeasError(
                    f"unit {str(path)!r}: is not of this study ({'; '.join(changes[:3])}); expected "
                    "what a study with the same settings wrote."
                )
            self._known[key] = value["result"]
        return self._known[key]

    def find(self, unit: Unit) -> Result | None:
        """The result of a unit that need not be resolved; None when it is not done."""
        return found(unit, self.get)

    def put(self, unit: Unit, result: Result, seconds: float) -> None:
        """Stores a result; the file is there whole or not at all."""
        value = {"format": UNIT_FORMAT, "base": self._digest, "unit": unit.to_dict()}
        write_json_atomic(self.folder / "seconds" / f"{unit.key}.json", round(seconds, 1))
        write_json_atomic(self.folder / "units" / f"{unit.key}.json", {**value, "result": result})

    def seconds(self, unit: Unit) -> float:
        """What a unit that is done took, on whatever machine; 0 where that is not known."""
        resolved = unit.resolve(self.get)
        path = self.folder / "seconds" / f"{resolved.key}.json" if resolved else None
        return float(read_json(path, "seconds")) if path and path.exists() else 0.0

    def work(self, unit: Unit) -> Path:
        """The folder of a unit's run."""
        return self.folder / "work" / unit.key

    def without_weights(self, unit: Unit) -> Unit | None:
        """The unit that has to be done again before this one, since its weights are not here.

        Its result was copied from another folder then.
        """
        for need in () if unit.kind == "latency" else unit.needs:  # it takes the ensemble alone
            if need.kind in _WEIGHTS and not (self.work(need) / _WEIGHTS[need.kind]).exists():
                return need
        return None


def _completed(found: Any, base: Any, defaults: Any) -> Any:
    """Recorded settings, with the defaults of those settings of the base that are newer."""
    if not all(isinstance(value, Mapping) for value in (found, base, defaults)):
        return found
    newer = {key: defaults[key] for key in base if key not in found and key in defaults}
    known = {
        key: _completed(value, base.get(key), defaults.get(key)) for key, value in found.items()
    }
    return {**known, **json.loads(json.dumps(newer))}
