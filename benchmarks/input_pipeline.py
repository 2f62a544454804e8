"""Images per second of the input pipeline, for each kind of augmentation; prints JSON.

    python -m benchmarks.input_pipeline --data_dir=<TFDS folder> [--name=cifar10] [--seconds=3]

Without --data_dir random images of CIFAR-10's size are used; those named `jpeg` are made of JPEG files
of 500×375 pixels, ImageNet's median, decoded and cropped to 224². `per_core` divides by the processor
time used, `share` compares with no augmentation at all.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import command

VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"augment": "none"},
    "crop_flip": {"augment": "crop_flip"},
    "crop_flip_cutout": {"augment": "crop_flip", "cutout": 16},
    "crop_flip_rand_augment": {"augment": "crop_flip", "rand_augment": 2},
    "crop_flip_auto_augment": {"augment": "crop_flip", "auto_augment": "reduced_cifar10"},
    "imagenet": {"augment": "imagenet"},
    "imagenet_rand_augment": {"augment": "imagenet", "rand_augment": 2},
    "jpeg": {"augment": "imagenet"},
    "jpeg_auto_augment": {"augment": "imagenet", "auto_augment": "v0"},
}
JPEG_SIZE = (375, 500)  # ImageNet's median


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


def photographs(folder: Path, count: int = 48):
    """JPEG files of ImageNet's usual size, smooth with some noise, in folders of two classes."""
    import cv2
    import numpy as np

    from neas_tf import data

    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("train" if number % 4 else "test") / f"class_{number // 4 % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, JPEG_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        (place / f"{number:03d}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    source = {"source": "image_folder", "data_dir": str(folder), "input_size": [224, 224]}
    return data.load(data.DataConfig(**source, augment="imagenet", cache="none"))


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the variants; returns the exit code, 2 after bad input."""
    parser = command.parser(__doc__)
    parser.add_argument("--data_dir", default="", help="folder of prepared TFDS sets")
    parser.add_argument("--name", default="cifar10", help="TFDS set with images of one size")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each variant")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="with commas")
    args = parser.parse_args(arguments)

    def work() -> None:
        from neas_tf import data

        command.check_counts(args, batch_size=1)
        chosen = command.choose("--variants", args.variants, VARIANTS)
        started = time.perf_counter()
        info = random_data()
        if args.data_dir:
            source = {"source": "tfds", "name": args.name, "data_dir": args.data_dir}
            info = data.load(data.DataConfig(**source))
        report = {"data": info.name, "input_shape": list(info.input_shape)}
        report |= {"batch_size": args.batch_size}
        report |= {"load_seconds": round(time.perf_counter() - started, 2), "variants": {}}
        with tempfile.TemporaryDirectory() as folder:
            for name, fields in chosen.items():
                source = photographs(Path(folder)) if name.startswith("jpeg") else info
                variant = dataclasses.replace(source, config=source.config.replace(**fields))
                speed = measure(variant, args.batch_size, args.seconds)
                base = report["variants"].get("none", speed)
                report["variants"][name] = speed | {
                    "share": round(speed["per_core"] / base["per_core"], 3)
                }
        command.write_report(report, args.output, "input_pipeline", arguments)

    return command.exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
