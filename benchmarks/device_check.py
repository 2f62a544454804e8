"""Whether the supernet trains and the search scores on this machine's device as on the CPU, and how fast.

    python -m benchmarks.device_check [--case=k2] [--output=FILE]

Takes the TPU, GPU or CPU that TensorFlow finds. The same steps on drawn ensembles are made on the CPU,
on the device, and on the device with `jit_compile`, each in a process of its own; the losses of the
first eight steps must be the CPU's up to `--tolerance`, or the exit code is 1. What a user can send:
the table, and the JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.parts import command, timing
from benchmarks.parts.supernet_cases import CASES, Case
from benchmarks.parts.workers import workers
from neas_tf.common.console import say
from neas_tf.common.errors import NeasError

# What is compared: kind of device, and whether XLA compiles the step.
RUNS = {"cpu": ("cpu", False), "device": ("device", False), "device_xla": ("device", True)}
_WARM = 2  # steps that are not timed
# Rounding grows to twice its size with every step of a training: 1e-6 at the first step of four
# images, 1e-4 at the eighth, 1e-2 at the tenth. A wrong gradient is seen at once.
_COMPARED = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; returns the exit code: 1 where a loss is not the CPU's, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--case", default="k2", help=f"of {', '.join(CASES)}")
    parser.add_argument("--draws", type=int, default=20, help="steps, each with another ensemble")
    parser.add_argument("--batch_size", type=int, help="images a step; the case's unless given")
    parser.add_argument("--candidates", type=int, default=8, help="of the generation")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--tolerance", type=float, default=0.01, help="largest relative difference of a loss"
    )
    parser.add_argument("--no_xla", action="store_true", help="leaves out jit_compile")
    args = parser.parse_args(arguments)
    differs: list[str] = []

    def work() -> None:
        (case,) = command.choose("--case", args.case, CASES).values()
        if args.batch_size is not None:
            command.check_counts(args, batch_size=1)
            case = dataclasses.replace(case, batch_size=args.batch_size)
        command.check_counts(args, draws=_WARM + 1, candidates=1, threads=1)
        runs = {name: run(case, name, args) for name in RUNS if not (args.no_xla and name[6:])}
        differs.extend(compare(runs, args.tolerance))
        report = {"benchmark": "device_check", "case": case.label, "machine": timing.machine()}
        report |= {
            "batch_size": case.batch_size,
            "tolerance": args.tolerance,
            "runs": runs,
            "differs": differs,
        }
        say(table(runs, case))
        command.write_report(report, args.output, "device_check", arguments)

    return command.exit_code(work) or int(bool(differs))


def run(case: Case, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All steps and the generation in one process; `error` where that failed."""
    say(f"device_check, {case.label}: {name}")
    kind, xla = RUNS[name]
    codes = case.draws(args.draws).tolist()
    with workers({name: ("benchmarks.parts.device_worker", (case.name,))}, args.threads) as found:
        worker = found[name]
        try:
            setup = {"codes": codes, "batch_size": case.batch_size, "kind": kind, "xla": xla}
            result = worker.call("setup", **setup).value
            turns = [worker.call("step", index=i) for i in range(args.draws)]
            steps = [turn.value for turn in turns]
            result |= {"losses": [s["loss"] for s in steps]}
            result |= {"first_step_s": round(steps[0]["seconds"], 3)}
            result |= {"first_step_cpu_s": round(turns[0].cpu, 3)}
            seconds = [s["seconds"] for s in steps[_WARM:]]
            result["step"] = timing.spread([1e3 * s for s in seconds])
            result["images_per_s"] = round(case.batch_size / statistics.median(seconds), 1)
            result["compilations"] = worker.call("compilations").value
            if not xla:  # the search compiles what it needs by itself
                result["generation"] = worker.call("generation", candidates=args.candidates).value
            return result | {"memory_gb": worker.call("memory").value}
        except NeasError as error:
            return {"error": str(error)}


def compare(runs: Mapping[str, Mapping[str, Any]], tolerance: float) -> list[str]:
    """What is not the CPU's, one sentence each."""
    if "error" in runs["cpu"]:
        raise NeasError(f"device_check: the CPU's own steps failed: {runs['cpu']['error']}")
    result, expected = [], runs["cpu"]
    for name, found in runs.items():
        if "error" in found:
            continue
        for what in ("losses", "generation"):
            if what not in found or what not in expected:
                continue
            own, right = (np.array(_values(r[what])) for r in (found, expected))
            scale = np.abs(right) if what == "losses" else np.abs(right).max()
            worst = float(np.max(np.abs(own - right) / scale))
            if not worst <= tolerance:
                result.append(f"{name}: {what} differ by {worst:.2e}, expected ≤ {tolerance:g}")
    return result


def _values(part: Any) -> Any:
    """Of a generation its logits, of a training the losses that are compared."""
    return part["logits"] if isinstance(part, Mapping) else part[:_COMPARED]


def table(runs: Mapping[str, Mapping[str, Any]], case: Case) -> str:
    """For people, as Markdown."""
    head = "run device first_step_s step_ms images/s traces XLA_compilations generation_s GB"
    rows = [head.split(), ["---"] * 9]
    for name, found in runs.items():
        if "error" in found:
            rows.append([name, f"failed: {found['error'][-160:]}", *["–"] * 7])
            continue
        search = f"{found['generation']['s']:.2f}" if "generation" in found else "–"
        counts = found["compilations"]
        row = [name, found["device"], found["first_step_s"], found["step"]["ms"]]
        row += [found["images_per_s"], counts["traces"], counts["xla"], search, found["memory_gb"]]
        rows.append(row)
    first = runs["cpu"]
    title = f"{case.label}, batch {case.batch_size}, TensorFlow {first['tensorflow']}, CUDA {first['cuda']}"
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    devices = next((r for n, r in runs.items() if n != "cpu" and "devices" in r), first)["devices"]
    return "\n".join([f"{title}, devices {', '.join(devices)}", "", *lines])


if __name__ == "__main__":
    sys.exit(main())
