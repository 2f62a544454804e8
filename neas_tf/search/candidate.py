"""A scored ensemble: what its evaluation yields, and its line of the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import check, check_int, is_number
from neas_tf.search.fitness import NUMBERS
from neas_tf.space.architecture import Architecture

ORIGINS = ("random", "crossover", "mutation")
_FIELDS = (
    "candidate", "generation", "origin", "architecture", "key", "accuracy", "path_accuracies",
)  # fmt: skip
_IMAGES = "images"  # only in lines of searches with races, which there were once
DISAGREEMENT = "disagreement"  # only in lines of a search with three objectives
_LOOKS = "looks"  # only in lines of a search by halving
_MORE = (_IMAGES, DISAGREEMENT, _LOOKS, *NUMBERS)  # that a line may have besides costs
Costs = Mapping[str, int | float]


@dataclasses.dataclass(frozen=True)
class Score:
    """What the evaluation of one ensemble yields, each accuracy in [0, 1].

    Attributes:
      accuracy: of the ensemble (mean logits, Eq. 1) on the held-out training images.
      path_accuracies: of each of the K paths alone.
      disagreement: mean over the images of the paths' divergence from their mean probabilities, in
        nats (`uncertainty.measures`); None where it was not asked for.
      numbers: of `fitness.NUMBERS` those that are known.
      looks: evaluations that the others are means of, where there may be several (`halving`).
    """

    accuracy: float
    path_accuracies: tuple[float, ...]
    disagreement: float | None = None
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    looks: int | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One scored ensemble: a line of the history.

    Attributes:
      number: 0-based running number over the whole search.
      generation: 0-based.
      origin: 'random', 'crossover' or 'mutation'.
      architecture: the ensemble.
      accuracy, path_accuracies, disagreement, numbers, looks: see `Score`.
      costs: 'macs' at least; plain counts.
      images: how many images were seen where a race of an old search stopped the evaluation, and
        the accuracies are estimates; None for all.
    """

    number: int
    generation: int
    origin: str
    architecture: Architecture
    accuracy: float
    path_accuracies: tuple[float, ...]
    costs: Costs
    images: int | None = None
    disagreement: float | None = None
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    looks: int | None = None

    @property
    def finished(self) -> bool:
        """Whether its accuracy is on all images; only then can it breed or win."""
        return self.images is None

    @property
    def macs(self) -> int | float:
        """Multiply-accumulates of one image."""
        return self.costs["macs"]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a line of the history; what is not known is left out."""
        value = {
            "candidate": self.number,
            "generation": self.generation,
            "origin": self.origin,
            "architecture": self.architecture.to_dict(),
            "key": self.architecture.key,
            "accuracy": self.accuracy,
            "path_accuracies": list(self.path_accuracies),
            **self.costs,
        }
        more = {_IMAGES: self.images, DISAGREEMENT: self.disagreement, _LOOKS: self.looks}
        more |= {name: self.numbers.get(name) for name in NUMBERS}
        return value | {name: given for name, given in more.items() if given is not None}

    @classmethod
    def from_dict(cls, value: Any) -> Candidate:
        """Reads `to_dict`'s form; raises `NeasError` for anything else."""
        check(isinstance(value, Mapping), "line", value, "a JSON object")
        missing = [name for name in (*_FIELDS, "macs") if name not in value]
        check(not missing, "keys", sorted(value), f"an object with {', '.join(missing)} too")
        costs = {k: v for k, v in value.items() if k not in (*_FIELDS, *_MORE)}
        for name, cost in costs.items():
            check(is_number(cost), name, cost, "a finite number")
        check(value["origin"] in ORIGINS, "origin", value["origin"], ", ".join(ORIGINS))
        images, looks = (
            check_int(name, value[name], 1) if name in value else None for name in (_IMAGES, _LOOKS)
        )
        numbers = {name: value[name] for name in NUMBERS if name in value}
        for name, given in numbers.items():
            check(is_number(given), name, given, "a finite number")
        apart = value.get(DISAGREEMENT)
        check(apart is None or is_number(apart), DISAGREEMENT, apart, "a finite number")
        architecture = Architecture.from_dict(value["architecture"])
        check(value["key"] == architecture.key, "key", value["key"], repr(architecture.key))
        check(is_number(value["accuracy"]), "accuracy", value["accuracy"], "a finite number")
        paths = value["path_accuracies"]
        count = architecture.num_paths
        fine = isinstance(paths, list) and len(paths) == count and all(map(is_number, paths))
        check(fine, "path_accuracies", paths, f"{count} finite numbers")
        return cls(
            check_int("candidate", value["candidate"], 0),
            check_int("generation", value["generation"], 0),
            value["origin"],
            architecture,
            float(value["accuracy"]),
            tuple(float(accuracy) for accuracy in paths),
            costs,
            images,
            apart,
            {name: float(given) for name, given in numbers.items()},
            looks,
        )
