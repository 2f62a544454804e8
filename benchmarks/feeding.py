"""Whether the input pipeline feeds the step: images of both, and the share of waiting together.

Parts of `benchmarks.input_pipeline`: the retraining step of NEAS-S, the fastest step that takes
AutoAugment, on the images that the pipeline makes for it.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.supernet_cases import CASES
from neas_tf.data import DataConfig, DatasetInfo
from neas_tf.space.search_space import SearchSpace

JPEG_SIZE = (375, 500)  # ImageNet's median


def write_photographs(folder: Path, count: int = 48) -> None:
    """JPEG files of ImageNet's usual size, smooth with some noise, in folders of two classes."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("train" if number % 4 else "test") / f"class_{number // 4 % 2}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.float32)
        image = cv2.resize(coarse, JPEG_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        (place / f"{number:03d}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def photographs(folder: Path) -> DatasetInfo:
    """Those files with the ImageNet recipe: decode, crop, AutoAugment."""
    from neas_tf import data

    write_photographs(folder)
    config = DataConfig(
        source="image_folder",
        data_dir=str(folder),
        input_size=[224, 224],
        augment="imagenet",
        auto_augment="v0",
        cache="none",
    )
    return data.load(config)


def make_step(space: SearchSpace, name: str = "neas_s") -> Callable[[Any, Any], float]:
    """The retraining step of an architecture of the zoo, as its stage makes it."""
    import tensorflow as tf
    from official.core import config_definitions as cfg

    from neas_tf.config.resolve import resolve_steps
    from neas_tf.config.settings import RetrainConfig
    from neas_tf.space.zoo import load_architecture
    from neas_tf.training.optimizers import create_slots
    from neas_tf.training.tasks import EnsembleTask, EnsembleTaskConfig

    stage = resolve_steps(RetrainConfig(), 1_281_167, "retrain")
    task = EnsembleTask(EnsembleTaskConfig(), load_architecture(name, space), space, stage)
    model = task.build_model()
    optimizer = task.create_optimizer(stage.trainer.optimizer_config, cfg.RuntimeConfig())
    create_slots(optimizer, model)
    train = tf.function(lambda x, y: task.train_step((x, y), model, optimizer)[task.loss])
    return lambda images, labels: float(train(images, labels))


def space_of(info: DatasetInfo) -> SearchSpace:
    """The paper's space for the images, with strides for CIFAR where they are small."""
    base = CASES["k2"].space if max(info.input_shape) <= 64 else SearchSpace()
    return dataclasses.replace(
        base, input_size=tuple(info.input_shape[:2]), num_classes=max(2, info.num_classes)
    )


def feed(
    info: DatasetInfo, batch_size: int, steps: int, step: Callable[[Any, Any], float] | None = None
) -> dict[str, float]:
    """Images of pipeline and step per second of processor time, and the share of waiting.

    Args:
      info: data with their augmentation.
      batch_size, steps: that many batches, after one unmeasured.
      step: what takes images and labels; None makes NEAS-S's.
    """
    from neas_tf import data

    step = step or make_step(space_of(info))
    iterator = iter(data.make_dataset(info, "train", batch_size, training=True))
    batches = [next(iterator)]
    begin = time.process_time()
    batches += [next(iterator) for _ in range(steps)]
    alone = time.process_time() - begin
    del iterator  # its threads would go on
    step(*batches[0])
    spent = []
    for batch in batches[1:]:
        begin = time.process_time()
        step(*batch)
        spent.append(time.process_time() - begin)
    iterator = iter(data.make_dataset(info, "train", batch_size, training=True))
    step(*next(iterator))
    begin, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - asked
        step(*batch)
    pipeline, trained = batch_size * steps / alone, batch_size / statistics.median(spent)
    return {
        "batch_size": batch_size,
        "pipeline_images_per_cpu_second": round(pipeline, 1),
        "step_images_per_cpu_second": round(trained, 2),
        "ratio": round(pipeline / trained, 3),
        "waiting_share": round(waited / (time.perf_counter() - begin), 4),
    }
