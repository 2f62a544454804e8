"""The supernet's training step: ours against PyTorch, the machine's limit and bfloat16.

    python -m benchmarks.supernet_step [--quick] [--data_dir=<TFDS folder>] [--output=FILE]

Every implementation trains on the same drawn ensembles, in a worker process of its own, and they
take turns: for each ensemble, each worker does one unmeasured step and then `--runs` that are. Times
are the worker's processor time, one thread unless `--threads` says otherwise.

`alone` is our code traced for one ensemble by itself: only its operators, chosen at tracing. The
machine's limit is the rate of a large float32 1×1 convolution, in turns with the steps; a step
counts as three times the MACs of the drawn ensemble (forward, and backward to inputs and weights).
The first step's seconds begin with the process and leave out `import tensorflow`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.supernet_cases import CASES, Case
from benchmarks.targets import target
from benchmarks.workers import Worker, workers
from neas_tf.common.console import say
from neas_tf.common.errors import NeasError, check_int, unknown_name
from neas_tf.common.files import told, write_json_atomic
from neas_tf.common.paths import resolve_user_path
from neas_tf.cost.cost_table import CostTable

OURS = "benchmarks.supernet_worker"
TORCH = "benchmarks.torch_supernet"
# Name: (layout, text, how many times as fast we want to be).
TORCH_LAYOUTS = {
    "torch": ("default", "torch", 2.5),
    "torch_channels_last": ("channels_last", "torch, channels-last", 1.5),
}
LIMIT_RUNS, ALONE_ROUNDS = 3, 3
FEWEST = 3  # ensembles that are measured however late it is
NO_TIME = "no time was left (--budget)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    args = _parse(arguments)
    try:
        names = [name for name in args.cases.split(",") if name]
        for name in names:
            if name not in CASES:
                unknown_name("--cases", name, CASES)
        for name in ("architectures", "runs", "threads", "first_steps"):
            check_int(f"--{name}", getattr(args, name), 1)
        for name in ("alone", "curve", "budget"):
            check_int(f"--{name}", getattr(args, name), 0)
        result = {"benchmark": "supernet_step", "quick": args.quick, "threads": args.threads}
        result |= {"machine": timing.machine(), "versions": {}, "cases": {}, "targets": []}
        for name in names:
            found = measure(CASES[name], args)
            result["versions"] |= found.pop("versions")
            result["cases"][name] = found
            result["targets"] += targets(CASES[name], found)
        if args.output:
            with told(f"--output {args.output!r}"):
                write_json_atomic(Path(resolve_user_path(args.output)), result)
        else:
            print(json.dumps(result))
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default="k1,k2", help=f"of {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="few ensembles: minutes")
    parser.add_argument("--architectures", type=int, default=0, help="ensembles (24; quick: 5)")
    parser.add_argument("--runs", type=int, default=1, help="measured steps of a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", type=int, default=-1, help="traced alone, K > 1 (6; quick: 2)")
    parser.add_argument("--first_steps", type=int, default=1, help="processes to time it in")
    parser.add_argument("--curve", type=int, default=-1, help="steps of the loss curves (60; 12)")
    parser.add_argument("--data_dir", default="", help="TFDS folder for them; random without")
    parser.add_argument("--no_torch", action="store_true")
    parser.add_argument("--no_bfloat16", action="store_true")
    parser.add_argument(
        "--budget",
        type=int,
        default=0,
        help="seconds of a case after which the rest is left out (quick: 300; 0: none)",
    )
    parser.add_argument("--output", default="", help="JSON file; default: standard output")
    args = parser.parse_args(arguments)
    args.architectures = args.architectures or (5 if args.quick else 24)
    if args.alone < 0:
        args.alone = 2 if args.quick else 6
    if args.curve < 0:
        args.curve = 12 if args.quick else 60
    args.alone = min(args.alone, args.architectures)
    args.budget = args.budget or (300 if args.quick else 0)
    args.data_dir = resolve_user_path(args.data_dir)
    return args


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Everything of one case."""
    begin = time.monotonic()

    def late() -> bool:
        return bool(args.budget) and time.monotonic() - begin > args.budget

    draws = case.draws(args.architectures)
    macs = CostTable(case.space).costs(draws, case.num_paths, ("macs",))["macs"].tolist()
    common = {"codes": draws.tolist(), "threads": args.threads}
    say(f"supernet_step, {case.label}: {len(draws)} ensembles")
    result: dict[str, Any] = {"batch_size": case.batch_size, "num_paths": case.num_paths}
    result |= {"macs_median": statistics.median(macs), "implementations": {}}
    with ExitStack() as stack:
        starts = []
        for number in range(args.first_steps):
            ours = Worker(OURS, (case.name, "float32"), args.threads)
            stack.callback(ours.close)
            starts.append(ours.call("setup", **common).value)
            if number + 1 < args.first_steps:
                ours.close()
        result["first_step"] = _first_step([start["marks"] for start in starts])
        result |= _against_torch(case, args, ours, common, macs, late)
        result["versions"]["tensorflow"] = starts[-1]["tensorflow"]
        result["implementations"]["ours"]["memory_gb"] = ours.call("memory").value
        if case.num_paths > 1 and args.alone:
            result["alone"] = _against_alone(ours, args.alone, late)
        if not args.no_bfloat16:
            result["bfloat16"] = _against_bfloat16(case, args, ours, common, late)
    return result


