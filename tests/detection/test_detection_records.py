"""What training would end at, or learn something else from, is found in the records before it."""

import json
import re

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from small_detection import CLASSES, make_coco, tiny_config

from neas_tf.common.errors import NeasError
from neas_tf.detection.checks import check_annotations, check_experiment, check_records
from neas_tf.detection.pictures.labels import names_of_categories, names_of_run, store_names

LABEL, TEXT = "image/object/class/label", "image/object/class/text"
BOX = "image/object/bbox/"


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def examples(coco):
    (file,) = coco.glob("train-*")
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    return [tf.train.Example.FromString(record) for record in records]


def put(key, values):
    """An edit of every record: a key's values, or none."""
    kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}

    def edit(feature):
        if key in feature:
            del feature[key]
        if values:
            getattr(feature[key], kind[type(values[0])]).value.extend(values)

    return edit


def both(*edits):
    return lambda feature: [edit(feature) for edit in edits]


def write(path, examples, edit):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            new = tf.train.Example.FromString(example.SerializeToString())
            edit(new.features.feature)
            writer.write(new.SerializeToString())
    return str(path)


def look(coco, pattern, part="train_data", with_annotations=True):
    data = {"input_path": pattern, "is_training": part == "train_data"}
    task = tiny_config(coco, **{part: data}).task
    boxes = check_annotations(task) if with_annotations else None
    check_records(f"task.{part}", getattr(task, part), CLASSES, boxes)


NO_BOXES = both(
    put(LABEL, []),
    *(put(BOX + side, []) for side in ("xmin", "xmax", "ymin", "ymax")),
    put("image/object/is_crowd", []),
    put("image/object/area", []),
)
TEXTS = {1: b"red", 2: b"Green", 3: b"blue"}


def texts(names):
    def edit(feature):
        for label in feature[LABEL].int64_list.value:
            feature[TEXT].bytes_list.value.append(names[label])

    return edit


def exif(feature):
    """The picture lies on its side, height and width are those of the turned one."""
    pixels = cv2.imdecode(
        np.frombuffer(feature["image/encoded"].bytes_list.value[0], np.uint8), cv2.IMREAD_COLOR
    )
    tag = Image.Exif()
    tag[0x0112] = 8
    done = cv2.imencode(".jpg", pixels)[1].tobytes()
    import io

    stream = io.BytesIO()
    Image.open(io.BytesIO(done)).save(stream, "JPEG", exif=tag.tobytes())
    put("image/encoded", [stream.getvalue()])(feature)
    put("image/height", [60])(feature)
    put("image/width", [48])(feature)


GOOD = {
    "as the tool writes them": texts(TEXTS),
    "no sizes": both(put("image/height", []), put("image/width", [])),
    "no crowds and areas": both(put("image/object/is_crowd", []), put("image/object/area", [])),
    "the label of another language, without annotations": put(TEXT, [b"rot", b"rot"]),
}


@pytest.mark.parametrize("part", ["train_data", "validation_data"])
@pytest.mark.parametrize("name", GOOD)
def test_good_records_pass(name, part, coco, examples, tmp_path):
    pattern = write(tmp_path / "a", examples, GOOD[name])
    look(coco, pattern, part, with_annotations="language" not in name)


def test_validation_pictures_may_be_without_boxes(coco, examples, tmp_path):
    pattern = write(tmp_path / "a", examples, NO_BOXES)
    look(coco, pattern, "validation_data")
    with pytest.raises(NeasError, match="the first 3 records"):
        look(coco, pattern, "validation_data", with_annotations=False)


