"""Which ensembles are trained to judge what ranks them: of equal MACs, and drawn as training draws.

MACs alone explain much of how random ensembles differ. In a set of equal MACs they say nothing, so
that a supernet that ranks it has learnt something about the ensembles.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.history import ensemble_identity
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Training

EQUAL_MACS, RANDOM = "equal MACs", "random"
_TAG = 0x7207  # keeps the draw apart from what else derives from the seed
_TRIES = 1000  # draws for each ensemble that is wanted


@dataclasses.dataclass(frozen=True)
class TruthSet:
    """Ensembles, and how each of them is trained.

    Attributes:
      name: for people.
      ensembles: keys, in the order in which they are trained.
      seeds: of the trainings of each.
      retrain: settings of `retrain` over the base's.
    """

    name: str
    ensembles: tuple[str, ...]
    seeds: tuple[int, ...]
    retrain: Mapping[str, Any]

    def trainings(self, plan: Plan, key: str) -> list[Training]:
        """The trainings of one ensemble, one a seed."""
        return [plan.training(seed, key, retrain=self.retrain) for seed in self.seeds]


def epochs_of(chosen: TruthSet, plan: Plan) -> float:
    """How long a set's ensembles are trained."""
    return float(chosen.retrain.get("epochs", plan.base["retrain"]["epochs"]))


def long_sets(plan: Plan) -> list[TruthSet]:
    """The sets that `study.truth` asks for: that of equal MACs, where it has a number, and today's.

    Raises:
      NeasError: when the space has not that many ensembles of these MACs.
    """
    truth = plan.settings.truth
    result = []
    macs = truth.macs or plan.budget
    if macs:
        keys = equal_macs(
            plan.space,
            plan.base["num_paths"],
            plan.base["heterogeneous"],
            macs,
            truth.tolerance,
            truth.ensembles,
            truth.seed,
        )
        result.append(TruthSet(EQUAL_MACS, keys, truth.training_seeds, truth.retrain))
    keys = plan.random_ensembles()
    result.append(TruthSet(RANDOM, keys, truth.training_seeds, truth.retrain))
    return result


def short_set(plan: Plan) -> TruthSet:
    """The random ensembles as the study `ranking` trains them."""
    return TruthSet(RANDOM, plan.random_ensembles(), plan.settings.training_seeds, {})


def macs_bounds(plan: Plan) -> tuple[int, int]:
    """The least and the most MACs of the set of equal ones, both inclusive."""
    truth = plan.settings.truth
    return _bounds(truth.macs or plan.budget, truth.tolerance)


def _bounds(macs: int, tolerance: float) -> tuple[int, int]:
    low, high = macs * (1 - tolerance), macs * (1 + tolerance)
    return math.ceil(round(low, 3)), math.floor(round(high, 3))


def judging_sets(plan: Plan) -> list[TruthSet]:
    """The sets that supernets' scores are compared with: the long ones where the settings name their MACs."""
    long = long_sets(plan) if plan.settings.truth.macs else []
    return [short_set(plan), *long]


def sharpest_set(plan: Plan) -> TruthSet:
    """The one of them that says most: of equal MACs, trained long, where the settings name their MACs."""
    return judging_sets(plan)[1 if plan.settings.truth.macs else 0]


@functools.lru_cache(maxsize=4)  # the units and the report ask for the same
def equal_macs(
    space: SearchSpace,
    num_paths: int,
    heterogeneous: bool,
    macs: int,
    tolerance: float,
    count: int,
    seed: int,
) -> tuple[str, ...]:
    """Keys of different ensembles of nearly the same MACs, all split points equally often.

    One of split point 2, one of 3, and so on, then again from the first: so any beginning of the
    result is as even. Among the ensembles of one split point that lie within the bounds each is as
    likely as when training draws. More ensembles keep those that were.

    Args:
      space, num_paths, heterogeneous: what is drawn from.
      macs, tolerance: from macs · (1 − tolerance) to macs · (1 + tolerance), both inclusive.
      count: how many.
      seed: a stream of random numbers for each split point follows from it.

    Raises:
      NeasError: where a split point has no ensemble, or not enough, of these MACs.
    """
    # A single path is the same network wherever it "splits".
    splits = space.split_points if num_paths > 1 else space.split_points[-1:]
    low, high = _bounds(macs, tolerance)
    columns = []
    for number, split in enumerate(splits):
        wanted = len(range(number, count, len(splits)))
        own = dataclasses.replace(space, min_split=split, max_split=split)
        full = ShrunkSpace.full(own, num_paths, heterogeneous)
        budget, table = Budget(max_macs=high, min_macs=low), CostTable(own)
        if not budget.attainable(full, table):
            least, most = table.attainable_range(full, "macs")
            raise NeasError(
                f"study.truth.macs: received {macs:,} ± {tolerance:.1%}, expected what every split "
                f"point of space {space.name!r} has: after layer {split}, {least:,} to {most:,}; or "
                "a larger study.truth.tolerance."
            )
        sampler = BudgetSampler(full, table, budget)
        rng = np.random.default_rng([seed, _TAG, split])
        found: dict[Any, str] = {}
        for _ in range(_TRIES * wanted):
            if len(found) == wanted:
                break
            ensemble = sampler.sample(rng)
            found.setdefault(ensemble_identity(ensemble), ensemble.key)
        if len(found) < wanted:
            raise NeasError(
                f"study.truth.ensembles: received {count}, that is {wanted} that split after layer "
                f"{split}; expected fewer, or a larger study.truth.tolerance: hardly more than "
                f"{len(found)} of them have {macs:,} ± {tolerance:.1%} MACs."
            )
        columns.append(list(found.values()))
    return tuple(columns[i % len(splits)][i // len(splits)] for i in range(count))
