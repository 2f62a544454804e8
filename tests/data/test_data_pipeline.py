"""Batches are a function of (seed, step), whatever the source, the pipelines or the start."""

import dataclasses

import image_files
import numpy as np
import pytest
import tensorflow as tf

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import network_input
from neas_tf.data import DataConfig, batch_augment
from neas_tf.data.pipeline import Slicing
from neas_tf.data.streams import permuted

SOURCES = ("digits", "files", "records", "files_crop", "memory_crop")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A data set of each kind."""
    folder = image_files.folder(tmp_path_factory.mktemp("folder"), per_class=7)
    records = tmp_path_factory.mktemp("records")
    files = {"source": "image_folder", "data_dir": str(folder), "input_size": [16, 16]}
    flip = {"augment": "crop_flip", "crop_padding": 2, "search_fraction": 0.2}
    crop = {"augment": "imagenet", "search_fraction": 0.2}
    configs = {
        "digits": DataConfig(augment="crop_flip", crop_padding=1, cutout=3),
        "files": DataConfig(cache="none", **files, **flip),
        "files_crop": DataConfig(**files, **crop),
        "memory_crop": DataConfig(cache="memory", **files, **crop),
        "records": DataConfig(
            source="tfrecord",
            data_dir=str(records),
            train_pattern=image_files.records(records, "train", 4, 6),
            test_pattern=image_files.records(records, "test", 2, 5),
            num_classes=3,
            input_size=[16, 16],
            cache="none",
            shuffle_buffer=8,
            **flip,
        ),
    }
    return {name: data.load(config) for name, config in configs.items()}


def batches(info, part, count, *args, **kwargs):
    dataset = data.make_dataset(info, part, *args, **kwargs)
    return list(dataset.take(count).as_numpy_iterator())


def assert_same(a, b):
    assert len(a) == len(b)
    for (x, y), (x2, y2) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


@pytest.mark.parametrize("source", SOURCES)
def test_resumes_exactly(opened, source):
    info, batch = opened[source], 8
    whole = batches(info, "supernet", 7, batch, True, 3)
    for start in (1, 4):
        assert_same(whole[start:], batches(info, "supernet", 7 - start, batch, True, 3, start))
    other = batches(info, "supernet", 1, batch, True, 4)
    assert (other[0][0] != whole[0][0]).any()


@pytest.mark.parametrize("source", SOURCES)
def test_global_batch_is_the_same_on_several_pipelines(opened, source):
    info, batch = opened[source], 8
    whole = batches(info, "supernet", 4, batch, True, 3, 1)
    for pipelines, own in ((1, 2), (2, 1), (2, 2)):
        pieces = []
        for pipeline in range(pipelines):
            context = tf.distribute.InputContext(pipelines, pipeline, pipelines * own)
            pieces.append(
                batches(info, "supernet", 4 * own, batch, True, 3, 1, input_context=context)
            )
        for step, (images, labels) in enumerate(whole):
            rows = [p[step * own + replica] for p in pieces for replica in range(own)]
            np.testing.assert_array_equal(np.concatenate([r[0] for r in rows]), images)
            np.testing.assert_array_equal(np.concatenate([r[1] for r in rows]), labels)


@pytest.mark.parametrize("source", ["digits", "files", "records"])
def test_every_epoch_is_a_permutation(opened, source):
    info = opened[source]
    info = dataclasses.replace(info, config=info.config.replace(augment="none", cutout=0))
    n = info.sizes["supernet"]
    expected, _ = data.make_arrays(info, "supernet", 0, 0)
    expected = sorted(image.tobytes() for image in expected)
    steps = -(-2 * n // 8)
    images = np.concatenate([x for x, _ in batches(info, "supernet", steps, 8, True, 1)])
    epochs = [[image.tobytes() for image in images[i * n : (i + 1) * n]] for i in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("source", ["digits", "files", "records"])
def test_parts_share_no_image(opened, source):
    info = opened[source]
    parts = {}
    for part in data.PARTS:
        images, _ = data.make_arrays(info, part, 0, 0)
        parts[part] = {image.tobytes() for image in images}
    assert not parts["supernet"] & parts["search"]
    assert not parts["train"] & parts["test"]
    assert parts["supernet"] | parts["search"] == parts["train"]


@pytest.mark.parametrize("source", SOURCES)
def test_evaluation_goes_once_through_in_order(opened, source):
    info = opened[source]
    n = info.sizes["test"]
    one = batches(info, "test", -1, n, False)
    assert len(one) == 1
    some = batches(info, "test", -1, 4, False, drop_remainder=False)
    assert [len(y) for _, y in some] == [4] * (n // 4) + ([n % 4] if n % 4 else [])
    np.testing.assert_array_equal(np.concatenate([x for x, _ in some]), one[0][0])
    full = batches(info, "test", -1, 4, False, drop_remainder=True)
    assert [len(y) for _, y in full] == [4] * (n // 4)


@pytest.mark.parametrize("source", ["digits", "files", "records"])
@pytest.mark.parametrize("drop", [False, True])
def test_evaluation_on_several_pipelines(opened, source, drop):
    info = opened[source]
    labels = []
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, 4)
        dataset = data.make_dataset(
            info, "test", 8, False, drop_remainder=drop, input_context=context
        )
        labels += [y for _, ys in dataset for y in ys.numpy()]
    whole = [
        y for _, ys in data.make_dataset(info, "test", 8, False, drop_remainder=drop) for y in ys
    ]
    assert sorted(labels) == sorted(int(y) for y in whole)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("source", SOURCES)
def test_pixels_travel_as_bytes_and_become_the_same_numbers(opened, source, training):
    info = opened[source]
    info = dataclasses.replace(info, config=info.config.replace(cutout=0))
    part = "supernet" if training else "test"
    whole = batches(info, part, 3, 8, training, 3)
    pixels = batches(info, part, 3, 8, training, 3, pixels=True)
    for (images, labels), (bytes_, same) in zip(whole, pixels, strict=True):
        assert bytes_.dtype == np.uint8 and images.nbytes == 4 * bytes_.nbytes
        assert bytes_.nbytes == len(labels) * np.prod(info.input_shape)
        found = network_input(tf.constant(bytes_), info.normalisation).numpy()
        assert found.tobytes() == images.tobytes()
        np.testing.assert_array_equal(labels, same)


def test_where_the_mean_takes_the_place_of_pixels_images_stay_normalised(opened):
    info = opened["digits"]
    assert info.config.cutout
    found = batches(info, "supernet", 3, 8, True, 3, pixels=True)
    assert_same(found, batches(info, "supernet", 3, 8, True, 3))
    assert found[0][0].dtype == np.float32
    assert batches(info, "test", 1, 8, False, pixels=True)[0][0].dtype == np.uint8


def test_shapes_and_types(opened):
    training = data.make_dataset(opened["digits"], "train", 8, True)
    assert training.element_spec[0].shape == (8, 8, 8, 1)
    assert training.element_spec[0].dtype == tf.float32
    assert training.element_spec[1].shape == (8,)
    assert training.element_spec[1].dtype == tf.int32
    evaluation = data.make_dataset(opened["records"], "test", 8, False)
    assert evaluation.element_spec[0].shape.as_list() == [None, 16, 16, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_permutation(size):
    index = tf.range(size, dtype=tf.int64)
    first = permuted(index, size, 5, tf.constant(0, tf.int64)).numpy()
    second = permuted(index, size, 5, tf.constant(1, tf.int64)).numpy()
    assert sorted(first) == sorted(second) == list(range(size))
    if size > 10:
        assert (first != second).any()
        large = permuted(index, size, 5 + (1 << 40), tf.constant(0, tf.int64)).numpy()
        assert (first != large).any()
    if size == 1000:  # neighbours are not related: their distances are spread evenly
        distances = np.bincount((np.diff(first) % size) // 100, minlength=10)
        assert distances.min() > 60
        assert distances.max() < 145


def test_permutations_of_few_examples_differ():
    index = tf.range(24, dtype=tf.int64)
    seen = {permuted(index, 24, 5, tf.constant(e, tf.int64)).numpy().tobytes() for e in range(300)}
    assert len(seen) > 290


def test_pieces_cover_all_examples():
    for n in range(1, 40):
        for pipelines, own in ((1, 1), (1, 2), (2, 1), (2, 2)):
            seen = []
            for pipeline in range(pipelines):
                context = tf.distribute.InputContext(pipelines, pipeline, pipelines * own)
                slicing = Slicing.of(8, context)
                for m in range(slicing.pieces(n, False)):
                    start = int(slicing.first_example(m))
                    piece = list(range(start, min(start + slicing.piece, n)))
                    assert piece
                    seen += piece
                assert slicing.pieces(n, True) == n // 8 * own
            assert sorted(seen) == list(range(n))


def test_batch_that_cannot_be_shared(opened):
    context = tf.distribute.InputContext(1, 0, 3)
    with pytest.raises(NeasError, match="batch_size: received 8, expected a multiple of the 3"):
        data.make_dataset(opened["digits"], "train", 8, True, input_context=context)


def test_under_mirrored_strategy(opened):
    devices = tf.config.list_logical_devices("CPU")[:1]
    strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    info = opened["digits"]
    dataset = strategy.distribute_datasets_from_function(
        lambda context: data.make_dataset(info, "supernet", 8, True, 3, input_context=context)
    )
    images, _ = next(iter(dataset))
    np.testing.assert_array_equal(images, batches(info, "supernet", 1, 8, True, 3)[0][0])


def test_shift_and_flip(rng):
    images = rng.integers(0, 256, (6, 5, 7, 3)).astype(np.uint8)
    offsets = rng.integers(0, 5, (6, 2)).astype(np.int32)
    flips = rng.integers(0, 2, 6).astype(bool)
    expected = []
    for image, (top, left), flip in zip(images, offsets, flips, strict=True):
        part = np.pad(image, [(2, 2), (2, 2), (0, 0)])[top : top + 5, left : left + 7]
        expected.append(part[:, ::-1] if flip else part)
    result = batch_augment.shift_and_flip(tf.constant(images), offsets, tf.constant(flips), 2)
    np.testing.assert_array_equal(result, expected)
    flipped = batch_augment.flip(tf.constant(images), tf.constant(flips))
    np.testing.assert_array_equal(flipped[0], images[0, :, ::-1] if flips[0] else images[0])


def test_cutout():
    images = tf.ones([2, 6, 6, 1])
    result = batch_augment.cutout(images, tf.constant([[3, 3], [0, 5]]), 4).numpy()[..., 0]
    expected = np.ones((2, 6, 6))
    expected[0, 1:5, 1:5] = 0
    expected[1, 0:2, 3:6] = 0
    np.testing.assert_array_equal(result, expected)


def test_augmentation_varies_and_is_switched_off(opened):
    info = opened["digits"]
    plain = dataclasses.replace(info, config=info.config.replace(augment="none"))
    a = batches(plain, "supernet", 1, 64, True, 3)[0]
    b = batches(info, "supernet", 1, 64, True, 3)[0]
    np.testing.assert_array_equal(a[1], b[1])
    changed = (a[0] != b[0]).any((1, 2, 3)).mean()
    assert changed > 0.8
    no_flip = info.config.replace(flip=False, cutout=0, crop_padding=0)
    c = batches(dataclasses.replace(info, config=no_flip), "supernet", 1, 64, True, 3)[0]
    np.testing.assert_array_equal(a[0], c[0])


def test_arrays_are_fixed_and_balanced(opened):
    images, labels = data.make_arrays(opened["digits"], "supernet", 50, 7)
    again, _ = data.make_arrays(opened["digits"], "supernet", 50, 7)
    np.testing.assert_array_equal(images, again)
    assert np.bincount(labels).tolist() == [5] * 10
    other, _ = data.make_arrays(opened["digits"], "supernet", 50, 8)
    assert (images != other).any()
    assert images.dtype == np.float32 and labels.dtype == np.int32
