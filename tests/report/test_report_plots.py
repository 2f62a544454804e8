"""What the pictures of the report show: the numbers behind them, and texts that do not overlap."""

import numpy as np
import pytest
import synthetic_run
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch

from neas_tf.common.errors import NeasError
from neas_tf.report import draw_architecture
from neas_tf.report.curves_plot import smooth
from neas_tf.report.reading import Candidate, Shrink
from neas_tf.report.search_plot import draw_search, pareto_front, progress
from neas_tf.report.shrink_plots import alive_shares, draw_similarity, pair_states
from neas_tf.report.style import to_png
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

OFFICIAL = {
    "NEAS-S": "20,2,0,0,-1,0,2,0,0,2,-1,0,-1,0,3,2,4,0,2,5,0,4,3,0,0",
    "NEAS-M": "16,2,0,3,2,0,2,5,0,-1,3,0,2,0,0,3,5,4,0,5,0,5,4,0,3,5,2,5,0",
    "NEAS-L": "16,2,0,5,5,1,3,5,1,3,4,1,2,5,4,1,3,3,1,3,1,5,1,0,5,4,4,3,0",
}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_pareto_front(points):
    macs, accuracy = np.array(points, float).T
    front = pareto_front(macs, accuracy)
    expected = {
        (m, a)
        for m, a in points
        if not any((n <= m and b > a) or (n < m and b >= a) for n, b in points)
    }
    assert {(macs[i], accuracy[i]) for i in front} == expected
    assert len(front) == len(expected)
    assert (np.diff(macs[front]) > 0).all() and (np.diff(accuracy[front]) > 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 12))
def test_progress(values, top):
    best, mean = progress(np.array(values), top)
    for i in range(len(values)):
        so_far = sorted(values[: i + 1], reverse=True)
        assert best[i] == so_far[0]
        if i + 1 < top:
            assert np.isnan(mean[i])
        else:
            assert mean[i] == pytest.approx(sum(so_far[:top]) / top)


def test_smoothing_keeps_constants_and_length():
    assert np.allclose(smooth(np.full(50, 3.0), 9), 3.0)
    assert smooth(np.arange(5.0), 3).tolist() == [0.0, 1.0, 2.0, 3.0, 3.5]


def test_alive_shares():
    space = synthetic_run.SMALL
    whole = ShrunkSpace.full(space, 2)
    left = whole.without(4, ("k3e4", "skip")).without(4, ("k3e4", "k3e6")).without(1, ("k5e4",))
    shares = alive_shares(left)
    assert shares[3].tolist() == [0.5, 0.75, 1.0, 1.0, 0.75]
    assert shares[0].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert np.isnan(shares[2, 4]) and np.isnan(shares).sum() == 2


def test_pair_states_take_the_liveliest_combination():
    def row(names, before, dropped):
        return {"operators": names.split(), "alive_before": before, "dropped": dropped}

    layer = {
        "operators": ["a", "b", "c", "d"],
        "combinations": [
            row("a b c", True, False),
            row("a b d", True, True),
            row("a c d", False, False),
            row("b c d", False, False),
        ],
    }
    assert pair_states(layer) == {
        (0, 1): "alive",
        (0, 2): "alive",
        (1, 2): "alive",
        (0, 3): "dropped",
        (1, 3): "dropped",
        (2, 3): "gone",
    }


