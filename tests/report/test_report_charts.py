"""What the charts of the report show: the numbers behind them, and texts that do not overlap."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import synthetic_run
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.report import Candidate, draw_architecture, style
from neas_tf.report.charts import curve_charts, search_picture, smooth
from neas_tf.report.parts.quality import progress
from neas_tf.report.shrinks import (
    alive_shares,
    pair_states,
    place_on,
    similarity_chart,
    similarity_key,
    similarity_scale,
)
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

OFFICIAL = {
    "NEAS-S": "20,2,0,0,-1,0,2,0,0,2,-1,0,-1,0,3,2,4,0,2,5,0,4,3,0,0",
    "NEAS-M": "16,2,0,3,2,0,2,5,0,-1,3,0,2,0,0,3,5,4,0,5,0,5,4,0,3,5,2,5,0",
    "NEAS-L": "16,2,0,5,5,1,3,5,1,3,4,1,2,5,4,1,3,3,1,3,1,5,1,0,5,4,4,3,0",
}


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


SVG = "{http://www.w3.org/2000/svg}"


def texts(element, dx=0.0, dy=0.0, groups=None):
    """(string, left, right, top, bottom) of all texts of a drawing, by a generous width of a letter."""
    groups = groups or {g.get("id"): g for g in element.iter(f"{SVG}g") if g.get("id")}
    found = []
    for node in element:
        move = re.match(r"translate\((.*),(.*)\)", node.get("transform") or "translate(0,0)")
        x, y = dx + float(move[1]), dy + float(move[2])
        if node.tag == f"{SVG}use":
            x, y = x + float(node.get("x")), y + float(node.get("y"))
            found += texts(groups[node.get("href")[1:]], x, y, groups)
        elif node.tag == f"{SVG}text":
            size = {"d-title": 16, "d-soft": 10}.get(node.get("class"), 11)
            width = 0.58 * size * len(node.text)
            shift = {"start": 0, "middle": width / 2, "end": width}[node.get("text-anchor")]
            left, base = x + float(node.get("x")) - shift, y + float(node.get("y"))
            found.append((node.text, left, left + width, base - 0.75 * size, base + 0.1 * size))
        elif node.tag == f"{SVG}g":
            found += texts(node, x, y, groups)
    return found


def overlaps(picture):
    """Texts of a diagram that cover each other or leave the picture."""
    root = ET.fromstring(picture)
    width, height = float(root.get("width")), float(root.get("height"))
    shown = texts(root)
    assert len(shown) > 10
    found = [t[0] for t in shown if t[1] < 0 or t[2] > width or t[3] < 0 or t[4] > height]
    for i, (one, x0, x1, y0, y1) in enumerate(shown):
        for other, u0, u1, v0, v1 in shown[:i]:
            if min(x1, u1) - max(x0, u0) > 0.5 and min(y1, v1) - max(y0, v0) > 0.5:
                found.append((one, other))
    return found


@pytest.mark.parametrize("name", OFFICIAL)
def test_published_architectures(name):
    space = SearchSpace()
    architecture = Architecture.from_official(OFFICIAL[name], name)
    cost = {"macs": 301_500_768, "shared_macs": 2.4e8, "path_macs": [3e7, 3e7]}
    picture = draw_architecture(architecture, space, cost)
    assert f"{name}: 2 paths, split after layer {architecture.split_point} of 20" in picture
    assert "301.5 M MACs" in picture and "path 2: 30.00 M" in picture
    split, (first, second) = architecture.split_point, architecture.paths
    assert re.findall(r'<use href="#(\w+)"', picture) == [*first, *second[split:]]
    assert overlaps(picture) == []


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
    assert overlaps(draw_architecture(architecture, space)) == []


def test_an_architecture_outside_of_the_space_is_refused():
    with pytest.raises(NeasError, match="has 20 layers"):
        draw_architecture(Architecture.from_official(OFFICIAL["NEAS-S"]), synthetic_run.SMALL)


def candidate(number, key, accuracy, **costs):
    return Candidate(number, 0, "random", Architecture.from_key(key), accuracy, (), costs)


def valid(spec):
    """Altair knows the specification's words."""
    import altair as alt

    kept = {k: v for k, v in spec.items() if k not in ("columns",) or "concat" in spec}
    alt.Chart.from_dict(json.loads(style.filled(kept, style.LIGHT)))


def test_search_of_one_candidate():
    only = candidate(0, "s1:k3e4|.", 0.5, macs=1_000)
    spec = search_picture([only], budget={"max_macs": 1_001})
    valid(spec)
    assert len(style.to_png(spec)) > 10_000


