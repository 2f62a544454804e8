"""Epochs of records that several streams read: nothing lost, nothing twice, nothing in vain."""

import collections
import json

import image_files
import numpy as np
import pytest
import tensorflow as tf

from neas_tf import data
from neas_tf.data import DataConfig, streams
from neas_tf.data.dataset_info import Part
from neas_tf.data.pipeline import Slicing
from neas_tf.data.reading.sources import count_records
from neas_tf.data.stores import RecordFile, RecordStore

BATCH = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """60 records in 6 files, each the number of its place."""
    root, files = tmp_path_factory.mktemp("records"), []
    for file in range(6):
        path = str(root / f"{file}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(10):
                writer.write(image_files.example(str(file * 10 + number).encode(), 0))
        files.append(RecordFile(path, 0, 10))
    return RecordStore(tuple(files), "image/encoded", "image/class/label")


@pytest.fixture(autouse=True)
def few_records_are_enough(monkeypatch):
    monkeypatch.setattr(streams, "_LEAST_IN_STREAM", 10)


def indices(part, slicing, start, steps, buffer=16, seed=3):
    """(g, index) of a pipeline's rows of some steps."""
    stream = streams.encoded_stream(part, slicing, seed, start, buffer)
    rows = steps * slicing.replicas * slicing.piece
    found = [(int(g), int(i)) for g, _, _, i in stream.take(rows).as_numpy_iterator()]
    return found


@pytest.mark.parametrize("chosen", [None, np.arange(60)[np.arange(60) % 7 != 3]])
@pytest.mark.parametrize("buffer", [16, 1000])
def test_an_epoch_has_every_record_once_but_for_a_few(store, chosen, buffer):
    part = Part(store, chosen)
    made = streams.RecordStreams.of(part, BATCH, buffer, 3)
    assert made.count > 1 and BATCH % made.count == 0
    epoch = made.count * made.length
    assert 0 <= part.size - epoch < made.count
    steps = 3 * epoch // BATCH
    rows = indices(part, Slicing.of(BATCH, None), 0, steps, buffer)
    assert [g for g, _ in rows] == list(range(steps * BATCH))
    of_stream = collections.defaultdict(list)
    for g, index in rows:
        of_stream[g % BATCH // made.rows].append(index)
    orders = []
    for number in range(2):
        read = [i for s in of_stream.values() for i in s[number * made.length :][: made.length]]
        assert len(set(read)) == epoch and set(read) <= set(range(60) if chosen is None else chosen)
        orders.append(read)
    assert orders[0] != orders[1] and orders[0] != sorted(orders[0])
    every = [int(index) for index, _ in made.once().as_numpy_iterator()]
    assert sorted(every) == list(range(60) if chosen is None else chosen)


def test_resumes_and_shares_at_every_step(store):
    part, whole = Part(store), indices(Part(store), Slicing.of(BATCH, None), 0, 20)
    for start in (1, 7, 8, 15):
        again = indices(part, Slicing.of(BATCH, None), start, 20 - start)
        assert again == whole[start * BATCH :]
    for workers in (2, 4, 8):
        found = []
        for worker in range(workers):
            context = tf.distribute.InputContext(workers, worker, workers)
            found += indices(part, Slicing.of(BATCH, context), 2, 18)
        assert sorted(found) == whole[2 * BATCH :]


def test_a_run_that_resumes_opens_no_file_that_it_has_done_with(store, monkeypatch):
    """And a worker none that only the others read."""
    opened = []
    real = RecordStore.records_of

    def noted(self, file):
        with tf.control_dependencies([tf.py_function(lambda f: opened.append(int(f)), [file], [])]):
            return real(self, tf.identity(file))

    monkeypatch.setattr(RecordStore, "records_of", noted)
    part = Part(store)
    made = streams.RecordStreams.of(part, BATCH, 4, 3)
    last = made.length // made.rows - 1  # the last step of the first epoch
    stream = next(iter(range(made.count)))
    zero = tf.zeros([], tf.int64)
    list(made._epoch(tf.constant(stream, tf.int64), zero, zero).take(1))
    at_start = len(set(opened))
    opened.clear()
    chunk = last * made.rows // made.chunk
    begin = tf.constant(chunk, tf.int64)
    list(made._epoch(tf.constant(stream, tf.int64), zero, begin).take(1))
    assert len(set(opened)) <= at_start
    opened.clear()
    context = tf.distribute.InputContext(2, 0, 2)
    indices(part, Slicing.of(BATCH, context), 0, 1, 4)
    assert len(set(opened)) < len(store.files)


def test_counted_once_and_read_from_addresses(tmp_path):
    """TensorFlow's own file system in memory stands for a bucket."""
    pattern = image_files.records(tmp_path, "train", 3, 4)
    for path in [*tmp_path.iterdir()]:
        tf.io.gfile.makedirs("ram://bucket/records")
        tf.io.gfile.copy(str(path), f"ram://bucket/records/{path.name}", overwrite=True)
    image_files.records(tmp_path, "test", 1, 4)
    test = next(tmp_path.glob("test-*"))
    tf.io.gfile.copy(str(test), f"ram://bucket/records/{test.name}", overwrite=True)
    infos = [
        data.load(
            DataConfig(
                source="tfrecord",
                data_dir=root,
                train_pattern=pattern,
                test_pattern="test-*",
                num_classes=3,
                input_size=[16, 16],
                cache="none",
                search_fraction=0.25,
            )
        )
        for root in (str(tmp_path), "ram://bucket/records")
    ]
    assert infos[0].describe()["files"] == infos[1].describe()["files"]
    first = [next(iter(data.make_dataset(info, "train", 4, True))) for info in infos]
    np.testing.assert_array_equal(first[0][0], first[1][0])
    record = tmp_path / "data.json"
    record.write_text(json.dumps(infos[0].describe()))
    counted = data.recorded_counts(record)
    assert sorted(set(counted.values())) == [4] and len(counted) == 4
    path = str(next(tmp_path.glob("train-*")))
    name_and_size = next(key for key in counted if path.endswith(key[0]))
    assert count_records(path, {name_and_size: 77}) == 77  # not read again
    assert count_records(path, {(name_and_size[0], 1): 77}) == 4  # another file
    record.write_text("{")
    assert data.recorded_counts(record) == {} == data.recorded_counts(tmp_path / "none.json")


def test_a_folder_behind_an_address(tmp_path):
    local = image_files.folder(tmp_path / "photos")
    for path in local.rglob("*.*"):
        place = f"ram://bucket/photos/{path.relative_to(local).as_posix()}"
        tf.io.gfile.makedirs(place.rpartition("/")[0])
        tf.io.gfile.copy(str(path), place, overwrite=True)
    fields = {"source": "image_folder", "input_size": [16, 16], "cache": "none"}
    batches = []
    for root in (str(local), "ram://bucket/photos"):
        info = data.load(DataConfig(data_dir=root, **fields))
        batches.append(next(iter(data.make_dataset(info, "test", 4, False))))
    np.testing.assert_array_equal(batches[0][0], batches[1][0])
    np.testing.assert_array_equal(batches[0][1], batches[1][1])


def test_one_damaged_image_costs_its_group_nothing(tmp_path):
    """The other images of a group are the same whether one of them is damaged or not."""
    root = image_files.folder(tmp_path, per_class=40)
    fields = {"source": "image_folder", "input_size": [16, 16], "cache": "none"}
    config = DataConfig(data_dir=str(root), augment="none", **fields)
    sound = next(iter(data.make_dataset(data.load(config), "train", 60, True)))[0].numpy()
    (root / "train" / "dog" / "007.jpg").write_bytes(b"\xff\xd8\xff no picture")
    grey = next(iter(data.make_dataset(data.load(config), "train", 60, True)))[0].numpy()
    other = (sound != grey).any((1, 2, 3))
    assert other.sum() <= 1
    if other.any():
        assert np.ptp(grey[other]) < 0.05
