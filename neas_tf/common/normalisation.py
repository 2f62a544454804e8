"""How a pixel becomes a network's input: (pixel / 255 - mean) / std per channel, as one product and one sum."""

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

    def apply(self, pixels: Any) -> Any:
        """Pixels as a network takes them: pixel · scale + offset, float32.

        Args:
          pixels: (…, channels) in 0..255, an array of any type or a float32 tensor of any framework.
        """
        scale, offset = (np.array(values, np.float32) for values in (self.scale, self.offset))
        return _float32(pixels) * scale + offset

    def undo(self, images: Any) -> Any:
        """The pixels of normalised images, neither rounded nor cut off, likewise."""
        scale, offset = (np.array(values, np.float32) for values in (self.scale, self.offset))
        return (_float32(images) - offset) / scale

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


def network_input(images: Any, normalisation: Normalisation | None) -> Any:
    """What a network takes of a batch, float32: uint8 are pixels, anything else is normalised already.

    Args:
      images: TensorFlow tensor (…, channels).
      normalisation: of the network's input; may be None where no pixels come.
    """
    if images.dtype != "uint8":
        return images
    if normalisation is None:
        raise ValueError("Pixels came where no normalisation is known.")
    import tensorflow as tf

    return normalisation.apply(tf.cast(images, tf.float32))


def _float32(values: Any) -> Any:
    tensor = hasattr(values, "shape") and not isinstance(values, np.ndarray | np.generic)
    return values if tensor else np.asarray(values, np.float32)
