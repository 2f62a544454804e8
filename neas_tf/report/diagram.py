"""The ensemble as a branched diagram: shared trunk, K branches, heads, mean (paper Fig. 3b), as SVG.

Drawn in two parts, so that the page can show any candidate: a frame for each split point, and one
box for each operator, which `place` puts into the frame (in the page a few lines of JavaScript do).
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neas_tf.operators import Operator
from neas_tf.report import style
from neas_tf.report.run_files import number
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

# All in pixels.
COLUMN, STEM_COLUMN = 48, 60  # from one layer to the next, and between the fixed layers of the stem
ROW = 92  # from one path to the next
TALLEST, BOX = 70, 36  # height of the largest kernel's box, width of a box
GAP = 0.8  # columns added where the trunk forks and where the paths join
BELOW = 58  # for numbers, channels and resolutions
# Of the diagram's classes: what they set, by colours of `style`.
_CLASSES = {
    ".d-text": "font:11px sans-serif;fill:@ink",
    ".d-soft": "font:10px sans-serif;fill:@grey",
    ".d-band": "fill:@faint",
    ".d-wire": "fill:none;stroke:@grey;stroke-width:1.5",
    ".d-rule": "fill:none;stroke:@ink;stroke-dasharray:5 4",
    ".d-skip": "fill:none;stroke:@ink;stroke-dasharray:3 3",
    ".d-gap": "fill:none;stroke:@card;stroke-width:2.5;stroke-dasharray:4 4",
    ".d-box": "stroke:@ink;stroke-width:0.8",
    ".d-fixed": "fill:@fixed",
    ".d-dark": "fill:@ink",
    ".d-ondark": "font:11px sans-serif;fill:@paper",
    **{f".d-e{i}": f"fill:@expand{i}" for i in range(1, 6)},
}


@dataclasses.dataclass(frozen=True)
class Frame:
    """A diagram without its operators.

    Attributes:
      width, height: of the whole.
      body: its elements, of which the operators' boxes come last.
      layers: x of each layer's middle.
      trunk: y of the shared layers.
      rows: y of each path.
    """

    width: float
    height: float
    body: str
    layers: tuple[float, ...]
    trunk: float
    rows: tuple[float, ...]


def stylesheet(palette: Mapping[str, str]) -> str:
    """CSS of the diagram; `palette` maps the names of colours to what they are."""
    text = "".join(f"{name}{{{rule}}}" for name, rule in _CLASSES.items())
    return re.sub(r"@(\w+)", lambda match: palette[match[1]], text)


def draw_architecture(architecture: Architecture, space: SearchSpace, cost: Any = None) -> str:
    """Draws any ensemble of a space as a whole SVG document.

    Colour is the expansion, the length (height) of a box the kernel size, a skip a thin dashed
    line.

    Args:
      architecture: the ensemble.
      space: gives channels and resolutions.
      cost: optional mapping (or object) with `macs`, `paper_flops`, `params` for the title, and
        `shared_macs`, `path_macs` (one number a path) for the labels.

    Raises:
      NeasError: when the space does not contain the architecture's operators.
    """
    architecture.check_in(space)
    made = frame(space, architecture.split_point, architecture.num_paths, cost)
    used = {name for row in architecture.paths for name in row}
    entries, width = legend(space, used)
    name = architecture.name or "Ensemble"
    title = f"{name}: {architecture.num_paths} paths, split after layer "
    title += f"{architecture.split_point} of {space.num_layers}"
    if architecture.num_paths == 1:
        title = f"{name}: 1 path of {space.num_layers} layers"
    width = max(width, made.width, 9 * len(title)) + 24
    height = made.height + 96
    parts = [
        f"<style>{stylesheet(style.LIGHT)}.d-title{{font:bold 16px sans-serif}}</style>",
        f"<defs>{''.join(symbol(n, space.operators) for n in sorted(used))}</defs>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        _text(12, 24, title, "d-title", "start"),
        _text(12, 42, _facts(space, cost), "d-soft", "start"),
        f'<g transform="translate({(width - made.width) / 2:g},52)">{made.body}'
        f"{place(made, architecture)}</g>",
        f'<g transform="translate(12,{made.height + 72:g})">{entries}</g>',
    ]
    return svg(width, height, "".join(parts))


def svg(width: float, height: float, body: str, attributes: str = "") -> str:
    """An SVG element."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}{attributes}>{body}</svg>'


def to_png(picture: str) -> bytes:
    """PNG bytes of an SVG, at twice its size."""
    import vl_convert

    return style.small(vl_convert.svg_to_png(picture, scale=2))


