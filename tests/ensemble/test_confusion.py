"""What a test leaves: classes taken for others, paths that disagree, the surest errors' pictures."""

import base64
import io

import numpy as np
import pytest
import synthetic_run
from PIL import Image

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.confusion import (
    MAX_BYTES,
    MAX_ERRORS,
    MAX_MENDED,
    MAX_SIDE,
    Confusion,
    Pictures,
    picture_type,
    read_confusion,
    read_pictures,
)


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


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture["picture"])))


def seen_pictures(size=(8, 6), channels=3, count=300, batch=64, seed=0):
    """(pictures as JSON, images, labels, logits) of a random test of K = 2 paths and 5 classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(count, *size, channels)).astype(np.uint8)
    labels = rng.integers(5, size=count)
    paths = rng.normal(size=(count, 2, 5)) * 3
    logits = np.concatenate([paths, paths.mean(1, keepdims=True)], 1)
    pictures = Pictures(5)
    for i in range(0, count, batch):
        part = slice(i, i + batch)
        pictures.add(images[part], labels[part], logits[part])
    return pictures.to_dict(["a", "b", "c", "d", "e"]), images, labels, logits


def test_the_surest_errors_come_first_and_are_what_the_network_saw(tmp_path):
    value, images, labels, logits = seen_pictures()
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    named, sure = logits.argmax(-1), shares.max(-1)
    wrong = named != labels[:, None]
    errors = sorted(np.flatnonzero(wrong[:, -1]), key=lambda i: -sure[i, -1])[:MAX_ERRORS]
    assert [p["image"] for p in value["errors"]] == errors
    mended = np.flatnonzero(~wrong[:, -1] & wrong.any(-1))
    best = sorted(mended, key=lambda i: -max(sure[i, k] for k in range(2) if wrong[i, k]))
    assert [p["image"] for p in value["mended"]] == best[:MAX_MENDED]
    for picture in value["errors"] + value["mended"]:
        i = picture["image"]
        assert (picture["label"], picture["named"]) == (labels[i], named[i].tolist())
        np.testing.assert_allclose(picture["sure"], sure[i], atol=5.1e-5)
        assert picture["right"] == pytest.approx(shares[i, -1, labels[i]], abs=5.1e-5)
        np.testing.assert_array_equal(np.asarray(opened(picture)), images[i])
    assert seen_pictures(batch=7)[0] == value, "whatever the batches"
    synthetic_run.write_json(tmp_path / "pictures.json", value)
    assert read_pictures(tmp_path / "pictures.json") == value


@pytest.mark.parametrize(("size", "channels"), [((300, 200), 3), ((40, 90), 1), ((20, 20), 1)])
def test_pictures_are_few_and_small(size, channels):
    """Noise, which is the dearest to encode."""
    value, *_ = seen_pictures(size, channels, count=200)
    assert len(value["errors"]) == MAX_ERRORS and len(value["mended"]) == MAX_MENDED
    for picture in value["errors"] + value["mended"]:
        assert picture_type(picture["picture"]) == ("jpeg" if max(size) > 32 else "png")
        found = opened(picture)
        assert max(found.size) == min(max(size), MAX_SIDE)
        assert found.mode == ("RGB" if channels == 3 else "L")
        assert len(base64.b64decode(picture["picture"])) <= MAX_BYTES


def test_logits_that_are_no_numbers_leave_a_whole_file(tmp_path):
    pictures = Pictures(3)
    logits = np.full((2, 2, 3), np.nan)
    logits[1] = np.inf
    pictures.add(np.zeros((2, 4, 4, 1), np.uint8), np.array([1, 2]), logits)
    value = pictures.to_dict()
    assert [p["sure"] for p in value["errors"]] == [[0, 0], [0, 0]]
    synthetic_run.write_json(tmp_path / "pictures.json", value)
    assert read_pictures(tmp_path / "pictures.json") == value


@pytest.mark.parametrize(
    "change",
    [
        {"format": "neas-test-pictures/2"},
        {"errors": {}},
        {"mended": [{}] * (MAX_MENDED + 1)},
        {"image": -1},
        {"label": 5},
        {"named": [0, 9, 0]},
        {"sure": [0.5, 0.5]},
        {"sure": [0.5, 0.5, 1.5]},
        {"right": None},
        {"picture": base64.b64encode(b"<svg onload=alert(1)>").decode()},
        {"picture": base64.b64encode(b"\xff\xd8\xff" + bytes(MAX_BYTES)).decode()},
        {"picture": '"><script>'},
        {"picture": 7},
    ],
    ids=lambda change: str(change)[:40],
)
def test_damaged_pictures_are_refused(tmp_path, change):
    value, *_ = seen_pictures()
    if not set(change) <= set(value):
        value["errors"][2] |= change
        change = {}
    synthetic_run.write_json(tmp_path / "pictures.json", {**value, **change})
    with pytest.raises(NeasError, match="pictures"):
        read_pictures(tmp_path / "pictures.json")
