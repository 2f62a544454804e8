"""Fused MBConv (EfficientNetV2, MobileNetV4): `fused_k3e4`, `fused_k3e4_relu`, `fused_k3e4_se`.

One full k×k convolution stands for expansion and depthwise: many MACs, but the kind that every
processor runs at its peak, which pays where maps are large and channels few.
"""

from __future__ import annotations

import dataclasses
import re

from neas_tf.operators.base import Operator, bottleneck_width, register


@register
@dataclasses.dataclass(frozen=True)
class FusedMBConv(Operator):
    """k×k expansion, optional squeeze-excite, 1×1 projection.

    Attributes:
      squeeze: whether there is squeeze-excite.
      activation: swish or relu.
    """

    squeeze: bool = False
    activation: str = "swish"

    PATTERN = re.compile(r"fused_k([1-9])e([1-9]\d?)(_se)?(_relu)?", re.ASCII)
    EXAMPLE = "fused_k3e4"

    @classmethod
    def from_match(cls, match):
        """`fused_k<odd kernel>e<expansion>[_se][_relu]`."""
        kernel, expansion = int(match[1]), int(match[2])
        if kernel % 2 == 0:
            return None
        return cls(match[0], kernel, expansion, bool(match[3]), "relu" if match[4] else "swish")

    @property
    def stack(self) -> str:
        """All that differ in the kernel only."""
        return self.name.replace(f"k{self.kernel}", "", 1)

    @property
    def variant(self) -> str:
        """The kernel."""
        return f"k{self.kernel}"

    @property
    def label(self) -> str:
        """With an f for fused."""
        return f"f{self.kernel}×{self.kernel}\ne{self.expansion}"

    def build(self, make, x, layer):
        """The program."""
        width = bottleneck_width(layer.c_in, self.expansion)
        x = make.conv(x, "expand", width, self.kernel, layer.stride, self.activation)
        if self.squeeze:
            x = make.squeeze_excite(x)
        return make.conv(x, "project", layer.c_out)
