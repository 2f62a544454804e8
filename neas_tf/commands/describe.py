"""Prints what an ensemble is and costs, without building it.

python -m neas_tf.describe --arch=neas_s --format=text
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, fail
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import NANOSECONDS, LatencyTable, load_table
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture, load_space

_SIZE = re.compile(r"\s*(\d{1,6})\s*(?:[x×,]\s*(\d{1,6})\s*)?", re.ASCII)
_BAR = 16  # characters of the longest bar
_MAX_LANES = 8  # paths that are drawn as lanes of their own


def describe(
    architecture: Architecture,
    space: SearchSpace | None = None,
    latency: LatencyTable | None = None,
) -> dict[str, Any]:
    """Everything the command prints, as plain data.

    Args:
      architecture: the ensemble.
      space: its space, the paper's by default.
      latency: of the space's operators, for `latency_ms` (predicted; None without a table) and
        `latency_of` (the table's device, threads and quantization).

    Returns:
      A mapping with `name`, `key`, `split_point`, `num_paths`, `macs`, `paper_flops`, `params`,
      `shared_macs`, `path_macs` (after the split, head included), `space`, `input_size`,
      `num_classes`, `official` (the authors' list, None where it cannot say it) and `layers`: one
      entry per part from the stem to the classifiers, with `part`, `layer`, `stage`, `shared`,
      `operators` (one, or one per path), `in_shape` and `out_shape` (height, width, channels),
      and its `macs` and `params`, all paths together.

    Raises:
      NeasError: when the architecture is not in the space.
    """
    space = space or SearchSpace()
    table = CostTable(space, latency)
    if latency is not None:
        latency.check_fits(space, architecture.num_paths)
    cost = table.cost(architecture)
    try:
        official = architecture.to_official()
    except NeasError:
        official = None
    return {
        "name": architecture.name,
        "key": architecture.key,
        "split_point": architecture.split_point,
        "num_paths": architecture.num_paths,
        "macs": cost.macs,
        "paper_flops": cost.paper_flops,
        "params": cost.params,
        "shared_macs": cost.shared_macs,
        "path_macs": list(cost.path_macs),
        "latency_ms": None if cost.latency_ns is None else cost.latency_ns / NANOSECONDS,
        "latency_of": None if latency is None else latency.identity(),
        "space": space.name,
        "input_size": list(space.input_size),
        "num_classes": space.num_classes,
        "official": official,
        "layers": _parts(architecture, space, table),
    }


def _parts(
    architecture: Architecture, space: SearchSpace, table: CostTable
) -> list[dict[str, Any]]:
    paths = architecture.num_paths

    def part(name, operators, size_in, c_in, size_out, c_out, amounts, layer=None, stage=None):
        return {
            "part": name,
            "layer": layer,
            "stage": stage,
            "shared": len(amounts) == 1 and name not in ("head", "classifier"),
            "operators": operators,
            "in_shape": [*size_in, c_in],
            "out_shape": [*size_out, c_out],
            "macs": int(sum(a[0] for a in amounts)),
            "params": int(sum(a[1] for a in amounts)),
        }

    def fixed(name: str, copies: int = 1) -> list[tuple[int, int]]:
        return [(table.parts[name].macs, table.parts[name].params)] * copies

    kernel, stem = space.stem_kernel, space.stem_channels
    result = [
        part(
            "stem",
            [f"conv {kernel}×{kernel}"],
            space.input_size,
            space.input_channels,
            space.stem_size,
            stem,
            fixed("stem"),
        )
    ]
    if "block" in table.parts:
        shapes = (space.stem_size, stem, space.block_size, space.block_channels)
        result.append(part("block", ["separable 3×3"], *shapes, fixed("block")))
    for m, layer in enumerate(space.layers):
        shared = layer.number <= architecture.split_point
        column = [row[m] for row in architecture.paths][: 1 if shared else None]
        index = [space.operator_index(name) for name in column]
        amounts = [(table.operators["macs"][m, i], table.operators["params"][m, i]) for i in index]
        shapes = (layer.in_size, layer.c_in, layer.out_size, layer.c_out)
        entry = part("layer", column, *shapes, amounts, layer.number, layer.stage + 1)
        entry["shared"] = shared
        result.append(entry)
    size, head = space.layers[-1].out_size, space.head_channels
    shapes = (size, space.out_channels, size, head)
    result.append(part("head", ["conv 1×1"], *shapes, fixed("head", paths)))
    shapes = (size, head, (1, 1), space.num_classes)
    result.append(part("classifier", ["pool, 2 dense"], *shapes, fixed("classifier", paths)))
    return result


def format_text(description: Mapping[str, Any]) -> str:
    """The description as text: a summary, and a table with the ensemble drawn on its left."""
    d = description
    height, width = d["input_size"]
    own = ", ".join(_millions(v) for v in d["path_macs"])
    lines = [
        f"{d['name'] or 'ensemble'}: {d['num_paths']} path{'s' * (d['num_paths'] > 1)}, "
        f"split after layer {d['split_point']}",
        "",
        f"  key          {d['key']}",
        f"  space        {d['space']}: input {height}×{width}, {d['num_classes']} classes",
        f"  MACs         {d['macs']:,}  (shared {_millions(d['shared_macs'])}, each path {own})",
        f"  paper FLOPs  {d['paper_flops']:,}",
        f"  parameters   {d['params']:,}",
    ]
    if d["latency_ms"] is not None:
        of = d["latency_of"]
        kind = "float32" if of["quantize"] == "none" else of["quantize"]
        lines.append(
            f"  latency      {d['latency_ms']:.3g} ms predicted ({kind}, "
            f"{of['device'] or 'unnamed device'})"
        )
    lines.append("")
    rows = [_row(entry, d["macs"]) for entry in d["layers"]]
    header = ("layer", "stage", "operators", "in", "out", "M MACs", "params", "share")
    right = (True, True, False, True, True, True, True, True)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    longest = max(entry["macs"] for entry in d["layers"]) or 1
    lanes = min(d["num_paths"], _MAX_LANES)
    gutter = 3 * lanes

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(cells, widths, right, strict=True)
        )

    lines += [f"  {'':{gutter}}{line(header)}".rstrip()]
    lines += [f"  {'':{gutter}}{'─' * len(line(header))}"]
    forked = False
    for entry, row in zip(d["layers"], rows, strict=True):
        if not entry["shared"] and not forked:
            forked = True
            if lanes > 1:
                lines.append("  ├" + "──┬" * (lanes - 2) + "──╮")
        mark = "│" if row[2].strip(" |") in ("", "skip") else "●"
        if forked and entry["part"] == "layer":
            marks = ["│" if name == "skip" else "●" for name in entry["operators"][:lanes]]
        else:
            marks = [mark] * (lanes if forked else 1)
        drawn = "".join(f"{m}  " for m in marks)
        bar = "█" * round(_BAR * entry["macs"] / longest)
        lines.append(f"  {drawn:{gutter}}{line(row)}  {bar}".rstrip())
    if lanes > 1:
        lines.append("  ├" + "──┴" * (lanes - 2) + "──╯")
        lines.append("  ▼  mean of the paths' logits")
    else:
        lines.append("  ▼  logits")
    if d["num_paths"] > lanes:
        lines.append(f"  ({lanes} of {d['num_paths']} paths are drawn)")
    return "\n".join(lines) + "\n"


def _row(entry: Mapping[str, Any], total: int) -> tuple[str, ...]:
    shapes = ["×".join(map(str, entry[k])) for k in ("in_shape", "out_shape")]
    name = str(entry["layer"]) if entry["layer"] else entry["part"]
    return (
        name,
        str(entry["stage"] or ""),
        " | ".join(f"{op:4}" for op in entry["operators"]).rstrip(),
        *shapes,
        f"{entry['macs'] / 1e6:.2f}",
        f"{entry['params']:,}",
        f"{100 * entry['macs'] / total:.1f} %",
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def parse_size(text: str) -> tuple[int, int]:
    """`224` or `192x256` (height, width)."""
    match = _SIZE.fullmatch(text)
    if not match:
        fail("input_size", text, "a number such as 224, or height x width such as 192x256")
    return int(match[1]), int(match[2] or match[1])


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("arch", None, "Zoo name, JSON file, official list or canonical key.")
    flags.DEFINE_string("space", None, "YAML or JSON file with the search space (paper's if none).")
    flags.DEFINE_string("input_size", None, "Image size, such as 224 or 192x256.")
    flags.DEFINE_integer("num_classes", None, "Number of classes.")
    flags.DEFINE_string(
        "latency_table", None, "Table of neas_tf.measure_latency: predicts the latency."
    )
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command_line.exit_code("neas_tf.describe", None, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    command_line.flags_only(argv)
    if not values.arch:
        fail("arch", values.arch, "a zoo name, JSON file, official list or canonical key")
    space = load_space(values.space) if values.space else SearchSpace()
    if values.input_size is not None:
        space = dataclasses.replace(space, input_size=parse_size(values.input_size))
    if values.num_classes is not None:
        space = dataclasses.replace(space, num_classes=values.num_classes)
    latency = load_table(values.latency_table) if values.latency_table else None
    description = describe(load_architecture(values.arch), space, latency)
    if values.format == "json":
        console.show(json.dumps(description, indent=2))
    else:
        console.show(format_text(description).removesuffix("\n"))


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
