"""COCO annotations as people have them: each is read rightly, or refused before a picture is run."""

import copy
import json
import re

import cv2
import numpy as np
import pytest
from absl import flags
from PIL import Image
from pycocotools import mask

import neas_tf.detection.commands.evaluate as command
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.detection.commands.evaluate import evaluate, read_annotations
from neas_tf.detection.pictures import annotations

SIZE = (60, 80)
BOXES = {1: [10, 5, 20, 30], 2: [30, 10, 20, 30]}


def coco_value():
    row = {"category_id": 1, "area": 600, "iscrowd": 0}
    return {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in BOXES
        ],
        "annotations": [row | {"id": i, "image_id": i, "bbox": list(BOXES[i])} for i in BOXES],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures whose colour is 10 times their number."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    for i in BOXES:
        for name in (f"{i}.png", f"sub/{i}.png"):
            cv2.imwrite(str(folder / name), np.full((*SIZE, 3), 10 * i, np.uint8))
    return folder


def perfect(calls):
    """A detector that finds the box of each picture, and counts the pictures."""

    def find(picture):
        calls.append(1)
        x, y, w, h = BOXES[int(picture[0, 0, 0]) // 10]
        boxes = np.float32([[y, x, y + h, x + w]])
        return {"boxes": boxes, "classes": np.array([1]), "scores": np.float32([0.9])}

    return find


def each(key, **values):
    """An edit of every row of a part; None removes."""

    def edit(value):
        for i, row in enumerate(value[key]):
            for name, new in values.items():
                row[name] = new(row, i) if callable(new) else new
                if row[name] is ...:
                    del row[name]

    return edit


def first(key, **values):
    """An edit of the first row of a part."""

    def edit(value):
        for name, new in values.items():
            value[key][0][name] = new

    return edit


def polygon(row, _):
    x, y, w, h = row.pop("bbox")
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def encoded(row, _):
    x, y, w, h = row.pop("bbox")
    pixels = np.zeros(SIZE, np.uint8, order="F")
    pixels[y : y + h, x : x + w] = 1
    rle = mask.encode(pixels)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def runs(row, _):
    x, y, w, h = row.pop("bbox")
    pixels = np.zeros(SIZE, np.uint8)
    pixels[y : y + h, x : x + w] = 1
    flat = pixels.T.ravel()
    ends = [*(np.flatnonzero(np.diff(flat)) + 1), flat.size]
    return {"size": list(SIZE), "counts": np.diff([0, *ends]).tolist()}


def no_area(value):
    row = value["annotations"][0]
    extra = {"id": 9, "image_id": 1, "category_id": 1, "iscrowd": 0}
    value["annotations"] += [extra | {"bbox": [5, 5, 7, 0], "area": 0.0}, copy.deepcopy(row)]


# What COCO's format makes clear, by what is said of it ("" where nothing need be).
READ = {
    "as it should be": (lambda v: None, ""),
    "no iscrowd": (each("annotations", iscrowd=...), "2 annotations without 'iscrowd'"),
    "iscrowd null": (each("annotations", iscrowd=None), "without 'iscrowd'"),
    "iscrowd false": (each("annotations", iscrowd=False), ""),
    "no area": (each("annotations", area=...), "without 'area'"),
    "area null": (each("annotations", area=None), "without 'area'"),
    "area 0": (each("annotations", area=0), "without 'area'"),
    "ids from 0": (each("annotations", id=lambda _, i: i), "1 annotations whose 'id'"),
    "ids twice": (each("annotations", id=7), "1 annotations whose 'id'"),
    "no ids": (each("annotations", id=...), "2 annotations whose 'id'"),
    "ids that are words": (each("annotations", id=lambda _, i: f"a{i}"), "whose 'id'"),
    "polygons": (each("annotations", segmentation=polygon), "without 'bbox'"),
    "polygons that are one list": (
        each("annotations", segmentation=lambda r, i: polygon(r, i)[0]),
        "without 'bbox'",
    ),
    "masks": (each("annotations", segmentation=encoded), "without 'bbox'"),
    "masks as numbers": (each("annotations", segmentation=runs), "without 'bbox'"),
    "text ids of pictures": (each("annotations", image_id=lambda r, _: str(r["image_id"])), "text"),
    "text ids in images": (each("images", id=lambda r, _: f"000{r['id']}"), "text"),
    "numbers with a point": (each("annotations", image_id=lambda r, _: float(r["image_id"])), ""),
    "text ids of categories": (each("annotations", category_id="1"), "text"),
    "no sizes": (each("images", width=..., height=...), ""),
    "sizes null": (each("images", width=None, height=None), ""),
    "no info": (lambda v: v.pop("info"), ""),
    "supercategories": (each("categories", supercategory=None), ""),
    "the same picture twice": (lambda v: v["images"].append(dict(v["images"][0])), ""),
    "the same category twice": (lambda v: v["categories"].append(dict(v["categories"][0])), ""),
    "sub-folders": (each("images", file_name=lambda r, _: f"sub/{r['id']}.png"), ""),
    "folders of Windows": (each("images", file_name=lambda r, _: f"sub\\{r['id']}.png"), ""),
    "an unused category 0": (lambda v: v["categories"].append({"id": 0, "name": "all"}), ""),
    "pictures of others": (
        lambda v: v["annotations"].append(v["annotations"][0] | {"id": 3, "image_id": 99}),
        "1 annotations of pictures that are not in 'images'",
    ),
    "no extent and an annotation twice": (no_area, "1 boxes without width or height"),
    "NaN elsewhere": (lambda v: v["info"].update(year=float("nan")), ""),
}


@pytest.mark.parametrize("name", READ)
def test_a_perfect_detector_has_an_ap_of_1(name, pictures, tmp_path):
    edit, said = READ[name]
    value = coco_value()
    edit(value)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(value))
    found = evaluate(perfect([]), read_annotations(str(path)), pictures)
    assert found["images"] == 2 and found["metrics"]["AP"] > 0.999
    clean = annotations.read(path)
    notes = " ".join((*clean.mended, *clean.left_out))
    assert (said in notes) if said else not notes


