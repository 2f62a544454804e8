"""Times the scoring of one shrink: S, r and the determinants of all combinations.

    python -m benchmarks.scoring [--samples=1000] [--layers=20] [--operators=7] [--repeats=5]

Prints one JSON object: seconds (the median of the repeats, after tracing) for 2 and 3 paths. Every
layer may split here, so there are more combinations than in the paper's space.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time

import numpy as np

from benchmarks import timing
from benchmarks.targets import target


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="Z, sampled ensembles")
    parser.add_argument("--layers", type=int, default=20, help="d")
    parser.add_argument("--operators", type=int, default=7, help="N")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    from neas_tf.shrinking.diversity import combination_scores, similarity_and_quality
    from neas_tf.shrinking.measurements import Measurements

    rng = np.random.default_rng(0)
    shape = {"samples": args.samples, "layers": args.layers, "operators": args.operators}
    results = []
    for paths in (2, 3):
        columns = rng.random((args.samples, args.layers, args.operators)).argsort(axis=-1)
        rows = columns[:, :, :paths].transpose(0, 2, 1).reshape(args.samples, -1)
        splits = rng.integers(0, args.layers, (args.samples, 1))
        measurements = Measurements(
            np.concatenate([splits, rows], axis=1),
            rng.gamma(2.0, 5.0, (args.samples, paths, paths)),
            rng.uniform(size=(args.samples, paths)),
        )
        choices = np.array(list(itertools.combinations(range(args.operators), paths)))
        layers = np.repeat(np.arange(args.layers), len(choices))
        combinations = np.tile(choices, (args.layers, 1))

        seconds = []
        for _ in range(args.repeats + 1):
            start = time.perf_counter()
            scores = similarity_and_quality(measurements, args.operators, 1e-3)
            combination_scores(scores, layers, combinations)
            seconds.append(time.perf_counter() - start)
        results.append(
            {
                "paths": paths,
                "combinations": len(combinations),
                "first_seconds": round(seconds[0], 4),
                "seconds": round(statistics.median(seconds[1:]), 4),
            }
        )
    report = {"benchmark": "scoring", "machine": timing.machine(), **shape, "results": results}
    report["targets"] = targets(max(result["seconds"] for result in results))
    print(json.dumps(report))


def targets(seconds: float | None = None) -> list[dict]:
    """What the project wants of the slower of the results."""
    return [target("scoring", "scores of one shrink", seconds, at_most=1.0, unit="s")]


if __name__ == "__main__":
    main()
