"""A space that fits a budget: depth and widths chosen so that the bound lies well inside its range.

The paper's space (Table 7) is one of a family: 3 to 5 stages, whose widths grow by one factor and
whose strides leave a last map of at least 4 pixels a side. In the paper's space the bound of NEAS-S
lies at 29 % of the range that two-path ensembles can have, that of NEAS-L at 63 %.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.operators import PAPER_OPERATORS
from neas_tf.space.search_space import PAPER_STAGES, SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace

AUTO = "auto"
_SHARE = 0.35  # where in the attainable range a bound is put
_LEAST_SHARE = 0.05  # where the images leave it no better place
_LAST_MAP = 4  # pixels a side, at least, after the last stage
_MOST_REDUCTION = 32  # the paper's
_FEW_OPERATORS = ("k3e3", "k3e6", "k5e3", "k5e6", "skip")
# Which stages reduce the resolution first, by the number of stages; the paper's reduces in 1, 2, 3, 5.
_REDUCING = {3: (1, 2, 0), 4: (1, 3, 2, 0), 5: (1, 4, 2, 0, 3)}


@dataclasses.dataclass(frozen=True)
class _Shape:
    """One member of the family at width 1.

    Attributes:
      channels: of the stages.
      layers: of each stage.
      head, features: channels of the head, as multiples of the last stage's.
      operators: of the space.
      first_split: earliest split point, as a share of the layers.
    """

    channels: tuple[int, ...]
    layers: int
    head: float
    features: float
    operators: tuple[str, ...]
    first_split: float


_PAPER = tuple(stage.channels for stage in PAPER_STAGES)
# By the least MACs (or 40 times the parameters) of a budget that they are meant for.
_SHAPES = {
    250_000_000: _Shape(_PAPER, 4, 6.0, 8.0, tuple(PAPER_OPERATORS), 0.45),
    100_000_000: _Shape(_PAPER, 3, 6.0, 8.0, tuple(PAPER_OPERATORS), 0.45),
    30_000_000: _Shape((24, 40, 80, 160), 3, 4.0, 4.0, _FEW_OPERATORS, 0.3),
    5_000_000: _Shape((24, 48, 96), 3, 3.0, 2.5, _FEW_OPERATORS, 0.3),
    0: _Shape((24, 48, 96), 2, 3.0, 2.5, _FEW_OPERATORS, 0.3),
}
_MACS_PER_PARAMETER = 40  # roughly, of these networks at 224²
# Widths that are tried, ascending: 2 % apart, 1/32 to 16 times the family's own.
_WIDTHS = [2.0 ** (i / 35) for i in range(-175, 141)]


@dataclasses.dataclass(frozen=True)
class Fit:
    """A space and where the bounds lie in it.

    Attributes:
      space: fitted.
      ranges: by metric, least and most of its ensembles.
      shares: by metric, where the bound lies between them; above 1 where it binds nothing.
    """

    space: SearchSpace
    ranges: Mapping[str, tuple[int, int]]
    shares: Mapping[str, float]

    @property
    def share(self) -> float:
        """Of the bound that lies lowest."""
        return min(self.shares.values())

    def text(self) -> str:
        """One line for people."""
        stages = "-".join(str(stage.channels) for stage in self.space.stages)
        height, width = self.space.input_size
        ranges = ", ".join(
            f"{low:,} to {high:,} {'MACs' if metric == 'macs' else 'parameters'} "
            f"(the bound is at {min(self.shares[metric], 1.0):.0%})"
            for metric, (low, high) in self.ranges.items()
        )
        return (
            f"{self.space.num_layers} layers of {stages} channels at {height}×{width}; its "
            f"ensembles have {ranges}"
        )


def fit_space(
    input_size: tuple[int, int],
    input_channels: int,
    num_classes: int,
    num_paths: int,
    bounds: Mapping[str, int],
    heterogeneous: bool = True,
) -> Fit:
    """The space of the family in which upper bounds lie well inside the attainable range.

    Args:
      input_size: (height, width) of the images.
      input_channels: 1 or 3.
      num_classes: of the data.
      num_paths: K.
      bounds: upper bounds by metric, `macs` and `params`; one at least.
      heterogeneous: whether a layer's paths differ in their operators.

    Raises:
      NeasError: when even the narrowest space is above a bound.
    """
    size = max(
        bounds.get("macs", 0), 0 if "macs" in bounds else _MACS_PER_PARAMETER * bounds["params"]
    )
    wanted = [shape for least, shape in _SHAPES.items() if size >= least]

    def fit(shape: _Shape, width: float) -> Fit:
        space = _space(shape, width, input_size, input_channels, num_classes)
        return _measured(space, num_paths, heterogeneous, bounds)

    narrow = []
    for shape in wanted:  # a bound that is tight for the images leaves fewer layers
        # The wider a space, the lower lies a bound in it.
        wide = bisect.bisect_right(_WIDTHS, -_SHARE, key=lambda w: -fit(shape, w).share)
        if wide:
            return fit(shape, _WIDTHS[wide - 1])
        narrow.append(fit(shape, _WIDTHS[0]))
    closest = max(narrow, key=lambda found: found.share)
    if closest.share >= _LEAST_SHARE:
        return closest
    metric = min(closest.shares, key=lambda name: closest.shares[name])
    low = closest.ranges[metric][0]
    raise NeasError(
        f"search.max_{metric}: received {bounds[metric]:,}, expected more: for images of "
        f"{input_size[0]}×{input_size[1]} pixels and {num_classes} classes even the narrowest "
        f"ensemble of {num_paths} paths has {low:,}; smaller images (data.input_size) take less."
    )


def _measured(
    space: SearchSpace, num_paths: int, heterogeneous: bool, bounds: Mapping[str, int]
) -> Fit:
    table = CostTable(space)
    full = ShrunkSpace.full(space, num_paths, heterogeneous)
    ranges = {metric: table.attainable_range(full, metric) for metric in bounds}
    shares = {
        metric: (bounds[metric] - low) / max(high - low, 1)
        for metric, (low, high) in ranges.items()
    }
    return Fit(space, ranges, shares)


def _space(
    shape: _Shape, width: float, size: tuple[int, int], channels: int, classes: int
) -> SearchSpace:
    stages = len(shape.channels)
    room = max(1, min(size) // _LAST_MAP)
    halvings = min(int(math.log2(room)), int(math.log2(_MOST_REDUCTION)))
    stem = 1 if halvings > 3 else 0  # large images: the stem reduces first
    block = 1 if halvings - stem > stages else 0
    reducing = set(_REDUCING[stages][: halvings - stem - block])
    widths = [_rounded(width * c) for c in shape.channels]
    depth = stages * shape.layers
    return SearchSpace(
        name=AUTO,
        input_size=size,
        input_channels=channels,
        num_classes=classes,
        stem_channels=_rounded(width * 16),
        stem_stride=1 + stem,
        block_channels=_rounded(width * 16) if block or stages == len(_PAPER) else 0,
        block_stride=1 + block,
        stages=tuple(
            Stage(c, shape.layers, 2 if i in reducing else 1) for i, c in enumerate(widths)
        ),
        operators=shape.operators,
        min_split=max(1, round(shape.first_split * depth)),
        max_split=depth,
        head_channels=_rounded(shape.head * widths[-1]),
        feature_channels=_rounded(shape.features * widths[-1]),
    )


def _rounded(channels: float) -> int:
    """A multiple of 8 as far as that is near; narrow layers have any even number, at least 2."""
    step = 8 if channels >= 16 else 2
    return max(step if step == 2 else 16, step * round(channels / step))
