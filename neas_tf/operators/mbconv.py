"""MBConv with squeeze-excite, the paper's operator (section 4.1): `k5e6`."""

from __future__ import annotations

import dataclasses
import re

from neas_tf.operators.base import Operator, bottleneck_width, register


@register
@dataclasses.dataclass(frozen=True)
class MBConv(Operator):
    """1×1 expansion, k×k depthwise, squeeze-excite, 1×1 projection; swish."""

    PATTERN = re.compile(r"k([1-9]\d?)e([1-9]\d?)", re.ASCII)
    EXAMPLE = "k5e6"

    @classmethod
    def from_match(cls, match):
        """`k<odd kernel>e<expansion>`."""
        kernel, expansion = map(int, match.groups())
        return cls(match[0], kernel, expansion) if kernel % 2 else None

    @property
    def stack(self) -> str:
        """One for each expansion."""
        return f"e{self.expansion}"

    @property
    def variant(self) -> str:
        """The kernel."""
        return f"k{self.kernel}"

    def build(self, make, x, layer):
        """The program."""
        width = bottleneck_width(layer.c_in, self.expansion)
        x = make.conv(x, "expand", width, activation="swish")
        x = make.depthwise(x, "dw", self.kernel, layer.stride, activation="swish")
        x = make.squeeze_excite(x)
        return make.conv(x, "project", layer.c_out)
