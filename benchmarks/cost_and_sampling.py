"""Costs of ensembles a second, and the time to draw one under a budget; prints JSON.

    python -m benchmarks.cost_and_sampling [--count=200000] [--repeats=9]

In the paper's space with two paths. The ensembles whose costs are computed are training draws; the
samples have at most `--max_macs`, and each one is checked against the cost table. Processor time,
one thread, without importing TensorFlow.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.targets import target
from neas_tf.common.errors import NeasError, check_int
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import METRICS, CostTable
from neas_tf.space.sampling import draws_for_steps
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

PATHS = 2
_DRAWS = 20_000  # different ones; more are repetitions


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200_000, help="ensembles of one call")
    parser.add_argument("--samples", type=int, default=200, help="draws of one measurement")
    parser.add_argument("--repeats", type=int, default=9, help="measurements; their median counts")
    parser.add_argument("--max_macs", type=int, default=300_000_000)
    args = parser.parse_args(arguments)
    try:
        for name in ("count", "samples", "repeats", "max_macs"):
            check_int(f"--{name}", getattr(args, name), 1)
        print(json.dumps(measure(args.count, args.samples, args.repeats, args.max_macs)))
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(count: int, samples: int, repeats: int, max_macs: int) -> dict[str, Any]:
    """The report, with its targets."""
    space = SearchSpace()
    shrunk, table = ShrunkSpace.full(space, PATHS), CostTable(space)
    draws = draws_for_steps(shrunk, 0, 0, min(count, _DRAWS))
    draws = np.resize(draws, (count, draws.shape[1]))
    rates = {}
    for name, metrics in (("macs", ("macs",)), ("all_metrics", METRICS)):
        seconds = _seconds(lambda m=metrics: table.costs(draws, PATHS, m), repeats)
        rates[name] = {metric: count / value / 1e6 for metric, value in _spread(seconds).items()}
    begin = time.process_time()
    budget = Budget(max_macs=max_macs)
    sampler = BudgetSampler(shrunk, table, budget)
    built = time.process_time() - begin
    even = BudgetSampler(shrunk, table, budget, even_splits=True)
    rng, times = np.random.default_rng(0), {}
    for name, one in (("as_in_training", sampler), ("even_splits", even)):
        drawn = []

        def draw(one: BudgetSampler = one, drawn: list = drawn) -> None:
            drawn[:] = [one.sample(rng) for _ in range(samples)]

        seconds = _seconds(draw, repeats)
        times[name] = {key: value / samples * 1e3 for key, value in _spread(seconds).items()}
        costs = table.costs(np.stack([a.to_array(space) for a in drawn]), PATHS, ("macs",))
        times[name]["largest_macs"] = int(costs["macs"].max())
        times[name]["valid"] = bool((costs["macs"] <= max_macs).all())
    valid = all(found["valid"] for found in times.values())
    slowest = max(found["median"] for found in times.values())
    return {
        "benchmark": "cost_and_sampling",
        "machine": timing.machine(),
        "versions": {"numpy": np.__version__},
        "count": count,
        "costs_millions_per_second": rates,
        "sampler_built_s": round(built, 4),
        "sample_ms": times,
        "targets": targets(rates["macs"]["median"], slowest if valid else None, max_macs),
    }


def targets(
    rate: float | None = None, sample: float | None = None, max_macs: int = 300_000_000
) -> list[dict[str, Any]]:
    """What the project wants, with M costs a second and ms a sample."""
    return [
        target("cost", "costs of ensembles (MACs), one core", rate, at_least=2.0, unit="M/s"),
        target(
            "sample",
            f"valid sample under {max_macs / 1e6:g} M MACs (the slower way)",
            sample,
            at_most=0.2,
            unit="ms",
            reason="a sample was over the budget" if rate else "",
        ),
    ]


def _seconds(call: Callable[[], Any], repeats: int) -> list[float]:
    call()
    result = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        result.append(time.process_time() - begin)
    return result


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(seconds, (10, 50, 90)).tolist()
    return {"median": middle, "p10": low, "p90": high}


if __name__ == "__main__":
    sys.exit(main())
