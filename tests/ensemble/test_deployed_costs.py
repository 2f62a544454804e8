"""Peak memory against all orders in which a graph can run; exports check it against real files."""

import dataclasses

import numpy as np
import pytest
from mixed_space import MIXED
from small_ensembles import SPACE

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.deployed_costs import file_size, peak_activation_bytes
from neas_tf.ensemble.deployed_graph import deployed_graph
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace

# Few operations, and a trunk whose output is large beside what the paths make of it.
SMALL = SearchSpace(
    name="few operations",
    input_size=(8, 6),
    num_classes=3,
    stem_channels=16,
    stem_stride=1,
    block_channels=0,
    stages=(Stage(4, 1, 2), Stage(16, 2, 1)),
    operators=("uib_m3e1", "uib_m5e3", "fused_k3e4_relu", "k3e2", "skip"),
    min_split=0,
    max_split=3,
    head_channels=64,
    feature_channels=8,
    activation="relu",
)


def live_peaks(graph, int8):
    """(least peak over all orders, peak of the file's order), the image staying.

    The least is found over sets of finished operations, between which every order is a way.
    """
    widths = [1 if int8 and node.kind != "DEQUANTIZE" else 4 for node in graph.nodes]
    sizes = [node.elements * width for node, width in zip(graph.nodes, widths, strict=True)]
    readers = [
        {j for j, node in enumerate(graph.nodes) if i in node.inputs} for i in range(len(sizes))
    ]

    def run(done, i):
        """Bytes while operation i runs, which `done` (a frozenset) has made possible."""
        live = sum(sizes[x] for x in done if not readers[x] <= done)
        dying = [x for x in graph.nodes[i].inputs if x >= 0 and readers[x] <= done | {i}]
        replaced = graph.nodes[i].in_place and any(sizes[x] == sizes[i] for x in dying)
        return live + (0 if replaced else sizes[i])

    best = {frozenset(): 0}
    for _ in sizes:
        following = {}
        for done, peak in best.items():
            for i, node in enumerate(graph.nodes):
                if i not in done and all(x < 0 or x in done for x in node.inputs):
                    reached, now = max(peak, run(done, i)), done | {i}
                    following[now] = min(reached, following.get(now, reached))
        best = following
    (least,) = best.values()
    in_order = max(run(frozenset(range(i)), i) for i in range(len(sizes)))
    return 4 * graph.image + least, 4 * graph.image + in_order


@pytest.mark.parametrize("num_paths", [1, 2, 3])
def test_the_peak_is_the_least_of_all_orders(num_paths):
    full = ShrunkSpace.full(SMALL, num_paths)
    rng = np.random.default_rng(num_paths)
    better = 0
    for number in range(6 if num_paths == 3 else 20):
        architecture, int8 = sampling.uniform(full, rng), bool(number % 2)
        least, in_order = live_peaks(deployed_graph(architecture, SMALL, int8), int8)
        assert peak_activation_bytes(architecture, SMALL, int8) == least, architecture.key
        better += least < in_order
    assert better or num_paths == 1  # paths that wait for one another save something


def test_many_paths_have_a_bound():
    rows = (("k3e2", "uib_m3e1", "k3e2"), ("k3e2", "k3e2", "uib_m5e3")) * 12
    few = Architecture(0, rows[:2])
    many = Architecture(0, rows)
    assert peak_activation_bytes(few, SMALL) <= peak_activation_bytes(many, SMALL) < 200_000


def test_sizes_follow_weights():
    architecture = sampling.uniform(ShrunkSpace.full(MIXED, 2), np.random.default_rng(0))
    sizes = [file_size(architecture, MIXED, q) for q in ("none", "float16", "dynamic", "int8")]
    assert sizes[0] == max(sizes)
    wide = dataclasses.replace(MIXED, head_channels=116)
    more = file_size(architecture, wide) - file_size(architecture, MIXED)
    assert more == 2 * 4 * 100 * (
        16 + 1 + 12
    )  # of both heads: kernel and bias, and the next kernel
    with pytest.raises(NeasError, match="quantize: received 'int4', expected one of none, float16"):
        file_size(architecture, SPACE, "int4")
