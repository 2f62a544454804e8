"""The picture of `tflite_latency`: latency against MACs, float32 and int8 side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neas_tf.report import style

_USUAL_SIZE = 224  # pixels; other sizes are written at the mark
_TITLES = {"float32": "float32", "int8": "int8, full integer"}
_FAMILIES = {"neas": "NEAS, rewritten", "mobilenet": "MobileNet", "efficientnet": "EfficientNet"}
# Of NEAS's own marks: filled as it is deployed, hollow for what it is compared with.
_VARIANTS = {"_plain": "plain conversion", "_separate": "its paths as networks"}
_DEPLOYED = "as deployed"


def draw(result: Mapping[str, Any]) -> bytes:
    """A PNG of a report of `tflite_latency.measure`."""
    rows = result["networks"]
    found = {name: _points(rows, name) for name in _TITLES if name in rows[0]}
    times = [point[end] for points in found.values() for point in points for end in ("low", "high")]
    ends = (min(times) / 1.15, max(times) * 1.15)
    panels = [_panel(points, ends) | {"title": _TITLES[name]} for name, points in found.items()]
    what = "CPU time" if result["clock"] == "cpu" else "time"
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    version = result["versions"].get("ai-edge-litert", "")
    note = [
        f"{what}, {threads}, batch 1, {result['machine']['processor']}, LiteRT {version}",
        f"medians of {result['rounds']} interleaved rounds, bars: 10th to 90th percentile; NEAS hollow: "
        "square its plain conversion, diamond its paths as networks",
    ]
    chart = style.together(panels, 2, shared=True)
    return style.to_png(chart, "Latency against MACs in LiteRT with XNNPACK", note)


def _variant(name: str) -> str:
    return next((ending for ending in _VARIANTS if name.endswith(ending)), "")


def _points(rows: Sequence[Mapping[str, Any]], format: str) -> list[dict[str, Any]]:
    """A row for each mark, with the place of the network it is a variant of, and its label, once."""
    places = {row["name"]: (row["macs"] / 1e6, row[format]["ms"]) for row in rows}
    named: set[str] = set()
    points = []
    for row in rows:
        variant = _variant(row["name"])
        x, y = places[row["name"]]
        point = {"x": x, "y": y, "low": row[format]["ms_p10"], "high": row[format]["ms_p90"]}
        point |= {"family": _FAMILIES.get(row["family"], row["family"])}
        point |= {"kind": _VARIANTS.get(variant, _DEPLOYED)}
        own = places.get(row["name"].removesuffix(variant)) if variant else None
        if own:
            point |= {"x0": own[0], "y0": own[1]}
        if not variant:
            label, height = row["label"].split(",")[0], row["input_size"][0]
            size = "" if height == _USUAL_SIZE else f"{height}²"
            words = size if label in named else f"{label} {size}".strip()
            # NEAS's stand left of the mark, the others right of it, or below where that is taken.
            crowded = any(1 < u / x < 1.8 and 0.88 < v / y < 1.14 for u, v in places.values())
            side = "left" if row["family"] == "neas" else "below" if crowded else "right"
            point |= {"label": words, "side": side}
            named.add(label)
        points.append(point)
    return points


def _panel(points: Sequence[Mapping[str, Any]], ends: tuple[float, float]) -> dict[str, Any]:
    """Marks, bars from the 10th to the 90th percentile, and lines from a network to its variants."""
    import altair as alt

    low, high = min(p["x"] for p in points), max(p["x"] for p in points)
    log = {"type": "log", "nice": False}
    x = alt.X("x:Q", title="M MACs", scale=alt.Scale(**log, domain=[low / 1.25, high * 1.6]), axis=alt.Axis(tickCount=5, format="~g"))  # fmt: skip
    y = alt.Y("y:Q", title="ms an image", scale=alt.Scale(**log, domain=list(ends)), axis=alt.Axis(tickCount=6, format="~g"))  # fmt: skip
    families = [name for name in _FAMILIES.values() if any(p["family"] == name for p in points)]
    kinds = [_DEPLOYED, *_VARIANTS.values()]
    colour = alt.Color("family:N", title=None, scale=style.colours(families, ("@blue", "@orange", "@purple")))  # fmt: skip
    shape = alt.Shape("kind:N", title="NEAS", scale=alt.Scale(domain=kinds, range=["circle", "square", "diamond"]), legend=None)  # fmt: skip
    deployed = f"datum.kind === '{_DEPLOYED}'"
    data = style.Rows()
    base = alt.Chart(data.add(points)).encode(x=x, color=colour)
    layers = [
        base.transform_filter("isValid(datum.x0)")
        .mark_rule(opacity=0.5)
        .encode(y=y, x2="x0:Q", y2="y0:Q", color=alt.value("@grey")),
        base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(size=50, strokeWidth=1.5).encode(
            y=y, shape=shape, fill=alt.condition(deployed, colour, alt.value("white"))
        ),
    ]
    for side, look in (
        ("left", {"align": "right", "dx": -8, "fontWeight": "bold"}),
        ("right", {"align": "left", "dx": 8}),
        ("below", {"align": "center", "dy": 13}),
    ):
        there = base.transform_filter(f"datum.side === '{side}'")
        layers.append(there.mark_text(**look).encode(y=y, text="label:N", color=alt.value("@ink")))
    return data.spec(alt.layer(*layers).properties(width=400, height=380))
