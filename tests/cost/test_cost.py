import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import METRICS, CostTable, convolution_amounts, squeeze_excite
from neas_tf.operators import Operator, bottleneck_width, squeeze_width
from neas_tf.space.architecture import Architecture
from neas_tf.space.sampling import uniform, uniform_array
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.space.zoo import load_architecture

PAPER = CostTable(SearchSpace())


# method.md section 3; NEAS-M's numbers are this project's own.
@pytest.mark.parametrize(
    ("name", "macs", "params", "paper_flops"),
    [
        ("neas_s", 301_500_768, 8_657_656, 314e6),
        ("neas_m", 449_351_296, 11_551_936, 472e6),
        ("neas_l", 553_140_864, 12_444_832, 574e6),
    ],
)
def test_the_published_ensembles(name, macs, params, paper_flops):
    cost = PAPER.cost(load_architecture(name))
    assert (cost.macs, cost.params) == (macs, params)
    assert cost.paper_flops == pytest.approx(paper_flops, rel=0.015)
    assert cost.shared_macs + sum(cost.path_macs) == cost.macs


def reference(architecture: Architecture, space: SearchSpace) -> tuple[int, int]:
    """(MACs, trainable parameters), written down layer by layer and kernel by kernel."""
    total = np.zeros(2, np.int64)

    def add(size, kernel_shape, extra):
        weights = int(np.prod(kernel_shape))
        total[:] += [size[0] * size[1] * weights, weights + extra]

    def se(width):
        squeezed = squeeze_width(width)
        add((1, 1), (width, squeezed), squeezed)
        add((1, 1), (squeezed, width), width)

    stem, block = space.stem_channels, space.block_channels
    add(
        space.stem_size,
        (space.stem_kernel, space.stem_kernel, space.input_channels, stem),
        2 * stem,
    )
    add(space.block_size, (3, 3, stem), 2 * stem)
    se(stem)
    add(space.block_size, (stem, block), 2 * block)
    for k, row in enumerate(architecture.paths):
        for layer, name in zip(space.layers, row, strict=True):
            if name == "skip" or (k > 0 and layer.number <= architecture.split_point):
                continue
            operator = Operator.parse(name)
            width = bottleneck_width(layer.c_in, operator.expansion)
            add(layer.in_size, (layer.c_in, width), 2 * width)
            add(layer.out_size, (operator.kernel, operator.kernel, width), 2 * width)
            se(width)
            add(layer.out_size, (width, layer.c_out), 2 * layer.c_out)
        add(
            space.layers[-1].out_size,
            (space.out_channels, space.head_channels),
            2 * space.head_channels,
        )
        add((1, 1), (space.head_channels, space.feature_channels), space.feature_channels)
        add((1, 1), (space.feature_channels, space.num_classes), space.num_classes)
    return int(total[0]), int(total[1])


@pytest.mark.parametrize("num_paths", [1, 2, 3])
def test_against_a_reference_written_kernel_by_kernel(num_paths, rng):
    for space in (TOY, SearchSpace(input_size=(65, 48), num_classes=7)):
        table = CostTable(space)
        shrunk = ShrunkSpace.full(space, num_paths)
        for _ in range(20):
            architecture = uniform(shrunk, rng)
            cost = table.cost(architecture)
            assert (cost.macs, cost.params) == reference(architecture, space)


def test_paper_flops_add_norm_pooling_and_biases():
    se = squeeze_excite((4, 4), 16)
    assert se.macs == 2 * 16 * 8
    assert se.paper_flops == se.macs + 16 * 16 + 8 + 16
    assert se.params == 2 * 16 * 8 + 8 + 16
    dense = convolution_amounts((1, 1), 10, 5, bias=True)
    assert (dense.macs, dense.paper_flops, dense.params) == (50, 55, 55)


@pytest.mark.parametrize("num_paths", [1, 2, 4])
def test_many_at_once_equal_one_at_a_time(num_paths, rng):
    shrunk = ShrunkSpace.full(SearchSpace(), num_paths)
    arrays = np.stack([uniform_array(shrunk, rng) for _ in range(50)])
    costs = PAPER.costs(arrays, num_paths)
    for i, array in enumerate(arrays):
        cost = PAPER.cost(Architecture.from_array(array, shrunk.space))
        assert [costs[m][i] for m in METRICS] == [getattr(cost, m) for m in METRICS]
    one = PAPER.costs(arrays[0], num_paths, ("params",))
    assert list(one) == ["params"]
    assert one["params"].tolist() == [costs["params"][0]]
    many = np.tile(arrays, (200, 1))  # several chunks
    assert (PAPER.costs(many, num_paths, ("macs",))["macs"] == np.tile(costs["macs"], 200)).all()
    assert len(PAPER.costs(arrays[:0], num_paths)["macs"]) == 0


@given(
    shrunk=st.sampled_from(
        [ShrunkSpace.full(TOY, k) for k in (1, 2, 3)]
        + [ShrunkSpace.full(SearchSpace(), k, heterogeneous=False) for k in (1, 3)]
    ),
    seeds=st.lists(st.integers(0, 1 << 32), min_size=1, max_size=6),
    metrics=st.lists(st.sampled_from(METRICS), min_size=1, unique=True),
)
def test_the_table_says_the_same_of_arrays_and_of_ensembles(shrunk, seeds, metrics):
    table = CostTable(shrunk.space)
    arrays = np.stack([uniform_array(shrunk, np.random.default_rng(seed)) for seed in seeds])
    found = table.costs(arrays, shrunk.num_paths, tuple(metrics))
    assert list(found) == metrics and all(v.dtype == np.int64 for v in found.values())
    for i, array in enumerate(arrays):
        cost = table.cost(Architecture.from_array(array, shrunk.space))
        assert [found[m][i] for m in metrics] == [getattr(cost, m) for m in metrics]


@pytest.mark.parametrize(
    "shrunk",
    [
        ShrunkSpace.full(TOY, 1),
        ShrunkSpace.full(TOY, 3),
        some_shrunk(2),
        some_shrunk(2, heterogeneous=False),
    ],
)
def test_the_attainable_range_is_exact(shrunk):
    table = CostTable(TOY)
    arrays = np.stack([e.to_array(TOY) for e, _ in all_ensembles(shrunk)])
    costs = table.costs(arrays, shrunk.num_paths)
    for metric in METRICS:
        found = (costs[metric].min(), costs[metric].max())
        assert table.attainable_range(shrunk, metric) == found


def test_bad_questions_are_refused():
    shrunk = ShrunkSpace.full(TOY)
    with pytest.raises(NeasError, match=r"unknown name 'mac'.*'macs'"):
        PAPER.attainable_range(ShrunkSpace.full(SearchSpace()), "mac")
    with pytest.raises(NeasError, match="paper"):
        PAPER.attainable_range(shrunk, "macs")
    with pytest.raises(NeasError, match="41 columns"):
        PAPER.costs(np.zeros((3, 21), int), 2)
    with pytest.raises(NeasError, match="layers"):
        PAPER.cost(next(all_ensembles(shrunk))[0])
