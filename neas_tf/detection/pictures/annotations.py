"""COCO's annotations as people have them: read clean by everything here, or refused in a sentence.

What COCO's format makes clear is mended and noted: `iscrowd` is 0, `area` is width · height, a box
is that of its polygons or its mask, ids are numbers of their own. Anything else that is wrong is
refused: the COCO API would end with a traceback, or measure something else without a word.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from neas_tf.common.errors import NeasError, is_number, shown
from neas_tf.common.files import decode_text, parse_json, read_bytes

_MOST_BYTES = 1 << 31  # COCO's own training file has half a GB
_SLACK = 2.0  # pixels that a box may reach beyond its picture: tools round
_FILE = "a JSON file of COCO annotations, an object with 'images', 'annotations' and 'categories'"


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a file says, clean.

    Attributes:
      value: COCO's `images`, `annotations` and `categories`. Every id is a whole number (of images
        text, where the file has words), every annotation has `id` (from 1), `image_id` and
        `category_id` (of those listed), `bbox` [x, y, width, height], `area` and `iscrowd`.
      mended: what was mended that a program which reads the file itself would not, a sentence each.
      left_out: what was left out, a sentence each.
    """

    value: dict[str, list[dict[str, Any]]]
    mended: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read(path: str | Path, field: str = "annotations") -> Annotations:
    """Reads a JSON file; `field` begins the message of an error.

    Raises:
      NeasError: when it cannot be read, or holds no COCO annotations of boxes.
    """
    return parse(read_bytes(path, field, _MOST_BYTES), path, field)


def parse(content: bytes, path: str | Path, field: str = "annotations") -> Annotations:
    """Likewise, of the content of a file."""
    received, where = f"{field}: received {str(path)!r}", f"{field}: {str(path)!r}"
    text = decode_text(content, received).encode("utf-8")
    root = parse_json(text, f"{received}, which", nan=True)
    if not isinstance(root, dict):
        kind = "a list, as of detections" if isinstance(root, list) else "no object"
        raise NeasError(f"{where} holds {kind}; expected {_FILE}.")
    reader = _Reader(where)
    if text != content:
        reader.mended["is not plain UTF-8 (a byte order mark, or UTF-16)"] += 1
    return reader.clean(root)


