"""Published networks as single-path ensembles in spaces of one operator a layer, scaled to a budget.

So they train, cost and deploy by the code that the searched ensembles use. What that changes: all
have the head of MobileNetV3 (1×1 convolution, pooling, hidden features, classifier); expansions
are whole numbers; an expansion by 1 keeps its 1×1 convolution; hard swish and ReLU6 are swish and ReLU;
EfficientNet's squeeze-excite has a quarter of the expanded width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import unknown_name
from neas_tf.common.paths import config_file
from neas_tf.common.yaml_text import load_yaml_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage

_STEP = 0.0125  # between two widths that are tried
_WIDEST = 4.0


RIVALS = load_yaml_file(config_file("studies", "rivals.yaml"), "rivals")


def scaled(name: str, like: SearchSpace, width: float, depth: float) -> tuple[SearchSpace, str]:
    """The space and the ensemble's key of a rival, for the images of a space.

    Its stem has the stride of the space's, and its later strides go so that it shrinks the image
    as often as the space does. Channels are multiplied by `width` (multiples of 4, at least 4),
    the layers of each row by `depth` (rounded up).
    """
    if name not in RIVALS:
        unknown_name("study.rivals", name, RIVALS)
    rival = RIVALS[name]
    strides, left = [like.stem_stride], _total_stride(like) // like.stem_stride
    for *_, stride in rival["rows"]:
        strides.append(stride if left % stride == 0 else 1)
        left //= strides[-1]
    stages, names, paths = [], [], []
    for (operator, channels, layers, _), stride in zip(rival["rows"], strides[1:], strict=True):
        count = math.ceil(layers * depth)
        stages.append(Stage(_wide(channels, width), count, stride, (operator,)))
        paths += [operator] * count
        names += [operator] * (operator not in names)
    space = SearchSpace(
        name=name,
        input_size=like.input_size,
        input_channels=like.input_channels,
        num_classes=like.num_classes,
        stem_channels=_wide(rival["stem"], width),
        stem_stride=strides[0],
        block_channels=0,
        stages=tuple(stages),
        operators=tuple(names),
        min_split=0,
        max_split=len(paths),
        head_channels=_wide(rival["head"], width),
        feature_channels=_wide(rival["feature"], width),
        activation=rival["activation"],
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
