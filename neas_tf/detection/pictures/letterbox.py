"""A picture of any size in a network's frame, as Model Garden's evaluation puts it there."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from neas_tf.common.errors import check
from neas_tf.common.normalisation import Normalisation

# What is 0 after the normalisation; Model Garden pads there.
FILL = tuple(255.0 * mean for mean in Normalisation().mean)


@dataclasses.dataclass(frozen=True)
class Letterbox:
    """Where a picture lies in the frame: in the upper left corner, scaled.

    Attributes:
      size: (height, width) of the picture.
      scale: (y, x), frame over picture.
    """

    size: tuple[int, int]
    scale: tuple[float, float]

    def to_picture(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) as y1, x1, y2, x2 from pixels of the frame to pixels of the picture."""
        boxes = np.asarray(boxes, np.float32) / np.array([*self.scale] * 2, np.float32)
        limit = np.array([*self.size] * 2, np.float32)
        return np.clip(boxes, 0, limit)


def letterbox(
    picture: np.ndarray, inside: tuple[int, int], frame: tuple[int, int]
) -> tuple[np.ndarray, Letterbox]:
    """Scales a picture into a size, aspect ratio kept, and pads it with the mean colour.

    Args:
      picture: (h, w, 3) in 0..255.
      inside: (height, width) that the picture may fill, `model.input_size`.
      frame: (height, width) of the result, at least that: float32 (*frame, 3) in 0..255.
    """
    good = picture.ndim == 3 and picture.shape[2] == 3 and picture.size > 0
    check(good, "image", picture.shape, "(height, width, 3)")
    height, width = picture.shape[:2]
    ratio = min(inside[0] / height, inside[1] / width)
    # Rounded half to even, as TensorFlow rounds; a side never vanishes.
    size = tuple(max(int(np.round(np.float32(side * ratio))), 1) for side in (height, width))
    scaled = cv2.resize(
        picture.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR
    )
    result = np.empty((*frame, 3), np.float32)
    result[:] = np.array(FILL, np.float32)
    result[: size[0], : size[1]] = scaled
    return result, Letterbox((height, width), (size[0] / height, size[1] / width))
