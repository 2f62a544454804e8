"""What an ensemble costs, from one additive table per space (docs/method.md, Search).

The cost of an ensemble is a sum over its layers, so that no model is ever built for it: the stem
and the fixed block once, layers 1..s once, layers s+1..d and the head once per path. One core
computes the MACs of 4.3 to 5.6 million two-path ensembles a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neas_tf.common.errors import check, unknown_name
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import LatencyTable
from neas_tf.operators import Operator, Step, operator_steps, squeeze_width
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import LayerSpec, SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

if TYPE_CHECKING:
    from neas_tf.cost.constraints import Column

# macs: multiply-accumulates of convolutions and dense layers. paper_flops: macs, and 2 per element
# of batch normalisation, 1 per element pooled and 1 per bias added. params: trainable ones.
METRICS = ("macs", "paper_flops", "params")
_CHUNK = 4096  # rows at a time: the gathered values stay in the processor's cache


@dataclasses.dataclass(frozen=True)
class Amounts:
    """Additive amounts of one part of a network, per image."""

    macs: int = 0
    paper_flops: int = 0
    params: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.macs + other.macs,
            self.paper_flops + other.paper_flops,
            self.params + other.params,
        )


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one ensemble costs.

    Attributes:
      macs: multiply-accumulates of the whole ensemble for one image.
      paper_flops: the paper's slightly larger count.
      params: trainable parameters.
      shared_macs: part of `macs` computed once: stem, fixed block, layers 1..s.
      path_macs: what each path adds after the split, its head included;
        `macs == shared_macs + sum(path_macs)`.
      latency_ns: predicted by a latency table; None without one.
      others: of the table's further columns, by name.
    """

    macs: int
    paper_flops: int
    params: int
    shared_macs: int
    path_macs: tuple[int, ...]
    latency_ns: int | None = None
    others: Mapping[str, int] = dataclasses.field(default_factory=dict, compare=False)

    def by_metric(self) -> dict[str, int]:
        """The amounts by column of the table that made it."""
        found = {metric: getattr(self, metric) for metric in (*METRICS, LATENCY)}
        return {k: v for k, v in found.items() if v is not None} | dict(self.others)


