"""What the shrinking did: alive operators over the shrinks; similarity and quality by layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.parts.markup import Charts, Markup, button, card, details, note, table, tag
from neas_tf.report.run_files import Shrink
from neas_tf.space.shrunk_space import ShrunkSpace

# What the panels of `similarity_chart` show.
CAPTION = (
    "Below the diagonal S, pale for the most diverse pairs and strong for those most alike, by rank; above it "
    "each pair: circle alive, cross dropped in this shrink, dash dropped earlier; r beside the names; "
    "?: never measured."
)
FATES = {"alive": "alive", "dropped": "dropped in this shrink", "gone": "dropped earlier"}


def states(shrinks: Sequence[Shrink]) -> list[Shrink]:
    """The space at the start as shrink 0, where any shrink says what is alive, then the shrinks."""
    known = next((s.alive for s in shrinks if s.alive is not None), None)
    if known is None:
        return list(shrinks)
    full = ShrunkSpace.full(known.space, known.num_paths, known.heterogeneous)
    return [Shrink(0, 0, 0.0, "none", (), full), *shrinks]


def alive_shares(alive: ShrunkSpace) -> np.ndarray:
    """(d, N): of the combinations with an operator, the share alive; NaN where it never was."""
    space = alive.space
    whole = ShrunkSpace.full(space, alive.num_paths, alive.heterogeneous)
    shares = np.full((space.num_layers, len(space.operators)), np.nan)
    for i, (left, before) in enumerate(zip(alive.alive, whole.alive, strict=True)):
        for j, name in enumerate(space.operators):
            total = sum(name in row for row in before)
            if total:
                shares[i, j] = sum(name in row for row in left) / total
    return shares


def fate(combination: Mapping[str, Any]) -> str:
    """'gone' before this shrink, 'dropped' in it, or 'alive'."""
    if not combination.get("alive_before", True):
        return "gone"
    return "dropped" if combination.get("dropped") else "alive"


def pair_states(layer: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """For i < j: 'alive', 'dropped' (in this shrink) or 'gone', over combinations with both."""
    names = list(layer["operators"])
    found: dict[tuple[int, int], str] = {}
    rank = {"gone": 0, "dropped": 1, "alive": 2}
    for combination in layer.get("combinations") or ():
        state = fate(combination)
        members = sorted(names.index(n) for n in combination["operators"] if n in names)
        for a in range(len(members)):
            for b in range(a + 1, len(members)):
                pair = (members[a], members[b])
                if pair[0] != pair[1] and rank[state] >= rank[found.get(pair, "gone")]:
                    found[pair] = state
    return found


def alive_chart(alive: ShrunkSpace) -> dict[str, Any]:
    """Layers × operators: the share of each operator's combinations that is alive.

    A cross is a dropped operator, a bar on the left a layer that can split.
    """
    import altair as alt

    space, shares = alive.space, alive_shares(alive)
    rows = [
        {"l": i + 1, "o": name, "s": round(float(shares[i, j]), 4)}
        | {"t": _told(shares[i, j]), "c": bool(alive.can_split(i + 1))}
        for i in range(space.num_layers)
        for j, name in enumerate(space.operators)
    ]
    first: dict[str, Any] = {
        "x": alt.X(
            "o:N",
            sort=None,
            axis=alt.Axis(title=None, orient="top", labelAngle=-90, ticks=False, domain=False),
        )
    }
    first["y"] = alt.Y("l:O", axis=alt.Axis(title="layer", ticks=False, domain=False, offset=7))
    tips = [alt.Tooltip("l:O", title="layer"), alt.Tooltip("o:N", title="operator")]
    tips.append(alt.Tooltip("t:N", title="alive"))
    data = style.Rows()
    base = alt.Chart(data.add(rows)).encode(**first, tooltip=tips)
    scale = alt.Scale(domain=[0, 1], range=style.FADE)
    legend = alt.Legend(title="share of combinations alive", format="%")
    cells = base.transform_filter("datum.s > 0").mark_rect(stroke="@card", strokeWidth=1)
    never = base.transform_filter("!isValid(datum.s)").mark_text(text="·", color="@grey")
    dropped = base.transform_filter("datum.s === 0")
    bars = base.transform_filter(f"datum.c && datum.o === {space.operators[0]!r}")
    layers = [
        cells.encode(color=alt.Color("s:Q", scale=scale, legend=legend)),
        never,
        dropped.mark_point(shape="M-1,-1L1,1M-1,1L1,-1", stroke="@vermilion", size=30),
        bars.mark_tick(orient="vertical", thickness=4, size=20, color="@vermilion").encode(
            x=alt.value(-5)
        ),
    ]
    return data.layered(layers, "container", 20 * space.num_layers)


def _told(share: float) -> str:
    if math.isnan(share):
        return "not in the space"
    return "dropped" if share == 0 else f"{share:.0%} of its combinations"


def similarity_scale(layers: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The similarities of any two operators in these layers, each once, ascending."""
    off = [x["similarity"][~np.eye(len(x["operators"]), dtype=bool)] for x in layers]
    values = np.concatenate(off) if off else np.zeros(0)
    return np.unique(values[np.isfinite(values)])


