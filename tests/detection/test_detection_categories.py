"""COCO's categories and a detector's classes: names are compared before ids."""

import json

import pytest

from neas_tf.common.errors import NeasError
from neas_tf.detection.pictures import annotations

NAMES = ["background", "cat", "dog", "traffic light"]


def fitted(categories, used, names=NAMES):
    """Class ids that boxes of categories get, and what is said."""
    rows = [
        {
            "id": i,
            "image_id": 1,
            "category_id": kind,
            "bbox": [1, 1, 5, 5],
            "area": 25,
            "iscrowd": 0,
        }
        for i, kind in enumerate(used, 1)
    ]
    value = {
        "images": [{"id": 1}],
        "annotations": rows,
        "categories": [{"id": i, "name": name} for i, name in categories],
    }
    clean = annotations.parse(json.dumps(value).encode(), "a.json")
    found = annotations.fit_classes(clean, names)
    kinds = [row["category_id"] for row in found.value["annotations"]]
    assert set(kinds) <= {row["id"] for row in found.value["categories"]}
    return kinds, " ".join(found.mended)


@pytest.mark.parametrize(
    ("categories", "used", "classes", "moved"),
    [
        ([(1, "cat"), (2, "dog")], [1, 2], [1, 2], False),
        ([(0, "cat"), (1, "dog")], [0, 1], [1, 2], True),
        ([(1, "dog"), (2, "cat")], [1, 2], [2, 1], True),
        ([(17, "Cat"), (10, "traffic_light")], [17, 10], [1, 3], True),
        ([(1, None), (2, "")], [1, 2], [1, 2], False),
        ([(1, "1"), (2, "2")], [1, 2], [1, 2], False),
        ([(0, "background"), (1, "cat"), (9, "zebra")], [1], [1], False),
        ([(0, "cat"), (1, "cat"), (2, "dog")], [1, 2], [1, 2], False),
    ],
)
def test_names_are_compared_before_ids(categories, used, classes, moved):
    found, said = fitted(categories, used)
    assert found == classes and ("other ids" in said) == moved


@pytest.mark.parametrize(
    ("categories", "used", "names", "message"),
    [
        ([(1, "cat"), (3, "zebra")], [1, 3], NAMES, r"category 3 \('zebra'\) is no class"),
        ([(1, "background")], [1], NAMES, "is no class"),
        ([(0, None)], [0], NAMES, "0 is the detector's background"),
        ([(4, None)], [4], NAMES, "a class id from 1 to 3"),
        ([(0, "cat")], [0], [], "0 is the detector's background"),
        ([(0, "cat"), (1, "dog")], [0, 1], ["0", "1", "2"], "0 is the detector's background"),
        ([(7, "crane")], [7], ["background", "crane", "crane"], "more than one class"),
        ([(1, "dog"), (2, None)], [1, 2], NAMES, "expected a class for each"),
    ],
)
def test_categories_that_are_no_class(categories, used, names, message):
    with pytest.raises(NeasError, match=message):
        fitted(categories, used, names)


def test_a_class_that_has_no_name_is_told_by_its_id():
    assert fitted([(1, "cat"), (2, "dog")], [1, 2], ["0", "1", "2"]) == ([1, 2], "")
    assert fitted([(1, "cat"), (2, "dog")], [1, 2], [])[0] == [1, 2]
