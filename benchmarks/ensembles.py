"""Latency of ensembles of one space in turns: random ones beside MobileNetV4, or given ones.

    python -m benchmarks.ensembles --output=mobile_space.json --plot=mobile_space.png
    python -m benchmarks.ensembles --model_dir=runs/a --architectures=a/best.json,b/best.json

Without `--architectures` it draws two-path ensembles of the space (default:
configs/spaces/mobile.yaml at 224²) whose MACs lie within 2 % of MobileNetV4-Conv-Medium's, all
split points alike, and compares them with it. With `--architectures` it compares these with the
first one. Each is exported as TFLite with random weights and timed in turns: LiteRT with XNNPACK,
float32, one thread, batch 1, processor time. The files stay in the folder `--cache`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import command, timing
from benchmarks.parts.networks import caller, networks, prepare, random_ensemble
from neas_tf.common.console import bar, native_noise_off, quiet_libraries, say
from neas_tf.common.errors import NeasError, check
from neas_tf.common.paths import config_file, resolve_user_path
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.space.zoo import load_architecture, load_space

FORMAT = "neas-ensemble-latency/1"
REFERENCE = "mobilenet_v4_conv_medium"
TOLERANCE = 0.02  # of the reference's MACs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--space", default="", help="YAML file; default: the mobile space")
    parser.add_argument("--model_dir", default="", help="instead of --space: that of a run")
    parser.add_argument("--architectures", default="", help="JSON files or keys, with commas")
    parser.add_argument("--count", type=int, default=24, help="ensembles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3, help="invocations in a turn")
    parser.add_argument("--plot", default="", help="PNG file: the distribution")
    parser.add_argument("--cache", default="runs/mobile_space", help="folder of exported files")
    args = parser.parse_args(arguments)

    def work() -> None:
        command.check_counts(args, count=1, rounds=1, runs=1)
        check(not (args.space and args.model_dir), "--space", args.space, "none with --model_dir")
        mobile = str(config_file("spaces", "mobile.yaml"))
        run = args.model_dir and str(Path(args.model_dir) / "params.yaml")
        space = load_space(run or args.space or mobile)
        cache = Path(resolve_user_path(args.cache))
        cache.mkdir(parents=True, exist_ok=True)
        quiet_libraries()
        if args.architectures:
            given = [load_architecture(x, space) for x in args.architectures.split(",") if x]
            check(len(given) > 1, "--architectures", args.architectures, "two or more")
            first, *chosen = given
            macs = CostTable(space).cost(first).macs
            reference = {"name": first.key, "macs": macs, "path": exported(first, space, cache)}
        else:
            found = prepare(networks()[REFERENCE], "float32", cache)
            reference = {"name": REFERENCE, "macs": found["macs"], "path": found["paths"][0]}
            chosen = sample(space, found["macs"], args.count, args.seed)
        report = measure(space, chosen, reference, cache, args.rounds, args.runs)
        if args.plot:
            command.write_plot(draw(report), args.plot)
        command.write_report(report, args.output, "ensembles", arguments)
        say(summary(report))

    return command.exit_code(work)


def sample(space: SearchSpace, macs: int, count: int, seed: int) -> list[Architecture]:
    """Different two-path ensembles with these MACs within the tolerance."""
    shrunk, table = ShrunkSpace.full(space, 2), CostTable(space)
    budget = Budget(max_macs=round(macs * (1 + TOLERANCE)), min_macs=round(macs * (1 - TOLERANCE)))
    budget.check_attainable(shrunk, table)
    draw_one = BudgetSampler(shrunk, table, budget, even_splits=True).sample
    rng, found = np.random.default_rng(seed), {}
    for _ in range(100 * count):
        architecture = draw_one(rng)
        found[architecture.key] = architecture
        if len(found) == count:
            return list(found.values())
    raise NeasError(
        f"--count: received {count}, expected at most {len(found)}: no more were found."
    )


def measure(
    space: SearchSpace,
    chosen: Sequence[Architecture],
    reference: dict[str, Any],
    cache: Path,
    rounds: int,
    runs: int,
) -> dict[str, Any]:
    """Exports what is not in the cache and times all of them in turns with the reference."""
    name = reference["name"]
    calls = {name: caller([reference["path"]])}
    with bar("exporting", len(chosen), "ensembles", leave=False) as progress:
        for architecture in chosen:
            calls[architecture.key] = caller([exported(architecture, space, cache)])
            progress.update()
    with bar("timing", (rounds + 1) * len(calls), "turns", leave=False) as progress:
        times = timing.interleaved(calls, rounds, runs, tick=progress.update)
    table = CostTable(space)
    rows = [
        {
            "architecture": one.key,
            "macs": cost.macs,
            "params": cost.params,
            "ratio": round(timing.ratio(times[one.key], times[name]), 3),
            **timing.spread(times[one.key]),
        }
        for one, cost in ((one, table.cost(one)) for one in chosen)
    ]
    ratios = np.array([row["ratio"] for row in rows])
    return {
        "format": FORMAT,
        "space": space.name,
        "reference": {"name": name, "macs": reference["macs"], **timing.spread(times[name])},
        "ensembles": rows,
        "ratio_percentiles": {
            str(p): round(float(np.percentile(ratios, p)), 3) for p in (0, 10, 25, 50, 75, 90, 100)
        },
        "as_fast": int((ratios <= 1.0).sum()),
        "rounds": rounds,
        "runs": runs,
        "machine": timing.machine(),
    }


def exported(architecture: Architecture, space: SearchSpace, cache: Path) -> Path:
    """The TFLite file of an ensemble with random weights, made where it is not there yet."""
    from neas_tf.export.formats import export_tflite

    digest = hashlib.sha256(f"{space.fingerprint()} {architecture.key}".encode()).hexdigest()[:16]
    path = cache / f"ensemble-{digest}.tflite"
    if not path.is_file():
        model, info = random_ensemble(architecture, space)
        with native_noise_off():
            # The logits of random weights are large, and so is their rounding.
            export_tflite(model, info, path, tolerance=1e-2)
    return path


def summary(report: dict[str, Any]) -> str:
    """One sentence."""
    found, reference = report["ratio_percentiles"], report["reference"]
    return (
        f"{report['as_fast']} of {len(report['ensembles'])} ensembles are as fast as {reference['name']} "
        f"({reference['ms']:.2f} ms) or faster; ratio of latencies: median {found['50']}, from "
        f"{found['0']} to {found['100']}."
    )


def draw(report: dict[str, Any]) -> bytes:
    """The distribution of latencies as a PNG."""
    import altair as alt

    from neas_tf.report import style

    times, reference = [row["ms"] for row in report["ensembles"]], report["reference"]
    data = style.Rows()
    bars = alt.Chart(data.add([{"t": time} for time in times]))
    line = alt.Chart(data.add([{"t": reference["ms"], "name": reference["name"]}]))
    colour = alt.Color("name:N", title=None, scale=alt.Scale(range=["@orange"]))
    chart = alt.layer(
        bars.mark_bar(color="@sky").encode(
            x=alt.X(
                "t:Q",
                bin=alt.Bin(maxbins=14),
                title="latency, ms",
                axis=alt.Axis(labelOverlap=True),
            ),
            y=alt.Y("count():Q", title="ensembles"),
        ),
        line.mark_rule(strokeWidth=2).encode(x=alt.X("t:Q"), color=colour),
    )
    spec = data.spec(chart.properties(width=520, height=260))
    facts = f"{report['as_fast']} of {len(times)} are as fast or faster; median ratio "
    facts += f"{report['ratio_percentiles']['50']}"
    return style.to_png(spec, f"Latency of ensembles of the space {report['space']!r}", facts)


if __name__ == "__main__":
    sys.exit(main())
