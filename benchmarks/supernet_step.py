"""The supernet's training step: ours against PyTorch and the machine's limit; start and memory.

    python -m benchmarks.supernet_step [--architectures=24] [--output=FILE]

Every implementation trains on the same drawn ensembles, in a worker process of its own, and they
take turns: for each ensemble, each worker does one unmeasured step and then `--runs` that are. Times
are the worker's processor time, one thread unless `--threads` says otherwise.

The machine's limit is the rate of a large float32 1×1 convolution, in turns with the steps; a step
counts as three times the MACs of the drawn ensemble (forward, and backward to inputs and weights).
The first step's seconds begin with the process and leave out `import tensorflow`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.parts import command, timing
from benchmarks.parts.supernet_cases import CASES, Case
from benchmarks.parts.workers import Worker, workers
from neas_tf.common.console import say
from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable

OURS, TORCH = "benchmarks.parts.supernet_worker", "benchmarks.parts.torch_supernet"
TORCH_LAYOUTS = {"torch": "default", "torch_channels_last": "channels_last"}
LIMIT_RUNS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--cases", default="k1,k2", help=f"of {', '.join(CASES)}")
    parser.add_argument("--architectures", type=int, default=24, help="ensembles")
    parser.add_argument("--runs", type=int, default=1, help="measured steps of a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no_torch", action="store_true")
    args = parser.parse_args(arguments)

    def work() -> None:
        cases = command.choose("--cases", args.cases, CASES)
        command.check_counts(args, architectures=1, runs=1, threads=1)
        report = {"benchmark": "supernet_step", "threads": args.threads}
        report |= {"machine": timing.machine()}
        report |= {"cases": {name: measure(case, args) for name, case in cases.items()}}
        command.write_report(report, args.output, "supernet_step", arguments)

    return command.exit_code(work)


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Everything of one case."""
    draws = case.draws(args.architectures)
    macs = CostTable(case.space).costs(draws, case.num_paths, ("macs",))["macs"].tolist()
    setup = {"codes": draws.tolist(), "threads": args.threads}
    say(f"supernet_step, {case.label}: {len(draws)} ensembles")
    result: dict[str, Any] = {"batch_size": case.batch_size, "num_paths": case.num_paths}
    result |= {"macs_median": statistics.median(macs), "versions": {}}
    layouts = {} if args.no_torch else TORCH_LAYOUTS
    commands = {"ours": (OURS, (case.name,))}
    commands |= {name: (TORCH, (case.name, layout)) for name, layout in layouts.items()}
    with workers(commands, args.threads) as found:
        start = found["ours"].call("setup", **setup).value
        result["versions"]["tensorflow"] = start["tensorflow"]
        result["first_step"] = _first_step(start["marks"])
        try:
            for name in layouts:
                result["versions"]["torch"] = found[name].call("setup", **setup).value["torch"]
        except NeasError as error:
            result["torch_missing"], found = str(error)[-200:], {"ours": found["ours"]}
        return result | _turns(found, case, macs, args)


def _first_step(marks: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Seconds from the process' start to its parts' ends, and to the first step without the import."""
    result: dict[str, Any] = {}
    for clock in ("wall", "cpu"):
        until = {name: mark[clock] for name, mark in marks.items()}
        imported = until["tensorflow"] - until["python"]
        result[f"beyond_import_{clock}_s"] = round(until["first_step"] - imported, 2)
        result[f"until_{clock}_s"] = {name: round(value, 2) for name, value in until.items()}
    return result


def _turns(
    found: Mapping[str, Worker], case: Case, macs: Sequence[int], args: argparse.Namespace
) -> dict[str, Any]:
    """The steps of all workers, ensemble by ensemble, and the machine's limit between them."""
    rates: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in found}  # ms of processor time a step
    for index in range(len(macs)):
        rates.append(found["ours"].call("limit_run", count=LIMIT_RUNS).value)
        for name, worker in found.items():
            worker.call("step", index=index)
            spent = [worker.call("step", index=index).cpu for _ in range(args.runs)]
            times[name].append(statistics.mean(spent) * 1e3)
    implementations = {}
    for name, values in times.items():
        speed = case.batch_size / (statistics.median(values) / 1e3)
        implementations[name] = timing.spread(values) | {
            "images_per_cpu_second": round(speed, 3),
            "memory_gb": found[name].call("memory").value,
        }
    ours = times["ours"]
    achieved = [3e-6 * m * case.batch_size / t for m, t in zip(macs, ours, strict=True)]
    share = [a / r for a, r in zip(achieved, rates, strict=True)]
    return {
        "ensembles": len(ours),
        "implementations": implementations,
        "ratios": {
            name: round(timing.ratio(times[name], ours), 3) for name in times if name != "ours"
        },
        "limit": {
            "gmacs_per_second": round(statistics.median(rates), 1),
            "step_gmacs_per_second": round(statistics.median(achieved), 1),
            "share": round(statistics.median(share) / args.threads, 4),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
