"""What a deployed ensemble needs besides arithmetic: memory for activations, and bytes of its file.

Both follow from the operations of the deployed graph, so that no network is built for them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from neas_tf.common.errors import check
from neas_tf.cost.constraint_functions import additive
from neas_tf.ensemble.deployed_graph import IMAGE, Node, deployed_graph
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

_MOST_STATES = 20_000  # of the search for the best order of the paths
# Bytes of a weight in a `.tflite` file, and what each operation without and with weights, and the
# file as a whole, take besides: fitted on exports (tables of the flatbuffer, names, alignment,
# metadata), whose sizes they give within 2 %.
_FILES = {
    "none": (4, 142, 465, 920),
    "float16": (2, 129, 668, 1560),  # with an operation that makes float32 of each tensor
    "dynamic": (4, 142, 463, 1190),
    "int8": (1, 233, 507, 0),
}
_SMALLEST_DYNAMIC = 1024  # weights of a kernel that becomes int8
_SCALES = 12  # bytes of scale and zero point of a channel
_LABEL = 8  # bytes of a class name, as in class_12


def peak_activation_bytes(
    architecture: Architecture, space: SearchSpace, int8: bool = False
) -> int:
    """Largest sum of live activations of the deployed graph, for one image, in its best order.

    A tensor lives from the operation that makes it to the last that reads it: the input of a
    residual until it is added, the trunk's output until the last path has begun. The image stays
    throughout, as LiteRT keeps it. A sum or product replaces an input of its size that nothing else
    needs. The order is the best one: paths may wait for one another wherever that saves memory.

    What comes on top in LiteRT: gaps between tensors, and the buffers of its kernels.

    Args:
      architecture: lies in `space`.
      space: gives all shapes.
      int8: one byte an element, except for the image and the output, which are float32; else 4.

    Returns:
      Bytes.
    """
    graph = deployed_graph(architecture, space, int8)
    bytes_of = [node.elements * _width(node, int8) for node in graph.nodes]
    image = 4 * graph.image
    trunk = _Chain(graph.nodes, bytes_of, 0, graph.trunk)
    shared = bytes_of[graph.trunk - 1]
    first = max(trunk.during)
    paths = [_Chain(graph.nodes, bytes_of, *ends) for ends in graph.paths]
    between = _peak_of_paths(paths, shared)
    end = graph.paths[-1][1]
    last, live = 0, sum(path.after[-1] for path in paths)
    for i in range(end, len(graph.nodes)):  # each reads all that is left
        last, live = max(last, live + bytes_of[i]), bytes_of[i]
    return image + max(first, between, last)


def peak_activation_bytes_int8(architecture: Architecture, space: SearchSpace) -> int:
    """`peak_activation_bytes` of the int8 graph."""
    return peak_activation_bytes(architecture, space, int8=True)


def _width(node: Node, int8: bool) -> int:
    return 1 if int8 and node.kind != "DEQUANTIZE" else 4


class _Chain:
    """Operations that run one after the other, and their own live bytes.

    What they read from before the chain is not counted; its last tensor stays.

    Attributes:
      during: bytes while each operation runs.
      after: bytes before the first operation (0), and after each.
      release: number of operations after which nothing from before the chain is needed, 0 where it
        reads nothing of that kind.
    """

    def __init__(self, nodes: Sequence[Node], bytes_of: Sequence[int], first: int, end: int):
        last: dict[int, int] = {}
        for i in range(first, end):
            last.update(dict.fromkeys(nodes[i].inputs, i))
        self.release = max(
            (i - first + 1 for x, i in last.items() if x < first and x != IMAGE), default=0
        )
        self.during, self.after = [], [0]
        live = 0
        for i in range(first, end):
            dying = [x for x in set(nodes[i].inputs) if x >= first and last[x] == i]
            replaced = nodes[i].in_place and any(bytes_of[x] == bytes_of[i] for x in dying)
            self.during.append(live + (0 if replaced else bytes_of[i]))
            live += bytes_of[i] - sum(bytes_of[x] for x in dying)
            self.after.append(live)

    def pauses(self) -> list[int]:
        """Numbers of operations after which it can pay to let other paths run.

        A pause between two others at which no more is live never pays: what runs in it can run in
        one of these two. That holds before and after the release, each for itself.
        """
        found = {0, len(self.after) - 1}
        for low, high in ((0, self.release), (self.release, len(self.after))):
            for places in (range(low, high), range(high - 1, low - 1, -1)):
                least = math.inf
                for i in places:
                    if self.after[i] < least:
                        least = self.after[i]
                        found.add(i)
        return sorted(found)


def _peak_of_paths(paths: Sequence[_Chain], shared: int) -> int:
    """The least peak with which all paths run, from the trunk's output of `shared` bytes.

    The way with the lowest highest point through the states (how far each path is); for very many
    paths one after the other, those first that need the most beyond what they leave.
    """
    stops = [path.pauses() for path in paths]
    if math.prod(map(len, stops)) > _MOST_STATES:
        order = sorted(paths, key=lambda path: path.after[-1] - max(path.during))
        left, peak = 0, 0
        for path in order:
            peak = max(peak, left + shared + max(path.during))
            left += path.after[-1]
        return peak
    end = tuple(len(stop) - 1 for stop in stops)
    start = (0,) * len(paths)
    least, queue = {start: shared}, [(shared, start)]
    while queue:
        peak, state = heapq.heappop(queue)
        if state == end:
            return peak
        if peak > least[state]:
            continue
        begun = [stop[p] >= path.release for stop, p, path in zip(stops, state, paths, strict=True)]
        for k, path in enumerate(paths):
            if state[k] == end[k]:
                continue
            here, there = stops[k][state[k]], stops[k][state[k] + 1]
            others = sum(
                p.after[stop[i]]
                for p, stop, i in zip(paths, stops, state, strict=True)
                if p is not path
            )
            waited_for = not all(begun[:k] + begun[k + 1 :])
            hill = max(
                path.during[i] + (shared if waited_for or i < path.release else 0)
                for i in range(here, there)
            )
            following = (*state[:k], state[k] + 1, *state[k + 1 :])
            reached = max(peak, others + hill)
            if reached < least.get(following, math.inf):
                least[following] = reached
                heapq.heappush(queue, (reached, following))
    raise AssertionError("Every path can run to its end.")


@additive
def file_size(architecture: Architecture, space: SearchSpace, quantize: str = "none") -> int:
    """Bytes of the `.tflite` file that the export writes, within 5 %.

    Args:
      architecture: lies in `space`.
      space: gives all widths.
      quantize: of the export: none, float16, dynamic or int8.

    Raises:
      NeasError: for another quantization.
    """
    check(quantize in _FILES, "quantize", quantize, f"one of {', '.join(_FILES)}")
    width, plain, weighted, file = _FILES[quantize]
    total = file + _LABEL * space.num_classes
    total += width * space.input_size[1] * space.input_channels  # of the normalisation
    for node in deployed_graph(architecture, space, quantize == "int8").nodes:
        total += plain if not node.kernel else weighted + _weight_bytes(node, quantize, width)
    return total


def _weight_bytes(node: Node, quantize: str, width: int) -> int:
    """Kernel and bias of an operation, with what quantization adds to them."""
    biases = node.filters if node.bias else 0
    if quantize == "int8":  # biases are int32; each of their values has a scale as well
        return node.kernel + 4 * biases + _SCALES * (node.filters + biases)
    if quantize == "dynamic" and node.kernel >= _SMALLEST_DYNAMIC:
        return node.kernel + _SCALES * node.filters + 4 * biases
    return width * (node.kernel + biases)


@additive
def file_size_float16(architecture: Architecture, space: SearchSpace) -> int:
    """`file_size` with float16 weights."""
    return file_size(architecture, space, "float16")


@additive
def file_size_dynamic(architecture: Architecture, space: SearchSpace) -> int:
    """`file_size` with int8 weights."""
    return file_size(architecture, space, "dynamic")


@additive
def file_size_int8(architecture: Architecture, space: SearchSpace) -> int:
    """`file_size` of the integer graph."""
    return file_size(architecture, space, "int8")
