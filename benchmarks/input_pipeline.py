"""Images per second of the input pipeline, for each kind of augmentation; prints JSON.

    python -m benchmarks.input_pipeline --data_dir=<TFDS folder> [--name=cifar10] [--seconds=3]
    python -m benchmarks.input_pipeline --feed [--quick]

Without --data_dir random images of CIFAR-10's size are used. `per_core` divides by the processor
time used, `share` compares with no augmentation at all.

--feed also trains NEAS-S on what the pipeline makes: images of 32² in memory with crop, flip and
AutoAugment, and JPEG files of 500×375 pixels, decoded, cropped to 224² and with AutoAugment. Printed
are the images of each per second of processor time, and the share of its time that the training,
with the pipeline beside it on the same cores, waits for images.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.targets import target

VARIANTS = {
    "none": {"augment": "none"},
    "crop_flip": {"augment": "crop_flip"},
    "crop_flip_cutout": {"augment": "crop_flip", "cutout": 16},
    "crop_flip_rand_augment": {"augment": "crop_flip", "rand_augment": 2},
    "crop_flip_auto_augment": {"augment": "crop_flip", "auto_augment": "reduced_cifar10"},
    "imagenet": {"augment": "imagenet"},
    "imagenet_rand_augment": {"augment": "imagenet", "rand_augment": 2},
}
FED = {
    "small": "32² in memory, crop, AutoAugment",
    "jpeg": "JPEG, decode, crop to 224², AutoAugment",
}
QUICK = ("none", "crop_flip_auto_augment")


def random_data():
    """A data set of 20,000 random 32×32 images in memory."""
    import numpy as np

    from neas_tf.common.normalisation import Normalisation
    from neas_tf.data import DataConfig, DatasetInfo
    from neas_tf.data.dataset_info import Part
    from neas_tf.data.stores import ArrayStore

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 32, 32, 3), np.uint8)
    part = Part(ArrayStore.of(images, rng.integers(0, 10, 20_000)))
    names = tuple(str(label) for label in range(10))
    return DatasetInfo(
        "random", DataConfig(), names, (32, 32, 3), Normalisation(), {"train": part}, {}
    )


def measure(info, batch_size: int, seconds: float) -> dict[str, float]:
    """images/s by the clock, and per second of processor time."""
    from neas_tf import data

    iterator = iter(data.make_dataset(info, "train", batch_size, training=True))
    for _ in range(5):
        next(iterator)
    count, clock, processor = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - clock < seconds:
        next(iterator)
        count += batch_size
    return {
        "images_per_second": round(count / (time.perf_counter() - clock)),
        "per_core": round(count / (time.process_time() - processor)),
    }


def feeding(info, steps: int) -> dict:
    """The report of --feed: `feeding` by kind of images, and its targets."""
    import dataclasses

    from benchmarks.feeding import feed, photographs

    small = dataclasses.replace(
        info, config=info.config.replace(**VARIANTS["crop_flip_auto_augment"])
    )
    found = {"small": feed(small, 64, steps)}
    with tempfile.TemporaryDirectory() as folder:
        photos = photographs(Path(folder))
        found["jpeg"] = feed(photos, 16, steps)
        plain = dataclasses.replace(photos, config=photos.config.replace(auto_augment=""))
        found["jpeg_without_policy"] = measure(plain, 16, 3.0)
    return {"feeding": found, "targets": targets(found)}


def targets(found: dict) -> list[dict]:
    """What the project wants of `feeding`'s figures; {} where there are none."""
    rows = []
    for name, label in FED.items():
        one = found.get(name, {})
        waits = f" (the step waits {one['waiting_share']:.1%} of its time)" if one else ""
        what = f"input pipeline, {label}: images against those of the step that it feeds{waits}"
        rows.append(target(f"input_{name}", what, one.get("ratio"), at_least=1.0, unit="×"))
    return rows


def main(arguments: list[str]) -> int:
    """Runs every variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="", help="folder of prepared TFDS sets")
    parser.add_argument("--name", default="cifar10", help="TFDS set with images of one size")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each variant")
    parser.add_argument("--feed", action="store_true", help="train on the images, too")
    parser.add_argument("--steps", type=int, default=0, help="of the training (10; quick: 4)")
    parser.add_argument("--quick", action="store_true", help="few variants and steps")
    options = parser.parse_args(arguments)
    options.steps = options.steps or (4 if options.quick else 10)

    import dataclasses

    from neas_tf import data
    from neas_tf.common.errors import NeasError

    started = time.perf_counter()
    try:
        if options.data_dir:
            info = data.load(
                data.DataConfig(source="tfds", name=options.name, data_dir=options.data_dir)
            )
        else:
            info = random_data()
    except NeasError as error:
        print(error, file=sys.stderr)
        return 2
    result = {
        "data": info.name,
        "input_shape": list(info.input_shape),
        "batch_size": options.batch_size,
        "load_seconds": round(time.perf_counter() - started, 2),
        "variants": {},
    }
    for name, fields in VARIANTS.items():
        if options.quick and name not in QUICK:
            continue
        variant = dataclasses.replace(info, config=info.config.replace(**fields))
        speed = measure(variant, options.batch_size, options.seconds)
        base = result["variants"].get("none", speed)
        speed["share"] = round(speed["per_core"] / base["per_core"], 3)
        result["variants"][name] = speed
    if options.feed:
        result |= feeding(info, options.steps)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
