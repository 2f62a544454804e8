"""Counts of a test: classes taken for others, paths that disagree."""

import numpy as np
import pytest
import synthetic_run

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.confusion import Confusion, read_confusion


def test_confusion_counts(tmp_path):
    labels = np.array([0, 0, 1, 2, 2])
    paths = np.array([[0, 0], [1, 0], [1, 1], [0, 0], [2, 1]])
    ensemble = np.array([0, 1, 1, 0, 2])
    counts = Confusion(3, 2)
    rows = np.concatenate([paths, ensemble[:, None]], 1)
    for part in (slice(0, 2), slice(2, 5)):
        counts.add(labels[part], rows[part])
    value = counts.to_dict(["a", "b", "c"])
    assert value["examples"] == 5
    assert value["counts"] == [[0, 0, 1], [0, 1, 1], [1, 1, 1], [2, 0, 1], [2, 2, 1]]
    # The paths differ on images 2 and 5; path 1 errs on 2 and 4, path 2 on 4 and 5.
    assert value["differ"] == [[0, 2], [2, 0]]
    assert value["both_wrong"] == [[2, 1], [1, 2]]
    synthetic_run.write_json(tmp_path / "confusion.json", value)
    assert read_confusion(tmp_path / "confusion.json") == value


@pytest.mark.parametrize(
    "change",
    [
        {"format": "neas-confusion/2"},
        {"num_classes": 0},
        {"counts": [[0, 3, 1]]},
        {"counts": [[0, 1]]},
        {"counts": [[0, 1, -1]]},
        {"differ": [[0, 1]]},
        {"both_wrong": [["x", 0], [0, 0]]},
        {"class_names": ["a"]},
    ],
    ids=str,
)
def test_a_damaged_confusion_is_refused(tmp_path, change):
    value = Confusion(3, 2).to_dict(["a", "b", "c"])
    path = tmp_path / "confusion.json"
    synthetic_run.write_json(path, value)
    assert read_confusion(path)["examples"] == 0
    synthetic_run.write_json(path, {**value, **change})
    with pytest.raises(NeasError, match=rf"confusion\.{next(iter(change))}"):
        read_confusion(path)