def test_pictures_whose_ids_are_words(pictures, tmp_path):
    value = coco_value()
    value["images"][1]["id"] = value["annotations"][1]["image_id"] = "b"
    (tmp_path / "boxes.json").write_text(json.dumps(value))
    found = evaluate(perfect([]), read_annotations(str(tmp_path / "boxes.json")), pictures)
    assert found["metrics"]["AP"] > 0.999


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows(encoding, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(coco_value()), encoding=encoding)
    clean = annotations.read(path)
    assert len(clean.value["annotations"]) == 2 and "UTF-8" in clean.mended[0]


REFUSED = {
    "no images": (lambda v: v.pop("images"), "holds no 'images'"),
    "images null": (lambda v: v.update(images=None), "holds no 'images'"),
    "images as an object": (lambda v: v.update(images={"a": 1}), "'images' that are no list"),
    "images of numbers": (lambda v: v.update(images=[1, 2]), r"images\[0\]: received 1"),
    "no annotations": (lambda v: v.pop("annotations"), "holds no 'annotations'"),
    "empty annotations": (lambda v: v.update(annotations=[]), "holds no 'annotations'"),
    "no categories": (lambda v: v.pop("categories"), "holds no 'categories'"),
    "empty categories": (lambda v: v.update(categories=[]), "holds no 'categories'"),
    "annotations null": (lambda v: v.update(annotations=[None]), r"annotations\[0\]"),
    "only crowds": (each("annotations", iscrowd=1), "no box that counts"),
    "only pictures of others": (each("annotations", image_id=77), "no box that counts.*'images'"),
    "an id of two pictures": (each("images", id=1), r"images\[1\]\.id: received 1"),
    "a picture without id": (each("images", id=...), r"images\[0\]\.id: received None"),
    "an id that is true": (first("images", id=True), r"images\[0\]\.id: received True"),
    "an id of two categories": (each("categories", id=1), r"categories\[1\]\.id"),
    "category ids as words": (first("categories", id="cat"), r"categories\[0\]\.id"),
    "names as lists": (first("categories", name=["cat"]), r"categories\[0\]\.name"),
    "an unknown category": (first("annotations", category_id=9), r"category_id: received 9"),
    "category null": (first("annotations", category_id=None), r"category_id: received None"),
    "image null": (first("annotations", image_id=None), r"image_id: received None"),
    "three numbers": (first("annotations", bbox=[1, 2, 3]), r"annotations\[0\]\.bbox"),
    "boxes as text": (first("annotations", bbox=["10", "5", "20", "30"]), "bbox"),
    "a box as one text": (first("annotations", bbox="10 5 20 30"), "bbox"),
    "NaN": (first("annotations", bbox=[float("nan"), 5, 20, 30]), "bbox"),
    "infinity": (first("annotations", bbox=[1, 5, float("inf"), 30]), "bbox"),
    "a negative width": (first("annotations", bbox=[10, 5, -20, 30]), "bbox"),
    "no width": (first("annotations", bbox=[10, 5, 0, 30]), "a width and a height above 0"),
    "corners": (first("annotations", bbox=[60, 20, 75, 50]), "inside of its picture, 80×60"),
    "far outside": (first("annotations", bbox=[900, 900, 20, 30]), "inside of its picture"),
    "huge numbers": (first("annotations", bbox=[10**200, 5, 20, 30]), "inside of its picture"),
    "neither box nor polygon": (each("annotations", bbox=...), "segmentation: received None"),
    "a polygon of two corners": (
        each("annotations", bbox=..., segmentation=[[1, 2, 3, 4]]),
        "segmentation",
    ),
    "a mask of another size": (
        each("annotations", bbox=..., segmentation={"size": [9, 9], "counts": [80, 1]}),
        "segmentation",
    ),
    "a mask that is cut off": (
        each("annotations", bbox=..., segmentation={"size": list(SIZE), "counts": "o"}),
        "segmentation",
    ),
    "area as text": (first("annotations", area="600"), r"area: received '600'"),
    "area NaN": (first("annotations", area=float("nan")), r"\.area: received nan"),
    "a negative area": (first("annotations", area=-1), r"\.area: received -1"),
    "iscrowd 2": (first("annotations", iscrowd=2), r"iscrowd: received 2"),
    "iscrowd as text": (first("annotations", iscrowd="0"), r"iscrowd: received '0'"),
    "width 0": (first("images", width=0), r"images\[0\]\.width: received 0"),
    "width as text": (first("images", width="80"), r"images\[0\]\.width: received '80'"),
    # What only the pictures tell:
    "no file name": (each("images", file_name=...), "file_name of image 1: received None"),
    "file name null": (first("images", file_name=None), "file_name of image 1"),
    "a number as file name": (first("images", file_name=5), "file_name of image 1: received 5"),
    "a missing picture": (first("images", file_name="9.png"), "1 of 2 pictures .* '9.png'"),
    "a very long name": (first("images", file_name="x" * 5000), "1 of 2 pictures"),
    "a folder as picture": (first("images", file_name="sub"), "1 of 2 pictures .* 'sub'"),
    "another size": (first("images", height=120, width=160), "is stored as 80×60 pixels"),
    "outside of what is stored": (
        lambda v: (
            each("images", width=..., height=...)(v),
            first("annotations", bbox=[70, 5, 20, 30])(v),
        ),
        "inside of its picture, 80×60",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence_before_a_picture_is_run(name, pictures, tmp_path):
    edit, message = REFUSED[name]
    value, calls = coco_value(), []
    edit(value)
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(value))
    with pytest.raises(NeasError, match=message) as caught:
        evaluate(perfect(calls), read_annotations(str(path)), pictures)
    text = str(caught.value)
    assert not calls and "\n" not in text and text.endswith(".")
    assert text.startswith(("annotations: ", "images: "))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "a list, as of detections"),
        ("5", "no object"),
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ('{"images": 1' + "0" * 5000 + "}", "no valid JSON"),
        ("[" * 5000, "no valid JSON"),
    ],
)
def test_what_is_no_coco_file(content, message, tmp_path):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(NeasError, match=f"annotations: .*{message}"):
        read_annotations(str(tmp_path / "boxes.json"))
    with pytest.raises(NeasError, match="no file at"):
        read_annotations(str(tmp_path / "none.json"))
    with pytest.raises(NeasError, match="cannot be read"):
        read_annotations(str(tmp_path))


