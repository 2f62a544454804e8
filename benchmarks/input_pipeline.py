"""Images per second of the input pipeline, for each kind of augmentation; prints JSON.

    python -m benchmarks.input_pipeline --data_dir=<TFDS folder> [--name=cifar10] [--seconds=3]

Without --data_dir random images of CIFAR-10's size are used. `per_core` divides by the processor
time used, `share` compares with no augmentation at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

VARIANTS = {
    "none": {"augment": "none"},
    "crop_flip": {"augment": "crop_flip"},
    "crop_flip_cutout": {"augment": "crop_flip", "cutout": 16},
    "crop_flip_rand_augment": {"augment": "crop_flip", "rand_augment": 2},
    "crop_flip_auto_augment": {"augment": "crop_flip", "auto_augment": "reduced_cifar10"},
    "imagenet": {"augment": "imagenet"},
    "imagenet_rand_augment": {"augment": "imagenet", "rand_augment": 2},
}


def random_data():
    """A data set of 20,000 random 32×32 images in memory."""
    import numpy as np

    from neas_tf.data import DataConfig, DatasetInfo
    from neas_tf.data.dataset_info import Part
    from neas_tf.data.stores import ArrayStore
    from neas_tf.normalisation import Normalisation

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


def main(arguments: list[str]) -> int:
    """Runs every variant."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", default="", help="folder of prepared TFDS sets")
    parser.add_argument("--name", default="cifar10", help="TFDS set with images of one size")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each variant")
    options = parser.parse_args(arguments)

    import dataclasses

    from neas_tf import data
    from neas_tf.errors import NeasError

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
        variant = dataclasses.replace(info, config=info.config.replace(**fields))
        speed = measure(variant, options.batch_size, options.seconds)
        base = result["variants"].get("none", speed)
        speed["share"] = round(speed["per_core"] / base["per_core"], 3)
        result["variants"][name] = speed
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