def overlaps(figure):
    """Pairs of texts of the diagram that cover each other, and texts outside of the figure."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    texts = [t for t in [*figure.axes[0].texts, *figure.legends[0].get_texts()] if t.get_text()]
    boxes = [t.get_window_extent(renderer) for t in texts]
    outer = figure.bbox
    found = [
        t.get_text()
        for t, b in zip(texts, boxes, strict=True)
        if b.x0 < outer.x0 or b.x1 > outer.x1 or b.y0 < outer.y0 or b.y1 > outer.y1
    ]
    for i in range(len(texts)):
        for j in range(i):
            a, b = boxes[i], boxes[j]
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5:
                found.append((texts[i].get_text(), texts[j].get_text()))
    return found


@pytest.mark.parametrize("name", OFFICIAL)
def test_published_architectures(name):
    space = SearchSpace()
    architecture = Architecture.from_official(OFFICIAL[name], name)
    cost = {"macs": 301_500_768, "shared_macs": 2.4e8, "path_macs": [3e7, 3e7]}
    figure = draw_architecture(architecture, space, cost)
    title = figure.get_suptitle()
    assert f"{name}: 2 paths, split after layer {architecture.split_point} of 20" in title
    assert any("301.5 M MACs" in text.get_text() for text in figure.texts)
    drawn = [n for row in architecture.paths for n in row[architecture.split_point :]]
    drawn += architecture.shared
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    # Two fixed layers, the operators that are no skip, a head of two boxes a path, the mean.
    assert len(boxes) == 2 + sum(n != "skip" for n in drawn) + 4 + 1
    assert overlaps(figure) == []


@pytest.mark.parametrize("num_paths", [1, 2, 3, 5])
@pytest.mark.parametrize("split", [0, 3, 7])
def test_diagrams_of_any_shape(num_paths, split):
    space = SearchSpace.from_dict(
        {
            "input_size": [96, 160],
            "stages": [[16, 1, 1], [24, 2, 2], [320, 4, 2]],
            "operators": ["k3e1", "k5e3", "k9e6", "k11e10", "skip"],
            "min_split": 0,
            "max_split": 7,
        }
    )
    rng = np.random.default_rng(split)
    alive = ShrunkSpace.full(space, num_paths, heterogeneous=False)
    architecture = synthetic_run.draw(alive, rng)
    while architecture.split_point != split:
        architecture = synthetic_run.draw(alive, rng)
    figure = draw_architecture(architecture, space)
    assert overlaps(figure) == []


def test_an_architecture_outside_of_the_space_is_refused():
    with pytest.raises(NeasError, match="has 20 layers"):
        draw_architecture(Architecture.from_official(OFFICIAL["NEAS-S"]), synthetic_run.SMALL)


def test_search_of_one_candidate():
    only = Candidate(0, 0, "random", "s1:k3e4|.", 0.5, 1_000)
    assert len(to_png(draw_search([only], budget={"max_macs": 1_001}))) > 10_000


@pytest.mark.parametrize(
    ("latency", "cost", "label", "ticks"),
    [
        (2_000_000, None, "predicted latency (ms)", 2.0),
        (None, None, "multiply-accumulates (M MACs)", 3.0),
        (2_000_000, "macs", "multiply-accumulates (M MACs)", 3.0),
        (2_000_000, "params", "parameters (M)", 4.0),
        (None, "latency_ns", "multiply-accumulates (M MACs)", 3.0),
    ],
)
def test_the_cost_that_accuracy_is_drawn_against(latency, cost, label, ticks):
    keys = (("s1:k3e4|.", 0.5), ("s1:k5e4|.", 0.7))
    rows = [
        Candidate(i, 0, "random", key, accuracy, 3_000_000 + i, None, 4_000_000 + i, latency)
        for i, (key, accuracy) in enumerate(keys)
    ]
    figure = draw_search(rows, budget={"max_latency_ms": 2.001, "max_macs": 3_000_500}, cost=cost)
    axes = figure.axes[0]
    assert axes.get_xlabel() == label
    low, high = (edge / 1e6 for edge in axes.get_xlim())
    assert low < ticks < high < ticks + 0.2
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    bounded = label.startswith(("predicted", "multiply"))
    assert any(text.startswith("budget") for text in texts) == bounded


def test_similarity_of_an_operator_with_itself_and_pairs_never_seen():
    layer = {
        "layer": 3,
        "operators": ["k3e4", "skip"],
        "similarity": np.array([[1.0, np.nan], [np.nan, 1.0]]),
        "quality": np.array([np.nan, np.nan]),
        "self_similarity": [0.875, None],
        "combinations": [{"operators": ["k3e4", "skip"], "alive_before": True, "dropped": False}],
    }
    figure = draw_similarity(Shrink(1, 10, 1.0, "diversity", (layer,), None))
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert ".875" in shown and "?" in shown
    assert len(to_png(figure)) > 5_000