def _first_step(marks: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Seconds from the process' start to its parts' ends, and to the first step without the import."""
    result: dict[str, Any] = {}
    for clock in ("wall", "cpu"):
        times = [{name: mark[name][clock] for name in mark} for mark in marks]
        imported = [t["tensorflow"] - t["python"] for t in times]
        beyond = [t["first_step"] - one for t, one in zip(times, imported, strict=True)]
        result[f"beyond_import_{clock}_s"] = round(statistics.median(beyond), 2)
        result[f"until_{clock}_s"] = {
            name: round(statistics.median(t[name] for t in times), 2) for name in times[0]
        }
    return result


def _turns(
    found: Mapping[str, Worker],
    count: int,
    runs: int,
    late: Callable[[], bool],
    before: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of processor time a step, by worker: one for each ensemble, fewer when late."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for index in range(count):
        if index >= FEWEST and late():
            break
        before()
        for name, worker in found.items():
            worker.call("step", index=index)
            spent = [worker.call("step", index=index).cpu for _ in range(runs)]
            times[name].append(statistics.mean(spent) * 1e3)
    return times


def _implementation(case: Case, times: Sequence[float]) -> dict[str, Any]:
    speed = case.batch_size / (statistics.median(times) / 1e3)
    return timing.spread(times) | {"images_per_cpu_second": round(speed, 3)}


def _against_torch(
    case: Case,
    args: argparse.Namespace,
    ours: Worker,
    common: Mapping[str, Any],
    macs: Sequence[int],
    late: Callable[[], bool],
) -> dict[str, Any]:
    result: dict[str, Any] = {"versions": {}}
    layouts = {} if args.no_torch else TORCH_LAYOUTS
    commands = {name: (TORCH, (case.name, layout)) for name, (layout, *_) in layouts.items()}
    rates: list[float] = []
    with workers(commands, args.threads) as others:
        try:
            for worker in others.values():
                result["versions"]["torch"] = worker.call("setup", **common).value["torch"]
        except NeasError as error:
            result["torch_missing"] = str(error)[-200:]
            others = {}
        times = _turns(
            {"ours": ours} | others,
            len(macs),
            args.runs,
            late,
            lambda: rates.append(ours.call("limit_run", count=LIMIT_RUNS).value),
        )
        found = {name: _implementation(case, values) for name, values in times.items()}
        for name, worker in others.items():
            found[name]["memory_gb"] = worker.call("memory").value
    own = times["ours"]
    achieved = [3e-6 * m * case.batch_size / t for m, t in zip(macs, own, strict=False)]
    share = [a / r for a, r in zip(achieved, rates, strict=True)]
    return result | {
        "ensembles": len(own),
        "implementations": found,
        "ratios": {
            name: round(timing.ratio(times[name], times["ours"]), 3)
            for name in times
            if name != "ours"
        },
        "limit": {
            "gmacs_per_second": round(statistics.median(rates), 1),
            "step_gmacs_per_second": round(statistics.median(achieved), 1),
            "share": round(statistics.median(share) / args.threads, 4),
        },
    }


def _against_alone(ours: Worker, count: int, late: Callable[[], bool]) -> dict[str, Any]:
    together, alone, tracing = [], [], []
    for index in range(count):
        if late():
            break
        tracing.append(ours.call("trace_alone", index=index).cpu)
        own, one = [], []
        for _ in range(ALONE_ROUNDS):
            for call, times in (("step_alone", one), ("step", own)):
                ours.call(call, index=index)
                times.append(ours.call(call, index=index).cpu * 1e3)
        together.append(statistics.median(own))
        alone.append(statistics.median(one))
        ours.call("forget_alone", index=index)
    if not alone:
        return {"missing": NO_TIME}
    return {
        "ensembles": len(alone),
        "ours_ms": round(statistics.mean(together), 2),
        "alone_ms": round(statistics.mean(alone), 2),
        "tracing_s": round(statistics.median(tracing), 2),
        "ratio": round(statistics.mean(together) / statistics.mean(alone), 4),
    }


def _against_bfloat16(
    case: Case,
    args: argparse.Namespace,
    ours: Worker,
    common: Mapping[str, Any],
    late: Callable[[], bool],
) -> dict[str, Any]:
    if "avx512_bf16" not in timing.machine()["vectors"]:
        return {"missing": "the processor has no AVX512-BF16"}
    if late():
        return {"missing": NO_TIME}
    with workers({"bfloat16": (OURS, (case.name, "mixed_bfloat16"))}, args.threads) as found:
        half = found["bfloat16"]
        half.call("setup", **common)
        both = {"ours": ours, "bfloat16": half}
        times = _turns(both, args.architectures, args.runs, late)
        result: dict[str, Any] = timing.spread(times["bfloat16"])
        result["ratio"] = round(timing.ratio(times["ours"], times["bfloat16"]), 3)
        if args.curve and case.name == "k2" and not late():
            wanted = {"steps": args.curve, "data_dir": args.data_dir}
            curves = {
                name: worker.call("curve", **wanted).value
                for name, worker in (("float32", ours), ("bfloat16", half))
            }
            quarter = max(1, args.curve // 4)
            result["curve"] = {
                "data": "CIFAR-10" if args.data_dir else "random images",
                **{name: [round(loss, 4) for loss in curve] for name, curve in curves.items()},
                **{
                    f"{name}_last_quarter": round(statistics.mean(curve[-quarter:]), 4)
                    for name, curve in curves.items()
                },
            }
    return result


def targets(case: Case, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the project wants of a case, with what was found in it; {} where nothing was."""
    label = f"supernet step, {case.label}"
    share = found.get("limit", {}).get("share")
    half = found.get("bfloat16", {})
    missing = found.get("torch_missing", "")
    # Key, text, value, bound (largest values are negative here), unit, reason.
    rows: list[tuple] = [
        (name, f"speed against {text}", found.get("ratios", {}).get(name), bound, "×", missing)
        for name, (_, text, bound) in TORCH_LAYOUTS.items()
    ]
    rows.append(("limit", "share of the machine's limit", share and share * 100, 35, "%", ""))
    bfloat16 = ("bfloat16", "speed of mixed bfloat16 against float32", half.get("ratio"), 1.4)
    if case.num_paths > 1:
        first = found.get("first_step", {})
        memory = found.get("implementations", {}).get("ours", {}).get("memory_gb")
        alone = found.get("alone", {})
        rows += [
            (
                "alone",
                "time against the same ensembles traced one by one",
                alone.get("ratio"),
                -1.03,
                "×",
                alone.get("missing", ""),
            ),
            (*bfloat16, "×", half.get("missing", "")),
            *(
                (
                    f"first_step_{clock}",
                    f"start to end of first step, less TensorFlow's import, {text}",
                    first.get(f"beyond_import_{clock}_s"),
                    -25,
                    "s",
                    "",
                )
                for clock, text in (("cpu", "processor time"), ("wall", "on the clock"))
            ),
            ("memory", "peak memory", memory, -3.0, "GB", ""),
        ]
    return [
        target(
            f"{case.name}_{key}",
            f"{label}: {text}",
            value,
            unit=unit,
            reason=reason,
            **({"at_least": bound} if bound > 0 else {"at_most": -bound}),
        )
        for key, text, value, bound, unit, reason in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
