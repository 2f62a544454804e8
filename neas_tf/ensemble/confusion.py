"""What one test leaves beside accuracies: which classes an ensemble takes for which and how often its
paths disagree, as counts; the pictures that it got wrong and was surest of.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.common.errors import check, check_int, is_number
from neas_tf.common.files import read_json

FORMAT = "neas-confusion/1"
CONFUSION_FILE = "retrain/confusion.json"
PICTURES_FORMAT = "neas-test-pictures/1"
PICTURES_FILE = "retrain/pictures.json"
KINDS = ("errors", "mended")  # of pictures
MAX_ERRORS, MAX_MENDED = 16, 8
MAX_SIDE, MAX_BYTES = 96, 4_000  # of a picture, encoded
_LOSSLESS_SIDE = 32  # up to which PNG is small, and JPEG would show
_MAGIC = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


class Confusion:
    """Counts over the batches of a test; all numbers are integers."""

    def __init__(self, num_classes: int, num_paths: int):
        self.num_classes, self.num_paths, self.examples = num_classes, num_paths, 0
        self._pairs: dict[tuple[int, int], int] = {}
        self._differ = np.zeros((num_paths, num_paths), np.int64)
        self._both_wrong = np.zeros((num_paths, num_paths), np.int64)

    def add(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Counts one batch.

        Args:
          labels: integers (n,).
          predictions: integers (n, K + 1): the class that each path names, then the ensemble.
        """
        paths = predictions[:, :-1]
        self.examples += len(labels)
        codes = labels.astype(np.int64) * self.num_classes + predictions[:, -1]
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            pair = divmod(int(code), self.num_classes)
            self._pairs[pair] = self._pairs.get(pair, 0) + int(count)
        wrong = (paths != labels[:, None]).astype(np.int64)
        self._differ += (paths[:, :, None] != paths[:, None, :]).sum(0)
        self._both_wrong += wrong.T @ wrong

    def to_dict(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """JSON form `neas-confusion/1`.

        `counts` has [label, predicted class, images] for what occurred; `differ` and `both_wrong`
        are K × K counts of images (the diagonal of `both_wrong` has each path's own errors).
        """
        return {
            "format": FORMAT,
            "part": "test",
            "examples": self.examples,
            "num_classes": self.num_classes,
            "class_names": list(class_names),
            "counts": [[*pair, self._pairs[pair]] for pair in sorted(self._pairs)],
            "differ": self._differ.tolist(),
            "both_wrong": self._both_wrong.tolist(),
        }


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A picture of the test.

    Attributes:
      image: its number in the test, from 0.
      label: the right class.
      named, sure: the class that each path and, last, the ensemble names, and its probability.
      right: probability of the right class, by the ensemble.
      pixels: (h, w, c) in 0..255.
      rank: the larger, the more it tells.
    """

    image: int
    label: int
    named: tuple[int, ...]
    sure: tuple[float, ...]
    right: float
    pixels: np.ndarray
    rank: float


class Pictures:
    """Of the pictures of a test: the surest errors, and errors of a path that the others mended."""

    def __init__(self, num_classes: int):
        self.num_classes, self._examples = num_classes, 0
        self._errors: list[_Seen] = []
        self._mended: list[_Seen] = []

    def add(self, images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        """Looks at one batch, and keeps what tells more than what is kept.

        Args:
          images: uint8 (n, h, w, c), pixels.
          labels: integers (n,).
          logits: (n, K + 1, classes), those of the ensemble last.
        """
        with np.errstate(invalid="ignore"):
            powers = np.exp(logits - logits.max(-1, keepdims=True))
            # A network whose logits are no numbers is sure of nothing.
            shares = np.nan_to_num(powers / powers.sum(-1, keepdims=True))
        named, sure = logits.argmax(-1), shares.max(-1)  # (n, K + 1)
        wrong = named != labels[:, None]
        surest = np.where(wrong[:, :-1], sure[:, :-1], 0.0).max(-1)  # of the paths that err
        mended = ~wrong[:, -1] & wrong.any(-1)
        for kept, most, rows, ranks in (
            (self._errors, MAX_ERRORS, wrong[:, -1], sure[:, -1]),
            (self._mended, MAX_MENDED, mended, surest),
        ):
            order = np.argsort(-ranks, kind="stable")
            for i in order[rows[order]][:most].tolist():
                label, pixels = int(labels[i]), images[i].copy()  # not a view of the whole batch
                seen = (tuple(named[i].tolist()), tuple(sure[i].tolist()))
                right, rank = float(shares[i, -1, label]), float(ranks[i])
                kept.append(_Seen(self._examples + i, label, *seen, right, pixels, rank))
            kept.sort(key=lambda s: (-s.rank, s.image))
            del kept[most:]
        self._examples += len(labels)

    def to_dict(self, class_names: Sequence[str] = ()) -> dict[str, Any]:
        """JSON form `neas-test-pictures/1`.

        `errors` and `mended` are lists, what tells most first, of pictures with `image`, `label`,
        `named`, `sure`, `right` (see `_Seen`; probabilities are rounded) and `picture`: PNG or JPEG
        of at most `MAX_SIDE` pixels a side and `MAX_BYTES`, in base64.
        """
        return {
            "format": PICTURES_FORMAT,
            "part": "test",
            "examples": self._examples,
            "num_classes": self.num_classes,
            "class_names": list(class_names),
            "errors": [_picture(seen) for seen in self._errors],
            "mended": [_picture(seen) for seen in self._mended],
        }


def _picture(seen: _Seen) -> dict[str, Any]:
    return {
        "image": seen.image,
        "label": seen.label,
        "named": list(seen.named),
        "sure": [round(share, 4) for share in seen.sure],
        "right": round(seen.right, 4),
        "picture": base64.b64encode(_encoded(seen.pixels)).decode(),
    }


def _encoded(pixels: np.ndarray) -> bytes:
    """A thumbnail: as it is where it is small, else the best JPEG that is."""
    from PIL import Image

    colours = pixels if pixels.shape[-1] == 3 else pixels[..., 0]
    picture, content = Image.fromarray(colours), io.BytesIO()
    if max(picture.size) <= _LOSSLESS_SIDE:
        picture.save(content, "png", optimize=True)
        return content.getvalue()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    for quality in (85, 70, 50, 30, 10):
        content = io.BytesIO()
        picture.save(content, "jpeg", quality=quality, optimize=True)
        if content.tell() <= MAX_BYTES:
            break
    return content.getvalue()


def read_confusion(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads the JSON form.

    Raises:
      NeasError: when the file is absent, damaged or of another form.
    """
    value, classes = _read(path, "confusion", FORMAT)
    counts = value.get("counts")
    check(isinstance(counts, list), "confusion.counts", counts, "a list of three integers each")
    for row in counts:
        check(isinstance(row, list) and len(row) == 3, "confusion.counts", row, "three integers")
        for number in row[:2]:
            check_int("confusion.counts", number, 0, classes - 1)
        check_int("confusion.counts", row[2], 0)
    size = len(value["differ"]) if isinstance(value.get("differ"), list) else -1
    for name in ("differ", "both_wrong"):
        rows = value.get(name)
        fits = isinstance(rows, list) and len(rows) == size
        fits = fits and all(isinstance(row, list) and len(row) == size for row in rows)
        check(fits, f"confusion.{name}", rows, "a square of integers, a row a path")
        for row in rows:
            for number in row:
                check_int(f"confusion.{name}", number, 0)
    return value


def read_pictures(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Reads the JSON form of `Pictures`.

    Raises:
      NeasError: when the file is absent, damaged or of another form.
    """
    value, classes = _read(path, "pictures", PICTURES_FORMAT)
    for kind, most in zip(KINDS, (MAX_ERRORS, MAX_MENDED), strict=True):
        what, found = f"pictures.{kind}", value.get(kind)
        fits = isinstance(found, list) and len(found) <= most
        check(fits, what, found, f"a list of at most {most} pictures")
        for picture in found:
            check(isinstance(picture, Mapping), what, picture, "a JSON object a picture")
            check_int(f"{what}.image", picture.get("image"), 0)
            named, sure = picture.get("named"), picture.get("sure")
            check(isinstance(named, list) and len(named) > 1, f"{what}.named", named, "classes")
            for number in (picture.get("label"), *named):
                check_int(f"{what}: a class", number, 0, classes - 1)
            fits = isinstance(sure, list) and len(sure) == len(named)
            check(fits, f"{what}.sure", sure, "a probability for each of named")
            for share in (picture.get("right"), *sure):
                fits = is_number(share) and 0 <= share <= 1
                check(fits, f"{what}: a probability", share, "a number from 0 to 1")
            picture_type(picture.get("picture"))
    return value


def picture_type(text: object) -> str:
    """'png' or 'jpeg', of a picture in base64.

    Raises:
      NeasError: when it is neither, or too large.
    """
    expected = f"PNG or JPEG of at most {MAX_BYTES:,} bytes in base64"
    try:
        content = base64.b64decode(str(text), validate=True)
    except ValueError:
        content = b""
    kind = next((name for magic, name in _MAGIC.items() if content.startswith(magic)), "")
    fits = isinstance(text, str) and bool(kind) and len(content) <= MAX_BYTES
    check(fits, "pictures: a picture", f"{len(content)} bytes", expected)
    return kind


def _read(path: str | os.PathLike[str], what: str, form: str) -> tuple[Any, int]:
    """The value, and its number of classes; what both forms share is checked."""
    value = read_json(path, what)
    check(isinstance(value, Mapping), what, value, "a JSON object")
    check(value.get("format") == form, f"{what}.format", value.get("format"), form)
    classes = check_int(f"{what}.num_classes", value.get("num_classes"), 1, 1 << 20)
    check_int(f"{what}.examples", value.get("examples"), 0)
    names = value.get("class_names", [])
    fits = isinstance(names, list) and len(names) in (0, classes)
    check(fits, f"{what}.class_names", names, f"{classes} names or none")
    return value, classes
