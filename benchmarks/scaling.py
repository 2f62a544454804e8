"""Estimates, nothing is run: what a step, a training and a search cost on accelerators.

    python -m benchmarks.scaling [--batch_size=1024] [--images_per_core=190]

For the paper's space and ImageNet recipe with two paths. All amounts come from the cost table and the
shapes of the layers; the times are what the hardware's published peaks allow, each term by itself.
Prints Markdown (docs/scaling.md), or JSON with --json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from neas_tf.common.errors import NeasError, check_int
from neas_tf.cost.cost_table import METRICS, CostTable
from neas_tf.operators import Operator, operator_steps
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

IMAGES, HELD_OUT = 1_281_167, 0.1  # ImageNet's training images, and the share for the search
EPOCHS, PATHS = 120, 2
CANDIDATES, CALIBRATION, VALIDATION = 50 * 20, 2_048, 10_000
PAPER_GPU_DAYS = 12.0
# Passes over memory of a map that is kept for the backward pass: written and read forward, read again
# backward, and its gradient written and read.
PASSES = 5
# Of a weight: weight and momentum read and written, gradient written and read.
UPDATE_PASSES = 6


@dataclasses.dataclass(frozen=True)
class Machine:
    """A published machine.

    Attributes:
      name: for people.
      devices: how many (chips).
      flops: peak of one in FLOP/s at `bytes` bytes a number.
      bandwidth: of its memory, bytes/s.
      memory: of one, bytes.
      link: bytes/s that it can send to others while it receives as much.
      bytes: of a number in the activations.
      cores: of its hosts' processors.
      source: of the figures.
    """

    name: str
    devices: int
    flops: float
    bandwidth: float
    memory: float
    link: float
    bytes: int
    cores: int
    source: str


_V100 = {"devices": 8, "bandwidth": 900e9, "memory": 32e9, "link": 150e9, "cores": 40}
_V100["source"] = "NVIDIA V100 datasheet (SXM2, 32 GB), DGX-1 datasheet"
MACHINES = (
    Machine("8 × V100, float32", flops=15.7e12, bytes=4, **_V100),
    Machine("8 × V100, float16", flops=125e12, bytes=2, **_V100),
    Machine(
        "8 × A100, bfloat16",
        devices=8,
        flops=312e12,
        bytes=2,
        bandwidth=2039e9,
        memory=80e9,
        link=300e9,
        cores=128,
        source="NVIDIA A100 datasheet (SXM4, 80 GB), DGX A100 datasheet",
    ),
    # All-reduce bandwidth of a pod, 340 TB/s, over its 1024 chips; four hosts of 96 vCPUs.
    Machine(
        "TPU v3-32, bfloat16",
        devices=16,
        flops=123e12,
        bytes=2,
        bandwidth=900e9,
        memory=32 * 2**30,
        link=340e12 / 1024,
        cores=192,
        source="Google Cloud documentation, TPU v3",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, 2 after bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=1024, help="of all devices together")
    parser.add_argument(
        "--images_per_core",
        type=int,
        default=190,
        help="decoded, cropped and augmented a second by one CPU core (benchmarks.input_pipeline)",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    try:
        check_int("--batch_size", args.batch_size, 1)
        check_int("--images_per_core", args.images_per_core, 1)
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    amounts = network_amounts(SearchSpace(), PATHS)
    rows = [
        estimate(machine, amounts, args.batch_size, args.images_per_core) for machine in MACHINES
    ]
    report = {"batch_size": args.batch_size, "amounts": amounts, "machines": rows}
    print(json.dumps(report) if args.json else tables(report))
    return 0


def operator_maps(layer: Any, operator: Operator) -> int:
    """Numbers an image that one operator keeps for the backward pass.

    Of a convolution its output, the normalised output and, if there is one, the activation's; of
    squeeze-excite the product.
    """
    total = 0
    for step in operator_steps(operator, layer):
        kept = 1 if step.kind == "squeeze_excite" else 2 + (step.activation is not None)
        total += kept * step.out_size[0] * step.out_size[1] * step.c_out
    return total


def network_amounts(space: SearchSpace, paths: int, draws: int = 2000) -> dict[str, float]:
    """Amounts of the supernet and, as means over training draws, of a drawn ensemble.

    Returns:
      `macs`, `params`: of the drawn ensemble (forward, an image); `supernet_params`: of everything
      that is trained; `maps`: numbers an image that are kept for the backward pass; `widest`: the
      most `maps` of a draw.
    """
    table = CostTable(space)
    codes = draws_for_steps(ShrunkSpace.full(space, paths), 0, 0, draws)
    costs = table.costs(codes, paths)
    operators = [Operator.parse(name) for name in space.operators]
    maps = [
        [operator_maps(layer, op) if op.name in layer.operators else 0 for op in operators]
        for layer in space.layers
    ]
    fixed = _fixed_maps(space, paths)
    kept = []
    for code in codes.tolist():
        split, rows = code[0], [code[1:][k * space.num_layers :][: space.num_layers] for k in range(paths)]  # fmt: skip
        kept.append(fixed + sum(maps[m][rows[0][m]] for m in range(split)))
        kept[-1] += sum(maps[m][row[m]] for row in rows for m in range(split, space.num_layers))
    assert set(METRICS) <= set(costs)
    return {
        "macs": float(costs["macs"].mean()),
        "params": float(costs["params"].mean()),
        "supernet_params": float(table.operators["params"].sum() + table.fixed("params", paths)),
        "maps": statistics.mean(kept),
        "widest": float(max(kept)),
    }


def _fixed_maps(space: SearchSpace, paths: int) -> int:
    """The same for stem, fixed layer and heads."""
    stem = 3 * space.stem_size[0] * space.stem_size[1] * space.stem_channels
    block = 0
    if space.block_channels:
        area = space.block_size[0] * space.block_size[1]
        block = area * (4 * space.stem_channels + 2 * space.block_channels)
    height, width = space.layers[-1].out_size
    head = 3 * height * width * space.head_channels + 2 * space.feature_channels
    return stem + block + paths * (head + space.num_classes)


def estimate(
    machine: Machine, amounts: dict[str, float], batch_size: int, images_per_core: float
) -> dict[str, Any]:
    """Seconds of each term of a step, whole times, memory, and what the input must deliver."""
    own = batch_size / machine.devices
    maps = amounts["maps"] * own * machine.bytes
    ring = 2 * (machine.devices - 1) / machine.devices / machine.link
    update = UPDATE_PASSES * 4 / machine.bandwidth
    seconds = {
        "arithmetic": 6 * amounts["macs"] * own / machine.flops,
        "maps": PASSES * maps / machine.bandwidth,
        "update_all": update * amounts["supernet_params"],
        "update_drawn": update * amounts["params"],
        "reduce_all": 4 * amounts["supernet_params"] * ring,
        "reduce_drawn": 4 * amounts["params"] * ring,
    }
    together = ("arithmetic", "maps", "update_all", "reduce_all")
    devices = sum(seconds[name] for name in together)
    seconds["input"] = batch_size / images_per_core / machine.cores
    step = max(devices, seconds["input"])  # the input is made while the devices work
    steps = IMAGES * (1 - HELD_OUT) * EPOCHS / batch_size
    forward = CANDIDATES * (CALIBRATION + VALIDATION) / machine.devices
    # A forward pass writes and reads the maps once.
    search = forward * (
        2 * amounts["macs"] / machine.flops
        + 2 * amounts["maps"] * machine.bytes / machine.bandwidth
    )
    weights = 4 * 3 * amounts["supernet_params"]  # with momentum and dense gradient
    return {
        "machine": machine.name,
        "source": machine.source,
        "seconds": seconds,
        "devices_seconds": devices,
        "step_seconds": step,
        "limit": max(together, key=lambda name: seconds[name]) if step == devices else "input",
        "reduced_bytes_all": 4 * amounts["supernet_params"],
        "reduced_bytes_drawn": 4 * amounts["params"],
        "images_per_second": batch_size / step,
        "cores": machine.cores,
        "cores_to_keep_up": batch_size / devices / images_per_core,
        "memory_maps": maps * amounts["widest"] / amounts["maps"],
        "memory_weights": weights,
        "memory": machine.memory,
        "training_hours": steps * step / 3600,
        "training_device_days": steps * step * machine.devices / 86400,
        "training_device_days_fed": steps * devices * machine.devices / 86400,
        "search_device_hours": search * machine.devices / 3600,
    }


def tables(report: dict[str, Any]) -> str:
    """The estimates as Markdown."""
    amounts, rows = report["amounts"], report["machines"]
    flops = 6 * amounts["macs"] * report["batch_size"]
    lines = [
        "| amount | |",
        "|---|---|",
        f"| MACs an image, forward (mean of the draws) | {amounts['macs'] / 1e6:,.0f} M |",
        f"| FLOPs a step of {report['batch_size']} images | {flops / 1e12:.2f} T |",
        f"| parameters: supernet / drawn ensemble | {amounts['supernet_params'] / 1e6:.1f} M / {amounts['params'] / 1e6:.1f} M |",
        f"| gradient, float32: supernet / drawn ensemble | {4 * amounts['supernet_params'] / 1e6:.0f} MB / {4 * amounts['params'] / 1e6:.0f} MB |",
        f"| numbers an image that the backward pass needs (mean / most) | {amounts['maps'] / 1e6:.1f} M / {amounts['widest'] / 1e6:.1f} M |",
        "",
    ]
    fields = (
        ("arithmetic, ms", lambda r: f"{r['seconds']['arithmetic'] * 1e3:.1f}"),
        ("maps through memory, ms", lambda r: f"{r['seconds']['maps'] * 1e3:.1f}"),
        ("update of all weights / drawn, ms", lambda r: _two(r, "update")),
        ("all-reduce of all / drawn, ms", lambda r: _two(r, "reduce")),
        ("the devices' step, sum with all weights, ms", lambda r: f"{r['devices_seconds'] * 1e3:.0f}"),
        ("input from all CPU cores, ms", lambda r: f"{r['seconds']['input'] * 1e3:.0f}"),
        ("limits first", lambda r: r["limit"].replace("_all", "")),
        ("images/s", lambda r: f"{r['images_per_second']:,.0f}"),
        ("CPU cores: there / to keep up", lambda r: f"{r['cores']} / {r['cores_to_keep_up']:.0f}"),
        ("memory a device: maps + weights, of, GB", lambda r: f"{r['memory_maps'] / 1e9:.1f} + {r['memory_weights'] / 1e9:.1f} of {r['memory'] / 1e9:.0f}"),
        ("training, hours", lambda r: f"{r['training_hours']:.1f}"),
        ("training, device-days: so / if the input kept up", lambda r: f"{r['training_device_days']:.1f} / {r['training_device_days_fed']:.1f}"),
        ("search, device-hours", lambda r: f"{r['search_device_hours']:.1f}"),
    )  # fmt: skip
    lines.append("| | " + " | ".join(row["machine"] for row in rows) + " |")
    lines.append("|---" * (1 + len(rows)) + "|")
    lines += [
        f"| {name} | " + " | ".join(show(row) for row in rows) + " |" for name, show in fields
    ]
    return "\n".join(lines)


def _two(row: dict[str, Any], name: str) -> str:
    return " / ".join(f"{row['seconds'][f'{name}_{kind}'] * 1e3:.2f}" for kind in ("all", "drawn"))


if __name__ == "__main__":
    sys.exit(main())
