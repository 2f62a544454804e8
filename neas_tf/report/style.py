"""One look for page and pictures: colour-blind safe, light or dark; charts to PNG through vl-convert.

A chart names its colours ("@blue"); the page fills them in by the reader's scheme, a picture is light.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.errors import is_number

VEGA_LITE = "6.4"
# Okabe and Ito's palette, told apart with every common kind of colour blindness; lighter in the dark.
LIGHT = {
    "paper": "#ffffff", "card": "#f6f8fa", "ink": "#1f2328", "grey": "#57606a", "line": "#d0d7de",
    "faint": "#e8ecf0", "blue": "#0072b2", "vermilion": "#c44e00", "green": "#00785a",
    "purple": "#a8508a", "orange": "#a56c00", "sky": "#56b4e9", "gold": "#f0c93c",
    "low": "#e3eef7", "middle": "#5c9fcc", "high": "#0e4a80", "onhigh": "#ffffff",
    "first": "#b9c3cd", "last": "#0b3f70", "expand1": "#8ccbf0", "expand2": "#f2c266",
    "expand3": "#7fcdb4", "expand4": "#e2b0cf", "expand5": "#f0e68c", "fixed": "#c9d1d9",
}  # fmt: skip
DARK = {
    "paper": "#10141a", "card": "#181e26", "ink": "#e6edf3", "grey": "#9aa7b4", "line": "#3a444f",
    "faint": "#252d37", "blue": "#58aee6", "vermilion": "#ff8a4c", "green": "#35c79c",
    "purple": "#e39ac4", "orange": "#f0b840", "sky": "#4f9fd6", "gold": "#f0c93c",
    "low": "#1b2735", "middle": "#4387b8", "high": "#8fd0ff", "onhigh": "#0b1420",
    "first": "#53606d", "last": "#d8eeff", "expand1": "#1f5c85", "expand2": "#7a5410",
    "expand3": "#1c6650", "expand4": "#74426a", "expand5": "#6b6420", "fixed": "#3a444f",
}  # fmt: skip
# Colours of paths 1, 2, … (repeated when there are more), and of other series.
PATHS = ("@blue", "@vermilion", "@green", "@purple", "@orange", "@sky")
MANY = (*PATHS, "@grey", "@gold", "@ink", "@high")
FADE = ["@low", "@middle", "@high"]  # from little to much
PERCENT = "format(datum.value * 100, '.5~g') + ' %'"  # labels of an axis of fractions
MILLIONS = "format(datum.value / 1e6, ',.5~g')"

# Vega's configuration; colours by name here too.
CONFIG: dict[str, Any] = json.loads(
    Path(__file__).with_name("html").joinpath("vega.json").read_text()
)


def filled(value: Any, palette: Mapping[str, str]) -> str:
    """The value as JSON, its colours filled in."""
    text = json.dumps(value, allow_nan=False)
    return re.sub(r'"@(\w+)"', lambda m: json.dumps(palette.get(m[1], m[0][1:-1])), text)


class Rows:
    """Collects the data of a chart, which lie beside it: Altair copies what lies in it at every step."""

    def __init__(self):
        self.datasets: dict[str, list[dict[str, Any]]] = {}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Altair's name for these rows; what is None or no finite number is left out of them."""
        import altair as alt

        kept = [{k: v for k, v in row.items() if not _odd(v)} for row in rows]
        name = f"d{hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]}"
        self.datasets[name] = kept
        return alt.NamedData(name=name)

    def spec(self, chart: Any) -> dict[str, Any]:
        """The chart as Vega-Lite with its data."""
        spec = chart.to_dict(validate=False)
        kept = {key: value for key, value in spec.items() if key not in ("config", "$schema")}
        return {**kept, "datasets": self.datasets}

    def layered(self, layers: Sequence[Any], width: int | str, height: int, *params: Any) -> Any:
        """Charts one over the other as Vega-Lite with their data.

        Altair copies all layers several times in each method of a layered chart. So the size is
        given at once, and the parameters go to the last layer, from which Altair lifts them.
        """
        import altair as alt

        *under, top = layers
        chart = alt.layer(*under, top.add_params(*params), width=width, height=height)
        return self.spec(chart)


def _odd(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not is_number(value))


