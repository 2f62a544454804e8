"""How a pixel becomes a network's input: (image / 255 - mean) / std per channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_keys, is_number


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each channel, of images scaled to 0..1.

    Attributes:
      mean, std: one number a channel.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for field in ("mean", "std"):
            values = getattr(self, field)
            finite = bool(values) and all(map(is_number, values))
            check(finite, f"normalisation.{field}", values, "a finite number per channel")
        same = len(self.mean) == len(self.std)
        check(same, "normalisation.std", self.std, f"{len(self.mean)} numbers, as in mean")
        check(min(self.std) > 0, "normalisation.std", self.std, "positive numbers")
        for field in ("mean", "std"):  # catches numbers that were meant for pixels of 0..255
            values = getattr(self, field)
            unit = max(map(abs, values)) <= 2
            check(unit, f"normalisation.{field}", values, "numbers for images scaled to 0..1")

    @property
    def scale(self) -> list[float]:
        """Factor per channel: normalised = image · scale + offset for an image in 0..255."""
        return [1.0 / (255.0 * std) for std in self.std]

    @property
    def offset(self) -> list[float]:
        """Summand per channel, see `scale`."""
        return [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Normalises images (…, channels) in 0..255; returns float32."""
        images = np.asarray(images, np.float32) / np.float32(255.0)
        return (images - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def check_channels(self, channels: int) -> Normalisation:
        """Returns itself when it is for that many channels; raises `NeasError` otherwise."""
        check(len(self.mean) == channels, "normalisation.mean", self.mean, f"{channels} numbers")
        return self

    def to_dict(self) -> dict[str, list[float]]:
        """JSON form."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def of(cls, value: Any) -> Normalisation:
        """Reads a normalisation in any of its forms.

        Args:
          value: `to_dict`'s form; or an object with `scale` and `offset` per channel, so that
            normalised = image · scale + offset for an image in 0..255 (this class, or that of
            `neas_tf.data`).
        """
        if isinstance(value, cls):
            return value
        if hasattr(value, "scale") and hasattr(value, "offset"):
            pairs = list(zip(value.scale, value.offset, strict=True))
            mean = tuple(-float(offset) / float(scale) / 255.0 for scale, offset in pairs)
            return cls(mean, tuple(1.0 / (255.0 * float(scale)) for scale, _ in pairs))
        check(isinstance(value, Mapping), "normalisation", value, "a mapping with mean and std")
        check_keys("normalisation", value, ("mean", "std"))
        for field in ("mean", "std"):
            ok = isinstance(value.get(field), (list, tuple))
            check(ok, f"normalisation.{field}", value.get(field), "a list of numbers")
        return cls(tuple(value["mean"]), tuple(value["std"]))
