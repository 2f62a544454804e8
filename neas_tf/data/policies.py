"""AutoAugment and RandAugment with explicit seeds.

The operations and the tables of policies are Model Garden's (`official.vision.ops.augment`). Its
drivers draw from a global state, which a resumed run cannot repeat; these draw from a seed that
belongs to the example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from official.vision.ops import augment

_MAX_LEVEL = 10.0
_GREY = [128] * 3
_REFERENCE_SIZE = 224.0
# Operations that go either way, with the size of the step at the highest level; pixels at 224².
_SIGNED = {
    "Rotate": 30.0,
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateX": None,
    "TranslateY": None,
}
Policy = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class _Operations:
    """Applies operations by name; pixel distances are given for 224² and scaled to `size`."""

    size: int
    translate: float
    cutout: float

    def apply(self, name: str, level: float, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """One operation on a uint8 image (h, w, 3), with an int64 (2,) seed for what it draws."""
        scale = self.size / _REFERENCE_SIZE
        if name in _SIGNED:
            step = level / _MAX_LEVEL * (_SIGNED[name] or self.translate * scale)
            negative = tf.random.stateless_uniform([], seed) < 0.5
            arguments: tuple[Any, ...] = (tf.where(negative, -step, step),)
        elif name == "Cutout":
            return _cutout(image, int(level / _MAX_LEVEL * self.cutout * scale), seed)
        else:
            arguments = augment.level_to_arg(self.cutout, self.translate)[name](level)
        if name in augment.REPLACE_FUNCS:
            arguments = (*arguments, _GREY)
        result = augment.NAME_TO_FUNC[name](image, *arguments)
        return tf.ensure_shape(result, image.shape)


def _cutout(image: tf.Tensor, half: int, seed: tf.Tensor) -> tf.Tensor:
    """Greys out a square of 2·half pixels a side at a random place."""
    height, width = image.shape[0], image.shape[1]
    center = tf.random.stateless_uniform([2], seed)
    top, left = center[0] * height, center[1] * width
    rows = tf.abs(tf.range(height, dtype=tf.float32) + 0.5 - top) < half
    columns = tf.abs(tf.range(width, dtype=tf.float32) + 0.5 - left) < half
    mask = (rows[:, None] & columns[None, :])[:, :, None]
    return tf.where(mask, tf.constant(_GREY[0], tf.uint8), image)


def rand_augment(count: int, magnitude: float, size: int) -> Policy:
    """RandAugment: `count` times an operation drawn from 16 (or none), all of one magnitude.

    Args:
      count: operations per image.
      magnitude: 0..10.
      size: shorter side of the images in pixels.

    Returns:
      A function of a uint8 image (h, w, 3) and an int64 (2,) seed.
    """
    names = augment.RandAugment().available_ops
    operations = _Operations(size, translate=100.0, cutout=40.0)

    def distort(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for layer in range(count):
            own = tf.random.split(tf.random.fold_in(seed, layer), 2)
            branches = [
                lambda name=name, image=image, seed=own[1]: operations.apply(
                    name, magnitude, image, seed
                )
                for name in names
            ]
            chosen = tf.random.stateless_uniform([], own[0], 0, len(names) + 1, tf.int32)
            image = tf.switch_case(chosen, [*branches, lambda image=image: tf.identity(image)])
        return image

    return distort


def auto_augment(name: str, size: int) -> Policy:
    """AutoAugment: one sub-policy of Model Garden's table, each operation with its probability.

    Args:
      name: such as `v0` or `reduced_cifar10`.
      size: shorter side of the images in pixels.

    Returns:
      A function of a uint8 image (h, w, 3) and an int64 (2,) seed.
    """
    policies = augment.AutoAugment(augmentation_name=name).policies
    operations = _Operations(size, translate=250.0, cutout=100.0)

    def run(
        policy: Sequence[tuple[str, float, float]], image: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        image = tf.identity(image)
        for number, (operation, probability, level) in enumerate(policy):
            own = tf.random.split(tf.random.fold_in(seed, number), 2)
            image = tf.cond(
                tf.random.stateless_uniform([], own[0]) < probability,
                lambda image=image, seed=own[1], operation=operation, level=level: operations.apply(
                    operation, level, image, seed
                ),
                lambda image=image: image,
            )
        return image

    def distort(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        own = tf.random.split(seed, 2)
        chosen = tf.random.stateless_uniform([], own[0], 0, len(policies), tf.int32)
        branches = [lambda policy=policy: run(policy, image, own[1]) for policy in policies]
        return tf.switch_case(chosen, branches)

    return distort
