"""Start, memory, resume and the share of each worker for data of ImageNet's number; prints JSON.

    python -m benchmarks.data_scale --kind=folder --examples=200000 --work=/some/disk
    python -m benchmarks.data_scale --kind=records --examples=200000 --work=/some/disk

The pictures are one small JPEG, in a folder or record file for each thousand; --work keeps them for
the next time. Each measurement is a process of its own. `start` opens the data and makes the first
batch. `resume` makes the first batch of a run that continues shortly before its first epoch's end.
`workers` lets each of N workers in turn make its rows of the same steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import command
from benchmarks.parts.workers import peak_memory_gb
from neas_tf.common.errors import check
from neas_tf.common.paths import resolve_user_path

PER_FOLDER = 1000
LINKS = 30_000  # to one file; file systems limit their number
BATCH = 256


def picture(number: int) -> bytes:
    """A small JPEG."""
    import cv2
    import numpy as np

    image = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    image = cv2.resize(image, (64, 64), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", image)[1].tobytes()


def make_folder(root: Path, examples: int) -> None:
    """train/<class>/*.jpg, a thousand in each, and a test part of one picture a class."""
    for part, count in (("train", PER_FOLDER), ("test", 1)):
        for label in range(-(-examples // PER_FOLDER)):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(min(count, examples - label * PER_FOLDER)):
                index = label * PER_FOLDER + number
                source = root / f"source_{index // LINKS}.jpg"
                if not source.exists():
                    source.write_bytes(picture(index // LINKS))
                place = folder / f"{folder.name}_{number}.JPEG"
                if not place.exists():
                    os.link(source, place)


def make_records(root: Path, examples: int) -> None:
    """train-*.tfrecord of a thousand records each, and a test file."""
    import tensorflow as tf

    root.mkdir(parents=True, exist_ok=True)
    content = picture(0)
    for file in range(-(-examples // PER_FOLDER) + 1):
        path = root / (f"train-{file:05d}.tfrecord" if file else "test.tfrecord")
        count = min(PER_FOLDER, examples - (file - 1) * PER_FOLDER) if file else 100
        if path.exists():
            continue
        with tf.io.TFRecordWriter(f"{path}.part") as writer:
            for number in range(count):
                feature = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[content])
                    ),
                    "image/class/label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[number % 1000])
                    ),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        os.replace(f"{path}.part", path)


def settings(kind: str, root: Path) -> dict[str, Any]:
    """Of the data."""
    common = {"data_dir": str(root), "input_size": [32, 32], "cache": "none", "augment": "none"}
    if kind == "folder":
        return {"source": "image_folder", **common}
    patterns = {"train_pattern": "train-*.tfrecord", "test_pattern": "test.tfrecord"}
    return {"source": "tfrecord", "num_classes": 1000, **patterns, **common}


def measure(kind: str, root: Path, what: str, workers: int, steps: int) -> dict[str, float]:
    """One measurement in this process."""
    import tensorflow as tf

    from neas_tf import data

    config = data.DataConfig(**settings(kind, root))
    tf.constant(0)
    before, clock, used = peak_memory_gb(), time.perf_counter(), time.process_time()
    info = data.load(config)
    opened = time.process_time() - used
    size = info.part("train").size
    if what == "workers":
        seconds = []
        for worker in range(workers):
            context = tf.distribute.InputContext(workers, worker, workers)
            dataset = data.make_dataset(info, "train", BATCH, True, input_context=context)
            iterator = iter(dataset)
            next(iterator)
            clock, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                next(iterator)
            seconds.append(time.process_time() - used)
        rows = steps * BATCH // workers
        return {
            "workers": workers,
            "images_per_cpu_second": round(rows * workers / sum(seconds)),
            "cpu_seconds": round(sum(seconds), 2),
        }
    step = max(0, size // BATCH - 4) if what == "resume" else 0
    used_before = time.process_time()
    next(iter(data.make_dataset(info, "train", BATCH, True, start_step=step)))
    return {
        "open_cpu_seconds": round(opened, 2),
        "first_batch_cpu_seconds": round(time.process_time() - used_before, 2),
        "seconds": round(time.perf_counter() - clock, 2),
        "memory_mb": round(1000 * (peak_memory_gb() - before)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--kind", choices=("folder", "records"), default="folder")
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--work", required=True, help="folder for the pictures; kept")
    parser.add_argument("--workers", default="1,4,16", help="numbers of workers, with commas")
    parser.add_argument("--steps", type=int, default=40, help="batches of 256 for each worker")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else list(arguments)

    def work() -> None:
        command.check_counts(args, examples=1000, steps=1)
        workers = [int(n) for n in args.workers.split(",") if n.isdecimal()]
        fits = len(workers) == len(args.workers.split(",")) and all(
            BATCH % max(n, 1) == 0 < n for n in workers
        )
        check(fits, "--workers", args.workers, f"divisors of the batch, {BATCH}, with commas")
        root = Path(resolve_user_path(args.work)) / f"{args.kind}_{args.examples}"
        if args.only:
            what, _, number = args.only.partition(":")
            found = measure(args.kind, root, what, int(number or 1), args.steps)
            print(json.dumps(found), flush=True)
            return
        (make_folder if args.kind == "folder" else make_records)(root, args.examples)
        report: dict[str, Any] = {"kind": args.kind, "examples": args.examples, "batch": BATCH}
        for what in ("start", "resume", *(f"workers:{n}" for n in workers)):
            program = [sys.executable, "-m", "benchmarks.data_scale", *words, f"--only={what}"]
            done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
            report[what] = json.loads(done.stdout.splitlines()[-1])
        command.write_report(report, args.output, "data_scale", arguments)

    return command.exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
