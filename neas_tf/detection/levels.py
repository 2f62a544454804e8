"""Which layer of a space gives which level of a feature pyramid (docs/detection.md)."""

from __future__ import annotations

from neas_tf.common.errors import NeasError
from neas_tf.space.search_space import SearchSpace


def level_layers(space: SearchSpace) -> dict[int, int]:
    """The last searchable layer at every stride that is a power of two.

    Args:
      space: any; its input size does not matter.

    Returns:
      By level l the number (1-based) of the last layer with stride 2^l. In the paper's space C3,
      C4 and C5 are the last layers of stages 2, 4 and 5: `{2: 4, 3: 8, 4: 16, 5: 20}`.
    """
    stride = space.stem_stride * (space.block_stride if space.block_channels else 1)
    result = {}
    for layer in space.layers:
        stride *= layer.stride
        result[stride.bit_length() - 1] = layer.number
    return result


def check_levels(field: str, wanted: int, space: SearchSpace, name: str) -> None:
    """Checks that a network has the finest level of a pyramid.

    The coarser levels follow without a gap (no layer strides by more than 2), and after the
    network's last one the pyramid makes its own.

    Args:
      field: where the level was asked for.
      wanted: level, so that its stride is 2^wanted.
      space: of the network.
      name: of the network, for the message.

    Raises:
      NeasError: when no layer has that stride.
    """
    levels = sorted(level_layers(space))
    if wanted not in levels:
        listed = ", ".join(f"{level} (stride {1 << level})" for level in levels)
        raise NeasError(
            f"{field}: received {wanted}, but {name} in space {space.name!r} has the levels "
            f"{listed} only."
        )
