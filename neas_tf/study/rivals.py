"""Published networks as single-path ensembles in spaces of one operator a layer, scaled to a budget.

So they train, cost and deploy by the code that the searched ensembles use. What that changes: all
have the head of MobileNetV3 (1×1 convolution, pooling, hidden features, classifier); expansions
are whole numbers; an expansion by 1 keeps its 1×1 convolution; hard swish and ReLU6 are swish and ReLU;
EfficientNet's squeeze-excite has a quarter of the expanded width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import unknown_name
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

_STEP = 0.0125  # between two widths that are tried
_WIDEST = 4.0


@dataclasses.dataclass(frozen=True)
class Rival:
    """A published network.

    Attributes:
      stem: channels.
      rows: (operator, channels, layers, stride of the first) in order.
      head, feature: channels of the 1×1 convolution and of the hidden features.
      activation: of stem and head.
    """

    stem: int
    rows: tuple[tuple[str, int, int, int], ...]
    head: int
    feature: int
    activation: str


RIVALS = {
    # Sandler et al. 2018, Table 2.
    "mobilenet_v2": Rival(
        32,
        (
            ("uib_m3e1", 16, 1, 1),
            ("uib_m3e6", 24, 2, 2),
            ("uib_m3e6", 32, 3, 2),
            ("uib_m3e6", 64, 4, 2),
            ("uib_m3e6", 96, 3, 1),
            ("uib_m3e6", 160, 3, 2),
            ("uib_m3e6", 320, 1, 1),
        ),
        1280,
        1280,
        "relu",
    ),
    # Howard et al. 2019, Table 1 (Large).
    "mobilenet_v3": Rival(
        16,
        (
            ("uib_m3e1", 16, 1, 1),
            ("uib_m3e4", 24, 1, 2),
            ("uib_m3e3", 24, 1, 1),
            ("uib_m5e3_se", 40, 3, 2),
            ("uib_m3e6_swish", 80, 1, 2),
            ("uib_m3e2_swish", 80, 3, 1),
            ("uib_m3e6_se_swish", 112, 2, 1),
            ("uib_m5e6_se_swish", 160, 3, 2),
        ),
        960,
        1280,
        "swish",
    ),
    # Qin et al. 2024, appendix (Conv-Small).
    "mobilenet_v4": Rival(
        32,
        (
            ("fused_k3e1_relu", 32, 1, 2),
            ("fused_k3e3_relu", 64, 1, 2),
            ("uib_s5m5e3", 96, 1, 2),
            ("uib_m3e2", 96, 4, 1),
            ("uib_s3e4", 96, 1, 1),
            ("uib_s3m3e6", 128, 1, 2),
            ("uib_s5m5e4", 128, 1, 1),
            ("uib_m5e4", 128, 1, 1),
            ("uib_m5e3", 128, 1, 1),
            ("uib_m3e4", 128, 2, 1),
        ),
        960,
        1280,
        "relu",
    ),
    # Tan and Le 2019, Table 1.
    "efficientnet_b0": Rival(
        32,
        (
            ("k3e1", 16, 1, 1),
            ("k3e6", 24, 2, 2),
            ("k5e6", 40, 2, 2),
            ("k3e6", 80, 3, 2),
            ("k5e6", 112, 3, 1),
            ("k5e6", 192, 4, 2),
            ("k3e6", 320, 1, 1),
        ),
        1280,
        1280,
        "swish",
    ),
}


def scaled(name: str, like: SearchSpace, width: float, depth: float) -> tuple[SearchSpace, str]:
    """A rival for the images of a space.

    Its stem has the stride of the space's, and its later strides go so that it shrinks the image
    as often as the space does. Channels are multiplied by `width` (multiples of 4, at least 4),
    the layers of each row by `depth` (rounded up).

    Args:
      name: of `RIVALS`.
      like: gives input, classes and the total stride.
      width: multiple of all channels.
      depth: multiple of the layers.

    Returns:
      Its space and the ensemble's key.
    """
    if name not in RIVALS:
        unknown_name("study.rivals", name, RIVALS)
    rival = RIVALS[name]
    strides, left = [like.stem_stride], _total_stride(like) // like.stem_stride
    for *_, stride in rival.rows:
        strides.append(stride if left % stride == 0 else 1)
        left //= strides[-1]
    stages, names, paths = [], [], []
    for (operator, channels, layers, _), stride in zip(rival.rows, strides[1:], strict=True):
        count = math.ceil(layers * depth)
        stages.append(Stage(_wide(channels, width), count, stride, (operator,)))
        paths += [operator] * count
        names += [operator] * (operator not in names)
    space = SearchSpace(
        name=name,
        input_size=like.input_size,
        input_channels=like.input_channels,
        num_classes=like.num_classes,
        stem_channels=_wide(rival.stem, width),
        stem_stride=strides[0],
        block_channels=0,
        stages=tuple(stages),
        operators=tuple(names),
        min_split=0,
        max_split=len(paths),
        head_channels=_wide(rival.head, width),
        feature_channels=_wide(rival.feature, width),
        activation=rival.activation,
    )
    return space, Architecture(len(paths), (tuple(paths),)).key


def fitted(
    name: str, like: SearchSpace, budget: int, depth: float
) -> tuple[SearchSpace, str] | None:
    """The widest form of a rival within so many MACs; None where the narrowest has more."""
    best = None
    for i in range(1, round(_WIDEST / _STEP) + 1):
        space, key = scaled(name, like, i * _STEP, depth)
        if CostTable(space).cost(Architecture.from_key(key)).macs > budget:
            break
        best = space, key
    return best


def space_settings(space: SearchSpace) -> Mapping[str, Any]:
    """A space as the settings of `space`, without what follows from the data."""
    value = space.to_dict()
    value["activation"] = space.activation
    return {
        k: v for k, v in value.items() if k not in ("input_size", "input_channels", "num_classes")
    }


def _total_stride(space: SearchSpace) -> int:
    block = space.block_stride if space.block_channels else 1
    return space.stem_stride * block * math.prod(stage.stride for stage in space.stages)


def _wide(channels: int, width: float) -> int:
    return max(4, round(channels * width / 4) * 4)
