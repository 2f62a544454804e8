"""What a run's files say of candidates and shrinks, and helpers to take numbers from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import is_number
from neas_tf.space.shrunk_space import ShrunkSpace


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One line of `search/history.jsonl`.

    Attributes:
      number: running number, from 0.
      generation: 0 for the first population.
      origin: random, crossover or mutation.
      key: canonical string of the architecture.
      accuracy: of the ensemble on the held-out training data, 0..1.
      macs, paper_flops, params, latency_ns: cost; None where the line does not say.
      finished: whether no race stopped it; only then is its accuracy on all images.
      path_accuracies: of each path alone; empty where the line does not say.
      images: how many were seen where a race stopped it; None for all.
    """

    number: int
    generation: int
    origin: str
    key: str
    accuracy: float
    macs: int
    paper_flops: int | None = None
    params: int | None = None
    latency_ns: int | None = None
    finished: bool = True
    path_accuracies: tuple[float, ...] = ()
    images: int | None = None


@dataclasses.dataclass(frozen=True)
class Shrink:
    """One `shrink/shrink_NN.json`.

    Attributes:
      index: 1-based.
      step, epoch: of the supernet's training.
      metric: diversity, accuracy or none.
      layers: per scored layer a mapping as the file has it, its numbers as float arrays.
      alive: the space behind this shrink; None without a (matching) space.
    """

    index: int
    step: int
    epoch: float | None
    metric: str
    layers: tuple[Mapping[str, Any], ...]
    alive: ShrunkSpace | None

    @property
    def splittable(self) -> list[Mapping[str, Any]]:
        """The layers with a similarity whose combinations hold several operators."""
        return [
            layer
            for layer in self.layers
            if layer["similarity"] is not None
            and any(len(row["operators"]) > 1 for row in layer.get("combinations") or ())
        ]


def number(value: object) -> float | None:
    """The value when it is a finite number, else None."""
    return value if is_number(value) else None  # type: ignore[return-value]


def find_key(tree: object, key: str) -> Any:
    """Value of the shallowest `key` in nested mappings, None when there is none."""
    level = [tree]
    while level:
        maps = [node for node in level if isinstance(node, Mapping)]
        for node in maps:
            if isinstance(node.get(key), Mapping):
                return node[key]
        level = [child for node in maps for child in node.values()]
    return None
