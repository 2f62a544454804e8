"""Whether `fit` is the same under Keras 3's backends: loss curves of one fine-tuning under each.

    python -m benchmarks.backends [--backends=tensorflow,jax] [--arch=neas_s] [--size=224] [--batch=16]
        [--steps=20] [--rate=1e-4] [--weights=CONVERTED_OR_RUN] [--work=FOLDER]

Each backend has a process of its own and begins with the same weights, with new classifiers of 10
classes, on the digits of scikit-learn in colour and enlarged, without dropout, in the same order.
Optimizer is Adam. The report has the curve as `fit` shows it (the mean of the losses so far), the
largest distance between two backends, and the same of each step's own loss.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.command import check_counts, exit_code, parser, write_report
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.common.paths import resolve_user_path

FORMAT = "neas-backends/1"
BACKENDS = ("tensorflow", "jax", "torch")


def fit(args: argparse.Namespace) -> dict[str, Any]:
    """Trains under the backend that is set.

    `args.first` is the file of the first weights, which is written where it is missing.
    """
    import neas_tf as neas  # settles the backend

    import keras  # isort: skip
    import numpy as np
    from sklearn.datasets import load_digits

    model = neas.applications.ensemble_model(
        args.arch,
        weights=args.weights or None,
        classes=10,
        input_shape=(args.size, args.size, 3),
        dropout=0.0,
        seed=0,
    )
    if os.path.exists(args.first):
        model.load_weights(args.first)
    else:
        model.save_weights(args.first)
    images, labels = load_digits(return_X_y=True)
    count = args.batch * args.steps
    order = np.resize(np.random.default_rng(0).permutation(len(labels)), count)
    places = np.arange(args.size) * 8 // args.size
    large = images.reshape(-1, 8, 8, 1)[order][:, places][:, :, places] * (255 / 16)
    pixels = np.repeat(large, 3, -1).astype(np.float32)
    curve: list[float] = []
    began = time.perf_counter()
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: curve.append(float(logs["loss"]))
    )
    model.compile(keras.optimizers.Adam(args.rate), "sparse_categorical_crossentropy")
    model.fit(
        pixels, labels[order], batch_size=args.batch, shuffle=False, verbose=0, callbacks=[keep]
    )
    return {
        "backend": keras.backend.backend(),
        "jit_compile": bool(model.jit_compile),
        "parameters": int(model.count_params()),
        "curve": curve,
        "seconds": round(time.perf_counter() - began, 1),
    }


def steps_of(curve: Sequence[float]) -> list[float]:
    """Each step's own loss, of the means so far."""
    sums = [0.0, *(mean * number for number, mean in enumerate(curve, 1))]
    return [after - before for before, after in itertools.pairwise(sums)]


def distances(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest distances between two curves, and between losses of the same step."""
    if len({len(result["curve"]) for result in results}) != 1:
        raise NeasError("backends: their curves have several lengths, expected one.")
    found = {"curve": 0.0, "step": 0.0}
    for a, b in itertools.combinations([result["curve"] for result in results], 2):
        for name, one, other in (("curve", a, b), ("step", steps_of(a), steps_of(b))):
            most = max(abs(x - y) for x, y in zip(one, other, strict=True))
            found[name] = max(found[name], most)
    return found


def compare(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Trains under each backend, one after the other; what is in `work` is not done again."""
    results = []
    work.mkdir(parents=True, exist_ok=True)
    for backend in args.backends.split(","):
        path = work / f"{backend}.json"
        if not path.exists():
            words = [f"--{name}={getattr(args, name)}" for name in _SHARED]
            words.append(f"--first={work / 'first.weights.h5'}")
            subprocess.run(
                [sys.executable, "-m", "benchmarks.backends", *words, f"--fit={path}"],
                env=os.environ | {"KERAS_BACKEND": backend},
                check=True,
            )
        results.append(read_json(path, "result"))
        check(results[-1]["backend"] == backend, "--backends", backend, "one that is installed")
    return {"format": FORMAT, "largest_distance": distances(results), "runs": results}


_SHARED = ("arch", "size", "batch", "steps", "rate", "weights")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints or writes the report."""
    flags = parser(__doc__)
    flags.add_argument("--backends", default="tensorflow,jax", help="with commas")
    flags.add_argument("--arch", default="neas_s", help="as neas.load_architecture reads it")
    flags.add_argument("--weights", default="", help="that it begins with; random ones without")
    flags.add_argument("--work", default="", help="folder that keeps what is done")
    flags.add_argument("--rate", default=1e-4, type=float, help="of Adam")
    for name, value in (("size", 224), ("batch", 16), ("steps", 20)):
        flags.add_argument(f"--{name}", default=value, type=int)
    for name in ("first", "fit"):  # of a process for one backend
        flags.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    args = flags.parse_args(argv)

    def work() -> None:
        check_counts(args, size=8, batch=1, steps=1)
        check(0 < args.rate < 1, "--rate", args.rate, "a number between 0 and 1")
        for name in args.backends.split(","):
            check(name in BACKENDS, "--backends", name, f"some of {', '.join(BACKENDS)}")
        if args.fit:
            write_json_atomic(Path(args.fit), fit(args))
            return
        with tempfile.TemporaryDirectory() as folder:
            place = Path(resolve_user_path(args.work) if args.work else folder).absolute()
            report = compare(args, place)
        settings = {name: getattr(args, name) for name in _SHARED}
        write_report({**report, "settings": settings}, args.output, "backends", argv)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