def test_pixels_are_taken_as_they_are_stored(tmp_path):
    """A phone's photo on its side: boxes of the stored pixels are right, those of the turned not."""
    pixels = np.full((60, 120, 3), 128, np.uint8)
    pixels[10:40, 70:110] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "1.jpg", quality=95, exif=exif.tobytes())

    def find(picture):
        assert picture.shape == (60, 120, 3)
        return {
            "boxes": np.float32([[10, 70, 40, 110]]),
            "classes": np.array([1]),
            "scores": np.float32([0.9]),
        }

    def ap(width, height, box):
        row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 1200, "iscrowd": 0}
        value = {
            "images": [{"id": 1, "file_name": "1.jpg", "height": height, "width": width}],
            "annotations": [row],
            "categories": [{"id": 1, "name": "a"}],
        }
        (tmp_path / "b.json").write_text(json.dumps(value))
        coco = read_annotations(str(tmp_path / "b.json"))
        return evaluate(find, coco, tmp_path)["metrics"]["AP"]

    assert ap(120, 60, [70, 10, 40, 30]) > 0.999
    with pytest.raises(NeasError, match="EXIF orientation 6"):
        ap(60, 120, [20, 70, 30, 40])
    with pytest.raises(NeasError, match="stored as 120×60 pixels, but its annotations say 240×120"):
        ap(240, 120, [140, 20, 80, 60])


