"""The constraints of a search: `search.constraints` in the cost table and after the sampler.

Functions marked `additive` are sums over the layers as MACs are: they become columns of the cost
table, which the sampler obeys. All others are tried on every draw, and what does not keep its bound
is drawn again.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, fail
from neas_tf.cost.budget import Limit
from neas_tf.cost.constraint_functions import FIELD, Bound, evaluate, parse
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

Draw = Callable[[np.random.Generator], Architecture]
_KEPT = 20_000  # values that are remembered
_TRIES = 5000  # draws of one ensemble
_SEED = 0xC0257  # of the ensembles that functions are tried on


class Column:
    """An additive function as integers for the cost table.

    Attributes:
      operators: int64 (d, N): layer and operator; 0 for one that the layer does not allow.
      fixed: what every ensemble has.
    """

    def __init__(self, bound: Bound, space: SearchSpace, num_paths: int):
        self._value, self._space, self._paths = bound, space, num_paths
        names = [next(n for n in layer.operators) for layer in space.layers]
        low, high, depth = space.min_split, space.max_split, space.num_layers

        def of(row: Sequence[str], split: int) -> int:
            return _whole(bound, Architecture(split, (tuple(row),) * num_paths), space)

        base = of(names, high)
        self.operators = np.zeros((depth, len(space.operators)), np.int64)
        for m, layer in enumerate(space.layers):
            # Moving the split point over a layer adds what it costs K - 1 times.
            own = 0
            if low <= m < high and num_paths > 1:
                own = (of(names, m) - of(names, m + 1)) // (num_paths - 1)
            copies = num_paths if m >= high else 1
            for name in layer.operators:
                row = [*names[:m], name, *names[m + 1 :]]
                more = of(row, high) - base if name != names[m] else 0
                self.operators[m, space.operator_index(name)] = own + more // copies
        index = [space.operator_index(name) for name in names]
        counted = [
            (num_paths if m >= high else 1) * self.operators[m, index[m]] for m in range(depth)
        ]
        self.fixed = base - int(sum(counted))

    def cost(self, architecture: Architecture) -> int:
        """The sum for an ensemble."""
        total, index = self.fixed, self._space.operator_index
        for k, row in enumerate(architecture.paths):
            first = architecture.split_point if k else 0
            total += sum(int(self.operators[m, index(row[m])]) for m in range(first, len(row)))
        return total


def _whole(bound: Bound, architecture: Architecture, space: SearchSpace) -> int:
    value = evaluate(bound.function, bound.name, architecture, space)
    if value != int(value):
        fail(f"{FIELD}: additive {bound.name}", value, "whole numbers, as of bytes or operations")
    return int(value)


class Constraints:
    """The constraints of a search in one space.

    Attributes:
      bounds: all of them.
      columns: of additive functions, by name.
    """

    def __init__(self, bounds: Sequence[Bound], space: SearchSpace, num_paths: int):
        """Tries every function.

        Raises:
          NeasError: when one raises, gives no number, or is called additive and is not.
        """
        self.bounds, self._space = tuple(bounds), space
        self.columns: dict[str, Column] = {}
        self._values: collections.OrderedDict[Architecture, dict[str, float]]
        self._values = collections.OrderedDict()
        self._met: dict[str, tuple[float, float]] = {}
        try:
            full = ShrunkSpace.full(space, num_paths)
        except NeasError:  # fewer operators than paths
            full = ShrunkSpace.full(space, num_paths, heterogeneous=False)
        rng = np.random.default_rng(_SEED)
        for bound in self.bounds:
            first = sampling.uniform(full, rng)
            evaluate(bound.function, bound.name, first, space)
            if not bound.additive or bound.name in self.columns:
                continue
            column = self.columns[bound.name] = Column(bound, space, num_paths)
            for _ in range(16):
                some = sampling.uniform(full, rng)
                found, expected = _whole(bound, some, space), column.cost(some)
                if found != expected:
                    raise NeasError(
                        f"{FIELD}: {bound.name} is marked additive and is no sum over layers: for "
                        f"{some.key} it gives {found:,}, its parts {expected:,}."
                    )
        self.rejecting = tuple(bound for bound in self.bounds if not bound.additive)

    def limits(self) -> tuple[Limit, ...]:
        """Bounds on the columns, for a budget."""
        return tuple(
            Limit(FIELD, b.name, b.sign, math.floor(b.value) if b.sign > 0 else math.ceil(b.value))
            for b in self.bounds
            if b.additive
        )

    def values(self, architecture: Architecture) -> dict[str, int | float]:
        """What the functions that are no sums say of an ensemble, by name."""
        found = self._values.get(architecture)
        if found is None:
            functions = {bound.name: bound.function for bound in self.rejecting}
            found = {
                name: evaluate(function, name, architecture, self._space)
                for name, function in functions.items()
            }
            self._values[architecture] = found
            if len(self._values) > _KEPT:
                self._values.popitem(last=False)
            for name, value in found.items():
                low, high = self._met.get(name, (value, value))
                self._met[name] = min(low, value), max(high, value)
        return dict(found)

    def all_values(self, architecture: Architecture) -> dict[str, int | float]:
        """What all functions say of an ensemble, by name."""
        sums: Mapping[str, int] = {name: c.cost(architecture) for name, c in self.columns.items()}
        return {**sums, **self.values(architecture)}

    def admits(self, architecture: Architecture) -> bool:
        """Whether an ensemble keeps the bounds on what is no sum."""
        if not self.rejecting:
            return True
        values = self.values(architecture)
        return all(bound.admits(values[bound.name]) for bound in self.rejecting)

    def identity(self) -> list[dict[str, Any]]:
        """What a search depends on, as JSON."""
        return [bound.identity() for bound in self.bounds]

    def sampler(self, draw: Draw) -> Draw:
        """What draws until all bounds are kept; `draw` itself where it knows all of them.

        The distribution is that of `draw` on the condition that the bounds are kept.

        Raises:
          NothingFound: from a draw, after 5,000 that did not keep them.
        """
        if not self.rejecting:
            return draw

        def sample(rng: np.random.Generator) -> Architecture:
            for _ in range(_TRIES):
                architecture = draw(rng)
                if self.admits(architecture):
                    return architecture
            lines = ", ".join(bound.text for bound in self.rejecting)
            met = "; ".join(
                f"{name} had {_number(low)} to {_number(high)}"
                for name, (low, high) in self._met.items()
            )
            raise NothingFound(
                f"{FIELD}: {lines} kept by none of {_TRIES:,} random ensembles inside the budget; "
                f"expected bounds that the space attains: {met}."
            )

        return sample


class NothingFound(NeasError):
    """Random draws found no ensemble that keeps the constraints."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6g}"


@functools.lru_cache(maxsize=8)
def _tried(bounds: tuple[Bound, ...], space: SearchSpace, num_paths: int) -> Constraints:
    return Constraints(bounds, space, num_paths)


def load_constraints(lines: Sequence[str], space: SearchSpace, num_paths: int) -> Constraints:
    """The constraints of a setting, each tried on an ensemble of the space.

    Raises:
      NeasError: as `parse` and `Constraints`.
    """
    return _tried(parse(lines), space, num_paths)
