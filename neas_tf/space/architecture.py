"""An ensemble as data: a split point and K rows of operators (paper sections 3.1 and 3.3)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int, check_keys, fail
from neas_tf.operators import PAPER_OPERATORS, SKIP, Operator
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-architecture/1"
_OFFICIAL = re.compile(r"\s*-?\d{1,9}(\s*,\s*-?\d{1,9})+\s*", re.ASCII)
_KEY = re.compile(r"s\d{1,9}:[a-z0-9_.]+(\|[a-z0-9_.]+)*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """K paths of d operators each; the rows agree in the first `split_point` layers.

    Attributes:
      split_point: s; layers 1..s are computed once and shared by all paths.
      paths: K rows of d operator names.
      name: for people; it takes no part in comparisons.
    """

    split_point: int
    paths: tuple[tuple[str, ...], ...]
    name: str = dataclasses.field(default="", compare=False)

    def __post_init__(self):
        check(bool(self.paths), "architecture.paths", self.paths, "at least one path")
        length = len(self.paths[0])
        check(length > 0, "architecture.paths", self.paths, "at least one layer")
        check_int("architecture.split_point", self.split_point, 0, length)
        for k, row in enumerate(self.paths):
            if len(row) != length:
                fail(f"architecture.paths[{k}]", row, f"{length} operators as in paths[0]")
            for name in row:
                Operator.parse(name, f"architecture.paths[{k}]")
            if row[: self.split_point] != self.paths[0][: self.split_point]:
                fail(
                    f"architecture.paths[{k}]",
                    ",".join(row),
                    f"the operators of paths[0] in the first {self.split_point} (shared) layers",
                )

    @property
    def num_paths(self) -> int:
        """K."""
        return len(self.paths)

    @property
    def num_layers(self) -> int:
        """d."""
        return len(self.paths[0])

    @property
    def shared(self) -> tuple[str, ...]:
        """Operators of the shared layers 1..s."""
        return self.paths[0][: self.split_point]

    @property
    def heterogeneous(self) -> bool:
        """Whether the paths use different operators in every layer that they do not share."""
        columns = list(zip(*self.paths, strict=True))[self.split_point :]
        return all(len(set(column)) == len(column) for column in columns)

    @property
    def key(self) -> str:
        """Canonical string: `s<split>:<shared operators>|<rest of path 1>|…`, '.'-separated."""
        parts = [self.shared, *(row[self.split_point :] for row in self.paths)]
        return f"s{self.split_point}:" + "|".join(".".join(part) or "." for part in parts)

    def __str__(self) -> str:
        return self.key

    @classmethod
    def from_key(cls, key: str, name: str = "") -> Architecture:
        """Reads the canonical string."""
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            fail("architecture", key, "a canonical string such as 's1:k3e4|k3e6|k5e6'")
        split, _, rest = key.partition(":")
        shared, *own = [tuple(n for n in part.split(".") if n) for part in rest.split("|")]
        if len(shared) != int(split[1:]):
            fail("architecture", key, f"{split[1:]} shared operators before the first '|'")
        return cls(int(split[1:]), tuple(shared + row for row in own), name)

    def to_dict(self) -> dict[str, Any]:
        """JSON form `neas-architecture/1`."""
        return {
            "format": FORMAT,
            "name": self.name,
            "split_point": self.split_point,
            "paths": [list(row) for row in self.paths],
        }

    @classmethod
    def from_dict(cls, value: Any) -> Architecture:
        """Reads the JSON form; keys beyond it are refused unless they begin with 'x_'."""
        check(isinstance(value, Mapping), "architecture", value, "a JSON object")
        check(value.get("format") == FORMAT, "architecture.format", value.get("format"), FORMAT)
        keys = [k for k in value if not str(k).startswith("x_")]
        check_keys("architecture", keys, ("format", "name", "split_point", "paths"))
        paths, name = value.get("paths"), value.get("name", "")
        check(isinstance(name, str), "architecture.name", name, "a string")
        rows_ok = isinstance(paths, list) and all(isinstance(row, list) for row in paths)
        check(rows_ok, "architecture.paths", paths, "a list of lists of operator names")
        for row in paths:
            for operator in row:
                Operator.parse(operator, "architecture.paths")
        return cls(value.get("split_point"), tuple(tuple(row) for row in paths), name)

    def to_official(self) -> list[int]:
        """The authors' list: [s, K, 0, shared…, (path 1…, 0), …] with skip as -1."""
        result = [self.split_point, self.num_paths, 0, *map(_official_index, self.shared)]
        for row in self.paths:
            result += [*map(_official_index, row[self.split_point :]), 0]
        return result

    @classmethod
    def from_official(cls, values: str | Sequence[int], name: str = "") -> Architecture:
        """Reads the authors' list, as numbers or as text with commas."""
        if isinstance(values, str):
            if not _OFFICIAL.fullmatch(values) or len(values) > 1 << 16:
                fail("architecture", values, "an official list of integers with commas")
            values = [int(v) for v in values.split(",")]
        values = list(values)
        if len(values) < 4 or values[2] != 0:
            fail("architecture", values, "an official list [split point, paths, 0, operators…]")
        split, num_paths, body = values[0], values[1], values[3:]
        check_int("architecture: split point of the official list", split, 0, len(body))
        check_int("architecture: paths of the official list", num_paths, 1, len(body))
        shared, rest = body[:split], body[split:]
        each, remainder = divmod(len(rest), num_paths)
        own = [rest[i * each : (i + 1) * each] for i in range(num_paths)]
        if remainder or each == 0 or any(row[-1] != 0 for row in own):
            fail(
                "architecture",
                values,
                f"{num_paths} equally long rows, each ending with 0, after the {split} shared "
                "operators",
            )
        rows = tuple(tuple(map(_official_name, [*shared, *row[:-1]])) for row in own)
        return cls(split, rows, name)

    def to_array(self, space: SearchSpace) -> np.ndarray:
        """int32 (1 + K·d,): the split point, then the rows as indices into `space.operators`."""
        rows = [space.operator_index(name) for row in self.paths for name in row]
        return np.array([self.split_point, *rows], np.int32)

    @classmethod
    def from_array(cls, values: np.ndarray, space: SearchSpace, name: str = "") -> Architecture:
        """Inverse of `to_array`."""
        rows = np.asarray(values)[1:].reshape(-1, space.num_layers)
        names = tuple(tuple(space.operators[i] for i in row) for row in rows.tolist())
        return cls(int(values[0]), names, name)

    def check_in(self, space: SearchSpace) -> Architecture:
        """Returns itself when the space contains it; raises `NeasError` otherwise."""
        title = f"architecture {self.name or self.key!r}"
        if self.num_layers != space.num_layers:
            raise NeasError(
                f"{title}: has {self.num_layers} layers, space {space.name!r} has "
                f"{space.num_layers}."
            )
        if self.split_point not in space.split_points:
            raise NeasError(
                f"{title}: split point {self.split_point} is outside {space.min_split}.."
                f"{space.max_split} of space {space.name!r}."
            )
        for k, row in enumerate(self.paths):
            for layer, operator in zip(space.layers, row, strict=True):
                if operator not in layer.operators:
                    raise NeasError(
                        f"{title}: path {k + 1} uses {operator!r} in layer {layer.number}, where "
                        f"space {space.name!r} allows {', '.join(layer.operators)}."
                    )
        return self


def _official_index(name: str) -> int:
    if name == SKIP:
        return -1
    if name not in PAPER_OPERATORS:
        fail("operator", name, f"one of {', '.join(PAPER_OPERATORS)} in the official list")
    return PAPER_OPERATORS.index(name)


def _official_name(index: int) -> str:
    check_int("architecture: operator of the official list", index, -1, 5)
    return SKIP if index == -1 else PAPER_OPERATORS[index]
