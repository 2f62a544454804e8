"""The studies by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neas_tf.study.learning import distillation, recipes
from neas_tf.study.tables import diversity, frontier, homogeneous, paths, ranking, searcher, sharing
from neas_tf.study.tables.names import NAMES
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth import study as truth
from neas_tf.study.truth import uncertainty, winners, worth
from neas_tf.study.units import Unit

# A study is a module: `TITLE`, `PAPER` (what of the paper it repeats), `rounds(plan)`, its units, one list
# a seed, in the order in which they tell most, and `report(plan, lookup)`, what is known from those done.
_MODULES = (
    ranking,
    homogeneous,
    searcher,
    paths,
    sharing,
    diversity,
    frontier,
    truth,
    recipes,
    winners,
    worth,
    uncertainty,
    distillation,
)
STUDIES: dict[str, Any] = dict(zip(NAMES, _MODULES, strict=True))


def all_units(names: Sequence[str], plan: Plan) -> list[Unit]:
    """Units of several studies: the first round of each, then the second of each, and so on."""
    rounds = [STUDIES[name].rounds(plan) for name in names]
    most = max(map(len, rounds))
    return [unit for i in range(most) for own in rounds if i < len(own) for unit in own[i]]
