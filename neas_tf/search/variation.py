"""How the evolution search makes new ensembles from scored ones: crossover and mutation.

Paper section 3.4 and docs/method.md, Search. Choices where the paper is silent:

* A split point that mutates goes to any other one that the space allows, with equal chance.
* A layer that mutates takes something else than it had, where there is anything else: one of the
  other alive operators when shared, an alive combination in any order over the paths when split.
* A repaired or mutated combination is dealt to the paths in random order.
* With `heterogeneous: false` a freed layer keeps its copies (o, …, o) if that combination is alive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_int, fail, unknown_name
from neas_tf.search.fitness import ACCURACY, FITNESSES, HALVING
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import Combination, ShrunkSpace

METHODS = ("evolution", "random")
OBJECTIVES = ("accuracy", "pareto")
# Costs of `pareto_cost`, and their columns in the cost table.
PARETO_COSTS = {"macs": "macs", "params": "params", "latency": "latency_ns"}
# Of `pareto_objectives`, besides accuracy.
COST, DISAGREEMENT = "cost", "disagreement"


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Hyperparameters of Algorithm 2: those of `SearchConfig` of the same names, and their defaults.

    But for the fitness, which is the paper's here.

    Attributes:
      crossover, mutation: children by each in a generation; None is half of the population, or
        what the other one leaves of it.
    """

    method: str = "evolution"
    population: int = 50
    parents: int = 10
    generations: int = 20
    crossover: int | None = None
    mutation: int | None = None
    split_probability: float = 0.1
    layer_probability: float = 0.1
    seed: int = 0
    fitness: str = ACCURACY
    objective: str = "accuracy"
    pareto_cost: str = "macs"
    pareto_objectives: tuple[str, ...] = (ACCURACY, COST)

    def __post_init__(self):
        for field, known in (
            ("method", METHODS),
            ("fitness", FITNESSES),
            ("objective", OBJECTIVES),
            ("pareto_cost", PARETO_COSTS),
        ):
            if getattr(self, field) not in known:
                unknown_name(f"search.{field}", getattr(self, field), known)
        if self.fitness == HALVING and self.objective != "accuracy":
            expected = "another fitness, or search.objective 'accuracy': who is halved away"
            fail("search.fitness", HALVING, f"{expected} may still lie on the front")
        names = {*self.pareto_objectives}
        fits = len(names) == len(self.pareto_objectives) and {ACCURACY, COST} <= names
        fits = fits and names <= {ACCURACY, COST, DISAGREEMENT}
        expected = f"[{ACCURACY}, {COST}], perhaps with {DISAGREEMENT}"
        check(fits, "search.pareto_objectives", list(self.pareto_objectives), expected)
        if self.disagreement and self.objective != "pareto":
            fail("search.pareto_objectives", DISAGREEMENT, "it only with search.objective 'pareto'")
        for field in ("population", "parents", "generations"):
            check_int(f"search.{field}", getattr(self, field), 1)
        check_int("search.seed", self.seed, 0)
        for field in ("split_probability", "layer_probability"):
            value = getattr(self, field)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            check(number and 0 <= value <= 1, f"search.{field}", value, "a number in 0..1")
        for field in ("crossover", "mutation"):
            value = getattr(self, field)
            if value is not None:
                check_int(f"search.{field}", value, 0, self.population)
        if self.crossover is not None and self.mutation is not None:
            both, most = self.crossover + self.mutation, self.population
            field = "search.crossover + search.mutation"
            check(both <= most, field, both, f"at most search.population = {most}")

    @property
    def num_crossover(self) -> int:
        """Children by crossover in a generation."""
        if self.crossover is not None:
            return self.crossover
        return min(self.population // 2, self.population - (self.mutation or 0))

    @property
    def num_mutation(self) -> int:
        """Mutants in a generation."""
        if self.mutation is not None:
            return self.mutation
        return min(self.population // 2, self.population - (self.crossover or 0))

    @property
    def cost_metric(self) -> str | None:
        """The cost that is the second objective, as in the cost table; None where accuracy is all."""
        return PARETO_COSTS[self.pareto_cost] if self.objective == "pareto" else None

    @property
    def disagreement(self) -> bool:
        """Whether the disagreement of the paths is the third objective."""
        return DISAGREEMENT in self.pareto_objectives

    def to_dict(self) -> dict[str, Any]:
        """JSON form, with crossover and mutation worked out; without objectives that do not count."""
        values = dataclasses.asdict(self)
        objectives = values.pop("pareto_objectives")
        if self.disagreement:  # else as it was before there were three
            values["pareto_objectives"] = sorted(objectives)
        if self.fitness == ACCURACY:
            del values["fitness"]  # as it was before there were others
        if self.cost_metric is None:
            del values["objective"], values["pareto_cost"]
        return {**values, "crossover": self.num_crossover, "mutation": self.num_mutation}


def crossover(
    a: Architecture, b: Architecture, shrunk: ShrunkSpace, rng: np.random.Generator
) -> Architecture:
    """A child of two ensembles of the shrunk space (docs/method.md, Search); it lies there too.

    The split point comes from one parent, the column (K operators) of every layer from a random
    one. A column that does not fit the child's side of the split is repaired: a shared layer takes
    the operator of a random path, a split one an alive combination with the shared operator.
    """
    parents = (a, b)
    split = parents[rng.integers(2)].split_point
    columns = (_columns(a), _columns(b))
    child = []
    for i, parent in enumerate(rng.integers(2, size=a.num_layers).tolist()):
        column = columns[parent][i]
        if i < split:
            child.append(_shared(column, int(rng.integers(len(column)))))
        else:
            child.append(_split(i + 1, column, shrunk, rng))
    return _architecture(split, child)


def mutate(
    a: Architecture, shrunk: ShrunkSpace, settings: SearchSettings, rng: np.random.Generator
) -> Architecture:
    """A mutant of an ensemble of the shrunk space (paper section 3.4); it lies there too.

    With P_s the split point moves: up, and the newly shared layers take the operators of one
    random path; down, and the freed layers are copied to every path and made heterogeneous by an
    alive combination with the shared operator. Then every layer changes with P_m.
    """
    split, columns = a.split_point, _columns(a)
    if rng.random() < settings.split_probability:
        split, columns = _move_split(split, columns, shrunk, rng)
    for i in np.flatnonzero(rng.random(len(columns)) < settings.layer_probability).tolist():
        columns[i] = _other_column(i + 1, columns[i], i < split, shrunk, rng)
    return _architecture(split, columns)


def _move_split(
    split: int, columns: list[Combination], shrunk: ShrunkSpace, rng: np.random.Generator
) -> tuple[int, list[Combination]]:
    others = [s for s in shrunk.space.split_points if s != split]
    if not others:
        return split, columns
    new = others[rng.integers(len(others))]
    columns = list(columns)
    path = int(rng.integers(shrunk.num_paths))
    for i in range(split, new):  # Up.
        columns[i] = _shared(columns[i], path)
    for i in range(new, split):  # Down.
        columns[i] = _split(i + 1, columns[i], shrunk, rng)
    return new, columns


def _other_column(
    number: int, column: Combination, shared: bool, shrunk: ShrunkSpace, rng: np.random.Generator
) -> Combination:
    """Another alive column of the layer, or the same where there is no other."""
    if shared:
        names = [n for n in shrunk.alive_operators[number - 1] if n != column[0]]
        return (names[rng.integers(len(names))],) * len(column) if names else column
    combinations = shrunk.alive[number - 1]
    if len(combinations) == 1 and len(set(combinations[0])) == 1:
        return column
    new = column
    while new == column:
        new = _dealt(combinations[rng.integers(len(combinations))], rng)
    return new


def _shared(column: Combination, path: int) -> Combination:
    return (column[path],) * len(column)


def _split(
    number: int, column: Combination, shrunk: ShrunkSpace, rng: np.random.Generator
) -> Combination:
    """The column itself if it is alive, else an alive combination with its shared operator."""
    if shrunk.allows(number, column):
        return column
    fitting = [c for c in shrunk.alive[number - 1] if column[0] in c]
    return _dealt(fitting[rng.integers(len(fitting))], rng)


def _dealt(combination: Combination, rng: np.random.Generator) -> Combination:
    return tuple(combination[i] for i in rng.permutation(len(combination)))


def _columns(architecture: Architecture) -> list[Combination]:
    return list(zip(*architecture.paths, strict=True))


def _architecture(split: int, columns: Sequence[Combination]) -> Architecture:
    return Architecture(split, tuple(zip(*columns, strict=True)))
