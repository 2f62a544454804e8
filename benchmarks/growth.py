"""How the supernet's step and the search grow with layers, operators, paths and candidates.

    python -m benchmarks.growth [--what=layers,operators,paths,candidates] [--steps=5] [--output=FILE] [--plot=FILE]

One quantity changes at a time, from 10 layers, 4 operators and 2 paths of 32² and 16 images. Every point is a
process of its own: processor seconds until the first step is done (without the imports), of a step
(median of drawn ensembles), the largest resident memory, the operations that a step runs, and for the search
processor seconds of one generation whose functions are traced already. On one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.parts import command, timing
from benchmarks.parts.supernet_cases import Case
from benchmarks.parts.workers import peak_memory_gb, serve, workers
from neas_tf.common.console import say
from neas_tf.space.search_space import SearchSpace, Stage

OPERATORS = ("k3e4", "k5e4", "k3e6", "k5e6", "k7e4", "k7e6", "skip")
BASE = {"layers": 10, "operators": 4, "paths": 2}
POINTS = {
    "layers": (5, 10, 20),
    "operators": (2, 4, 7),
    "paths": (1, 2, 3),
    "candidates": (4, 16, 64),
}
_BATCH, _IMAGES = 16, 64  # images a step; images that calibrate, and that judge, a candidate


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--what", default=",".join(POINTS), help=f"of {', '.join(POINTS)}")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of a point")
    parser.add_argument("--largest", type=int, default=0, help="leaves out what is larger; 0: none")
    parser.add_argument("--plot", default="", help="PNG file for a picture")
    args = parser.parse_args(arguments)

    def work() -> None:
        chosen = command.choose("--what", args.what, POINTS)
        command.check_counts(args, steps=1, largest=0)
        found: dict[tuple[int, ...], dict[str, Any]] = {}
        report: dict[str, Any] = {"benchmark": "growth", "machine": timing.machine(), "base": BASE}
        report |= {"batch": _BATCH, "input": 32, "growth": {}}
        for what, values in chosen.items():
            rows = report["growth"][what] = []
            for value in (v for v in values if not args.largest or v <= args.largest):
                if what == "candidates":
                    rows.append({what: value} | _measured(BASE, search=value))
                    continue
                sizes = BASE | {what: value}
                key = tuple(sizes.values())
                if key not in found:
                    found[key] = _measured(sizes, steps=args.steps)
                rows.append({what: value} | found[key])
        if args.plot:
            command.write_plot(picture(report), args.plot)
        command.write_report(report, args.output, "growth", arguments)

    return command.exit_code(work)


def _measured(sizes: Mapping[str, int], **wanted: int) -> dict[str, Any]:
    words = [str(value) for value in sizes.values()]
    say(f"growth: {sizes}, {wanted}")
    with workers({"it": ("benchmarks.growth", ["--serve", *words])}) as found:
        return found["it"].call("measure", **wanted).value


def case_of(layers: int, operators: int, paths: int) -> Case:
    """A supernet of this size on images of 32², in two stages of 24 and 40 channels."""
    space = SearchSpace(
        name=f"growth_{layers}_{operators}",
        input_size=(32, 32),
        num_classes=10,
        stem_stride=1,
        stages=(Stage(24, layers // 2, 2), Stage(40, layers - layers // 2, 2)),
        operators=OPERATORS[:operators],
        min_split=1,
        max_split=layers,
    )
    return Case(space.name, space.name, space, paths, _BATCH)


def _serve(layers: int, operators: int, paths: int) -> None:
    case = case_of(layers, operators, paths)

    def measure(steps: int = 0, search: int = 0) -> dict[str, Any]:
        import tensorflow as tf

        from benchmarks.parts.supernet_worker import make_step
        from neas_tf.supernet.switches import safe_switches

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        with safe_switches():
            return _search(case, search) if search else _steps(case, make_step, steps)

    serve({"measure": measure})


def _steps(case: Case, make_step: Any, steps: int) -> dict[str, Any]:
    import tensorflow as tf

    from benchmarks.parts.supernet_cases import batch
    from benchmarks.step_operations import operations
    from neas_tf.training import tasks  # noqa: F401 (the imports are not the first step's)

    begin = time.process_time()
    step = make_step(case, case.draws(steps))["step"]
    images = tuple(map(tf.constant, batch(case)))
    step(0, *images)
    first = time.process_time() - begin
    times, counts = [], []
    for number in range(steps):
        begin = time.process_time()
        step(number, *images)
        times.append((time.process_time() - begin) * 1e3)
    memory = peak_memory_gb()
    for number in range(steps):
        counts.append(sum(operations(lambda number=number: step(number, *images)).values()))
    return {
        "first_step_s": round(first, 1),
        "step_ms": round(statistics.median(times), 1),
        "memory_gb": round(memory, 2),
        "operations": statistics.median(counts),
    }


def _search(case: Case, candidates: int) -> dict[str, Any]:
    import numpy as np

    from neas_tf.search.evaluation import CandidateEvaluator
    from neas_tf.space.architecture import Architecture
    from neas_tf.supernet.model import Supernet

    rng = np.random.default_rng(1)
    shape = (_IMAGES, *case.space.input_size, case.space.input_channels)
    images = rng.standard_normal(shape, np.float32)
    labels = rng.integers(0, case.space.num_classes, _IMAGES)
    evaluator = CandidateEvaluator(
        Supernet(case.space, case.num_paths), images, images, labels, 32, 64
    )
    drawn = case.draws(candidates, seed=1)
    ensembles = [Architecture.from_array(code, case.space, case.num_paths) for code in drawn]
    seconds = []
    for _ in range(2):  # the first time traces
        begin = time.process_time()
        evaluator.evaluate_all(ensembles)
        seconds.append(time.process_time() - begin)
    return {
        "first_generation_s": round(seconds[0], 1),
        "generation_s": round(seconds[1], 2),
        "s_a_candidate": round(seconds[1] / candidates, 3),
        "memory_gb": round(peak_memory_gb(), 2),
    }


def picture(report: Mapping[str, Any]) -> bytes:
    """The growth of step, first step and memory, each relative to its smallest point; PNG."""
    import altair as alt

    from neas_tf.report import style

    rows = [
        {"quantity": name, "size": row[what] / rows[0][what], "of": what, "growth": row[key] / rows[0][key]}
        for what, rows in report["growth"].items()
        if what != "candidates"
        for row in rows
        for name, key in (("step", "step_ms"), ("first step", "first_step_s"), ("memory", "memory_gb"))
    ]  # fmt: skip
    chart = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    spec = chart.encode(
        x=alt.X("size:Q", title="times as many"),
        y=alt.Y("growth:Q", title="times the smallest"),
        color=alt.Color("quantity:N", title=None),
        column=alt.Column("of:N", title=None),
    ).properties(width=180, height=180)
    return style.to_png(spec.to_dict(), "How a step grows", "one thread of a CPU, 16 images of 32²")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(*map(int, sys.argv[2:]))
    else:
        sys.exit(main())