def place_on(scale: np.ndarray, value: float) -> float:
    """Where a similarity lies among those of the scale, from 0 to 1."""
    if len(scale) < 2:
        return 0.5
    return float(np.interp(value, scale, np.linspace(0, 1, len(scale))))


def _digits(scale: np.ndarray) -> int:
    """Enough to tell the cells apart: beta = 1e-3 leaves S close to 1."""
    span = float(np.ptp(scale)) if scale.size else 0.0
    return int(np.clip(2 - np.floor(np.log10(span or 1e-6)), 3, 5))


def similarity_key(scale: np.ndarray) -> dict[str, Any]:
    """The colours of `similarity_chart`, with the similarities at the quarters."""
    import altair as alt

    at = np.quantile(scale, np.linspace(0, 1, 5)) if scale.size else np.array([0, 0, 0, 0, 1])
    labels = [f"{value:.{_digits(scale)}f}" for value in at]
    steps = np.linspace(0, 1, 25).round(4).tolist()
    cells = [{"x": a, "to": b} for a, b in itertools.pairwise(steps)]
    axis = alt.Axis(
        title="S; each quarter of the strip holds a quarter of the pairs",
        values=[0, 0.25, 0.5, 0.75, 1],
        labelExpr=f"{labels}[round(4 * datum.value)]",
        domain=False,
        grid=False,
    )
    data = style.Rows()
    colour = alt.Color("x:Q", scale=alt.Scale(domain=[0, 1], range=style.FADE), legend=None)
    chart = (
        alt.Chart(data.add(cells))
        .mark_rect()
        .encode(x=alt.X("x:Q", axis=axis), x2="to:Q", color=colour)
    )
    return data.spec(chart.properties(width="container", height=12))


