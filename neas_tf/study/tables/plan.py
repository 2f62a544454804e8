"""What the units of all studies follow from: the sizes, the space and the base settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError
from neas_tf.search.history import ensemble_identity
from neas_tf.space import sampling
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.study.settings import BASE_RECIPE, StudySettings
from neas_tf.study.units import (
    Found,
    Pace,
    PacedSupernet,
    Scores,
    Search,
    Supernet,
    Training,
    settings_text,
)

_TAG = 0x57D1  # keeps the random ensembles apart from what else derives from the seed
_TRIES = 1000


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings of the studies, and the units that several studies make in the same way.

    Attributes:
      settings: sizes.
      base: the base settings, nested as the configuration.
      space: the resolved space of the base.
    """

    settings: StudySettings
    base: Mapping[str, Any]
    space: SearchSpace

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each round."""
        return self.settings.seeds

    @property
    def budget(self) -> int:
        """The base's `search.max_macs`, a plain count; 0 is no bound."""
        return self.base["search"]["max_macs"]

    @property
    def budgets(self) -> tuple[int, ...]:
        """MACs of the studies with several budgets, rising."""
        return tuple(sorted(self.settings.budgets or (self.budget,)))

    @property
    def max_split(self) -> int:
        """Latest split point of ensembles whose paths shall have layers of their own."""
        split = self.settings.max_split
        return split if split >= 0 else max(self.space.min_split, self.space.num_layers - 2)

    def supernet(self, seed: int, **settings: Any) -> Supernet:
        """A supernet with these settings over the base's."""
        return Supernet(seed, self._text(settings))

    def longer_supernet(self, seed: int, factor: float, **settings: Any) -> Supernet:
        """One that trains `factor` times the base's epochs, and shrinks as much later."""
        epochs, every = self._epochs(factor)
        longer = {"supernet": {"epochs": epochs}, "shrink": {"every_epochs": every}}
        own = {name: longer[name] | settings.get(name, {}) for name in longer}
        return self.supernet(seed, **(settings | own))

    def recipe_supernet(self, seed: int, recipe: str) -> Supernet:
        """One of a recipe: it trains for as much CPU time as the base's, which is one of the recipes.

        The pace is that of the first seed, so that all seeds train equally long.
        """
        factor = self.settings.recipe_factor
        if recipe == BASE_RECIPE:
            return self.longer_supernet(seed, factor)
        text = self._text(self.settings.recipes[recipe])
        return PacedSupernet(seed, text, Pace(self.seeds[0], text), *self._epochs(factor))

    def _epochs(self, factor: float) -> tuple[float, float]:
        """Of a supernet, and between two shrinks."""
        base = self.base
        return factor * base["supernet"]["epochs"], factor * base["shrink"]["every_epochs"]

    def search(self, supernet: Supernet, **settings: Any) -> Search:
        """A search with its supernet's seed, and these settings of `search` over the base's."""
        return Search(supernet.seed, self._text({"search": settings}), supernet)

    def scores(self, supernet: Supernet, ensembles: tuple[str, ...] = ()) -> Scores:
        """Supernet accuracies of some ensembles, by default of the random ones."""
        return Scores(supernet.seed, "{}", supernet, ensembles or self.random_ensembles())

    def training(self, seed: int, ensemble: str | Found, **settings: Any) -> Training:
        """A training from scratch with these settings over the base's."""
        return Training(seed, self._text(settings), ensemble)

    def retrained(self, search: Search) -> Training:
        """The ensemble that a search finds, from scratch."""
        return self.training(search.seed, Found(search))

    def random_ensembles(self) -> tuple[str, ...]:
        """Keys of different ensembles, drawn as a training step draws from the whole space.

        Raises:
          NeasError: when the space has not that many.
        """
        full = ShrunkSpace.full(self.space, self.base["num_paths"], self.base["heterogeneous"])
        rng = np.random.default_rng([self.settings.ensembles_seed, _TAG])
        found: dict[Any, str] = {}
        for _ in range(_TRIES * self.settings.ensembles):
            ensemble = sampling.uniform(full, rng)
            found.setdefault(ensemble_identity(ensemble), ensemble.key)
            if len(found) == self.settings.ensembles:
                return tuple(found.values())
        raise NeasError(
            f"study.ensembles: received {self.settings.ensembles}, but space {self.space.name!r} "
            f"has hardly more than {len(found)} ensembles; expected at most that many."
        )

    def _text(self, settings: Mapping[str, Any]) -> str:
        return settings_text(_differing(settings, self.base))


def _differing(settings: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Only what differs from the base, so that equal units have equal keys."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            inner = _differing(value, base[key])
            if inner:
                result[key] = inner
        elif key not in base or base[key] != value:
            exact = isinstance(base.get(key), float) and isinstance(value, int)
            result[key] = float(value) if exact else value  # 40 epochs are 40.0, one unit
    return result
