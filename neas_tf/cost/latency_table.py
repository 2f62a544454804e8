"""Latency as a cost: a table of measured operators that predicts whole ensembles.

latency = scale · Σ entries + constant: the stem once, layers 1..s once, layers s+1..d and the head
once per path. The entries are measured by themselves, `scale` and `constant` are fitted on a few
whole ensembles, so that it is additive like MACs and every bound on it is checked without a model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int, check_keys, is_number, unknown_name
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import resolve_user_path
from neas_tf.cost.latency_plan import head_key, layer_key, space_keys, stem_key
from neas_tf.operators import Operator
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-latency-table/1"
METRIC = "latency_ns"  # the column of the cost table
NANOSECONDS = 1_000_000  # of a millisecond
QUANTIZATIONS = ("none", "int8")
_MOST = 10**12  # ns of one entry: a quarter of an hour


@dataclasses.dataclass(frozen=True)
class LatencyTable:
    """Measured latencies of the parts of a space, in the form they are deployed in.

    Attributes:
      num_paths: K of the ensembles that the fit was made on.
      quantize: of the measured graphs, 'none' (float32) or 'int8'.
      entries: ns (int) by key of `latency_plan.space_keys`.
      scale, constant: of the prediction; the constant in ns.
      made_for: name of the space, for messages.
      device: what the table was measured on, in words.
      measurement: how it was measured (threads, clock, repetitions, versions, …), for people.
      fit: on which ensembles, with what error, for people.
      validation: predictions of other ensembles and their errors, for people; None without any.
    """

    num_paths: int
    quantize: str
    entries: Mapping[str, int]
    scale: float = 1.0
    constant: int = 0
    made_for: str = ""
    device: str = ""
    measurement: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    fit: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    validation: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        check_int("latency table: num_paths", self.num_paths, 1, 64)
        if self.quantize not in QUANTIZATIONS:
            unknown_name("latency table: quantize", self.quantize, QUANTIZATIONS)
        check(
            isinstance(self.entries, Mapping), "latency table: entries", self.entries, "a mapping"
        )
        check(bool(self.entries), "latency table: entries", dict(self.entries), "at least one")
        for key, value in self.entries.items():
            check_int(f"latency table: entries[{key!r}]", value, 0, _MOST)
        fine = is_number(self.scale) and 0 < self.scale < 1e6
        check(fine, "latency table: scale", self.scale, "a positive number")
        check_int("latency table: constant", self.constant, -_MOST, _MOST)
        for field in ("made_for", "device"):
            value = getattr(self, field)
            check(isinstance(value, str), f"latency table: {field}", value, "a string")

    def fingerprint(self) -> str:
        """Hash of everything that a prediction depends on, and of what was measured where."""
        content = {
            "format": FORMAT,
            "num_paths": self.num_paths,
            "quantize": self.quantize,
            "entries": dict(self.entries),
            "scale": float(self.scale),
            "constant": self.constant,
            "device": self.device,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """What tells two tables apart, in words that people can compare."""
        return {
            "fingerprint": self.fingerprint(),
            "device": self.device,
            "quantize": self.quantize,
            "num_paths": self.num_paths,
            "scale": float(self.scale),
            "constant_ns": self.constant,
        }

    def check_fits(self, space: SearchSpace, num_paths: int) -> LatencyTable:
        """Returns itself when it can predict the ensembles of a space.

        Raises:
          NeasError: when it was made for another number of paths, or lacks entries; names them.
        """
        made = f"the latency table was made for space {self.made_for!r}"
        if num_paths != self.num_paths:
            raise NeasError(
                f"search.latency_table: {made} with {self.num_paths} paths, but num_paths is "
                f"{num_paths}; measure one with --num_paths={num_paths}."
            )
        missing = [key for key in space_keys(space) if key not in self.entries]
        if missing:
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            names = ", ".join(repr(key) for key in missing[:4])
            raise NeasError(
                f"search.latency_table: {made} and lacks {names}{more} of space {space.name!r}; "
                "measure that one."
            )
        return self

    def layer_ns(self, space: SearchSpace) -> np.ndarray:
        """int64 (d, N): predicted ns of every layer and operator; 0 where a layer has it not."""
        result = np.zeros((space.num_layers, len(space.operators)), np.int64)
        for m, layer in enumerate(space.layers):
            for n, name in enumerate(space.operators):
                if name in layer.operators and not Operator.parse(name).is_skip:
                    result[m, n] = self._scaled(layer_key(layer, name))
        return result

    def trunk_ns(self, space: SearchSpace) -> int:
        """Predicted ns of normalisation, stem and fixed block, and the constant."""
        return self._scaled(stem_key(space)) + self.constant

    def head_ns(self, space: SearchSpace) -> int:
        """Predicted ns of one path's head with its part of the classifier."""
        return self._scaled(head_key(space))

    def _scaled(self, key: str) -> int:
        return round(self.scale * self.entries[key])

    def predict_ns(self, architecture: Architecture, space: SearchSpace) -> int:
        """Predicted latency of an ensemble of the space, in ns.

        Raises:
          NeasError: as `check_fits`, or when the ensemble is not in the space.
        """
        self.check_fits(space, architecture.num_paths)
        architecture.check_in(space)
        layers, split, index = self.layer_ns(space), architecture.split_point, space.operator_index
        rows = [
            [int(layers[m, index(name)]) for m, name in enumerate(row)]
            for row in architecture.paths
        ]
        own = sum(sum(row[split:]) + self.head_ns(space) for row in rows)
        return self.trunk_ns(space) + sum(rows[0][:split]) + own

    def to_dict(self) -> dict[str, Any]:
        """JSON form `neas-latency-table/1`."""
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint(),
            "made_for": self.made_for,
            "num_paths": self.num_paths,
            "quantize": self.quantize,
            "device": self.device,
            "measurement": dict(self.measurement),
            "scale": float(self.scale),
            "constant": self.constant,
            "fit": dict(self.fit),
            "validation": self.validation,
            "entries": dict(self.entries),
        }

    @classmethod
    def from_dict(cls, value: Any) -> LatencyTable:
        """Reads the JSON form; raises `NeasError` for anything else."""
        check(isinstance(value, Mapping), "latency table", value, "a JSON object")
        found = value.get("format")
        check(found == FORMAT, "latency table: format", found, FORMAT)
        known = [field.name for field in dataclasses.fields(cls)]
        check_keys("latency table", value, ("format", "fingerprint", *known))
        missing = [key for key in ("num_paths", "quantize", "entries") if key not in value]
        check(not missing, "latency table: keys", sorted(value), f"{', '.join(missing)} too")
        table = cls(**{key: value[key] for key in known if key in value})
        for field in ("measurement", "fit"):
            found = getattr(table, field)
            check(isinstance(found, Mapping), f"latency table: {field}", found, "a mapping")
        check(
            value.get("fingerprint") == table.fingerprint(),
            "latency table: fingerprint",
            value.get("fingerprint"),
            f"{table.fingerprint()!r}, that of its content (it was changed by hand)",
        )
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON form atomically."""
        write_json_atomic(path, self.to_dict())


def load_table(path: str | os.PathLike[str], field: str = "latency_table") -> LatencyTable:
    """Reads a table's file; raises a `NeasError` that names the field and the fault."""
    path = resolve_user_path(path)
    value = read_json(path, field)
    try:
        return LatencyTable.from_dict(value)
    except NeasError as error:
        raise NeasError(f"{field} {path!r}: {error}") from None


def milliseconds(nanoseconds: float) -> str:
    """8_312_345 → '8.31 ms', with three significant digits or two decimals."""
    value = nanoseconds / NANOSECONDS
    return f"{value:.2f} ms" if value >= 1 else f"{value:.3g} ms"
