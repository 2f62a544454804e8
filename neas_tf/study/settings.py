"""What the studies ask for: the `study:` section of a configuration file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import check, check_int, check_keys, check_share, fail, unknown_name
from neas_tf.search.fitness import ACCURACY, FITNESSES
from neas_tf.shrinking.drops import METRICS
from neas_tf.study.rivals import RIVALS

BASE_RECIPE = "base"  # beside `study.recipes`: the base settings themselves


@dataclasses.dataclass(frozen=True)
class TruthSettings:
    """The section `study.truth`: ensembles that are trained long, to judge what ranks them.

    Attributes:
      macs: of the set of ensembles of equal MACs, a plain count; 0 takes the base's `search.max_macs`,
        and where that is 0 too there is no such set.
      tolerance: how far their MACs may be from it, as a share of it.
      ensembles: how many; every split point has equally many, or one more than another.
      seed: that they are drawn with.
      training_seeds: seeds with which each is trained; their mean is the truth.
      retrain: settings of `retrain` for these trainings over the base's, such as `epochs`.
    """

    macs: int = 0
    tolerance: float = 0.03
    ensembles: int = 36
    seed: int = 0
    training_seeds: tuple[int, ...] = (0, 1)
    retrain: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_int("study.truth.macs", self.macs, 0)
        check_share("study.truth.tolerance", self.tolerance)
        check_int("study.truth.ensembles", self.ensembles, 2)
        check_int("study.truth.seed", self.seed, 0)
        _check_list("truth.training_seeds", self.training_seeds, 0)


@dataclasses.dataclass(frozen=True)
class WinnersSettings:
    """The section `study.winners`: what searches find, beside random ensembles of the same MACs.

    Attributes:
      recipes: of `study.recipes`, or `base`: whose supernets are searched.
      fitness: of the searches; each searches each supernet.
      best: candidates of each search that are trained, the fittest first.
    """

    recipes: tuple[str, ...] = (BASE_RECIPE,)
    fitness: tuple[str, ...] = (ACCURACY,)
    best: int = 4

    def __post_init__(self):
        check(bool(self.recipes), "study.winners.recipes", list(self.recipes), "at least one")
        check(bool(self.fitness), "study.winners.fitness", list(self.fitness), "at least one")
        for name in self.fitness:
            if name not in FITNESSES:
                unknown_name("study.winners.fitness", name, FITNESSES)
        check_int("study.winners.best", self.best, 1)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """Sizes of the studies. They may grow between two sessions: what is done stays.

    Attributes:
      experiment: the registered experiment that the file's other sections override.
      seeds: repetitions; each gives supernet, search and training a seed.
      ensembles: random ensembles of the ranking study.
      ensembles_seed: that they are drawn with.
      training_seeds: seeds with which each of them is trained; their mean is the truth.
      metrics: shrink metrics that are compared.
      longer: multiples of the supernet's epochs with which `ranking` also trains supernets, shrinking
        that much later; their random ensembles are scored, nothing is searched.
      budgets: MACs of `sharing` and `frontier`, plain counts; the base's `search.max_macs` is that
        of the other studies.
      paths: K of `paths`.
      max_split: latest split point of `homogeneous`, so that the paths have layers of their own;
        −1 takes the space's last but one layer.
      top: candidates whose mean `searcher` shows.
      resamples: of the bootstrap.
      images: of the t-SNE.
      distillation: `weight` and `temperature` of the study of that name.
      robust_images: test images that `uncertainty` corrupts.
      corrupted_size: (height, width) at which it does so before they are read at the size of the
        networks; empty for that size.
      shrinks: settings of `shrink` that `diversity` tries, by name.
      recipes: settings of the run that `recipes` tries for supernets, by name, such as
        `{zero gamma: {supernet: {zero_init_residual: true}}}`; how long they train follows from
        the base's CPU time.
      recipe_factor: multiple of the base's epochs that the base trains beside them, shrinking that
        much later.
      rivals: names of the published networks of `frontier`.
      rival_depth: multiple of their layers; their width follows from the budget.
      mobile_space: settings of `space` for the second searched space of `frontier`; empty leaves it
        out.
      latency_shares: bounds of the searches under latency, each a share of the way from the fastest
        ensemble of the space to the slowest; empty leaves these searches out.
      truth: of `truth`, see `TruthSettings`.
      winners: of `winners`, see `WinnersSettings`.
    """

    experiment: str = "neas_cifar10"
    seeds: tuple[int, ...] = (0, 1, 2)
    ensembles: int = 30
    ensembles_seed: int = 0
    training_seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = ("none", "accuracy", "diversity")
    longer: tuple[float, ...] = ()
    budgets: tuple[int, ...] = ()
    paths: tuple[int, ...] = (1, 2, 3, 5)
    max_split: int = -1
    top: int = 50
    resamples: int = 2000
    images: int = 500
    distillation: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"weight": 0.5, "temperature": 2.0}
    )
    robust_images: int = 500
    corrupted_size: tuple[int, ...] = ()
    shrinks: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    recipe_factor: float = 1.0
    rivals: tuple[str, ...] = ("mobilenet_v2", "mobilenet_v3", "mobilenet_v4", "efficientnet_b0")
    rival_depth: float = 1.0
    mobile_space: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    latency_shares: tuple[float, ...] = ()
    truth: TruthSettings = dataclasses.field(default_factory=TruthSettings)
    winners: WinnersSettings = dataclasses.field(default_factory=WinnersSettings)

    def __post_init__(self):
        for name in ("seeds", "training_seeds"):
            _check_list(name, getattr(self, name), 0)
        _check_list("budgets", self.budgets, 1, empty=True)
        _check_list("paths", self.paths, 1)
        for name, low in (
            ("ensembles", 2),
            ("ensembles_seed", 0),
            ("max_split", -1),
            ("top", 1),
            ("resamples", 1),
            ("images", 10),
            ("robust_images", 1),
        ):
            check_int(f"study.{name}", getattr(self, name), low)
        size = self.corrupted_size
        if size:
            check(len(size) == 2, "study.corrupted_size", list(size), "[height, width]")
            for side in size:
                check_int("study.corrupted_size", side, 1)
        check(bool(self.metrics), "study.metrics", self.metrics, f"some of {', '.join(METRICS)}")
        for metric in self.metrics:
            if metric not in METRICS:
                unknown_name("study.metrics", metric, METRICS)
        for factor in self.longer:
            check(_is_positive(factor, 100.0), "study.longer", factor, "numbers above 0 up to 100")
        factor, wanted = self.recipe_factor, "a number above 0 up to 100"
        check(_is_positive(factor, 100.0), "study.recipe_factor", factor, wanted)
        for name in self.rivals:
            if name not in RIVALS:
                unknown_name("study.rivals", name, RIVALS)
        check(_is_positive(self.rival_depth, 8.0), "study.rival_depth", self.rival_depth, "0 to 8")
        for share in self.latency_shares:
            check(_is_positive(share, 1.0), "study.latency_shares", share, "shares above 0 up to 1")
        check_keys("study.distillation", self.distillation, ("weight", "temperature"))
        for name, values in self.shrinks.items():
            if not isinstance(values, Mapping):
                fail(f"study.shrinks.{name}", values, "a mapping of settings of shrink")
        for name, values in self.recipes.items():
            if not isinstance(values, Mapping) or not set(values) <= {"supernet", "shrink"}:
                wanted = "a mapping with settings of supernet, of shrink or both"
                fail(f"study.recipes.{name}", values, wanted)
            for section, key in (("supernet", "epochs"), ("shrink", "every_epochs")):
                if key in values.get(section, {}):
                    given = f"{section}.{key}"
                    fail(f"study.recipes.{name}", given, "others: it follows from the CPU time")
        for name in self.winners.recipes:
            if name not in (known := (BASE_RECIPE, *self.recipes)):
                unknown_name("study.winners.recipes", name, known)

    @classmethod
    def from_dict(cls, value: Any) -> StudySettings:
        """Reads the section.

        Raises:
          NeasError: for unknown keys and values out of range.
        """
        return _read(cls, "study", value)


def _read(kind: Any, field: str, value: Any) -> Any:
    """A section as an object of `kind`; a field whose default is such an object is a section in it."""
    check(isinstance(value, Mapping), field, value, "a mapping of settings")
    check_keys(field, value, {one.name: one for one in dataclasses.fields(kind)})
    changes, defaults = {}, kind()
    for name, given in value.items():
        default, where = getattr(defaults, name), f"{field}.{name}"
        if dataclasses.is_dataclass(default):
            given = _read(type(default), where, given)
        elif isinstance(default, tuple):
            check(isinstance(given, (list, tuple)), where, given, "a list")
            given = tuple(given)
        elif isinstance(default, Mapping):
            check(isinstance(given, Mapping), where, given, "a mapping")
        elif isinstance(default, float):
            check(_is_positive(given, 1e6), where, given, "a number above 0")
        elif isinstance(default, str):
            check(isinstance(given, str), where, given, "a string")
        changes[name] = given
    return kind(**changes)


def _is_positive(value: Any, most: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value <= most


def _check_list(name: str, values: tuple, low: int, empty: bool = False) -> None:
    check(empty or bool(values), f"study.{name}", list(values), "at least one")
    for value in values:
        check_int(f"study.{name}", value, low)
    check(len(set(values)) == len(values), f"study.{name}", list(values), "different numbers")