def similarity_chart(layer: Mapping[str, Any], scale: np.ndarray) -> dict[str, Any]:
    """S below the diagonal, fate of the pairs above it; the rows' labels hold the quality r.

    The layer is one of `Shrink.splittable`. The colour is the place among the similarities of the
    shrink (`similarity_scale`), so that one pair far from the others leaves those apart.
    """
    import altair as alt

    digits = _digits(scale)
    names, own = list(map(str, layer["operators"])), layer.get("self_similarity")
    labels = names
    if layer["quality"] is not None:
        quality = layer["quality"].tolist()
        labels = [
            f"{name}  {r:.3f}" if math.isfinite(r) else name
            for name, r in zip(names, quality, strict=True)
        ]
    pairs, rows = pair_states(layer), []
    for i, j in zip(*np.tril_indices(len(names)), strict=True):
        value = layer["similarity"][i, j] if j < i else own[i] if own else None
        known = value is not None and math.isfinite(value)
        row = {"x": names[j], "y": labels[i], "xx": names[i], "yy": labels[j]}
        if value is not None and known:
            row |= {"s": round(float(value), 6), "q": round(place_on(scale, value), 4)}
        row["v"] = f"{value:.{digits}f}".replace("0.", ".", 1) if known else "?" if j < i else ""
        rows.append(row | {"f": pairs.get((j, i))})
    axis: dict[str, Any] = {"ticks": False, "domain": False, "title": None}
    x: dict[str, Any] = {"scale": alt.Scale(domain=names), "axis": alt.Axis(**axis, labelAngle=-90)}
    y: dict[str, Any] = {"scale": alt.Scale(domain=labels), "axis": alt.Axis(**axis)}
    tips = [alt.Tooltip("xx:N", title="operator"), alt.Tooltip("x:N", title="and")]
    tips += [alt.Tooltip("s:Q", title="S"), alt.Tooltip("f:N", title="pair")]
    data = style.Rows()
    base = alt.Chart(data.add(rows)).encode(tooltip=tips)
    below = base.encode(x=alt.X("x:N", **x), y=alt.Y("y:N", **y))
    above = base.transform_filter("isValid(datum.f)")
    above = above.encode(x=alt.X("xx:N", **x), y=alt.Y("yy:N", **y))
    fates = alt.Scale(domain=list(FATES), range=["@green", "@vermilion", "@grey"])
    marks = alt.Scale(domain=list(FATES), range=["circle", "M-1,-1L1,1M-1,1L1,-1", "M-1,0L1,0"])  # fmt: skip
    colour = alt.Scale(domain=[0, 1], range=style.FADE)
    dark = "datum.q > 0.6"
    layers = [
        below.mark_rect(stroke="@card", fill="@faint"),
        below.transform_filter("isValid(datum.s)")
        .mark_rect(stroke="@card")
        .encode(color=alt.Color("q:Q", scale=colour, legend=None)),
        below.mark_text(fontSize=9).encode(
            text="v:N", color=alt.condition(dark, alt.value("@onhigh"), alt.value("@ink"))
        ),
        above.mark_point(size=36, filled=False, strokeWidth=2).encode(
            shape=alt.Shape("f:N", scale=marks, legend=None),
            stroke=alt.Stroke("f:N", scale=fates, legend=None),
        ),
    ]
    return data.layered(layers, "container", 30 * len(names))


def draw_alive(shrinks: Sequence[Shrink]) -> bytes:
    """PNG: one panel for the start and one after each shrink that says what is alive."""
    shown = [(s, alive) for s in states(shrinks) if (alive := s.alive) is not None]
    panels = []
    for shrink, alive in shown:
        name = f"Shrink {shrink.index}" if shrink.index else "Start"
        facts = [f"step {shrink.step:,}", f"{alive.num_combinations:,} combinations"]
        width = max(110, 20 * len(alive.space.operators))
        title = {"text": name, "subtitle": facts}
        panels.append({**alive_chart(alive), "width": width, "title": title})
    left, full = shown[-1][1].num_combinations, shown[0][1].num_combinations
    note = "Share of each operator's combinations that is alive (cross: dropped, bar: layer can "
    note += f"split); {left:,} of {full:,} combinations left"
    chart = style.together(panels, min(len(panels), 7), shared=True)
    return style.to_png(chart, "Alive operators over the shrinks", note)


def draw_similarity(shrink: Shrink) -> bytes:
    """PNG: a panel for each of the shrink's `splittable` layers, of which there is at least one."""
    layers = shrink.splittable
    scale = similarity_scale(layers)
    panels = [
        similarity_chart(layer, scale)
        | {"width": 30 * len(layer["operators"]), "title": f"Layer {layer['layer']}"}
        for layer in layers
    ]
    panels.append({**similarity_key(scale), "width": 300, "title": "Scale"})
    note = [f"Shrink {shrink.index} at step {shrink.step:,}, metric: {shrink.metric}", CAPTION]
    chart = style.together(panels, min(len(panels), 4))
    return style.to_png(chart, "Similarity S and quality r by layer", note)