BAD = {
    "a class too many": (put(LABEL, [1, 4]), r"num_classes: received 4, expected at least 5"),
    "background": (put(LABEL, [0, 1]), "has class id 0, and 0 is the background"),
    "negative": (put(LABEL, [-1, 1]), "num_classes: .* class id -1"),
    "no boxes": (NO_BOXES, "the first 3 records of .* hold no box"),
    "no labels": (put(LABEL, []), "ymin' holds 2 values, expected 0"),
    "no xmin": (put(BOX + "xmin", []), "xmin' holds 0 values, expected 2"),
    "labels as text": (put(LABEL, [b"a", b"b"]), "holds a bytes_list, expected a int64_list"),
    "labels as floats": (put(LABEL, [1.0, 2.0]), "holds a float_list, expected a int64_list"),
    "pixels": (put(BOX + "xmax", [40.0, 50.0]), r"a box is \[.*\], expected \[ymin"),
    "NaN": (put(BOX + "xmax", [float("nan"), 0.5]), "a box is"),
    "upside down": (
        both(put(BOX + "ymin", [0.9, 0.9]), put(BOX + "ymax", [0.1, 0.1])),
        "a box is",
    ),
    "another key": (
        both(put("image/encoded", []), put("image", [b"x"])),
        "0 values of 'image/encoded', expected one; its keys are image, image/filename",
    ),
    "no id": (put("image/source_id", []), "0 values of 'image/source_id'"),
    "text as picture": (put("image/encoded", [b"no picture"]), "cannot be decoded"),
    "an animation": (put("image/encoded", [b"GIF89a"]), "cannot be decoded"),
    "areas of some": (put("image/object/area", [5.0]), "area' holds 1 values, expected 2"),
    "names of another set": (texts(dict.fromkeys(TEXTS, b"person")), "is 'person', but '"),
    "turned": (exif, "EXIF orientation 8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_one_sentence(name, coco, examples, tmp_path):
    edit, message = BAD[name]
    pattern = write(tmp_path / "a", examples, edit)
    with pytest.raises(NeasError, match=message) as caught:
        look(coco, pattern)
    text = str(caught.value)
    assert text.startswith("task.") and text.endswith(".") and "\n" not in text


BAD_VALIDATION = {
    "id of no picture": (put("image/source_id", [b"99"]), "expected the id of one of the 'images'"),
    "id as a name": (put("image/source_id", [b"1.png"]), "expected a whole number as text"),
    "empty id": (put("image/source_id", [b""]), "expected the id of one of the 'images'"),
    "another size": (put("image/height", [96]), "stored as 60×48 pixels"),
}


@pytest.mark.parametrize("name", BAD_VALIDATION)
def test_records_that_the_annotations_do_not_judge(name, coco, examples, tmp_path):
    edit, message = BAD_VALIDATION[name]
    pattern = write(tmp_path / "a", examples, edit)
    look(coco, pattern)  # training does not mind
    with pytest.raises(NeasError, match=message):
        look(coco, pattern, "validation_data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no record"),
        (b"no records at all, but long enough to be read", "damaged, or no file of TFRecords"),
    ],
)
def test_files_that_hold_no_records(content, message, coco, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(NeasError, match=message):
        look(coco, str(tmp_path / "a"))


def test_a_record_that_is_no_example(coco, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(b"\xff\xff\xff")
    with pytest.raises(NeasError, match=r"record 0 of .* is no tf\.train\.Example"):
        look(coco, str(tmp_path / "a"))


def test_the_look_is_bounded_but_sees_every_file_of_a_few(coco, examples, tmp_path):
    for i in range(40):
        write(tmp_path / f"a{i:02}", examples, lambda feature: None)
    write(tmp_path / "a38", examples, put(LABEL, [1, 7]))
    with pytest.raises(NeasError, match="class id 7"):
        look(coco, f"{tmp_path}/a3?")
    with pytest.raises(NeasError, match="class id 7"):
        look(coco, f"{tmp_path}/a*")  # every second


def edited(coco, folder, edit):
    value = json.loads((coco / "instances.json").read_text())
    edit(value)
    path = folder / "edited.json"
    path.write_text(json.dumps(value))
    return str(path)


def without(key):
    return lambda value: [row.pop(key) for row in value["annotations"]]


def set_all(part, **values):
    return lambda value: [row.update(values) for row in value[part]]


ANNOTATIONS = {
    "without iscrowd": (without("iscrowd"), "without 'iscrowd'; 0 is meant, but Model Garden's"),
    "without area": (without("area"), "without 'area'"),
    "without ids": (without("id"), "whose 'id' is missing"),
    "ids from 0": (
        lambda v: [row.update(id=i) for i, row in enumerate(v["annotations"])],
        "whose 'id'",
    ),
    "ids twice": (set_all("annotations", id=7), "whose 'id'"),
    "text ids": (
        lambda v: [row.update(image_id=str(row["image_id"])) for row in v["annotations"]],
        "ids that are text",
    ),
    "no images": (lambda v: v.pop("images"), "holds no 'images'"),
    "no categories": (lambda v: v.pop("categories"), "holds no 'categories'"),
    "an unknown category": (set_all("annotations", category_id=8), "category_id: received 8"),
    "ids from 0 of categories": (
        lambda v: (set_all("annotations", category_id=0)(v), v["categories"][0].update(id=0)),
        "has boxes of category 0",
    ),
    "more classes": (
        lambda v: v["categories"].append({"id": 4, "name": "new"}),
        "num_classes: received 4, .* at least 5",
    ),
    "polygons only": (
        lambda v: [
            row.update(bbox=None, segmentation=[[1, 1, 9, 1, 9, 9]]) for row in v["annotations"]
        ],
        "without 'bbox'",
    ),
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_that_the_evaluator_cannot_take(name, coco, tmp_path):
    edit, message = ANNOTATIONS[name]
    config = tiny_config(coco, annotation_file=edited(coco, tmp_path, edit))
    with pytest.raises(NeasError, match=message) as caught:
        check_experiment(config, "train_and_eval", str(tmp_path / "run"))
    assert re.match(r"task\.(annotation_file|model\.num_classes): ", str(caught.value))
    assert not (tmp_path / "run").exists()
    check_experiment(config, "train", str(tmp_path / "run"))  # reads no annotations


def test_annotations_with_a_byte_order_mark_or_of_tfds(coco, tmp_path):
    text = (coco / "instances.json").read_text()
    (tmp_path / "bom.json").write_text(text, encoding="utf-8-sig")
    with pytest.raises(NeasError, match="not plain UTF-8"):
        check_annotations(tiny_config(coco, annotation_file=str(tmp_path / "bom.json")).task)
    with pytest.raises(NeasError, match="existing file"):
        check_annotations(tiny_config(coco, annotation_file=str(tmp_path)).task)
    config = tiny_config(coco)
    config.task.validation_data.tfds_name = "coco/2017"
    with pytest.raises(NeasError, match=r"expected '' with task\.validation_data\.tfds_name"):
        check_experiment(config, "eval", str(tmp_path))


def test_a_run_keeps_the_names_of_its_annotations(coco, tmp_path):
    boxes = check_experiment(tiny_config(coco), "train_and_eval", str(tmp_path))
    assert names_of_run(tmp_path, CLASSES) == []
    names = names_of_categories(boxes.value["categories"], CLASSES)
    assert names == ["background", "red", "green", "blue"]
    store_names(tmp_path, names)
    assert names_of_run(tmp_path, CLASSES) == names
    (tmp_path / "own.txt").write_bytes("\ufeffhinten\r\nrot\r\ngrün\r\nblau\r\n".encode())
    own = names_of_run(tmp_path, CLASSES, str(tmp_path / "own.txt"))
    assert own == ["hinten", "rot", "grün", "blau"]
    with pytest.raises(NeasError, match=r"labels: received '4 names'.* 91 names"):
        names_of_run(tmp_path, 91)
    gaps = names_of_categories([{"id": 2, "name": "b"}, {"id": 9, "name": "i"}], CLASSES)
    assert gaps == ["background", "1", "b", "3"]
