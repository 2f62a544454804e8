"""Arrays and datasets as people have them: what is recognised, and what is refused in one sentence."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from neas_tf.api.arrays import Reading, examples_of
from neas_tf.common.errors import NeasError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(8) % 2


def read(data):
    said = []
    found = list(examples_of(data, Reading("data", said.append)))
    images, labels = zip(*found, strict=True) if found else ((), ())
    return np.array(images), list(labels), said


def test_pixels_in_every_form_are_the_same():
    for images in (PIXELS, PIXELS.astype(np.int64), PIXELS.astype(np.float32), PIXELS / 255.0):
        found, labels, said = read((images, LABELS))
        np.testing.assert_array_equal(found, PIXELS)
        assert found.dtype == np.uint8 and labels == LABELS.tolist()
        assert bool(said) == (images.max() <= 1)
    grey, _, _ = read((PIXELS[..., 0], LABELS))
    np.testing.assert_array_equal(grey, PIXELS[..., :1])
    flags, _, _ = read((PIXELS[..., 0] > 128, LABELS))
    assert set(np.unique(flags)) == {0, 255}


@pytest.mark.parametrize(
    "labels, expected, told",
    [
        (LABELS.astype(np.float32), LABELS.tolist(), 0),
        (LABELS[:, None], LABELS.tolist(), 0),
        (np.eye(2)[LABELS], LABELS.tolist(), 1),
        (np.array(["owl", "cat"])[LABELS], ["owl", "cat"] * 4, 0),
        ([b"owl", b"cat"] * 4, ["owl", "cat"] * 4, 0),
        (LABELS.tolist(), LABELS.tolist(), 0),
    ],
)
def test_labels_in_every_form(labels, expected, told):
    _, found, said = read((PIXELS, labels))
    assert found == expected and len(said) == told


@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_datasets_batched_or_not(batch, scale):
    """A dark first image does not tell the scale of the others."""
    images = PIXELS.astype(np.float32)
    images[0] = 0
    dataset = tf.data.Dataset.from_tensor_slices((images * scale, LABELS))
    found, labels, _ = read(dataset.batch(batch) if batch else dataset)
    np.testing.assert_array_equal(found, images)
    assert labels == LABELS.tolist()
    again = [{"image": i, "label": n} for i, n in zip(images * scale, LABELS, strict=True)]
    np.testing.assert_array_equal(read(again)[0], images)


def test_a_list_of_images_of_several_sizes():
    data = [PIXELS[0], PIXELS[1, :4]], ["b", "a"]
    examples = list(examples_of(data, Reading("data", print)))
    assert [image.shape for image, _ in examples] == [(6, 5, 3), (4, 5, 3)]
    assert [label for _, label in examples] == ["b", "a"]


def images_with(value):
    images = PIXELS.astype(np.float32)
    images[3, 0, 0, 0] = value
    return images


@pytest.mark.parametrize(
    "data, said",
    [
        ((PIXELS, LABELS[:5]), "data labels: received '5 labels for 8 images'"),
        ((images_with(np.nan), LABELS), "image 3 has a pixel that is NaN or infinite"),
        ((images_with(np.inf), LABELS), "image 3 has a pixel that is NaN or infinite"),
        ((images_with(-1.0), LABELS), "expected 0..255 or 0..1: pixels as they are"),
        ((images_with(300.0), LABELS), "values up to 300"),
        ((PIXELS.transpose(0, 3, 1, 2), LABELS), r"channels last: x.transpose\(0, 2, 3, 1\)"),
        ((np.zeros((8, 6, 5, 4), np.uint8), LABELS), "leaves transparency out"),
        ((PIXELS.reshape(8, -1), LABELS), "reshape them first"),
        ((PIXELS.astype(complex), LABELS), "expected numbers in 0..255"),
        ((PIXELS[:0], LABELS[:0]), "one image at least"),
        ((PIXELS, np.full(8, -1)), "class numbers from 0, or names"),
        ((PIXELS, np.full(8, 0.5)), "expected class numbers or names"),
        ((PIXELS, np.ones((8, 2))), "one class for each image"),
        ((PIXELS, [None] * 8), "expected class numbers or names"),
        (5, "expected a folder, "),
        ([PIXELS[0], PIXELS[1], PIXELS[2]], r"expected elements \(image, label\)"),
        (
            tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).repeat(),
            "a dataset without end",
        ),
        (((PIXELS[i % 8], i % 2) for i in itertools.count()), "a dataset without end"),
    ],
    ids=[f"case{i}" for i in range(18)],
)
def test_what_is_refused(data, said):
    if said == "a dataset without end" and not hasattr(data, "cardinality"):
        many = RNG.integers(0, 256, (80, 2, 2, 3)).astype(np.uint8)
        data = ((many[i % 80], i % 2) for i in itertools.count())
    with pytest.raises(NeasError, match=said):
        read(data)


def test_a_generator_that_raises_is_named():
    def broken():
        yield PIXELS[0], 0
        raise ValueError("the disk is gone")

    with pytest.raises(NeasError, match=r"failed after 1 examples \(ValueError: the disk is gone"):
        read(broken())
