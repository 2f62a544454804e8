"""Whether two detectors find the same boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# What a detector finds in one picture: `boxes` (n, 4) as y1, x1, y2, x2; `classes` and `scores` (n,).
Detections = Mapping[str, np.ndarray]


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4); an empty union counts as 0."""
    first, second = (np.asarray(boxes, np.float64) for boxes in (first, second))
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)  # (n, m)
    areas = [np.prod(np.clip(b[:, 2:] - b[:, :2], 0, None), axis=-1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0.0)


def compare(
    expected: Sequence[Detections],
    found: Sequence[Detections],
    *,
    least_iou: float = 0.99,
    least_score: float = 0.0,
    places: int | None = None,
    margin: float = 0.0,
) -> dict[str, Any]:
    """Pairs the boxes of two detectors, picture by picture, one to one, the best first.

    Args:
      least_iou: below it two boxes are not the same.
      least_score: boxes below it are not asked for, but may be a partner.
      places: how many boxes a picture can have. Where the other detector filled them all, a box
        is asked for only if its score is above the other's last by more than `margin`: a lower
        one may have had no place there.

    Returns:
      `pictures`; `boxes`, how many were asked for; `matched`, how many of them have a partner of
      the same class in the other; `not_asked`, how many were not; `lowest_iou` and
      `largest_score_difference` of the pairs (1 and 0 without any). Both directions are counted,
      so that surplus boxes show.
    """
    boxes = matched = not_asked = 0
    ious, scores = [1.0], [0.0]
    for one, two in zip(expected, found, strict=True):
        for a, b in ((one, two), (two, one)):
            overlap = iou(a["boxes"], b["boxes"])
            gaps = np.abs(np.asarray(a["boxes"])[:, None] - np.asarray(b["boxes"])[None])
            # The same to a hundredth of a pixel is the same, also without an area.
            overlap[gaps.max(-1, initial=0.0) < 0.01] = 1.0
            overlap *= np.asarray(a["classes"])[:, None] == np.asarray(b["classes"])[None]
            free = np.ones(len(b["scores"]), bool)
            least = least_score
            if places and len(free) >= places:
                least = max(least, float(np.min(b["scores"])) + margin)
            for i in np.argsort(-np.asarray(a["scores"]), kind="stable"):
                if a["scores"][i] < least:
                    not_asked += 1
                    continue
                boxes += 1
                row = np.where(free, overlap[i], 0.0)
                j = int(np.argmax(row)) if row.size else -1
                if j >= 0 and row[j] >= least_iou:
                    free[j] = False
                    matched += 1
                    ious.append(float(row[j]))
                    scores.append(abs(float(a["scores"][i]) - float(b["scores"][j])))
    return {
        "pictures": len(expected),
        "boxes": boxes,
        "matched": matched,
        "not_asked": not_asked,
        "lowest_iou": min(ious),
        "largest_score_difference": max(scores),
    }
