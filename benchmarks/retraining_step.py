"""The retraining step of NEAS-S, ours against PyTorch; prints JSON.

    python -m benchmarks.retraining_step [--quick] [--output=FILE]

Both with the paper's recipe (RMSProp, moving averages, dropout, label smoothing, the trunk's gradient
divided by K) on a random batch in memory, in worker processes that take turns. Processor time, one
thread unless `--threads` says otherwise. Ours is the project's own `EnsembleTask.train_step` with the
optimizer that the retraining stage makes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from benchmarks.supernet_cases import random_batch
from benchmarks.targets import target
from benchmarks.workers import peak_memory_gb, serve, workers
from neas_tf.common.console import say
from neas_tf.common.errors import NeasError, check_int
from neas_tf.common.files import told, write_json_atomic
from neas_tf.common.paths import resolve_user_path
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

LAYOUTS = {"torch": "default", "torch_channels_last": "channels_last"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, channels-last only")
    parser.add_argument("--architecture", default="neas_s")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=0, help="turns (12; quick: 4)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", default="", help="JSON file; default: standard output")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.rounds = args.rounds or (4 if args.quick else 12)
    if args.worker:
        _serve(args.architecture, args.size, args.batch_size)
        return 0
    try:
        for name, least in (("size", 8), ("batch_size", 1), ("rounds", 1), ("threads", 1)):
            check_int(f"--{name}", getattr(args, name), least)
        load_architecture(args.architecture, SearchSpace())
        layouts = {k: v for k, v in LAYOUTS.items() if not args.quick or v == "channels_last"}
        result = measure(args, layouts)
        if args.output:
            with told(f"--output {args.output!r}"):
                write_json_atomic(Path(resolve_user_path(args.output)), result)
        else:
            print(json.dumps(result))
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(args: argparse.Namespace, layouts: dict[str, str]) -> dict[str, Any]:
    """The report, with its target."""
    say(f"retraining_step: {args.architecture}, {args.size}², batch {args.batch_size}")
    shape = (args.architecture, str(args.size), str(args.batch_size))
    flags = ("--worker", *(f"--{k}={v}" for k, v in zip(("architecture", "size", "batch_size"), shape, strict=True)))  # fmt: skip
    commands = {name: ("benchmarks.torch_ensemble", (*shape, value)) for name, value in layouts.items()}  # fmt: skip
    versions, missing = {}, ""
    with workers({"ours": ("benchmarks.retraining_step", flags)}, args.threads) as found:
        versions["tensorflow"] = found["ours"].call("setup", threads=args.threads).value
        with workers(commands, args.threads) as others:
            try:
                for worker in others.values():
                    versions["torch"] = worker.call("setup", threads=args.threads).value
            except NeasError as error:
                others, missing = {}, str(error)[-200:]
            found = found | others
            times: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(args.rounds):
                for name, worker in found.items():
                    worker.call("step")
                    times[name].append(worker.call("step").cpu * 1e3)
            memory = {name: worker.call("memory").value for name, worker in found.items()}
    ratios = {name: round(timing.ratio(times[name], times["ours"]), 3) for name in commands if name in times}  # fmt: skip
    return {
        "benchmark": "retraining_step",
        "machine": timing.machine(),
        "versions": versions,
        "architecture": args.architecture,
        "input_size": args.size,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "implementations": {
            name: timing.spread(values)
            | {
                "images_per_cpu_second": round(
                    args.batch_size * 1e3 / timing.spread(values)["ms"], 3
                ),
                "memory_gb": memory[name],
            }
            for name, values in times.items()
        },
        "ratios": ratios,
        "targets": targets(ratios.get("torch_channels_last"), missing, args.architecture),
    }


def targets(ratio: float | None = None, reason: str = "", name: str = "neas_s") -> list[dict]:
    """What the project wants, with the speed against channels-last."""
    what = f"retraining step of {name}: speed against torch, channels-last"
    return [target("retraining", what, ratio, at_least=1.0, unit="×", reason=reason)]


def _serve(name: str, size: int, batch_size: int) -> None:
    state: dict[str, Any] = {}

    def setup(threads: int) -> str:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        from benchmarks.feeding import make_step

        space = dataclasses.replace(SearchSpace(), input_size=(size, size))
        state["data"] = tuple(map(tf.constant, random_batch(space, batch_size)))
        state["train"] = make_step(space, name)
        return tf.__version__

    def step() -> float:
        return state["train"](*state["data"])

    serve({"setup": setup, "step": step, "memory": peak_memory_gb})


if __name__ == "__main__":
    sys.exit(main())
