"""The studies by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from neas_tf.study.reporting import Report
from neas_tf.study.tables import diversity, frontier, homogeneous, paths, ranking, searcher, sharing
from neas_tf.study.tables.names import NAMES
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Lookup, Unit


@dataclasses.dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
      title: for people.
      paper: what of the paper it repeats.
      rounds: its units, one list a seed, in the order in which they tell most.
      report: what is known from the units that are done.
    """

    title: str
    paper: str
    rounds: Callable[[Plan], list[list[Unit]]]
    report: Callable[[Plan, Lookup], Report]


_MODULES = (ranking, homogeneous, searcher, paths, sharing, diversity, frontier)
STUDIES = {
    name: Study(module.TITLE, module.PAPER, module.rounds, module.report)
    for name, module in zip(NAMES, _MODULES, strict=True)
}


def all_units(names: Sequence[str], plan: Plan) -> list[Unit]:
    """Units of several studies: the first round of each, then the second of each, and so on."""
    rounds = [STUDIES[name].rounds(plan) for name in names]
    most = max(map(len, rounds))
    return [unit for i in range(most) for own in rounds if i < len(own) for unit in own[i]]
