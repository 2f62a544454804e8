"""Which operators and operator combinations are still alive (paper section 3.2, Algorithm 1)."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

FORMAT = "neas-shrunk-space/1"
_MOST_COMBINATIONS = 1_000_000  # of one layer: each is a tuple in memory and a row in a table


class DrawTables(NamedTuple):
    """What is alive as padded arrays, for drawing without loops over layers.

    Attributes:
      operators: int32 (d, most operators), indices of the operators alive.
      num_operators: int64 (d,), how many of them there are.
      combinations: int32 (d, most combinations, K), indices of the combinations alive; the single
        operators, repeated, in a layer that cannot split.
      num_combinations: int64 (d,).
    """

    operators: np.ndarray
    num_operators: np.ndarray
    combinations: np.ndarray
    num_combinations: np.ndarray


# K operator names in the order of the space: a combination is a set, its order says nothing.
Combination = tuple[str, ...]


def all_combinations(
    operators: tuple[str, ...], num_paths: int, heterogeneous: bool
) -> tuple[Combination, ...]:
    """Every combination of K operators; with `heterogeneous` of K different ones."""
    choose = itertools.combinations if heterogeneous else itertools.combinations_with_replacement
    return tuple(choose(operators, num_paths))


@dataclasses.dataclass(frozen=True)
class ShrunkSpace:
    """A search space for K paths less the combinations that were dropped. Immutable.

    Attributes:
      space: the whole space.
      num_paths: K.
      heterogeneous: whether a combination must hold K different operators.
      alive: per layer, in the order of the space: for a layer that can split (number >
        `space.min_split`) the combinations alive, for the others the single operators alive as
        1-tuples.
    """

    space: SearchSpace
    num_paths: int
    heterogeneous: bool
    alive: tuple[tuple[Combination, ...], ...]

    @classmethod
    def full(
        cls, space: SearchSpace, num_paths: int = 2, heterogeneous: bool = True
    ) -> ShrunkSpace:
        """The space before any shrinking.

        Raises:
          NeasError: when a layer that can split has fewer operators than paths.
        """
        check_int("num_paths", num_paths, 1, 64)
        alive = []
        for layer in space.layers:
            size = num_paths if layer.number > space.min_split else 1
            if heterogeneous and len(layer.operators) < size:
                raise NeasError(
                    f"num_paths: received {num_paths}, but layer {layer.number} of space "
                    f"{space.name!r} has only {len(layer.operators)} operators; expected at "
                    f"most that many paths, or heterogeneous: false."
                )
            count = len(layer.operators) + (0 if heterogeneous or size == 1 else size - 1)
            if math.comb(count, size) > _MOST_COMBINATIONS:
                raise NeasError(
                    f"num_paths: received {num_paths}, with which the {len(layer.operators)} "
                    f"operators of layer {layer.number} of space {space.name!r} make more than "
                    f"{_MOST_COMBINATIONS:,} combinations; expected fewer paths or operators."
                )
            alive.append(all_combinations(layer.operators, size, heterogeneous or size == 1))
        return cls(space, num_paths, heterogeneous, tuple(alive))

    def can_split(self, number: int) -> bool:
        """Whether layer `number` (1-based) may lie after a split point."""
        return number > self.space.min_split

    @functools.cached_property
    def alive_operators(self) -> tuple[tuple[str, ...], ...]:
        """Per layer the operators that live in at least one combination: what it may share."""
        return tuple(
            tuple(
                name
                for name in layer.operators
                if any(name in combination for combination in combinations)
            )
            for layer, combinations in zip(self.space.layers, self.alive, strict=True)
        )

    @functools.cached_property
    def _alive_sets(self) -> tuple[frozenset[Combination], ...]:
        return tuple(frozenset(combinations) for combinations in self.alive)

    @functools.cached_property
    def alive_operator_indices(self) -> tuple[np.ndarray, ...]:
        """Per layer int32 (n,): `alive_operators` as indices into `space.operators`."""
        index = self.space.operator_index
        return tuple(np.array([*map(index, names)], np.int32) for names in self.alive_operators)

    @functools.cached_property
    def alive_combination_indices(self) -> tuple[np.ndarray, ...]:
        """Per layer int32 (n, K or 1): `alive` as indices into `space.operators`."""
        index = self.space.operator_index
        return tuple(
            np.array([[index(name) for name in row] for row in rows], np.int32)
            for rows in self.alive
        )

    @functools.cached_property
    def draw_tables(self) -> DrawTables:
        """What is alive as padded arrays."""
        singles, rows = self.alive_operator_indices, self.alive_combination_indices
        depth = self.space.num_layers
        operators = np.zeros((depth, max(map(len, singles))), np.int32)
        combinations = np.zeros((depth, max(map(len, rows)), self.num_paths), np.int32)
        for m in range(depth):
            operators[m, : len(singles[m])] = singles[m]
            combinations[m, : len(rows[m])] = rows[m]
        return DrawTables(
            operators,
            np.array([*map(len, singles)]),
            combinations,
            np.array([*map(len, rows)]),
        )

    @property
    def num_combinations(self) -> int:
        """Combinations alive over all layers that can split."""
        return sum(
            len(rows)
            for layer, rows in zip(self.space.layers, self.alive, strict=True)
            if self.can_split(layer.number)
        )

    def ordered(self, operators: Iterable[str]) -> Combination:
        """The combination of these operators, in the order of the space."""
        return tuple(sorted(operators, key=self.space.operator_index))

    def allows(self, number: int, operators: Iterable[str]) -> bool:
        """Whether the K operators of a layer after the split are a combination alive."""
        try:
            return self.ordered(operators) in self._alive_sets[number - 1]
        except ValueError:
            return False

    def contains(self, architecture: Architecture) -> bool:
        """Whether the ensemble lies in the shrunk space."""
        return not self.why_not(architecture)

    def why_not(self, architecture: Architecture) -> str:
        """Empty when the shrunk space contains the ensemble, else the reason in one sentence."""
        try:
            architecture.check_in(self.space)
        except NeasError as error:
            return str(error)
        if architecture.num_paths != self.num_paths:
            return f"The ensemble has {architecture.num_paths} paths, the space {self.num_paths}."
        for layer, column in zip(
            self.space.layers, zip(*architecture.paths, strict=True), strict=True
        ):
            number = layer.number
            if number <= architecture.split_point:
                if column[0] not in self.alive_operators[number - 1]:
                    return f"Layer {number} shares {column[0]!r}, which was dropped."
            elif not self.allows(number, column):
                return f"Layer {number} splits into {', '.join(column)}, which is not alive."
        return ""

    def without(self, number: int, combination: Combination) -> ShrunkSpace:
        """The space less one combination (or operator, in a layer that cannot split).

        Raises:
          NeasError: when it is not alive or the last one of its layer.
        """
        rows = self.alive[number - 1]
        check(combination in rows, f"layer {number}", combination, "a combination alive")
        check(len(rows) > 1, f"layer {number}", combination, "leaving at least one combination")
        left = tuple(row for row in rows if row != combination)
        alive = (*self.alive[: number - 1], left, *self.alive[number:])
        return dataclasses.replace(self, alive=alive)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; the space itself is named by its fingerprint only."""
        return {
            "format": FORMAT,
            "space": self.space.fingerprint(),
            "num_paths": self.num_paths,
            "heterogeneous": self.heterogeneous,
            "alive": [[list(row) for row in rows] for rows in self.alive],
        }

    @classmethod
    def from_dict(cls, value: Any, space: SearchSpace) -> ShrunkSpace:
        """Reads `to_dict`'s form for the same space.

        Raises:
          NeasError: for another space, an unknown combination or a layer with none left.
        """
        check(isinstance(value, Mapping), "shrunk space", value, "a JSON object")
        check(value.get("format") == FORMAT, "shrunk space format", value.get("format"), FORMAT)
        if value.get("space") != space.fingerprint():
            raise NeasError(
                f"shrunk space: made for the space with fingerprint {value.get('space')!r}, but "
                f"{space.name!r} has {space.fingerprint()!r}."
            )
        heterogeneous = value.get("heterogeneous")
        check(
            isinstance(heterogeneous, bool),
            "shrunk space: heterogeneous",
            heterogeneous,
            "true or false",
        )
        whole = cls.full(space, value.get("num_paths"), heterogeneous)
        rows = value.get("alive")
        check(
            isinstance(rows, list) and len(rows) == space.num_layers,
            "shrunk space: alive",
            rows,
            f"{space.num_layers} lists of combinations",
        )
        alive = []
        for layer, known, given in zip(space.layers, whole.alive, rows, strict=True):
            field = f"shrunk space: layer {layer.number}"
            lists = isinstance(given, list) and all(isinstance(row, list) for row in given)
            check(lists, field, given, "a list of lists of operator names")
            chosen = {tuple(map(str, row)) for row in given}
            check(bool(chosen) and chosen <= set(known), field, given, "combinations of the layer")
            alive.append(tuple(row for row in known if row in chosen))
        return dataclasses.replace(whole, alive=tuple(alive))
