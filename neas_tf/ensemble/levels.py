"""Which layer of a space gives which level of a feature pyramid (docs/detection.md), and its map."""

from __future__ import annotations

from typing import Any

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.layers import LayerFactory
from neas_tf.space.search_space import SearchSpace

# How the K maps of a level after the split become one: their class of layer.
MERGES = {"mean": "Average", "sum": "Add", "concat": "Concatenate"}


def level_layers(space: SearchSpace) -> dict[int, int]:
    """By level l the number (1-based) of the last searchable layer with stride 2^l.

    In the paper's space C3, C4 and C5 are the last layers of stages 2, 4 and 5: `{2: 4, 3: 8, 4: 16,
    5: 20}`. The input size does not matter.
    """
    stride = space.stem_stride * (space.block_stride if space.block_channels else 1)
    result = {}
    for layer in space.layers:
        stride *= layer.stride
        result[stride.bit_length() - 1] = layer.number
    return result


def check_levels(field: str, wanted: int, space: SearchSpace, name: str) -> None:
    """Checks that a network (`name`, in `space`) has the finest level of a pyramid.

    The coarser levels follow without a gap (no layer strides by more than 2), and after the
    network's last one the pyramid makes its own.

    Raises:
      NeasError: when no layer has the stride 2^wanted.
    """
    levels = sorted(level_layers(space))
    if wanted not in levels:
        listed = ", ".join(f"{level} (stride {1 << level})" for level in levels)
        raise NeasError(
            f"{field}: received {wanted}, but {name} in space {space.name!r} has the levels "
            f"{listed} only."
        )


def merged(make: LayerFactory, maps: list, merge: str, name: str) -> Any:
    """K maps (b, h, w, c) to one (b, h, w, c), or (b, h, w, K·c) where they are concatenated.

    Args:
      make: of the network.
      maps: of the trunk (one) or of the paths.
      merge: one of `MERGES`.
      name: of the layer; one map needs none.
    """
    return maps[0] if len(maps) == 1 else getattr(make.keras.layers, MERGES[merge])(name=name)(maps)
