"""Budgets of a search, and whether a (shrunk) space can meet them (docs/method.md, Search)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from neas_tf.common.errors import NeasError, check, check_int
from neas_tf.cost.cost_table import Cost, CostTable
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import NANOSECONDS, milliseconds
from neas_tf.space.shrunk_space import ShrunkSpace

_UNITS = {"macs": "MACs", "params": "parameters", LATENCY: "predicted latency"}
CONSTRAINTS = "search.constraints"
_MAX_STATES = 4096  # partial ensembles that the search for a witness keeps


@dataclasses.dataclass(frozen=True)
class Limit:
    """One bound: `sign · cost ≤ sign · value`.

    Attributes:
      field: name in the budget, such as `max_macs`, or `CONSTRAINTS`.
      metric: column of the cost table.
      sign: 1 for an upper bound, -1 for a lower one.
      value: the bound, inclusive.
    """

    field: str
    metric: str
    sign: int
    value: int

    @property
    def setting(self) -> str:
        """The key of the config that sets it."""
        if self.field == CONSTRAINTS:
            return f"{CONSTRAINTS} {self.metric}"
        return f"search.{self.field.replace(LATENCY, 'latency_ms')}"

    def text(self, value: int | None = None) -> str:
        """The bound, or another amount of its metric, for people."""
        return amount(self.metric, self.value if value is None else value)


def amount(metric: str, value: int) -> str:
    """A cost for people: `1,234`, or `8.31 ms` where the metric is latency."""
    return milliseconds(value) if metric == LATENCY else f"{value:,}"


def latency_bound(max_latency_ms: float) -> int | None:
    """`search.max_latency_ms` as whole ns; None for 0, which is no bound."""
    value = max_latency_ms
    number = isinstance(value, int | float) and not isinstance(value, bool)
    check(
        number and 0 <= value < 1e6, "search.max_latency_ms", value, "milliseconds, 0 for no bound"
    )
    return round(value * NANOSECONDS) or None


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bounds that every candidate must keep; plain counts, 0 or None for no bound.

    A further bound is a further field `max_<metric>` or `min_<metric>`, with a column of integers
    of that name in the cost table.

    Attributes:
      max_macs, min_macs: multiply-accumulates of the whole ensemble for one image.
      max_params: trainable parameters.
      max_latency_ns: latency predicted by the cost table's latency table, in ns.
      others: bounds on the table's further columns, those of additive constraints.
    """

    max_macs: int | None = None
    min_macs: int | None = None
    max_params: int | None = None
    max_latency_ns: int | None = None
    others: tuple[Limit, ...] = ()

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name != "others":
                check_int(f"search.{field.name}", value, 0)
        for limit in self.limits:
            low = getattr(self, f"min_{limit.metric}", None)
            if limit.sign > 0 and low and low > limit.value:
                raise NeasError(
                    f"search.{limit.field}: received {limit.value:,}, expected at least "
                    f"search.min_{limit.metric}, which is {low:,}."
                )

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The bounds that are set."""
        result = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value and field.name != "others":
                kind, _, metric = field.name.partition("_")
                result.append(Limit(field.name, metric, 1 if kind == "max" else -1, value))
        return (*result, *self.others)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are bounded, each once."""
        return tuple(dict.fromkeys(limit.metric for limit in self.limits))

    def admits(self, cost: Cost | Mapping[str, int]) -> bool:
        """Whether a cost (a `Cost`, or a mapping by metric) keeps every bound."""
        if isinstance(cost, Cost):
            cost = cost.by_metric()
        return all(x.sign * cost[x.metric] <= x.sign * x.value for x in self.limits)

    def admits_each(self, costs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Bool (n,) for the vectors that `CostTable.costs` gives; needs one metric at least."""
        result = np.ones(len(next(iter(costs.values()))), bool)
        for x in self.limits:
            result &= x.sign * costs[x.metric] <= x.sign * x.value
        return result

    def check_attainable(self, shrunk: ShrunkSpace, table: CostTable) -> None:
        """Raises when no ensemble of the shrunk space can keep the bounds.

        Each bound alone and each pair of bounds on two metrics is decided exactly. Where three
        bounds meet, or two on one metric, a search over partial ensembles decides; it is exact
        unless it had to thin out its states, and then lets the budget pass.

        Raises:
          NeasError: names the field, what was received and the attainable range.
        """
        for x in self.limits:
            low, high = table.attainable_range(shrunk, x.metric)
            if x.sign * x.value < min(x.sign * low, x.sign * high):
                bound = f"at least {x.text(low)}" if x.sign > 0 else f"at most {x.text(high)}"
                raise NeasError(
                    f"{x.setting}: received {x.text()}, expected {bound}: the ensembles of "
                    f"the (shrunk) space {shrunk.space.name!r} with {shrunk.num_paths} paths have "
                    f"{x.text(low)} to {x.text(high)} {_UNITS.get(x.metric, x.metric)}."
                )
        if len(self.limits) < 2 or _greedy_witness(self, shrunk, table):
            return
        for a, b in itertools.combinations(self.limits, 2):
            if a.metric == b.metric:
                continue
            best = _best_given(a, b, shrunk, table)
            if b.sign * best > b.sign * b.value:
                other = _best_given(b, a, shrunk, table)
                raise NeasError(
                    f"{a.setting}, {b.setting}: received {a.text()} and {b.text()}, "
                    f"which no ensemble of the (shrunk) space {shrunk.space.name!r} keeps together "
                    f"(each alone is attainable): with {_name(a)} {_extreme(b, best)}, "
                    f"with {_name(b)} {_extreme(a, other)}."
                )
        crowded = len(self.limits) > len(self.metrics) or len(self.limits) > 2
        if crowded and _search_witness(self, shrunk, table) is False:
            fields = ", ".join(x.setting for x in self.limits)
            values = ", ".join(x.text() for x in self.limits)
            raise NeasError(
                f"{fields}: received {values}, expected a wider range: each bound alone is "
                f"attainable, but no ensemble of the (shrunk) space {shrunk.space.name!r} keeps "
                f"all of them."
            )

    def attainable(self, shrunk: ShrunkSpace, table: CostTable) -> bool:
        """Whether `check_attainable` passes."""
        try:
            self.check_attainable(shrunk, table)
        except NeasError:
            return False
        return True


def _name(limit: Limit) -> str:
    return limit.setting.removeprefix("search.")


def _extreme(limit: Limit, value: int) -> str:
    unit = _UNITS.get(limit.metric, limit.metric)
    if limit.metric == LATENCY:
        return f"the least {unit} is {limit.text(value)}"
    return f"the {'fewest' if limit.sign > 0 else 'most'} {unit} are {limit.text(value)}"


def _greedy_witness(budget: Budget, shrunk: ShrunkSpace, table: CostTable) -> bool:
    """Tries the ensembles that are best for mixtures of the bounds, for every split point."""
    limits = budget.limits
    shared, split = table.layer_choices(shrunk, budget.metrics)
    column = [budget.metrics.index(x.metric) for x in limits]
    scale = np.array([x.sign / (abs(x.value) or 1) for x in limits])
    fixed = np.array([table.fixed(m, shrunk.num_paths) for m in budget.metrics])
    for weights in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), repeat=len(limits)):
        if sum(weights) != 1.0:
            continue
        price = np.array(weights) * scale
        picks = [[c[np.argmin(c[:, column] @ price)] for c in side] for side in (shared, split)]
        for s in shrunk.space.split_points:
            total = fixed + sum(picks[0][:s]) + sum(picks[1][s:])
            if budget.admits(dict(zip(budget.metrics, total.tolist(), strict=True))):
                return True
    return False


def _pareto(points: np.ndarray) -> np.ndarray:
    """The points (n, 2) that no other one is below in both columns, ascending in the first."""
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    least = np.minimum.accumulate(points[:, 1])
    keep = np.ones(len(points), bool)
    keep[1:] = points[1:, 1] < least[:-1]
    return points[keep]


def _sums(points: np.ndarray, choices: np.ndarray) -> np.ndarray:
    return (points[:, None] + choices).reshape(-1, points.shape[1])


def _best_given(a: Limit, b: Limit, shrunk: ShrunkSpace, table: CostTable) -> int:
    """The best cost in b's metric among all ensembles that keep a: exact.

    Fronts of non-dominated (a, b) costs grow layer by layer, one over the shared layers from the
    first and one over the split layers from the last; for every split point two of them meet.
    """
    signs = np.array([a.sign, b.sign])
    shared, split = (
        [_pareto(c * signs) for c in side]
        for side in table.layer_choices(shrunk, (a.metric, b.metric))
    )
    fixed = signs * [table.fixed(x.metric, shrunk.num_paths) for x in (a, b)]
    room = a.sign * a.value - fixed[0]  # for the searchable layers
    depth, low = shrunk.space.num_layers, shrunk.space.min_split
    # The least that the layers still missing add in a's metric.
    ahead = [min(s[0, 0], t[0, 0]) for s, t in zip(shared, split, strict=True)]
    fronts: dict[int, np.ndarray] = {0: np.zeros((1, 2), np.int64)}
    for m in range(depth):
        sums = _sums(fronts[m], shared[m])
        fronts[m + 1] = _pareto(sums[sums[:, 0] + sum(ahead[m + 1 :]) <= room])
    behind, best = np.zeros((1, 2), np.int64), None
    for s in range(depth, low - 1, -1):
        if s in shrunk.space.split_points and len(behind) and len(fronts[s]):
            left = room - fronts[s][:, 0]
            place = np.searchsorted(behind[:, 0], left, side="right") - 1
            fits = place >= 0
            if fits.any():
                found = int((fronts[s][fits, 1] + behind[place[fits], 1]).min())
                best = found if best is None else min(best, found)
        if s > low:
            sums = _sums(behind, split[s - 1])
            behind = _pareto(sums[sums[:, 0] + sum(ahead[: s - 1]) <= room])
    assert best is not None, "the range check admits the bound alone"
    return b.sign * (best + int(fixed[1]))


def _search_witness(budget: Budget, shrunk: ShrunkSpace, table: CostTable) -> bool | None:
    """Whether any ensemble keeps all bounds: True or False where decided, None where not."""
    metrics, limits = budget.metrics, budget.limits
    choices = table.layer_choices(shrunk, metrics)
    fixed = np.array([table.fixed(m, shrunk.num_paths) for m in metrics])
    low = np.full(len(metrics), np.iinfo(np.int64).min)
    high = np.full(len(metrics), np.iinfo(np.int64).max)
    for x in limits:
        side = high if x.sign > 0 else low
        side[metrics.index(x.metric)] = x.value
    thinned = False
    for s in shrunk.space.split_points:
        layers = choices[0][:s] + choices[1][s:]
        layers.sort(key=lambda c: -int(np.ptp(c[:, 0])))  # coarse choices first
        least = [sum(c.min(axis=0) for c in layers[m:]) for m in range(len(layers) + 1)]
        most = [sum(c.max(axis=0) for c in layers[m:]) for m in range(len(layers) + 1)]
        states = fixed[None]
        for m, layer in enumerate(layers):
            states = np.unique(_sums(states, layer), axis=0)
            fits = (states + least[m + 1] <= high) & (states + most[m + 1] >= low)
            states = states[fits.all(axis=1)]
            if len(states) > _MAX_STATES:
                thinned = True
                states = states[np.linspace(0, len(states) - 1, _MAX_STATES).astype(int)]
        if len(states):
            return True
    return None if thinned else False
