"""Boxes with class names and scores on a picture."""

from __future__ import annotations

import colorsys
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_bytes_atomic
from neas_tf.data.reading.pictures import head, no_file, orientation

PICTURES = (".jpg", ".jpeg", ".png")
# Pixels as they are stored, as Model Garden's training takes them.
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_picture(path: str | Path) -> np.ndarray:
    """Reads a picture as RGB, uint8 (h, w, 3); EXIF's orientation is not applied.

    Raises:
      NeasError: when it is none.
    """
    what = no_file(str(path))
    if what:  # a pipe would be waited for
        raise NeasError(f"image: {str(path)!r} cannot be read ({what}).")
    try:
        picture = decode(Path(path).read_bytes())
    except OSError as error:
        raise NeasError(f"image: {str(path)!r} cannot be read ({error.strerror}).") from None
    if picture is None:
        raise NeasError(f"image: {str(path)!r} is no picture that can be read.")
    return picture


def decode(content: bytes) -> np.ndarray | None:
    """A picture file's content as RGB, uint8 (h, w, 3), as stored; None when it is no picture."""
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), _AS_STORED) if content else None
    except cv2.error:  # of more pixels than OpenCV takes
        return None
    return None if picture is None else np.ascontiguousarray(picture[..., ::-1])


def stored_size(picture: str | Path | bytes) -> tuple[int, int]:
    """(height, width) of a picture, a path or a file's content, as its header has it.

    Raises:
      NeasError: when it is no picture.
    """
    content = isinstance(picture, bytes)
    try:
        with warnings.catch_warnings(action="ignore"):  # of very large ones
            opened = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
        with opened:
            width, height = opened.size
    except Exception:  # a damaged header raises errors of many kinds
        name = "the content" if content else repr(str(picture))
        raise NeasError(f"image: {name} is no picture that can be read.") from None
    return height, width


def size_fault(
    declared: tuple[int, int], stored: tuple[int, int], picture: str | Path | bytes
) -> str:
    """What is wrong where annotations and picture disagree on its (height, width), or ''."""
    if declared == stored:
        return ""
    (h, w), (height, width) = declared, stored
    fault = f"is stored as {width}×{height} pixels, but its annotations say {w}×{h}"
    turned = orientation(picture if isinstance(picture, bytes) else head(str(picture)))
    if turned >= 5 and (h, w) == (width, height):  # it lies on its side
        fault += (
            f": they were made of the picture as EXIF orientation {turned} turns it, whereas "
            "pixels are taken as stored; turn the file's pixels, or use the boxes of the stored "
            "picture"
        )
    return fault


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes RGB uint8 (h, w, 3); the name's ending gives the format."""
    check_name(path)
    done, data = cv2.imencode(Path(path).suffix.lower(), picture[..., ::-1])
    if not done:
        raise NeasError(f"output: {str(path)!r} cannot be encoded.")
    try:
        write_bytes_atomic(path, data.tobytes())
    except OSError as error:
        raise NeasError(f"output: {str(path)!r} cannot be written ({error.strerror}).") from None


def check_name(path: str | Path) -> None:
    """Raises unless a path ends as a picture's."""
    if Path(path).suffix.lower() not in PICTURES:
        raise NeasError(
            f"output: received {str(path)!r}, expected a name that ends with {', '.join(PICTURES)}."
        )


def colour(number: int) -> tuple[int, int, int]:
    """RGB of a class: the hues go round by the golden ratio, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    picture: np.ndarray,
    boxes: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """Draws detections on a copy of a picture, the best on top, and the names on all boxes.

    Args:
      picture: RGB uint8 (h, w, 3).
      boxes: (n, 4) as y1, x1, y2, x2 in pixels of the picture.
      classes, scores: n ids; n scores in 0..1.
      names: of the classes; an id beyond them is shown as a number.
    """
    result = np.ascontiguousarray(picture)
    result = result.copy()
    height, width = picture.shape[:2]
    unit = max(min(height, width) / 480.0, 0.4)
    line, font = max(round(2 * unit), 1), cv2.FONT_HERSHEY_SIMPLEX
    order = np.argsort(scores, kind="stable")
    for i in order:
        top, left, bottom, right = (round(float(v)) for v in boxes[i])
        cv2.rectangle(result, (left, top), (right, bottom), colour(int(classes[i])), line)
    for i in order:
        top, left = (round(float(v)) for v in boxes[i][:2])
        number, tint = int(classes[i]), colour(int(classes[i]))
        name = names[number] if 0 <= number < len(names) else str(number)
        text = f"{name} {float(scores[i]):.2f}"
        (w, h), base = cv2.getTextSize(text, font, 0.5 * unit, 1)
        # Above the box, or inside where there is no room.
        y = top if top >= h + base else min(top + h + base, height)
        x = max(min(left, width - w), 0)
        cv2.rectangle(result, (x, y - h - base), (x + w, y), tint, cv2.FILLED)
        ink = (0, 0, 0) if sum(tint) > 380 else (255, 255, 255)
        place = (x, y - base + max(base // 3, 1))
        cv2.putText(result, text, place, font, 0.5 * unit, ink, 1, cv2.LINE_AA)
    return result