@pytest.fixture
def run_command(pictures, tmp_path, monkeypatch, capsys):
    """`detection.evaluate` in this process with a detector of cats; (code, stdout, stderr)."""
    model = tmp_path / "detector.tflite"
    model.write_bytes(b"TFL3")
    (tmp_path / "detector.tflite.labels.txt").write_text("background\ncat\ndog\n")
    monkeypatch.setattr(command, "finder", lambda *_: perfect([]))
    values = flags.FlagValues()
    for name in ("model", "images", "annotations", "labels", "format"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_integer("threads", 1, "", flag_values=values)
    monkeypatch.setattr(command, "FLAGS", values)

    def run(value, *more):
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps(value))
        values(["x", f"--model={model}", f"--images={pictures}", f"--annotations={path}", *more])
        return command.main(["x"]), *capsys.readouterr()

    return run


def test_the_command_says_what_it_mended(run_command):
    value = coco_value()
    each("categories", id=lambda _, i: i)(value)
    each("annotations", category_id=0, iscrowd=...)(value)
    code, out, err = run_command(value)
    assert code == 0 and "AP    100.0" in out
    assert "without 'iscrowd'" in err and "(0 → 1)" in err
    first("categories", name="zebra")(value)
    code, out, err = run_command(value)
    assert code == 2 and not out and "detection.evaluate: annotations: category 0 ('zebra')" in err


def test_without_names_ids_count_and_that_is_said(run_command, tmp_path):
    (tmp_path / "detector.tflite.labels.txt").unlink()
    code, out, err = run_command(coco_value())
    assert code == 0 and "AP    100.0" in out and "no class names are beside" in err


def test_the_command_takes_other_names(run_command, tmp_path):
    (tmp_path / "own.txt").write_text("background\nzebra\ndog\n")
    value = coco_value()
    first("categories", name="zebra")(value)
    code, out, _ = run_command(value, f"--labels={tmp_path / 'own.txt'}")
    assert code == 0 and "AP    100.0" in out
    (tmp_path / "own.txt").write_text("zebra\ndog\n")
    code, _, err = run_command(value, f"--labels={tmp_path / 'own.txt'}")
    assert code == 2 and "labels: received '2 names'" in err


def test_cocos_own_files_are_taken_as_they_are():
    folder = project_file("..", "shared", "data", "coco_mini")
    for name in ("instances_train.json", "instances_val.json"):
        try:
            clean = annotations.read(f"{folder}/{name}")
        except NeasError as error:
            if re.search("no file at", str(error)):
                pytest.skip("no ../shared/data/coco_mini")
            raise
        assert not clean.mended and not clean.left_out