def section(run: Mapping[str, Any], key: str, charts: Charts) -> Markup:
    """The page's section: a slider over the states of the space, one of which is shown."""
    title, shown = "Shrinking of the space", run["shrinks"]
    if not shown:
        return card(
            f"{key}-shrinks", title, note("the shrinks; they need shrink/shrink_*.json.", "missing")
        )
    end = {"min": 0, "max": len(shown) - 1, "step": 1, "value": len(shown) - 1}
    label = {"class_": "shrink-label", "for_": f"{key}-shrink"}
    controls = [
        button("‹", id=f"{key}-back", data_step=-1, aria_label="Shrink before"),
        tag("input", type="range", class_="shrink", id=f"{key}-shrink", aria_label="Shrink", **end),
        button("›", id=f"{key}-forth", data_step=1, aria_label="Next shrink"),
        tag("output", shown[-1]["label"], **label),
    ]  # fmt: skip
    states = [
        tag(
            "div",
            *_state(shrink, f"{key}-s{shrink['index']}", charts),
            class_="state",
            data_index=shrink["index"],
            data_label=shrink["label"],
            hidden=shrink is not shown[-1],
        )
        for shrink in shown
    ]
    return card(f"{key}-shrinks", title, tag("div", *controls, class_="controls"), *states)


def _state(shrink: Mapping[str, Any], key: str, charts: Charts) -> list[Markup]:
    left = [tag("h3", "Alive operators by layer")]
    if shrink["alive"] is None:
        lack = "alive operators; they need 'alive' in the shrink's file and the search space (params.yaml)."
        left.append(note(lack, "missing"))
    else:
        caption = "Share of each operator's combinations that is alive"
        rows = [
            [i, *("–" if v is None else f"{v:.0%}" if v else "dropped" for v in row)]
            for i, row in enumerate(shrink["shares"], start=1)
        ]
        label = f"Operators alive by layer, {shrink['label']}; the table below says the same"
        body = table(["layer", *shrink["operators"]], rows, caption)
        left += [
            charts.add(f"{key}-alive", shrink["alive"], label),
            note("Cross: dropped. Bar: the layer can split. Dot: not in the space."),
            details("Alive operators as a table", body),
        ]
    right = [tag("h3", "Dropped in this shrink")]
    columns, numeric = ["layer", "operators", "score", "state"], [False, False, True, False]
    rows = [
        [layer, names, None if score is None else f"{score:.4e}", FATES[fate]]
        for layer, names, score, fate in shrink["scores"]
    ]
    gone = [row for row in rows if row[3] == FATES["dropped"]]
    none = "Nothing yet." if not shrink["index"] else "Nothing of the layers that can split."
    right.append(
        table(columns[:3], [r[:3] for r in gone], "Dropped in this shrink", numeric[:3])
        if gone
        else note(none)
    )
    parts = [tag("div", tag("div", *left), tag("div", *right), class_="columns two")]
    if not shrink["similarity"]:
        lack = "Similarity and quality are measured at each shrink, for layers that can split."
        return [*parts, tag("h3", "Similarity and quality"), note(lack)]
    panels = [
        tag(
            "div",
            tag("h4", f"Layer {layer}"),
            charts.add(
                f"{key}-layer{layer}",
                spec,
                f"Layer {layer}: similarity of its operators; the table below has the scores",
            ),
        )
        for layer, spec in shrink["similarity"].items()
    ]
    told = "Scale of the similarities, from the most diverse pair to the most alike"
    scale = charts.add(f"{key}-scale", shrink["scale"], told)
    scores = table(columns, rows, "Scores of the combinations", numeric)
    return [
        *parts,
        tag("h3", "Similarity S and quality r by layer"),
        note(CAPTION),
        tag("div", scale, class_="scale"),
        tag("div", *panels, class_="matrices"),
        details("Scores of all combinations as a table", scores),
    ]