def pieces(space: SearchSpace, architectures: Iterable[Architecture], key: str) -> tuple[str, str]:
    """What a page needs to draw these ensembles, as (frames and boxes, legend).

    Ensembles with other layers than the space are left out. `key` is the prefix of all ids:
    `key-frame-PATHS-SPLIT` are templates that say where layers lie, `key-op-NAME` the operators' boxes.
    """
    fitting = [a for a in architectures if a.num_layers == space.num_layers]
    parts = []
    for paths, split in sorted({(a.num_paths, a.split_point) for a in fitting}):
        made = frame(space, split, paths)
        xs, ys = (" ".join(map(str, values)) for values in (made.layers, made.rows))
        places = f'data-x="{xs}" data-y="{ys}" data-trunk="{made.trunk}"'
        picture = svg(made.width, made.height, made.body, ' role="img"')
        parts.append(f'<template id="{key}-frame-{paths}-{split}" {places}>{picture}</template>')
    boxes = "".join(symbol(name, space.operators, f"{key}-op-") for name in space.operators)
    parts.append(svg(0, 0, f"<defs>{boxes}</defs>", ' aria-hidden="true"'))
    entries, width = legend(space, space.operators)
    return "".join(parts), svg(width, 22, f'<g transform="translate(0,15)">{entries}</g>')


def place(made: Frame, architecture: Architecture) -> str:
    """The operators of an ensemble in the frame of its split point."""
    split = architecture.split_point
    found = []
    for k, (path, y) in enumerate(zip(architecture.paths, made.rows, strict=True)):
        for i, (x, name) in enumerate(zip(made.layers, path, strict=True)):
            if i >= split or k == 0:
                level = made.trunk if i < split else y
                found.append(f'<use href="#{name}" x="{x:g}" y="{level:g}"/>')
    return "".join(found)


def symbol(name: str, operators: Sequence[str], prefix: str = "") -> str:
    """An operator's box around (0, 0), as an element with the id `prefix` + `name`."""
    operator = Operator.parse(name)
    identity = f'<g id="{prefix}{name}">'
    if operator.is_skip:
        # Makes the wire behind it a dashed one.
        return f'{identity}<path class="d-gap" d="M{-COLUMN / 2:g} 0H{COLUMN / 2:g}"/></g>'
    largest = max([7, *(Operator.parse(n).kernel for n in operators)])
    height = max(TALLEST * operator.kernel / largest, 14)
    look = f"d-e{_expansions(operators)[operator.expansion]}"
    return f"{identity}{_box(0, 0, height, look, operator.label)}</g>"


def legend(space: SearchSpace, used: Iterable[str]) -> tuple[str, float]:
    """(elements, width in pixels) of the key to the boxes of the operators `used`."""
    parsed, looks = [Operator.parse(name) for name in used], _expansions(space.operators)
    entries = [
        (f"d-e{looks[e]}", f"expansion {e}" if e else "no expansion")
        for e in sorted({o.expansion for o in parsed if not o.is_skip})
    ]
    entries.append(("d-fixed", "fixed part"))
    kernels = ", ".join(f"{k}×{k}" for k in sorted({o.kernel for o in parsed if o.kernel}))
    if kernels:
        entries.append(("", f"box height: kernel ({kernels})"))
    if any(o.is_skip for o in parsed):
        entries.append(("d-skip", "skip (identity)"))
    x, parts = 0.0, []
    for look, words in entries:
        if look == "d-skip":
            parts.append(f'<path class="d-skip" d="M{x:g} -4h14"/>')
        elif look:
            parts.append(f'<rect class="d-box {look}" x="{x:g}" y="-10" width="14" height="12"/>')
        else:
            parts.append(f'<path class="d-wire" d="M{x + 7:g} -12v16"/>')
        parts.append(_text(x + 20, 0, words, "", "start"))
        x += 44 + 6.2 * len(words)
    return "".join(parts), x


def frame(space: SearchSpace, split: int, num_paths: int, cost: Any = None) -> Frame:
    """The diagram of ensembles of a space that split after this layer, without their operators."""
    columns = 2 if space.block_channels else 1
    stem = tuple(50 + STEM_COLUMN * i for i in range(columns))
    x, layers = stem[-1] + (STEM_COLUMN - COLUMN) / 2, []
    fork = x + COLUMN / 2
    for i in range(space.num_layers + 1):
        if i == split:
            fork, x = x + COLUMN / 2, x + COLUMN * GAP
        x += COLUMN
        layers.append(x)
    head = layers.pop() + COLUMN * 0.1
    dense = head + COLUMN
    join = dense + COLUMN / 2
    mean = join + COLUMN * (GAP + 0.5)
    trunk = 26 + ROW * num_paths / 2
    rows = tuple(trunk + ROW * (k - (num_paths - 1) / 2) for k in range(num_paths))
    bottom = trunk + ROW * num_paths / 2
    made = Frame(mean + 52, bottom + BELOW, "", tuple(layers), trunk, rows)
    parts = [*_bands(made, space, bottom), *_fixed(space, stem, head, dense, bottom)]
    parts.append(_wire(f"M6 {trunk:g}H{fork:g}"))
    for centre, kernel in zip(stem, (space.stem_kernel, 3), strict=False):
        parts.append(_box(centre, trunk, 10 * kernel, "d-fixed", f"{kernel}×{kernel}"))
    first = (*layers, head)[split] - COLUMN / 2
    each = _value(cost, "path_macs")
    each = each if isinstance(each, (list, tuple)) and len(each) == num_paths else None
    for k, y in enumerate(rows):
        parts += [_curve(fork, trunk, first, y), _wire(f"M{first:g} {y:g}H{join:g}")]
        parts += [_box(head, y, 30, "d-fixed", "1×1"), _box(dense, y, 30, "d-fixed", "FC")]
        parts.append(_curve(join, y, mean - 20, trunk))
        words = f"path {k + 1}"
        if each is not None and number(each[k]) is not None:
            words += f": {style.millions(each[k])}"
        parts.append(_text((head + dense) / 2, y - 22, words, "d-soft"))
    shared = number(_value(cost, "shared_macs"))
    extra = f", {style.millions(shared)} MACs" if shared is not None else ""
    what = f"shared by all paths{extra}" if split else "shared"
    parts += [
        _text(fork - 6, 16, what, "", "end"),
        _text(fork + 6, 16, "one per path", "", "start"),
        f'<path class="d-rule" d="M{fork:g} 4V{bottom:g}"/>',
        f'<circle class="d-dark" cx="{fork:g}" cy="{trunk:g}" r="4"/>',
        _wire(f"M{mean:g} {trunk:g}H{mean + 44:g}m-7 -5l7 5l-7 5"),
        _box(mean, trunk, 32, "d-dark", "mean", "d-ondark", 44),
    ]
    return dataclasses.replace(made, body="".join(parts))


