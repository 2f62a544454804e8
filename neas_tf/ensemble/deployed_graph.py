"""The deployed graph of an ensemble as its operations, without building a network.

It is what the converter makes of the fused form with the rewrites for small devices: batch
normalisation lies in the convolutions, ReLU in the operation before it, swish is LOGISTIC and MUL,
and a padding that SAME cannot express is an operation. The order is that of the file: the trunk,
then the paths, one after the other.
"""

from __future__ import annotations

import dataclasses
import functools

from neas_tf.ensemble.rewrites import depthwise_parts
from neas_tf.operators import Operator, squeeze_width
from neas_tf.operators.base import reduced
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import LayerSpec, SearchSpace

IMAGE = -1  # the input of the graph, as an index of `Node.inputs`
_IN_PLACE = ("ADD", "MUL")


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One operation, and the tensor that it makes for one image.

    Attributes:
      kind: as TFLite calls it.
      inputs: indices of the nodes whose tensors it reads; `IMAGE` is the graph's input.
      size: (height, width) of its output.
      channels: of its output.
      kernel: weights of its kernel.
      filters: output channels of the kernel, which has a bias for each where `bias`.
      bias: whether there is one.
    """

    kind: str
    inputs: tuple[int, ...]
    size: tuple[int, int]
    channels: int
    kernel: int = 0
    filters: int = 0
    bias: bool = True

    @property
    def elements(self) -> int:
        """Of its output."""
        return self.size[0] * self.size[1] * self.channels

    @property
    def in_place(self) -> bool:
        """Whether the output may replace an input of its size that nothing else needs."""
        return self.kind in _IN_PLACE


@dataclasses.dataclass(frozen=True)
class DeployedGraph:
    """A deployed ensemble.

    Attributes:
      nodes: in the order of the file.
      trunk: how many of them all paths share.
      paths: (first, after the last) node of each path, its features included; what follows the last
        path joins them.
      image: elements of the input.
    """

    nodes: tuple[Node, ...]
    trunk: int
    paths: tuple[tuple[int, int], ...]
    image: int


class _Maker:
    """The `Maker` that writes operations down; a map is the index of its node."""

    def __init__(self, space: SearchSpace):
        self.nodes: list[Node] = []
        self._space = space

    def shape(self, x: int) -> tuple[tuple[int, int], int]:
        """(height, width) and channels of a map."""
        if x == IMAGE:
            return self._space.input_size, self._space.input_channels
        return self.nodes[x].size, self.nodes[x].channels

    def add(self, kind, inputs, size, channels, kernel=0, filters=0, bias=True) -> int:
        """Adds an operation."""
        self.nodes.append(Node(kind, tuple(inputs), size, channels, kernel, filters, bias))
        return len(self.nodes) - 1

    def conv(self, x, role, filters, kernel=1, stride=1, activation=None):
        """See `neas_tf.operators.Maker.conv`."""
        x, size = self._padded(x, kernel, stride)
        weights = kernel * kernel * self.shape(x)[1] * filters
        return self.activate(self.add("CONV_2D", [x], size, filters, weights, filters), activation)

    def depthwise(self, x, role, kernel, stride=1, activation=None):
        """See `neas_tf.operators.Maker.depthwise`."""
        size, channels = self.shape(x)
        parts = depthwise_parts(kernel, stride, size)
        if not parts:
            x, out = self._padded(x, kernel, stride)
            x = self._depthwise(x, out, kernel * kernel, True)
            return self.activate(x, activation)
        total, out = None, reduced(size, stride)
        inputs: dict[tuple, int] = {}  # the converter makes equal operations once
        for part in parts:
            y, (height, width) = x, size
            if any(part.crop):
                height -= sum(part.crop)
                if part.crop not in inputs:
                    inputs[part.crop] = self.add("STRIDED_SLICE", [y], (height, width), channels)
                y = inputs[part.crop]
            taps = len(part.rows), kernel
            if part.pad == _same_padding((height, width), taps, stride):
                inputs[part.crop, part.pad] = y  # the convolution does it by itself
            if (part.crop, part.pad) not in inputs:
                padded = height + sum(part.pad[0]), width + sum(part.pad[1])
                inputs[part.crop, part.pad] = self.add("PAD", [y], padded, channels)
            y = inputs[part.crop, part.pad]
            y = self._depthwise(y, out, len(part.rows) * kernel, kernel // 2 in part.rows)
            total = y if total is None else self.add("ADD", [total, y], out, channels)
        return self.activate(total, activation)

    def _depthwise(self, x: int, size: tuple[int, int], taps: int, bias: bool) -> int:
        channels = self.shape(x)[1]
        return self.add("DEPTHWISE_CONV_2D", [x], size, channels, taps * channels, channels, bias)

    def _padded(self, x: int, kernel: int, stride: int) -> tuple[int, tuple[int, int]]:
        """The map that a convolution reads, and the size that it makes of it."""
        size, channels = self.shape(x)
        if not (stride == 1 or kernel == 1 or all(side % 2 for side in size)):
            padded = size[0] + 2 * (kernel // 2), size[1] + 2 * (kernel // 2)
            x = self.add("PAD", [x], padded, channels)
        return x, reduced(size, stride)

    def activate(self, x, activation):
        """Swish as two operations; ReLU is inside the one before."""
        if activation != "swish":
            return x
        size, channels = self.shape(x)
        return self.add("MUL", [x, self.add("LOGISTIC", [x], size, channels)], size, channels)

    def squeeze_excite(self, x):
        """See `neas_tf.operators.Maker.squeeze_excite`."""
        size, channels = self.shape(x)
        width = squeeze_width(channels)
        gate = self.conv(self.pool(x), "", width)
        return self.add("MUL", [x, self.conv(gate, "", channels)], size, channels)

    def pool(self, x: int) -> int:
        """The global mean."""
        return self.add("MEAN", [x], (1, 1), self.shape(x)[1])

    def residual(self, x: int, shortcut: int) -> int:
        """x + shortcut."""
        return self.add("ADD", [x, shortcut], *self.shape(x))

    def layer(self, x: int, layer: LayerSpec, name: str) -> int:
        """A searchable layer."""
        operator = Operator.parse(name)
        if operator.is_skip:
            return x
        y = operator.build(self, x, layer)
        return self.residual(y, x) if layer.keeps_shape else y


def _same_padding(
    size: tuple[int, int], kernel: tuple[int, int], stride: int
) -> tuple[tuple[int, int], ...]:
    """((top, bottom), (left, right)) of a convolution with SAME padding."""
    total = [
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)
    ]
    return tuple((n // 2, n - n // 2) for n in total)


@functools.lru_cache(maxsize=256)
def deployed_graph(
    architecture: Architecture, space: SearchSpace, int8: bool = False
) -> DeployedGraph:
    """The operations of a deployed ensemble, pixels to probabilities (logits in an int8 graph).

    Args:
      architecture: lies in `space`.
      space: gives all shapes.
      int8: whether it is the integer graph, whose input and output are converted.
    """
    make = _Maker(space)
    x = IMAGE
    if int8:
        x = make.add("QUANTIZE", [x], space.input_size, space.input_channels)
    x = make.add("ADD", [x], space.input_size, space.input_channels)
    x = make.conv(
        x, "", space.stem_channels, space.stem_kernel, space.stem_stride, space.activation
    )
    if space.block_channels:
        shortcut = x
        x = make.depthwise(x, "", 3, space.block_stride, space.activation)
        x = make.conv(make.squeeze_excite(x), "", space.block_channels)
        if space.block_stride == 1 and make.shape(shortcut)[1] == space.block_channels:
            x = make.residual(x, shortcut)
    split = architecture.split_point
    for layer, name in zip(space.layers, architecture.shared, strict=False):
        x = make.layer(x, layer, name)
    trunk, paths, features = len(make.nodes), [], []
    for row in architecture.paths:
        first, y = len(make.nodes), x
        for layer, name in zip(space.layers[split:], row[split:], strict=True):
            y = make.layer(y, layer, name)
        y = make.pool(make.conv(y, "", space.head_channels, activation=space.activation))
        features.append(make.conv(y, "", space.feature_channels, activation=space.activation))
        paths.append((first, len(make.nodes)))
    y, width = features[0], space.feature_channels * len(features)
    if len(features) > 1:
        y = make.add("CONCATENATION", features, (1, 1), width)
    classes = space.num_classes
    y = make.add("FULLY_CONNECTED", [y], (1, 1), classes, width * classes, classes)
    make.add("DEQUANTIZE" if int8 else "SOFTMAX", [y], (1, 1), classes)
    image = space.input_size[0] * space.input_size[1] * space.input_channels
    return DeployedGraph(tuple(make.nodes), trunk, tuple(paths), image)