def together(
    charts: Sequence[Mapping[str, Any]], columns: int, shared: bool = False
) -> dict[str, Any]:
    """Charts, each with a width, in rows of so many `columns`; `shared`: with one legend."""
    spec: dict[str, Any] = {"concat": [], "columns": columns, "datasets": {}, "params": []}
    for chart in charts:
        spec["datasets"] |= chart.get("datasets", {})
        spec["params"] += [p for p in chart.get("params", ()) if p not in spec["params"]]
        spec["concat"].append({k: v for k, v in chart.items() if k not in ("datasets", "params")})
    if not shared:
        names = ("color", "fill", "shape", "strokeDash")
        spec["resolve"] = {"scale": dict.fromkeys(names, "independent")}
    return spec


def to_png(spec: Mapping[str, Any], title: str = "", note: str | list[str] = "") -> bytes:
    """PNG bytes of a chart, light, at twice its size; the same chart gives the same bytes.

    Below the title of the whole picture stand lines of facts, `note`.
    """
    import vl_convert

    heading = {"text": title, "subtitle": note, "fontSize": 16, "offset": 12}
    whole = {**spec, "config": CONFIG, "background": "white", "padding": 12}
    if title:
        whole["title"] = heading
    return small(vl_convert.vegalite_to_png(filled(whole, LIGHT), vl_version=VEGA_LITE, scale=2))


def small(png: bytes) -> bytes:
    """A picture in 256 colours, which takes a tenth of the bytes of what the renderer leaves."""
    from PIL import Image

    content = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(content, "png", optimize=True)
    return content.getvalue()


def series(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    titles: tuple[str | None, str | None],
    size: tuple[int, int],
    title: str = "",
    lines: bool = False,
    dashed: Sequence[str] = (),
    palette: Sequence[str] = PATHS,
    percent: str = "y",
) -> dict[str, Any]:
    """Points, or lines, of several series over two quantities.

    Args:
      rows: `x`, `y`, `s` the series; perhaps `low` and `high`, a span of y, and `k`, which of
        several lines of one series a row is of.
      names: of the series, in the legend's order; those in `dashed` have dashed lines.
      titles: of the two axes; None for no axis.
      size: width and height in pixels.
      palette: colours of the series, repeated when there are more.
      percent: the axes whose values are fractions.
    """
    import altair as alt

    def axis(name: str, title: str | None) -> Any:
        options: dict[str, Any] = {
            "title": title,
            **({"labelExpr": PERCENT} if name in percent else {}),
        }
        return alt.Axis(**options, tickCount=6) if title else None

    channels: tuple[Any, Any] = (alt.X, alt.Y)
    x, y = (
        channel(f"{name}:Q", scale=alt.Scale(zero=False, padding=6), axis=axis(name, title))
        for channel, name, title in zip(channels, "xy", titles, strict=True)
    )
    symbols: dict[str, Any] = {"symbolType": "stroke"} if lines else {}
    legend = alt.Legend(columns=4, labelLimit=300, **symbols)
    dashes = alt.Scale(domain=list(names), range=[[5, 3] if n in dashed else [1, 0] for n in names])
    data = Rows()
    base = alt.Chart(data.add(rows)).encode(
        x=x,
        color=alt.Color("s:N", title=None, scale=colours(names, palette), legend=legend),
        detail="k:N",
    )
    spans = base.transform_filter("isValid(datum.low)")
    spans = spans.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q"), y2="high:Q")
    dash = alt.StrokeDash("s:N", title=None, scale=dashes, legend=legend)
    marks = base.mark_line(point={"size": 20}) if lines else base.mark_point(filled=True, size=36)
    marks = marks.encode(y=y, strokeDash=dash) if lines else marks.encode(y=y)
    layers = [spans, marks] if any("low" in row for row in rows) else [marks]
    return data.layered(layers, *size) | ({"title": title} if title else {})


def percent_axis(title: str | None, **options: Any) -> Any:
    """An axis of fractions, labelled in percent."""
    import altair as alt

    return alt.Axis(title=title, labelExpr=PERCENT, **options)


def colours(names: Sequence[str], palette: Sequence[str] = PATHS) -> Any:
    """A scale that gives each name a colour of its own, in this order."""
    import altair as alt

    shown = [palette[i % len(palette)] for i in range(len(names))]
    return alt.Scale(domain=list(names), range=shown)


def millions(value: float) -> str:
    """A count in readable units: 301.5 M, 12.4 M, 830 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            scaled = value / size
            digits = 1 if scaled >= 100 else 2
            return f"{scaled:.{digits}f} {unit}"
    return f"{value:.0f}"