@pytest.mark.parametrize(
    ("latency", "cost", "label"),
    [
        (2_000_000, None, "predicted latency (ms)"),
        (None, None, "multiply-accumulates (M MACs)"),
        (2_000_000, "macs", "multiply-accumulates (M MACs)"),
        (2_000_000, "params", "parameters (M)"),
        (None, "latency_ns", "multiply-accumulates (M MACs)"),
    ],
)
def test_the_cost_that_accuracy_is_drawn_against(latency, cost, label):
    costs = {"latency_ns": latency} if latency else {}
    keys = (("s1:k3e4|.", 0.5), ("s1:k5e4|.", 0.7))
    rows = [
        candidate(i, key, accuracy, macs=3_000_000 + i, params=4_000_000 + i, **costs)
        for i, (key, accuracy) in enumerate(keys)
    ]
    budget = {"max_latency_ms": 2.001, "max_macs": 3_000_500}
    spec = search_picture(rows, budget=budget, cost=cost)
    valid(spec)
    scatter = spec["concat"][0]
    assert label in json.dumps(scatter)
    bounds = [v for row in spec["datasets"].values() for v in row if set(v) == {"v"}]
    drawn = {"predicted": [{"v": 2_001_000.0}], "multiply-accumulates": [{"v": 3_000_500}]}
    assert bounds == drawn.get(label.split()[0], [])


def test_curves_hold_what_was_logged():
    lines = [{"step": i, "loss": 1 / i, "accuracy_1": i / 9, "other": 1} for i in range(1, 9)]
    lines.append({"step": 9, "loss": float("nan"), "validation_accuracy_1": 0.5})
    charts = curve_charts(lines, marks=[4, 99])
    assert list(charts) == ["loss", "accuracy"]
    for chart in charts.values():
        valid(chart)
    marks, losses = sorted(charts["loss"]["datasets"].values(), key=len)
    assert marks == [{"x": 4}], "a shrink after the last line is not drawn"
    assert [(row["x"], row["v"]) for row in losses] == [(i, float(f"{1 / i:.5g}")) for i in range(1, 9)]  # fmt: skip
    assert {r["s"] for rows in charts["accuracy"]["datasets"].values() for r in rows if "s" in r} == {
        "path 1", "validation, path 1"
    }  # fmt: skip


def test_similarity_of_an_operator_with_itself_and_pairs_never_seen():
    layer = {
        "layer": 3,
        "operators": ["k3e4", "skip"],
        "similarity": np.array([[1.0, np.nan], [np.nan, 1.0]]),
        "quality": np.array([np.nan, 0.5]),
        "self_similarity": [0.875, None],
        "combinations": [{"operators": ["k3e4", "skip"], "alive_before": True, "dropped": False}],
    }
    spec = similarity_chart(layer, similarity_scale([layer]))
    valid(spec)
    (rows,) = spec["datasets"].values()
    assert [(r["x"], r["y"], r.get("s"), r.get("f")) for r in rows] == [
        ("k3e4", "k3e4", 0.875, None),
        ("k3e4", "skip  0.500", None, "alive"),
        ("skip", "skip  0.500", None, None),
    ]
    assert len(style.to_png({**spec, "width": 100})) > 1_000


def test_the_scale_of_s_tells_near_pairs_apart_beside_a_far_one():
    values = np.array([0.30, 0.9601, 0.9602, 0.9603])
    similarity = np.eye(5)
    below = np.tril_indices(5, -1)
    similarity[below] = np.resize(values, len(below[0]))
    similarity = similarity + np.tril(similarity, -1).T
    layer = {"layer": 1, "operators": list("abcde"), "similarity": similarity, "quality": None}
    scale = similarity_scale([layer])
    assert scale.tolist() == values.tolist()
    assert [place_on(scale, v) for v in values] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert place_on(scale, 0.1) == 0 and place_on(scale, 1) == 1
    spec = similarity_chart(layer, scale)
    valid(spec)
    (rows,) = spec["datasets"].values()
    shades = {row["s"]: row["q"] for row in rows if "s" in row}
    assert sorted(shades.values()) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-4)
    key = similarity_key(scale)
    valid(key)
    labels = json.loads(
        re.search(r"\[.*?\]", key["encoding"]["x"]["axis"]["labelExpr"])[0].replace("'", '"')
    )
    assert [float(text) for text in labels] == pytest.approx(
        np.quantile(values, np.linspace(0, 1, 5)), abs=5e-4
    )
    for scale in (np.zeros(0), np.array([0.5])):
        valid(similarity_key(scale))
        assert place_on(scale, 0.5) == 0.5
