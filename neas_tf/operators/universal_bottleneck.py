"""Universal inverted bottleneck (MobileNetV4): `uib_s3m5e4`, `uib_m3e4`, `uib_s3e4`, `uib_e4`.

A depthwise convolution before the expansion (s), in the middle (m), both, or none. Those are the
four forms ExtraDW, inverted bottleneck, ConvNext-like and feed-forward of the MobileNetV4 paper.
"""

from __future__ import annotations

import dataclasses
import re

from neas_tf.operators.base import Operator, bottleneck_width, register


@register
@dataclasses.dataclass(frozen=True)
class UniversalBottleneck(Operator):
    """Optional depthwise, 1×1 expansion, optional depthwise, optional SE, 1×1 projection.

    The stride is the middle depthwise convolution's, else the starting one's.

    Attributes:
      start: kernel of the depthwise convolution before the expansion, 0 for none.
      middle: kernel of the one after it, 0 for none.
      squeeze: whether there is squeeze-excite.
      activation: relu or swish, after the expansion and the middle convolution.
    """

    start: int = 0
    middle: int = 0
    squeeze: bool = False
    activation: str = "relu"

    PATTERN = re.compile(r"uib_(?:s([357]))?(?:m([357]))?e([1-9]\d?)(_se)?(_swish)?", re.ASCII)
    EXAMPLE = "uib_s3m5e4"

    @classmethod
    def from_match(cls, match):
        """`uib_[s<kernel>][m<kernel>]e<expansion>[_se][_swish]`, kernels of 3, 5 or 7."""
        start, middle = int(match[1] or 0), int(match[2] or 0)
        activation = "swish" if match[5] else "relu"
        kernel = max(start, middle)
        return cls(match[0], kernel, int(match[3]), start, middle, bool(match[4]), activation)

    def fits(self, c_in: int, c_out: int, stride: int) -> bool:
        """A stride needs a depthwise convolution."""
        return stride == 1 or bool(self.start or self.middle)

    @property
    def stack(self) -> str:
        """All that differ in kernel sizes only."""
        form = ("s" if self.start else "") + ("m" if self.middle else "")
        return re.sub("^uib_[sm0-9]*e", f"uib_{form}e", self.name)

    @property
    def variant(self) -> str:
        """The kernels."""
        return f"s{self.start}m{self.middle}"

    @property
    def label(self) -> str:
        """Both kernels."""
        return f"{self.start or '–'}·{self.middle or '–'}\ne{self.expansion}"

    def build(self, make, x, layer):
        """The program."""
        width, stride = bottleneck_width(layer.c_in, self.expansion), layer.stride
        if self.start:
            x = make.depthwise(x, "start_dw", self.start, 1 if self.middle else stride)
        x = make.conv(x, "expand", width, activation=self.activation)
        if self.middle:
            x = make.depthwise(x, "dw", self.middle, stride, self.activation)
        if self.squeeze:
            x = make.squeeze_excite(x)
        return make.conv(x, "project", layer.c_out)
