"""Units that measure: what a network costs, and what can be told of a trained one."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, ClassVar

from neas_tf.study.units.networks import Found, Search, Supernet, Training
from neas_tf.study.units.unit import Lookup, Result, Unit, found, settings_text


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


@dataclasses.dataclass(frozen=True)
class Uncertain(OfTraining):
    """How well a trained network knows its errors on the test split (docs/uncertainty.md).

    Result: `neas-uncertainty/1` as the training's test left it.
    """

    kind: ClassVar[str] = "uncertain"


@dataclasses.dataclass(frozen=True)
class Robustness(OfTraining):
    """How a trained network errs on corrupted test images (docs/uncertainty.md).

    Result: as `uncertainty.robustness.measure` gives it, of one network.

    Attributes:
      images: the first so many of the test split.
      corrupted_size: (height, width) at which they are corrupted before they are read at the size
        of the network's; () for that size.
    """

    kind: ClassVar[str] = "robustness"
    images: int = 1000
    corrupted_size: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Costs(Training):
    """CPU seconds that it takes to find an ensemble and to train it.

    Result: `supernet` and `search` (0 where nobody looked for it), `epoch` of the training, `machine`.
    Shrinks count as candidates, by the images that they pass forward. A measurement: it is not the
    same twice.

    Attributes:
      search: that found it; known with the ensemble.
    """

    kind: ClassVar[str] = "costs"
    search: Search | None = None

    def resolve(self, lookup: Lookup) -> Any:
        """See `Unit.resolve`."""
        if not isinstance(self.ensemble, Found):
            return self
        search = self.ensemble.search.resolve(lookup)
        known = super().resolve(lookup)
        return known and dataclasses.replace(known, search=search)


@dataclasses.dataclass(frozen=True)
class TimedTraining(Training):
    """A training that ends when another ensemble is found and trained; then it is an ordinary one.

    Attributes:
      own: costs of this one, its search among them.
      total: costs of the other.
      epochs: of the other's training.
    """

    own: Costs = dataclasses.field(default_factory=Costs)
    total: Costs = dataclasses.field(default_factory=Costs)
    epochs: float = 0.0

    @property
    def needs(self) -> tuple[Unit, ...]:
        """The search, where the ensemble is not known yet, and both costs."""
        return (*super().needs, self.own, self.total)

    def resolve(self, lookup: Lookup) -> Any:
        """The training with its epochs, None before both costs are known."""
        training, own, total = (
            super().resolve(lookup),
            found(self.own, lookup),
            found(self.total, lookup),
        )
        if training is None or own is None or total is None:
            return None
        settings = json.loads(self.settings)
        settings["retrain"] = settings.get("retrain", {}) | {"epochs": self.epochs_at(own, total)}
        return Training(self.seed, settings_text(settings), training.ensemble)

    def epochs_at(self, own: Result, total: Result) -> float:
        """Whole epochs, one at least, in the time that is left after the own search."""
        seconds = total["supernet"] + total["search"] + self.epochs * total["epoch"]
        left = seconds - own["supernet"] - own["search"]
        return float(max(1, math.floor(left / own["epoch"])))

    @property
    def title(self) -> str:
        """See `Unit.title`."""
        return f"{super().title}, in the time of a search and a training"
