"""The usual corruptions of a picture: 15 kinds in 5 severities (Hendrycks and Dietterich, 2019).

The pictures are made by the library `imagecorruptions`, an optional extra. No TensorFlow here.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check

KINDS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32  # pixels of a side, for the library
_SEEDED = ("glass_blur", "impulse_noise")  # take a seed; the others draw from NumPy's global state


def library() -> Any:
    """The library.

    Raises:
      NeasError: where it is not installed, cannot be loaded, or is an edition that takes no seed.
    """
    try:
        import imagecorruptions
    except ImportError as error:
        raise NeasError(
            f"robustness: the library imagecorruptions cannot be loaded ({error}); "
            "'pip install neas-tf[robustness]' installs it."
        ) from None
    if inspect.getfullargspec(imagecorruptions.corrupt).varkw is None:
        raise NeasError(
            "robustness: the library imagecorruptions that is installed takes no seed, expected the one "
            "of package imagecorruptions-imaug; 'pip uninstall imagecorruptions' and 'pip install "
            "neas-tf[robustness]' exchange them."
        )
    return imagecorruptions


def check_size(height: int, width: int, channels: int) -> None:
    """Raises `NeasError` for pictures that the library does not take."""
    shape, least = (
        (height, width, channels),
        f"{SMALLEST} pixels a side or more, of 1 or 3 channels",
    )
    check(min(height, width) >= SMALLEST and channels in (1, 3), "data: images", shape, least)


def corrupted(image: np.ndarray, kind: str, severity: int, seed: int, number: int) -> np.ndarray:
    """A picture, uint8 (h, w, c), corrupted; the same for the same kind, severity, seed and number.

    Args:
      image: uint8 (h, w, c), c 1 or 3, 32 pixels a side or more.
      kind: of `KINDS`.
      severity: 1 to 5.
      seed: of the whole.
      number: of the picture.
    """
    entropy = [seed, KINDS.index(kind), severity, number]
    state = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    options = {"seed": state} if kind in _SEEDED else {}
    before = np.random.get_state()  # noqa: NPY002 (the library draws from it)
    np.random.seed(state)  # noqa: NPY002
    try:
        found = library().corrupt(image, severity, corruption_name=kind, **options)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    if image.shape[-1] == 1:  # it comes back in colours
        found = np.rint(found.mean(-1, keepdims=True)).astype(np.uint8)
    return np.asarray(found, np.uint8)