def convolution_amounts(
    size: tuple[int, int], c_in: int, c_out: int, kernel: int = 1, groups: int = 1, bias=False
) -> Amounts:
    """A convolution with an output of `size` = (height, width); a dense layer has size (1, 1)."""
    weights = kernel * kernel * (c_in // groups) * c_out
    area = size[0] * size[1]
    biases = c_out if bias else 0
    return Amounts(area * weights, area * (weights + biases), weights + biases)


def batch_norm(size: tuple[int, int], channels: int) -> Amounts:
    """Batch normalisation: no MACs, gamma and beta."""
    return Amounts(0, 2 * size[0] * size[1] * channels, 2 * channels)


def global_pool(size: tuple[int, int], channels: int) -> Amounts:
    """Global mean over the pixels."""
    return Amounts(0, size[0] * size[1] * channels, 0)


def squeeze_excite(size: tuple[int, int], channels: int) -> Amounts:
    """Squeeze-excite: pooling and two 1×1 convolutions with bias."""
    reduced = squeeze_width(channels)
    return (
        global_pool(size, channels)
        + convolution_amounts((1, 1), channels, reduced, bias=True)
        + convolution_amounts((1, 1), reduced, channels, bias=True)
    )


def operator_amounts(layer: LayerSpec, operator: Operator) -> Amounts:
    """One operator of a searchable layer; skip is free."""
    return sum((_step_amounts(step) for step in operator_steps(operator, layer)), Amounts())


def _step_amounts(step: Step) -> Amounts:
    if step.kind == "squeeze_excite":
        return squeeze_excite(step.out_size, step.c_out)
    groups = step.c_in if step.kind == "depthwise" else 1
    return convolution_amounts(
        step.out_size, step.c_in, step.c_out, step.kernel, groups=groups
    ) + batch_norm(step.out_size, step.c_out)


def fixed_amounts(space: SearchSpace) -> dict[str, Amounts]:
    """The parts that are not searched: `stem`, `block` (shared), `head`, `classifier` (per path).

    `block` is missing in a space without the depthwise-separable layer.
    """
    size, stem = space.stem_size, space.stem_channels
    parts = {
        "stem": convolution_amounts(size, space.input_channels, stem, space.stem_kernel)
        + batch_norm(size, stem)
    }
    if space.block_channels:
        size, channels = space.block_size, space.block_channels
        parts["block"] = (
            convolution_amounts(size, stem, stem, 3, groups=stem)
            + batch_norm(size, stem)
            + squeeze_excite(size, stem)
            + convolution_amounts(size, stem, channels)
            + batch_norm(size, channels)
        )
    size, head, features = space.layers[-1].out_size, space.head_channels, space.feature_channels
    parts["head"] = convolution_amounts(size, space.out_channels, head) + batch_norm(size, head)
    parts["classifier"] = (
        global_pool(size, head)
        + convolution_amounts((1, 1), head, features, bias=True)
        + convolution_amounts((1, 1), features, space.num_classes, bias=True)
    )
    return parts


class CostTable:
    """The costs of every part of a space.

    Attributes:
      space: the space.
      latency: of its operators, a further column `latency_ns`; None leaves it out.
      columns: further ones, of additive functions (`cost.constraints`), by name.
      metrics: names of the columns.
      parts: `fixed_amounts(space)`.
      operators: per metric int64 (d, N): layer and operator, as in `space.operators` (0 for
        an operator that the layer does not allow).
      trunk: per metric, stem and fixed block together.
      head: per metric, head and classifier of one path.
    """

    def __init__(
        self,
        space: SearchSpace,
        latency: LatencyTable | None = None,
        columns: Mapping[str, Column] | None = None,
    ):
        self.space, self.latency, self.columns = space, latency, dict(columns or {})
        self.parts = fixed_amounts(space)
        operators = [Operator.parse(name) for name in space.operators]
        rows = [
            [
                operator_amounts(layer, op) if op.name in layer.operators else Amounts()
                for op in operators
            ]
            for layer in space.layers
        ]
        self.operators = {
            metric: np.array([[getattr(a, metric) for a in row] for row in rows], np.int64)
            for metric in METRICS
        }
        self.trunk = {m: self._sum(m, ("stem", "block")) for m in METRICS}
        self.head = {m: self._sum(m, ("head", "classifier")) for m in METRICS}
        if latency is not None:
            latency.check_fits(space, latency.num_paths)
            self.operators[LATENCY] = latency.layer_ns(space)
            self.trunk[LATENCY], self.head[LATENCY] = (
                latency.trunk_ns(space),
                latency.head_ns(space),
            )
        for name, column in self.columns.items():
            self.operators[name], self.trunk[name] = column.operators, column.fixed
            self.head[name] = 0  # it is in `fixed`
        self.metrics = tuple(self.operators)

    def _sum(self, metric: str, parts: tuple[str, ...]) -> int:
        return sum(getattr(self.parts[p], metric) for p in parts if p in self.parts)

    def fixed(self, metric: str, num_paths: int) -> int:
        """What every ensemble of K paths costs, whatever its operators are."""
        return self.trunk[metric] + num_paths * self.head[metric]

    def cost(self, architecture: Architecture) -> Cost:
        """The cost of one ensemble.

        Raises:
          NeasError: when the ensemble is not in the space.
        """
        architecture.check_in(self.space)
        split, index = architecture.split_point, self.space.operator_index
        totals: dict[str, int] = {}
        shared: dict[str, int] = {}
        own: dict[str, tuple[int, ...]] = {}
        for metric, table in self.operators.items():
            rows = [
                [int(table[m, index(name)]) for m, name in enumerate(row)]
                for row in architecture.paths
            ]
            shared[metric] = self.trunk[metric] + sum(rows[0][:split])
            own[metric] = tuple(self.head[metric] + sum(row[split:]) for row in rows)
            totals[metric] = shared[metric] + sum(own[metric])
        others = {name: totals.pop(name) for name in self.columns}
        return Cost(**totals, shared_macs=shared["macs"], path_macs=own["macs"], others=others)

    def costs(
        self, arrays: np.ndarray, num_paths: int, metrics: tuple[str, ...] = METRICS
    ) -> dict[str, np.ndarray]:
        """Costs of many ensembles of one space at once.

        Args:
          arrays: integers (n, 1 + K·d), rows as `Architecture.to_array` gives them. They are
            trusted to be in the space.
          num_paths: K.
          metrics: what to compute; one metric takes about a third of the time.

        Returns:
          Per metric int64 (n,).

        Raises:
          NeasError: for an unknown metric or another number of columns.
        """
        arrays = np.atleast_2d(arrays)
        depth, width = self.space.num_layers, len(self.space.operators)
        for metric in metrics:
            if metric not in self.operators:
                unknown_name("metrics", metric, self.operators)
        columns = 1 + num_paths * depth
        check(arrays.shape[1] == columns, "arrays", arrays.shape, f"{columns} columns")
        # Paths 2.. count a layer only after the split, and no split lies before min_split.
        always = np.arange(depth)
        late = np.arange(self.space.min_split, depth)
        used = np.concatenate([always, *(k * depth + late for k in range(1, num_paths))])
        layer = used % depth
        counted = (used < depth) | (layer >= np.arange(depth + 1)[:, None])  # (d + 1, used)
        offset = layer * width
        contiguous = np.array_equal(used, np.arange(len(used)))
        result = {m: np.empty(len(arrays), np.int64) for m in metrics}
        for start in range(0, len(arrays), _CHUNK):
            rows = arrays[start : start + _CHUNK]
            body = rows[:, 1 : 1 + len(used)] if contiguous else rows[:, 1 + used]
            flat = body + offset
            mask = counted[rows[:, 0]] if num_paths > 1 else None
            for metric in metrics:
                values = self.operators[metric].ravel().take(flat)
                if mask is not None:
                    values *= mask
                result[metric][start : start + _CHUNK] = values.sum(axis=1)
        for metric in metrics:
            result[metric] += self.fixed(metric, num_paths)
        return result

    def layer_choices(
        self, shrunk: ShrunkSpace, metrics: tuple[str, ...]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Costs of what each layer may choose in a shrunk space.

        Returns:
          `shared` and `split`, lists of d arrays (n, len(metrics)): for the operators alive (in
          the order of `shrunk.alive_operators`) where the layer is shared, and for the
          combinations alive (order of `shrunk.alive`) after the split. A layer that cannot
          split has the entries of `shared` in both.
        """
        check(
            shrunk.space.fingerprint() == self.space.fingerprint(),
            "shrunk space",
            shrunk.space.name,
            f"a shrunk form of space {self.space.name!r}",
        )
        tables = np.empty((*self.operators["macs"].shape, len(metrics)), np.int64)
        for a, metric in enumerate(metrics):
            tables[..., a] = self.operators[metric]
        shared, split = [], []
        for m in range(self.space.num_layers):
            singles = shrunk.alive_operator_indices[m]
            rows = shrunk.alive_combination_indices[m]
            shared.append(tables[m, singles])
            split.append(tables[m, rows].sum(axis=1))
        return shared, split

    def attainable_range(self, shrunk: ShrunkSpace, metric: str) -> tuple[int, int]:
        """Exact (smallest, largest) cost of the ensembles in a shrunk space."""
        if metric not in self.operators:
            unknown_name("metric", metric, self.operators)
        shared, split = self.layer_choices(shrunk, (metric,))
        fixed = self.fixed(metric, shrunk.num_paths)
        ends = []
        for best, pick in ((np.min, min), (np.max, max)):
            # before[s]: layers 1..s shared; behind[s]: layers s+1..d split.
            before = np.concatenate([[0], np.cumsum([best(c) for c in shared])])
            behind = np.concatenate([np.cumsum([best(c) for c in split][::-1])[::-1], [0]])
            ends.append(fixed + pick(int(before[s] + behind[s]) for s in self.space.split_points))
        return ends[0], ends[1]