class _Reader:
    """One reading: the file's name for messages, and what was mended, with how often."""

    def __init__(self, where: str):
        self.where = where
        self.mended: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def clean(self, root: Mapping[str, Any]) -> Annotations:
        images = self.unique("images", self.rows(root, "images"), number=False)
        categories = self.unique("categories", self.rows(root, "categories"), number=True)
        for i, row in enumerate(images):
            for key in ("width", "height"):
                self.size(f"images[{i}].{key}", row, key)
        for i, row in enumerate(categories):
            self.name(f"categories[{i}].name", row)
        rows = self.rows(root, "annotations")
        pictures = {row["id"]: row for row in images}
        known = {row["id"] for row in categories}
        annotations = self.annotations(rows, pictures, known)
        if all(row["iscrowd"] for row in annotations):
            reasons = "".join(f"; {text}" for text in self.sentences(self.left_out))
            raise NeasError(
                f"{self.where} holds no box that counts{reasons}; expected 'annotations' with "
                "boxes of its 'images'."
            )
        value = {"images": images, "annotations": annotations, "categories": categories}
        return Annotations(value, self.sentences(self.mended), self.sentences(self.left_out))

    def sentences(self, counts: Counter[str]) -> tuple[str, ...]:
        return tuple(f"{self.where} {text.replace('#', str(n))}" for text, n in counts.items())

    def bad(self, place: str, received: object, expected: str) -> NoReturn:
        raise NeasError(f"{self.where}: {place}: received {shown(received)}, expected {expected}.")

    def rows(self, root: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        """A list of objects, copied, of which there is at least one."""
        rows = root.get(key)
        if not isinstance(rows, list) or not rows:
            what = f"holds no {key!r}" if not rows else f"has {key!r} that are no list"
            raise NeasError(f"{self.where} {what}; expected {_FILE}.")
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                self.bad(f"{key}[{i}]", row, "an object")
        return [dict(row) for row in rows]

    def identity(self, place: str, value: object, number: bool) -> int | str:
        """An id as a whole number; other words stay unless `number`."""
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d+\s*", value, re.ASCII):
            self.mended["has ids that are text, not numbers, in # places"] += 1
            return int(value)
        word = isinstance(value, str) and value.strip() and not number
        if not word and (not isinstance(value, int) or isinstance(value, bool)):
            self.bad(place, value, "a whole number")
        return value  # type: ignore[return-value]

    def unique(self, key: str, rows: list[dict[str, Any]], number: bool) -> list[dict[str, Any]]:
        """Rows with ids of their own; the same row twice counts once."""
        result: dict[int | str, dict[str, Any]] = {}
        for i, row in enumerate(rows):
            row["id"] = own = self.identity(f"{key}[{i}].id", row.get("id"), number)
            if own in result and result[own] != row:
                self.bad(f"{key}[{i}].id", own, "an id that no other entry has")
            result[own] = row
        return list(result.values())

    def size(self, place: str, row: dict[str, Any], key: str) -> None:
        value = row.get(key)
        if value is None:
            row.pop(key, None)
        elif not is_number(value) or value < 1 or value != int(value):
            self.bad(place, value, "a whole number of pixels")
        else:
            row[key] = int(value)

    def name(self, place: str, row: dict[str, Any]) -> None:
        value = row.get("name")
        if value is not None and not isinstance(value, int | str):
            self.bad(place, value, "a name")
        # One line, for names are written a line each.
        row["name"] = "" if value is None else " ".join(str(value).split())

    def annotations(self, rows, pictures, known) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = []
        ids: Counter[Any] = Counter()
        seen: set[Any] = set()
        for i, row in enumerate(rows):
            place = f"annotations[{i}]"
            image = self.identity(f"{place}.image_id", row.get("image_id"), number=False)
            if image not in pictures:
                self.left_out["has # annotations of pictures that are not in 'images'"] += 1
                continue
            kind = self.identity(f"{place}.category_id", row.get("category_id"), number=True)
            if kind not in known:
                ours = ", ".join(map(str, sorted(known)[:10])) + (" …" if len(known) > 10 else "")
                self.bad(f"{place}.category_id", kind, f"an id of 'categories' ({ours})")
            crowd = self.crowd(place, row)
            box = self.box(place, row, pictures[image])
            area = self.area(place, row, box)
            if area == 0:
                self.left_out["has # boxes without width or height, and area 0"] += 1
                continue
            own = row.get("id")
            twice = (repr(own), image, kind, *box)
            if own is not None and twice in seen:
                self.left_out["has # annotations twice, with the same id"] += 1
                continue
            seen.add(twice)
            ids[repr(own)] += 1
            if not isinstance(own, int) or isinstance(own, bool) or own == 0 or ids[repr(own)] > 1:
                text = "has # annotations whose 'id' is missing, 0, no number or another's"
                self.mended[text] += 1
            new = {"bbox": box, "area": area, "iscrowd": crowd, "category_id": kind}
            result.append({**row, **new, "image_id": image, "id": len(result) + 1})
        return result

    def crowd(self, place: str, row: Mapping[str, Any]) -> int:
        value = row.get("iscrowd")
        if value is None:
            self.mended["has # annotations without 'iscrowd'; 0 is meant"] += 1
            return 0
        if not isinstance(value, int | float) or value not in (0, 1):
            self.bad(f"{place}.iscrowd", value, "0 or 1")
        return int(value)

    def box(self, place: str, row: Mapping[str, Any], image: Mapping[str, Any]) -> list[float]:
        value = row.get("bbox")
        if value is None or value == []:
            place = f"{place}.segmentation"
            value = segmentation_box(row.get("segmentation"), image)
            if value is None:
                expected = "polygons or a mask of the picture's size, as there is no 'bbox'"
                self.bad(place, row.get("segmentation"), expected)
            self.mended["has # annotations without 'bbox'; that of the segmentation is meant"] += 1
        else:
            place = f"{place}.bbox"
            good = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
            if not good or min(value[2:]) < 0:
                self.bad(place, value, "[x, y, width, height], numbers of pixels")
        fault = outside(value, image)
        if fault:
            self.bad(place, value, fault)
        return value

    def area(self, place: str, row: Mapping[str, Any], box: Sequence[float]) -> float:
        """The area; 0 only for a box that has none, and says so."""
        value, own = row.get("area"), box[2] * box[3]
        if value is not None and (not is_number(value) or value < 0):
            self.bad(f"{place}.area", value, "a number of pixels, 0 or more")
        if own == 0 and (value is None or value > 0):
            self.bad(f"{place}.bbox", list(box), "a width and a height above 0")
        if not value and own:
            self.mended["has # annotations without 'area'; width · height is meant"] += 1
        return (value or own) if own else 0.0


def outside(box: Sequence[float], image: Mapping[str, Any]) -> str:
    """What was expected of a box that is not in its picture, or ''; without a size any is good."""
    width, height = image.get("width", math.inf), image.get("height", math.inf)
    x, y, w, h = box
    good = min(x, y) >= -_SLACK and x + w <= width + _SLACK and y + h <= height + _SLACK
    if good:
        return ""
    return f"[x, y, width, height] inside of its picture, {width}×{height} pixels"


def segmentation_box(value: object, image: Mapping[str, Any]) -> list[float] | None:
    """[x, y, width, height] of polygons or of a run-length encoded mask; None when it is neither.

    A mask must have the image's `width` and `height`, where they are known.
    """
    if isinstance(value, list):
        polygons = [value] if value and all(map(is_number, value)) else value
        good = polygons and all(
            isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(map(is_number, p))
            for p in polygons
        )
        if not good:
            return None
        xs, ys = ([n for p in polygons for n in p[i::2]] for i in (0, 1))
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if not isinstance(value, dict):
        return None
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        return None
    if not all(type(n) is int and 0 < n < 1 << 15 for n in size):
        return None
    if size != [image.get("height", size[0]), image.get("width", size[1])]:
        return None
    from pycocotools import mask

    if isinstance(counts, list):
        # The library trusts what it is given.
        if not all(type(n) is int and n >= 0 for n in counts) or sum(counts) != size[0] * size[1]:
            return None
        value = mask.frPyObjects({"size": size, "counts": counts}, *size)
    elif not isinstance(counts, str) or not re.fullmatch("[0-o]*[0-O]", counts):
        return None
    box = [float(n) for n in mask.toBbox(value)]
    inside = not outside(box, {"height": size[0], "width": size[1]})
    return box if inside and min(box[2:]) > 0 else None


def fit_classes(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """The annotations with the detector's class ids in place of their own; `mended` says where they differ.

    Names are compared, without regard to case, `_` and `-`; a category without a name, or a class
    whose name is only its number, is told by its id. `names` are those of the detector's classes by id,
    the first that of the background; without any, ids count.

    Raises:
      NeasError: when a category that has boxes is no class of the detector, or not one class.
    """
    used = {row["category_id"] for row in annotations.value["annotations"]}
    classes: dict[int, int] = {}
    for category in annotations.value["categories"]:
        own, name = category["id"], category["name"]
        try:
            classes[own] = _class_of(own, name, names)
        except NeasError:
            if own in used:
                raise
    taken: dict[int, str] = {}
    by_id = {c["id"]: c for c in annotations.value["categories"] if c["id"] in classes}
    for own in sorted(used):
        name, other = _plain(by_id[own]["name"]), taken.get(classes[own])
        if other is not None and other != name:
            raise NeasError(
                f"annotations: categories {other!r} and {name!r} are both class {classes[own]} of "
                "the detector; expected a class for each."
            )
        taken[classes[own]] = name
    moved = [own for own in sorted(used) if classes[own] != own]
    mended = list(annotations.mended)
    if moved:
        shown_ids = ", ".join(f"{own} → {classes[own]}" for own in moved[:5])
        mended.append(
            f"annotations: {len(moved)} categories have other ids than the detector's classes of "
            f"the same names, which count ({shown_ids}{' …' if len(moved) > 5 else ''})"
        )
    value = dict(annotations.value)
    value["categories"] = [by_id[k] | {"id": n} for n, k in {classes[k]: k for k in by_id}.items()]
    value["annotations"] = [
        row | {"category_id": classes[row["category_id"]]} for row in value["annotations"]
    ]
    return dataclasses.replace(annotations, value=value, mended=tuple(mended))


def _class_of(own: int, name: str, names: Sequence[str]) -> int:
    """The class that a category is."""
    field, last = f"annotations: category {own} ({name!r})", len(names) - 1
    placeholder = 0 <= own <= last and _plain(names[own]) in ("", str(own))
    if not names or name in ("", str(own)) or placeholder:
        if own < 1 or (names and own > last):
            ids = f"a class id from 1 to {last}" if names else "class ids from 1"
            raise NeasError(f"{field}: expected {ids}, as 0 is the detector's background.")
        return own
    same = [i for i, label in enumerate(names) if i and _plain(label) == _plain(name)]
    if own in same or len(same) == 1:
        return own if own in same else same[0]
    listed = ", ".join(names[1:6]) + (" …" if last > 5 else "")
    what = "is more than one class" if same else "is no class"
    raise NeasError(f"{field} {what} of the detector; expected one of its names ({listed}).")


def _plain(name: str) -> str:
    return " ".join(re.sub("[_-]", " ", name).casefold().split())


def same_name(first: str, second: str) -> bool:
    """Whether two names of classes mean the same: without regard to case, `_` and `-`."""
    return _plain(first) == _plain(second)
