"""What starting a retraining from the supernet's weights gives, against its length.

    python -m benchmarks.warm_start --work=FOLDER --data_dir=<TFDS folder> [--epochs=3,6,12,24] [--seeds=0,1,2]
    python -m benchmarks.warm_start --work=FOLDER --quick

For each seed one supernet is trained and searched (the recipe of neas_cifar10 on the space and images of
configs/studies/cifar10_cpu.yaml); its winner is retrained for each number of epochs: from scratch, from the supernet's
weights, and from those with half the learning rate for all but the classifiers. Prints
one JSON object: test accuracies, their means, and the length at which scratch is as good as each of the others,
interpolated in the logarithm of the epochs. `--work` keeps everything, so that the same command continues. `--quick` takes the
digits and hardly any epochs, which says only that it works.
"""

from __future__ import annotations

import itertools
import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import command
from neas_tf.common import console
from neas_tf.common.errors import check
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import resolve_user_path

FORMAT = "neas-warm-start/1"
INITS: dict[str, dict[str, Any]] = {
    "scratch": {"init": "scratch"},
    "supernet": {"init": "supernet"},
    "supernet_half_rate": {"init": "supernet", "trunk_rate_factor": 0.5},
}
# What a retraining needs of the run that its ensemble was found in.
_FOUND = ("supernet", "shrink", "search")
_QUICK = {
    "supernet": {"epochs": 2.0},
    "shrink": {"every_epochs": 0.0},
    "search": {"generations": 1},
    "retrain": {"warmup_epochs": 0.1},
}


def config_of(seed: int, data_dir: str, quick: bool) -> Any:
    """The settings of one seed's supernet and search."""
    from neas_tf.config.parse import load_config

    if quick:
        return load_config("neas_quickstart", params_override=_QUICK | {"seed": seed})
    settings = command.small_cifar10(data_dir) | {"seed": seed}
    return load_config("neas_cifar10", params_override=settings)


def train_all(
    work: Path, data_dir: str, seeds: Sequence[int], epochs: Sequence[float], quick: bool
) -> list[dict[str, Any]]:
    """Does what is not done yet; returns one entry a retraining."""
    import tensorflow as tf

    from neas_tf.run.context import open_run
    from neas_tf.run.retrain_stage import retrain
    from neas_tf.run.search_stage import search
    from neas_tf.run.supernet_stage import train_supernet

    results = []
    for seed in seeds:
        found = work / f"seed{seed}" / "found"
        strategy = tf.distribute.OneDeviceStrategy("CPU:0")
        run = open_run(config_of(seed, data_dir, quick), str(found), strategy)
        with run.writing():
            train_supernet(*run.inputs)
            search(*run.inputs)
        for length, init in itertools.product(epochs, INITS):
            folder = found.parent / f"{init}_{length:g}"
            done = folder / "warm_start.json"
            if not done.exists():
                config = config_of(seed, data_dir, quick)
                config.retrain.override({"epochs": float(length), **INITS[init]})
                for name in _FOUND:
                    if not (folder / name).exists():
                        shutil.copytree(found / name, folder / name)
                shutil.copy(found / "params.yaml", folder)
                unit = open_run(config, str(folder), strategy)
                with unit.writing():
                    test = retrain(*unit.inputs)
                entry = {"seed": seed, "epochs": length, "init": init}
                entry["accuracy"] = round(test["ensemble_accuracy"], 5)
                write_json_atomic(done, entry | {"architecture": test["architecture"]})
            results.append(read_json(done, "result"))
    return results


def table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means and deviations over the seeds, one row a length."""
    rows = []
    for length in sorted({r["epochs"] for r in results}):
        row: dict[str, Any] = {"epochs": length}
        for init in INITS:
            values = [r["accuracy"] for r in results if (r["epochs"], r["init"]) == (length, init)]
            row[init] = round(statistics.mean(values), 5)
            row[f"{init}_deviation"] = round(statistics.stdev(values), 5) if values[1:] else None
        rows.append(row)
    return rows


def crossing(rows: Sequence[Mapping[str, Any]], init: str) -> float | None:
    """Epochs at which scratch catches up with another beginning; None where it does not."""
    gains = [(math.log(row["epochs"]), row[init] - row["scratch"]) for row in rows]
    for (x, gain), (later, loss) in itertools.pairwise(gains):
        if gain > 0 >= loss:
            return round(math.exp(x + (later - x) * gain / (gain - loss)), 2)
    return None


def report(results: Sequence[Mapping[str, Any]], quick: bool) -> dict[str, Any]:
    """What the program prints."""
    from neas_tf.run.parts.time_limit import WARM_SHARE

    rows = table(results)
    return {
        "format": FORMAT,
        "quick": quick,
        "rows": rows,
        "crossing_epochs": {init: crossing(rows, init) for init in list(INITS)[1:]},
        "plan_switches_below": {"share_of_the_supernets_epochs": WARM_SHARE},
        "runs": list(results),
    }


def _numbers(text: str, field: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1.0]
    check(all(0 <= n < 1e6 for n in numbers), field, text, "numbers, with commas")
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--work", required=True, help="folder that keeps everything")
    parser.add_argument("--data_dir", default="", help="TFDS folder with cifar10")
    parser.add_argument("--epochs", default="", help="lengths of the retrainings, with commas")
    parser.add_argument("--seeds", default="", help="with commas")
    parser.add_argument("--quick", action="store_true", help="digits, hardly trained")
    args = parser.parse_args(arguments)

    def work() -> None:
        epochs = _numbers(args.epochs or ("0.2,0.4" if args.quick else "3,6,12,24"), "epochs")
        check(min(epochs) > 0, "epochs", args.epochs, "more than 0")
        chosen = args.seeds or ("0" if args.quick else "0,1,2")
        seeds = [int(seed) for seed in _numbers(chosen, "seeds")]
        console.quiet_libraries()
        folder = Path(resolve_user_path(args.work))
        data_dir = resolve_user_path(args.data_dir) if args.data_dir else ""
        results = train_all(folder, data_dir, seeds, epochs, args.quick)
        command.write_report(report(results, args.quick), args.output, "warm_start", arguments)

    return command.exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
