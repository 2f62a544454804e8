"""Arrays and datasets as people have them: one sound form of images and labels, or one sentence.

Recognised and said: images in 0..1, labels that count from 1, one-hot labels, grey images without
their axis of channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, fail, shown

Example = tuple[np.ndarray, int | str]  # uint8 (h, w, c), label
_LOOK = 256  # images whose range tells the scale of all
_REPEATS = 64  # examples that come again in the same order: the dataset never ends


@dataclasses.dataclass
class Reading:
    """How images and labels are taken; found on the first of them, kept for the rest.

    Attributes:
      field: what messages call them, such as `data`.
      say: receives a sentence where something was recognised.
      scale: factor to 0..255; None until it is known.
      channels: 1 or 3; 0 until known.
    """

    field: str
    say: Callable[[str], None]
    scale: float | None = None
    channels: int = 0
    told: set[str] = dataclasses.field(default_factory=set)

    def tell(self, text: str) -> None:
        """Says a sentence once."""
        if text not in self.told:
            self.told.add(text)
            self.say(text)

    def images(self, batch: Any, first: int = 0) -> np.ndarray:
        """Images in the form that they are stored in.

        Args:
          batch: (n, h, w), (n, h, w, 1) or (n, h, w, 3); numbers in 0..255 or 0..1.
          first: number of the first one, for messages.

        Returns:
          uint8 (n, h, w, c).

        Raises:
          NeasError: names the field, what was received and what is expected.
        """
        what = f"{self.field} images"
        images = np.asarray(batch)
        if images.dtype.kind not in "buif":
            fail(what, images.dtype.name, "numbers in 0..255 or 0..1")
        images = self._channels_last(images, what)
        if images.dtype == np.uint8:
            return images
        if images.dtype == np.bool_:
            return images.astype(np.uint8) * 255
        if images.dtype.kind == "f":
            bad = ~np.isfinite(images).all(axis=(1, 2, 3))
            if bad.any():
                number = first + int(np.argmax(bad))
                raise NeasError(
                    f"{what}: image {number} has a pixel that is NaN or infinite; expected numbers."
                )
        low, high = float(images.min()), float(images.max())
        if low < 0:
            raise NeasError(
                f"{what}: received values from {low:g} to {high:g}, expected 0..255 or 0..1: "
                "pixels as they are, before any normalisation (the model has its own)."
            )
        if self.scale is None:
            self.scale = 255.0 if images.dtype.kind == "f" and 0 < high <= 1 else 1.0
            if self.scale > 1:
                self.tell(f"{what} are in 0..1 and are taken times 255.")
        if high * self.scale > 255:
            expected = "0..1, as the first images" if self.scale > 1 else "0..255"
            fail(f"{what} from number {first}", f"values up to {high:g}", expected)
        return np.round(images * self.scale).astype(np.uint8)

    def _channels_last(self, images: np.ndarray, what: str) -> np.ndarray:
        shape = images.shape
        if images.ndim == 3:
            images = images[..., None]
        elif images.ndim != 4:
            flat = " (reshape them first)" * (images.ndim == 2)
            fail(what, f"an array of shape {shape}", f"(images, height, width, channels){flat}")
        channels = images.shape[-1]
        if channels not in (1, 3):
            if images.shape[1] in (1, 3):
                hint = "channels last: x.transpose(0, 2, 3, 1)"
            elif channels == 4:
                hint = "1 or 3 channels: x[..., :3] leaves transparency out"
            elif channels == 2:
                hint = "1 or 3 channels: x[..., :1] leaves transparency out"
            else:
                hint = "1 or 3 channels"
            fail(what, f"an array of shape {shape}", hint)
        if 0 in images.shape:
            fail(what, f"an array of shape {shape}", "one image at least")
        if self.channels not in (0, channels):
            fail(what, f"{channels} channels", f"{self.channels}, as the images before")
        self.channels = channels
        return images

    def labels(self, batch: Any, count: int) -> list[int | str]:
        """Labels of a batch: class numbers, names, or one-hot rows.

        Raises:
          NeasError: for another number than there are images, or anything that is no label.
        """
        what = f"{self.field} labels"
        if isinstance(batch, list | tuple) and any(isinstance(v, str | bytes) for v in batch):
            batch = np.array(batch, dtype=object)  # numbers among them stay numbers
        labels = np.asarray(batch)
        if labels.ndim == 0:
            labels = labels[None]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim == 2 and labels.dtype.kind in "buif":
            one_hot = (labels.sum(1) == 1).all() and (labels.max(1) == 1).all()
            if not one_hot:
                fail(what, f"an array of shape {labels.shape}", "one class for each image")
            self.tell(f"{what} are one-hot; class numbers are taken.")
            labels = labels.argmax(1)
        if labels.ndim != 1:
            fail(what, f"an array of shape {labels.shape}", "one label for each image")
        if len(labels) != count:
            fail(what, f"{len(labels)} labels for {count} images", "as many labels as images")
        kind = labels.dtype.kind
        if kind == "f" and np.isfinite(labels).all() and (labels == np.round(labels)).all():
            labels, kind = labels.astype(np.int64), "i"
        if kind in "bui":
            values = labels.astype(np.int64)
            if len(values) and values.min() < 0:
                fail(what, int(values.min()), "class numbers from 0, or names")
            return values.tolist()
        if kind in "USO":
            return [_name(value, what) for value in labels.tolist()]
        fail(what, labels.dtype.name, "class numbers or names")


def _name(value: Any, what: str) -> int | str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    fail(what, shown(value), "class numbers or names")


def examples_of(data: Any, reading: Reading) -> Iterator[Example]:
    """The examples of a pair of arrays, or of a dataset, one at a time.

    Args:
      data: (images, labels); or a `tf.data.Dataset`, or anything that can be iterated, of (image,
        label) or of batches of them.
      reading: how they are taken.

    Raises:
      NeasError: for anything else, and as `Reading` does.
    """
    field = reading.field
    if isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[0]):
        try:
            images = np.asarray(data[0])
        except ValueError:  # a list of images of several sizes
            labels = reading.labels(data[1], len(data[0]))
            yield from _of_batches(zip(data[0], labels, strict=True), reading)
        else:
            yield from _of_arrays(images, data[1], reading)
        return
    if hasattr(data, "cardinality") and int(data.cardinality()) == -1:
        _endless(field)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | dict):
        fail(
            field,
            shown(data),
            "a folder, (images, labels), or a tf.data.Dataset of (image, label)",
        )
    yield from _watched(_of_batches(data, reading), field)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or (isinstance(value, list) and len(value) > 0)


def _of_arrays(images: np.ndarray, labels: Any, reading: Reading) -> Iterator[Example]:
    if not images.size:
        fail(f"{reading.field} images", f"an array of shape {images.shape}", "one image at least")
    if images.ndim in (3, 4) and images.dtype.kind == "f":
        brightest = float(images.max())  # of all: NaN leaves it at 1, and is named below
        if 0 < brightest <= 1:
            reading.scale = 255.0
            reading.tell(f"{reading.field} images are in 0..1 and are taken times 255.")
        else:
            reading.scale = 1.0
    values = reading.labels(labels, len(images))
    for first in range(0, len(images), _LOOK):
        part = reading.images(images[first : first + _LOOK], first)
        yield from zip(part, values[first : first + _LOOK], strict=True)


def _of_batches(data: Iterable[Any], reading: Reading) -> Iterator[Example]:
    """Images whose scale is open wait until one is brighter than 1, or enough have been seen."""
    number, waiting = 0, []
    source = iter(data)
    while True:
        try:
            element = next(source)
        except StopIteration:
            break
        except NeasError:
            raise
        except Exception as error:  # whatever the caller's own code raises
            reason = " ".join(str(error).split())[:200] or "no message"
            raise NeasError(
                f"{reading.field}: the dataset failed after {number} examples "
                f"({type(error).__name__}: {reason}); expected (image, label) until its end."
            ) from error
        if isinstance(element, dict) and {"image", "label"} <= set(element):
            element = (element["image"], element["label"])
        if not isinstance(element, tuple | list) or len(element) < 2:
            fail(reading.field, shown(element), "elements (image, label)")
        image, label = np.asarray(element[0]), element[1]
        if image.ndim in (2, 3) and np.ndim(label) <= 1 and not _looks_batched(image, label):
            image, label = image[None], np.asarray(label)[None]
        elif image.ndim not in (3, 4):
            fail(f"{reading.field} images", f"an array of shape {image.shape}", "(h, w, channels)")
        waiting.append((image, label, number))
        number += len(image)
        if image.dtype.kind != "f" or reading.scale is not None or number >= _LOOK:
            yield from _released(waiting, reading)
    yield from _released(waiting, reading)


def _looks_batched(image: np.ndarray, label: Any) -> bool:
    """Whether (n, h, w) comes with n labels; one image of (h, w, c) has one, or a one-hot row."""
    if np.ndim(label) == 0:
        return False
    return image.ndim == 3 and len(label) == len(image) and image.shape[-1] not in (1, 3)


def _released(waiting: list[tuple], reading: Reading) -> Iterator[Example]:
    if waiting and reading.scale is None:
        brightest = max((image for image, _, _ in waiting), key=lambda image: float(image.max()))
        reading.images(brightest)
    for image, label, first in waiting:
        yield from zip(reading.images(image, first), reading.labels(label, len(image)), strict=True)
    waiting.clear()


def _watched(examples: Iterator[Example], field: str) -> Iterator[Example]:
    """The same examples; raises where the first ones come again, one after the other."""
    first: list[tuple[int, int | str]] = []
    place = 0
    for image, label in examples:
        key = (hash(image.tobytes()), label)
        if len(first) < _REPEATS:
            first.append(key)
        else:
            place = place + 1 if key == first[place] else int(key == first[0])
            if place == _REPEATS:
                _endless(field)
        yield image, label


def _endless(field: str) -> None:
    raise NeasError(
        f"{field}: received a dataset without end, expected one pass over the images (leave out "
        ".repeat(), or end it with .take(n))."
    )
