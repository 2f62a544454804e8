"""Units that leave networks: supernets, searches, trainings; and what they are made with."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from neas_tf.search.history import ensemble_identity
from neas_tf.space.architecture import Architecture
from neas_tf.study.units.unit import Lookup, Result, Unit, found


@dataclasses.dataclass(frozen=True)
class Supernet(Unit):
    """Trains and shrinks a supernet, without a budget, so that searches under any budget share it.

    Result: `alive` (combinations by layer), `combinations` and `all_combinations` (counts),
    `shrinks` (step, distances, dropped), `training` (last line of its log).
    """

    kind: ClassVar[str] = "supernet"


@dataclasses.dataclass(frozen=True)
class Scores(Unit):
    """Accuracy of given ensembles with a supernet's weights, on held-out training images.

    Result: `accuracies`, `path_accuracies`, and `numbers`, a list by name (`search.fitness.NUMBERS`,
    None where it is not known; older results have none), in the order of the ensembles.

    Attributes:
      supernet: whose weights.
      ensembles: keys.
    """

    kind: ClassVar[str] = "scores"
    supernet: Supernet = dataclasses.field(default_factory=Supernet)
    ensembles: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"scores of {len(self.ensembles)} ensembles by {self.supernet.title}"


@dataclasses.dataclass(frozen=True)
class LatencyTable(Unit):
    """Measures what the operators of a supernet's space take on this machine (docs/latency.md).

    Result: `table`, JSON of `neas-latency-table/1`. A measurement: it is not the same twice.

    Attributes:
      supernet: whose space.
    """

    kind: ClassVar[str] = "table"
    supernet: Supernet = dataclasses.field(default_factory=Supernet)

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"latency table for {self.supernet.title}"


@dataclasses.dataclass(frozen=True)
class Search(Unit):
    """A search with a supernet's weights.

    Result: `candidates` in the order of the history, each [key, accuracy, MACs, generation],
    `numbers` of each as in `Scores`, `best` the winner's number, `reason` why it ended early ('' when
    it did not), where `search.fitness` is not accuracy the `fitness` of each, and under a table
    `max_latency_ms`.

    Attributes:
      supernet: whose weights and shrunk space.
      table: makes it a search under latency instead of MACs.
      latency_share: its bound, as a share of the way from the fastest ensemble of the whole space
        to the slowest; 0 without a table.
    """

    kind: ClassVar[str] = "search"
    supernet: Supernet = dataclasses.field(default_factory=Supernet)
    table: LatencyTable | None = None
    latency_share: float = 0.0

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        bound = f" under latency (share {self.latency_share:g})" if self.table else ""
        return f"{super().title}{bound}, with {self.supernet.title}"


@dataclasses.dataclass(frozen=True)
class Found:
    """An ensemble that a search finds, or one made of it.

    Attributes:
      search: the search.
      max_split: the best candidate that splits after this layer or earlier; −1 takes the winner.
      mirror: 0-based path that all paths become copies of (paper Table 3); −1 leaves it.
      unshared: whether the same paths share no layer (paper Table 4).
      rank: 0-based place of the candidate among different ones, the best first; the last where there are fewer.
    """

    search: Search
    max_split: int = -1
    mirror: int = -1
    unshared: bool = False
    rank: int = 0

    def ensemble(self, result: Result) -> str:
        """The key of the ensemble, from the search's result.

        The fittest is the best; of equal ones the lower MACs win, then the earlier candidate. Where
        none splits early enough, it is the best of those that split earliest.
        """
        accuracies = [accuracy for _, accuracy, _, _ in result["candidates"]]
        fitnesses = result.get("fitness", accuracies)
        rows = [
            (fitness, -macs, -number, key)
            for number, ((key, _, macs, _), fitness) in enumerate(
                zip(result["candidates"], fitnesses, strict=True)
            )
        ]
        if self.max_split >= 0:
            splits = [Architecture.from_key(row[-1]).split_point for row in rows]
            latest = max(self.max_split, min(splits))
            rows = [row for row, split in zip(rows, splits, strict=True) if split <= latest]
        different: dict[Any, Architecture] = {}
        for row in sorted(rows, reverse=True):
            architecture = Architecture.from_key(row[-1])
            different.setdefault(ensemble_identity(architecture), architecture)
            if len(different) > self.rank:
                break
        chosen = list(different.values())[-1]
        paths = chosen.paths
        if self.mirror >= 0:
            paths = (paths[self.mirror],) * len(paths)
        return Architecture(0 if self.unshared else chosen.split_point, paths).key

    @property
    def words(self) -> str:
        """For people."""
        text = "ensemble found" if not self.rank else f"number {self.rank + 1} of what is found"
        if self.max_split >= 0:
            text += f" with split ≤ {self.max_split}"
        if self.mirror >= 0:
            text = f"path {self.mirror + 1} mirrored of {text}"
        return ("unshared twin of " if self.unshared else "") + text


@dataclasses.dataclass(frozen=True)
class Training(Unit):
    """Trains an ensemble from scratch on the whole training split and tests it once.

    Result: `ensemble_accuracy`, `path_accuracies`, `top5`, `macs`, `params`, `architecture`.

    Attributes:
      ensemble: its key, or what a search finds.
    """

    kind: ClassVar[str] = "training"
    ensemble: str | Found = ""

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The search, where the ensemble is not known yet."""
        return (self.ensemble.search,) if isinstance(self.ensemble, Found) else ()

    def resolve(self, lookup: Lookup) -> Self | None:
        """See `Unit.resolve`."""
        if not isinstance(self.ensemble, Found):
            return self
        result = found(self.ensemble.search, lookup)
        if result is None:
            return None
        return dataclasses.replace(self, ensemble=self.ensemble.ensemble(result))

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        if isinstance(self.ensemble, Found):
            return f"{super().title} of the {self.ensemble.words} by {self.ensemble.search.title}"
        return f"{super().title}, of {self.ensemble}"


@dataclasses.dataclass(frozen=True)
class Taught(Training):
    """A training with another one's ensemble as its teacher (`retrain.distillation`).

    Attributes:
      teacher: whose model; the settings say how it teaches.
    """

    kind: ClassVar[str] = "taught"
    teacher: Training = dataclasses.field(default_factory=Training)

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The search, where the ensemble is not known yet, and the teacher."""
        return (*super().needs, self.teacher)

    def resolve(self, lookup: Lookup) -> Self | None:
        """See `Unit.resolve`; its teacher is of a known ensemble."""
        return None if lookup(self.teacher) is None else super().resolve(lookup)

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"{super().title}, taught by {self.teacher.ensemble}"