def _bands(made: Frame, space: SearchSpace, bottom: float) -> list[str]:
    """Shades every other stage; layer numbers, channels and resolution below."""
    parts = []
    for i, stage in enumerate(space.stages):
        members = [j for j, layer in enumerate(space.layers) if layer.stage == i]
        x0, x1 = made.layers[members[0]] - COLUMN / 2, made.layers[members[-1]] + COLUMN / 2
        if i % 2 == 0:
            size = f'x="{x0:g}" y="24" width="{x1 - x0:g}" height="{bottom - 24:g}"'
            parts.append(f'<rect class="d-band" {size}/>')
        parts.append(_wire(f"M{x0 + 4:g} {bottom + 21:g}H{x1 - 4:g}"))
        sides = _sides(space.layers[members[-1]].out_size)
        parts.append(_lines((x0 + x1) / 2, bottom + 36, f"{stage.channels} ch\n{sides}", ""))
    for x, layer in zip(made.layers, space.layers, strict=True):
        parts.append(_text(x, bottom + 14, layer.number, "d-soft"))
    return parts


def _fixed(space: SearchSpace, stem: Sequence[float], head: float, dense: float, bottom: float):
    """Names and sizes below the stem and the heads."""
    names = [("stem", space.stem_channels, space.stem_size)]
    if space.block_channels:
        names.append(("dw", space.block_channels, space.block_size))
    parts = []
    for x, (name, channels, size) in zip(stem, names, strict=True):
        parts.append(_text(x, bottom + 14, name, "d-soft"))
        parts.append(_lines(x, bottom + 36, f"{channels} ch\n{_sides(size)}", "d-soft"))
    middle = (head + dense) / 2
    widths = f"{space.head_channels} ch\n{space.feature_channels} → {space.num_classes}"
    return [
        *parts,
        _text(middle, bottom + 14, "heads", "d-soft"),
        _lines(middle, bottom + 36, widths, "d-soft"),
    ]


def _value(cost: Any, name: str) -> Any:
    """A field of a mapping or object; None when it has none."""
    return cost.get(name) if isinstance(cost, Mapping) else getattr(cost, name, None)


def _facts(space: SearchSpace, cost: Any) -> str:
    parts = []
    for name, unit in (("macs", "MACs"), ("paper_flops", "paper FLOPs"), ("params", "parameters")):
        value = number(_value(cost, name))
        if value is not None:
            parts.append(f"{style.millions(value)} {unit}")
    return " · ".join(
        [*parts, f"input {_sides(space.input_size)}", f"{space.num_classes:,} classes"]
    )


def _expansions(operators: Iterable[str]) -> dict[int, int]:
    """Which colour each expansion has; 4 and 6, the paper's, look the same in every picture."""
    found = {o.expansion for o in map(Operator.parse, operators) if not o.is_skip}
    return {e: i % 5 + 1 for i, e in enumerate([4, 6, *sorted(found - {4, 6})])}


def _sides(size: Sequence[int]) -> str:
    return "×".join(map(str, size))


def _box(
    x: float, y: float, height: float, look: str, words: str, ink: str = "", width: float = BOX
) -> str:
    place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}"'
    words = words if height >= 26 else words.split("\n")[0]
    start = y + 4 - 6 * words.count("\n")
    return f'<rect class="d-box {look}" rx="5" {place}/>{_lines(x, start, words, ink)}'


def _lines(x: float, y: float, words: str, look: str) -> str:
    return "".join(_text(x, y + 12 * i, line, look) for i, line in enumerate(words.split("\n")))


def _text(x: float, y: float, words: object, look: str, anchor: str = "middle") -> str:
    return f'<text class="{look or "d-text"}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(str(words))}</text>'


def _wire(path: str) -> str:
    return f'<path class="d-wire" d="{path}"/>'


def _curve(x0: float, y0: float, x1: float, y1: float) -> str:
    middle = (x0 + x1) / 2
    return _wire(f"M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1:g} {y1:g}")
