"""How many operations a training step of the supernet runs, by kind; an accelerator waits for each.

    python -m benchmarks.step_operations [--case=k2] [--batch=2] [--draws=4] [--against=FOLDER]

Counted are the kernels that TensorFlow's profiler sees in steps of drawn ensembles, without XLA: what
ran, after all optimisations of the graph, in the branches that were taken. Constants and arguments
run no kernel. The number does not depend on the machine or on the batch. With `--against`, another checkout of the project
is counted on the same ensembles in the same run.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import command
from benchmarks.parts.supernet_cases import CASES
from neas_tf.common.errors import NeasError, fail
from neas_tf.common.paths import project_file, resolve_user_path

# Name of the node : kind; where oneDNN has a kernel of its own for a processor, its name begins so.
_KERNEL = re.compile(r"[^:]:(?:_MklNative|_Mkl)?(_?[A-Z]\w*)$")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--case", default="k2", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--draws", type=int, default=4, help="ensembles that are counted")
    parser.add_argument("--against", default="", help="folder of another checkout")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)

    def work() -> None:
        command.choose("--case", args.case, CASES)
        command.check_counts(args, batch=1, draws=1)
        if args.count:  # the child of another run
            print(json.dumps(count(args.case, args.batch, args.draws)))
            return
        report: dict[str, Any] = {"benchmark": "step_operations", "case": args.case}
        report |= {"batch": args.batch, "draws": args.draws}
        folders = {"here": str(project_file())}
        if args.against:
            folders["against"] = resolve_user_path(args.against)
        for folder in folders.values():
            if not (Path(folder) / "neas_tf").is_dir():
                fail("--against", folder, "the folder of a checkout, with neas_tf/ in it")
        report |= {name: _counted(folder, args) for name, folder in folders.items()}
        command.write_report(report, args.output, "step_operations", arguments)

    return command.exit_code(work)


def _counted(folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """`count` with the project in a folder, in a process of its own."""
    words = ["--count", f"--case={args.case}", f"--batch={args.batch}", f"--draws={args.draws}"]
    done = subprocess.run(
        [sys.executable, __file__, *words],
        env=os.environ | {"PYTHONPATH": folder, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NeasError(f"step_operations in {folder!r}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])


def count(name: str, batch_size: int, draws: int) -> dict[str, Any]:
    """Operations a step of a case: the median over drawn ensembles, the most, and the kinds' means."""
    import tensorflow as tf

    from benchmarks.parts.supernet_cases import batch
    from benchmarks.parts.supernet_worker import make_step
    from neas_tf.supernet.switches import safe_switches

    case = dataclasses.replace(CASES[name], batch_size=batch_size)
    kinds: collections.Counter[str] = collections.Counter()
    totals = []
    with safe_switches():
        step = make_step(case, case.draws(draws))["step"]
        images = tuple(map(tf.constant, batch(case)))
        step(0, *images)
        for number in range(draws):
            found = operations(lambda number=number: step(number, *images))
            totals.append(sum(found.values()))
            kinds.update(found)
    means = {kind: round(n / draws, 1) for kind, n in kinds.most_common()}
    return {"operations": statistics.median(totals), "most": max(totals), "kinds": means}


def operations(call: Any) -> collections.Counter[str]:
    """The kernels that a call runs, by kind."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    # Level 2 tells of cheap kernels too.
    options = tf.profiler.experimental.ProfilerOptions(2, python_tracer_level=0)
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            call()
        for path in Path(folder).rglob("*.xplane.pb"):
            space = xplane_pb2.XSpace.FromString(path.read_bytes())
            for plane in space.planes:
                names = {key: meta.name for key, meta in plane.event_metadata.items()}
                for line in plane.lines:
                    matches = (_KERNEL.search(names[event.metadata_id]) for event in line.events)
                    found.update(match[1] for match in matches if match)
    return found


if __name__ == "__main__":
    sys.exit(main())
