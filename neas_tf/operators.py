"""The operators of a layer: inverted-bottleneck MBConv with SE, and skip (paper section 4.1)."""

from __future__ import annotations

import dataclasses
import re

from neas_tf.errors import fail

SKIP = "skip"
# The authors' indices 0..5; skip is -1 there.
PAPER_OPERATORS = ("k3e4", "k3e6", "k5e4", "k5e6", "k7e4", "k7e6", SKIP)
_PATTERN = re.compile(r"k([1-9]\d?)e([1-9]\d?)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Operator:
    """One choice of a layer.

    Attributes:
      name: `k{kernel}e{expansion}` or `skip`.
      kernel: depthwise kernel size, 0 for skip.
      expansion: width of the bottleneck over its input channels, 0 for skip.
    """

    name: str
    kernel: int = 0
    expansion: int = 0

    @property
    def is_skip(self) -> bool:
        """Whether the operator is the identity."""
        return self.name == SKIP

    @classmethod
    def parse(cls, name: object, field: str = "operator") -> Operator:
        """Reads an operator's name; raises `NeasError` for anything else."""
        if name == SKIP:
            return cls(SKIP)
        match = _PATTERN.fullmatch(name) if isinstance(name, str) else None
        if not match or int(match[1]) % 2 == 0:
            fail(field, name, "'skip' or k<odd kernel>e<expansion>, such as 'k5e6'")
        return cls(name, int(match[1]), int(match[2]))


def divisible(value: float, divisor: int = 8) -> int:
    """Rounds to the nearest multiple, at least one, never below 90 % of the value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def bottleneck_width(c_in: int, expansion: int) -> int:
    """Channels inside an MBConv."""
    return divisible(c_in * expansion)


def squeeze_width(channels: int) -> int:
    """Channels inside squeeze-excite: a quarter of the expanded width."""
    return divisible(channels / 4)
