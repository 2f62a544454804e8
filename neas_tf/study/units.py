"""Units of work: one trained network, one supernet, one search. Frozen, with a canonical key.

A unit says what it depends on (`needs`). What it depends on may only be known when another unit is
done, such as the ensemble that a search finds; `resolve` puts it in. The key of a resolved unit
is a digest of everything that its result depends on besides the base settings, so that two studies
that ask for the same training share it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from neas_tf.search.history import ensemble_identity
from neas_tf.space.architecture import Architecture

Result = Mapping[str, Any]
# The result of a unit that is done, None of one that is not.
Lookup = Callable[["Unit"], Result | None]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings over the base as canonical JSON: equal settings, equal text."""
    return json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
      seed: of the run; data, draws and first weights follow from it.
      settings: over the base settings, as `settings_text` writes them.
    """

    kind: ClassVar[str] = ""
    seed: int = 0
    settings: str = "{}"

    def _own(self) -> dict[str, Any]:
        """What a kind of units has besides; what is not set is left out."""
        names = [field.name for field in dataclasses.fields(self)[2:]]
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def needs(self) -> tuple[Unit, ...]:
        """Units whose results or files this one uses."""
        return tuple(value for value in self._own().values() if isinstance(value, Unit))

    def resolve(self, lookup: Lookup) -> Self | None:
        """This unit with everything known in it; None while a unit that it needs is not done."""
        known: dict[str, Any] = {}
        for name, need in self._own().items():
            if isinstance(need, Unit):
                resolved = need.resolve(lookup)
                if resolved is None or lookup(resolved) is None:
                    return None
                if resolved is not need:
                    known[name] = resolved
        return dataclasses.replace(self, **known) if known else self

    def to_dict(self) -> dict[str, Any]:
        """Everything that the result depends on besides the base, as JSON; only when resolved."""
        own = {
            name: value.to_dict() if isinstance(value, Unit) else value
            for name, value in self._own().items()
        }
        return {"kind": self.kind, "seed": self.seed, "settings": json.loads(self.settings), **own}

    @functools.cached_property
    def key(self) -> str:
        """Name of the unit's file: the kind and a digest of `to_dict`."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def title(self) -> str:
        """For people: what is done, with which seed."""
        own = "" if self.settings == "{}" else f" {_words(json.loads(self.settings))}"
        return f"{self.kind}{own}, seed {self.seed}"


def _words(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Settings in one line: shrink.metric=none."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            parts.append(_words(value, f"{prefix}{key}."))
        elif not isinstance(value, list):
            parts.append(f"{prefix}{key}={value}")
    return " ".join(part for part in parts if part)


def found(unit: Unit, lookup: Lookup) -> Result | None:
    """The result of a unit that need not be resolved yet; None when it is not done."""
    resolved = unit.resolve(lookup)
    return None if resolved is None else lookup(resolved)


@dataclasses.dataclass(frozen=True)
class Supernet(Unit):
    """Trains and shrinks a supernet, without a budget, so that searches under any budget share it.

    Result: `alive` (combinations by layer), `combinations` and `all_combinations` (counts),
    `shrinks` (step, distances, dropped), `training` (last line of its log).
    """

    kind: ClassVar[str] = "supernet"


@dataclasses.dataclass(frozen=True)
class Pace(Unit):
    """What a step of supernet training takes beside a step under the base settings.

    Result: `ratio` of the CPU seconds of an epoch, and `epoch_seconds`, both sides' (base, own);
    `machine`. A measurement: it is not the same twice.
    """

    kind: ClassVar[str] = "pace"


@dataclasses.dataclass(frozen=True)
class PacedSupernet(Supernet):
    """A supernet that trains as many epochs as take the CPU time of the base's; then it is an ordinary one.

    Attributes:
      pace: of its settings.
      epochs: the base's.
      every_epochs: between the base's shrinks; here as many shrinks are as far apart.
    """

    pace: Pace = dataclasses.field(default_factory=Pace)
    epochs: float = 0.0
    every_epochs: float = 0.0

    def resolve(self, lookup: Lookup) -> Any:
        """The supernet with its epochs, None before the pace is measured."""
        measured = found(self.pace, lookup)
        if measured is None:
            return None
        epochs = self.epochs_at(measured["ratio"])
        settings = json.loads(self.settings)
        settings["supernet"] = settings.get("supernet", {}) | {"epochs": epochs}
        every = self.every_epochs * epochs / self.epochs
        settings["shrink"] = settings.get("shrink", {}) | {"every_epochs": every}
        return Supernet(self.seed, settings_text(settings))

    def epochs_at(self, ratio: float) -> float:
        """Whole epochs, one at least, of `ratio` times the base's seconds each."""
        return float(max(1, round(self.epochs / ratio)))

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"{super().title}, in the base's CPU time"


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
class OfTraining(Unit):
    """Something made of a trained ensemble.

    Attributes:
      training: the ensemble's.
    """

    training: Training = dataclasses.field(default_factory=Training)

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"{self.kind} of {self.training.title}"


@dataclasses.dataclass(frozen=True)
class Embedding(OfTraining):
    """t-SNE of the final hidden features on test images, all paths in one plane (paper Fig. 4).

    Result: `points[path][image]`, as [x, y], `labels`.

    Attributes:
      images: the first so many of the test split.
    """

    kind: ClassVar[str] = "embedding"
    images: int = 500


@dataclasses.dataclass(frozen=True)
class Comparison(OfTraining):
    """How the paths of a trained ensemble differ on the test split (paper Table 3).

    Result: see `path_differences.compare_paths`.
    """

    kind: ClassVar[str] = "comparison"


@dataclasses.dataclass(frozen=True)
class Latency(OfTraining):
    """Latency of a trained ensemble's TFLite form with LiteRT on one thread of this machine.

    Result: `milliseconds`, `machine`. A measurement: it is not the same twice.
    """

    kind: ClassVar[str] = "latency"


def in_order(units: Sequence[Unit]) -> list[Unit]:
    """The units and all that they need, each once, what is needed first."""
    result: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        if unit not in result:
            for need in unit.needs:
                add(need)
            result[unit] = None

    for unit in units:
        add(unit)
    return list(result)
