"""Pictures in and out of a frame, boxes compared, drawn and listed: everything without TensorFlow."""

import importlib
import itertools
import json

import numpy as np
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.detection.commands.compare import backbone_name, given_top1, read_run, table, top1_of
from neas_tf.detection.commands.evaluate import evaluate, read_annotations
from neas_tf.detection.commands.export import list_pictures
from neas_tf.detection.commands.predict import listed
from neas_tf.detection.deployment.running import class_names, finder, read_report, trimmed
from neas_tf.detection.pictures import evaluations
from neas_tf.detection.pictures.drawing import colour, draw, read_picture, write_picture
from neas_tf.detection.pictures.labels import read_labels
from neas_tf.detection.pictures.letterbox import FILL, Letterbox, letterbox
from neas_tf.detection.pictures.matching import compare, iou

SIDES = st.integers(1, 90)


@given(SIDES, SIDES)
def test_a_picture_keeps_its_shape_in_the_frame(height, width):
    picture = np.full((height, width, 3), 200, np.uint8)
    frame, place = letterbox(picture, (40, 60), (64, 64))
    assert frame.shape == (64, 64, 3) and frame.dtype == np.float32
    filled = np.argwhere((frame == 200).all(-1))
    rows, columns = filled.max(0) + 1
    assert rows <= 40 and columns <= 60
    assert rows == 40 or columns == 60
    assert (rows / height, columns / width) == pytest.approx(place.scale)
    rest = frame[rows:].reshape(-1, 3)
    assert np.allclose(rest, FILL)


def test_the_frame_is_model_gardens():
    tf = pytest.importorskip("tensorflow")
    from official.vision.ops import preprocess_ops

    picture = np.random.default_rng(0).integers(0, 256, (37, 51, 3)).astype(np.uint8)
    expected, info = preprocess_ops.resize_and_crop_image(
        tf.constant(picture, tf.float32), [40, 60], padded_size=[64, 64]
    )
    frame, place = letterbox(picture, (40, 60), (64, 64))
    height, width = (round(a * b) for a, b in zip((37, 51), place.scale, strict=True))
    np.testing.assert_allclose(frame[:height, :width], expected[:height, :width], atol=1e-2)
    np.testing.assert_allclose(info[2], place.scale, rtol=1e-6)


def test_boxes_come_back_to_the_picture_and_inside_it():
    place = Letterbox((100, 200), (0.5, 0.25))
    found = place.to_picture([[10, 10, 20, 20], [0, 0, 64, 64]])
    np.testing.assert_allclose(found, [[20, 40, 40, 80], [0, 0, 100, 200]])


def test_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]])
    np.testing.assert_allclose(iou(boxes, boxes)[0], [1, 1 / 7, 0])
    assert iou(boxes, boxes)[2, 2] == 0
    assert iou(boxes[:0], boxes).shape == (0, 3)


def detections(*rows):
    return {
        "boxes": np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        "classes": np.array([row[1] for row in rows], np.int32),
        "scores": np.array([row[2] for row in rows], np.float32),
    }


def test_the_same_boxes_in_another_order_match():
    first = detections(([0, 0, 9, 9], 1, 0.9), ([0, 0, 9, 9], 2, 0.8))
    second = detections(([0, 0, 9, 9], 2, 0.7), ([0, 0, 9, 9], 1, 0.9))
    found = compare([first], [second])
    assert (found["boxes"], found["matched"], found["lowest_iou"]) == (4, 4, 1.0)
    assert found["largest_score_difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "other",
    [
        detections(([0, 0, 9, 9], 2, 0.9)),
        detections(([0, 0, 9, 5], 1, 0.9)),
        detections(),
        detections(([0, 0, 9, 9], 1, 0.9), ([0, 0, 9, 9], 1, 0.8)),
    ],
    ids=["class", "place", "missing", "surplus"],
)
def test_differences_show(other):
    for sides in (([detections(([0, 0, 9, 9], 1, 0.9))], [other]),):
        found = compare(*sides)
        assert found["matched"] < found["boxes"]


def test_boxes_below_the_score_are_partners_only():
    first = detections(([0, 0, 9, 9], 1, 0.51))
    second = detections(([0, 0, 9, 9], 1, 0.49), ([20, 20, 30, 30], 1, 0.4))
    found = compare([first], [second], least_score=0.5)
    assert (found["boxes"], found["matched"]) == (1, 1)


def test_a_box_that_the_last_place_may_have_cost_is_not_asked_for():
    first = detections(([0, 0, 9, 9], 1, 0.9), ([20, 20, 30, 30], 1, 0.5))
    second = detections(([0, 0, 9, 9], 1, 0.9), ([40, 40, 50, 50], 1, 0.4999))
    full = compare([first], [second], places=2, margin=1e-3)
    assert (full["boxes"], full["matched"], full["not_asked"]) == (2, 2, 2)
    one_more = compare([first], [second], places=3, margin=1e-3)
    assert (one_more["boxes"], one_more["matched"], one_more["not_asked"]) == (4, 2, 0)
    # Well above the other's last, it had to be there.
    second["scores"][1] = 0.4
    missing = compare([first], [second], places=2, margin=1e-3)
    assert (missing["boxes"], missing["matched"], missing["not_asked"]) == (3, 2, 1)


@pytest.mark.parametrize(("moved", "low", "high"), [(0, 0.999, 1.0), (4, 0.3, 0.9), (40, 0.0, 0.0)])
def test_the_ap_of_boxes_that_are_moved(moved, low, high, tmp_path):
    pictures, annotations, boxes = [], [], {}
    for number in (1, 2):
        picture = np.full((60, 80, 3), number, np.uint8)
        write_picture(tmp_path / f"{number}.png", picture)
        pictures.append({"id": number, "file_name": f"{number}.png"})
        place = [10, 5 * number, 20, 30]  # x, y, width, height
        row = {"id": number, "image_id": number, "category_id": 2, "bbox": place}
        annotations.append(row | {"area": 600, "iscrowd": 0})
        boxes[number] = [5.0 * number, 10.0 + moved, 5.0 * number + 30, 30.0 + moved]
    value = {
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": 2, "name": "a"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(value))
    coco = read_annotations(str(tmp_path / "boxes.json"))
    found = evaluate(lambda p: detections((boxes[int(p[0, 0, 0])], 2, 0.9)), coco, tmp_path)
    assert (found["images"], found["detections"]) == (2, 2)
    assert low <= found["metrics"]["AP"] <= high
    assert found["metrics"]["APs"] == pytest.approx(found["metrics"]["AP"])
    assert found["metrics"]["APl"] == -1
    nothing = evaluate(lambda _: detections(), coco, tmp_path)
    assert (nothing["detections"], nothing["metrics"]["AP"]) == (0, 0.0)


def test_drawing(tmp_path):
    picture = np.full((60, 80, 3), 50, np.uint8)
    result = draw(picture, np.array([[20.0, 10, 50, 70]]), [3], [0.9], ["a", "b", "c", "d"])
    assert picture.max() == 50, "the input is left alone"
    tint = np.array(colour(3))
    assert (result[50, 10:71] == tint).all() and (result[20:51, 10] == tint).all()
    assert (result[30:45, 20:60] == 50).all(), "the inside stays"
    assert (result[:20] != 50).any(), "a name above"
    write_picture(tmp_path / "out.png", result)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png"), result)
    nothing = draw(picture, np.zeros((0, 4)), [], [], [])
    np.testing.assert_array_equal(nothing, picture)


def test_no_line_crosses_a_name():
    picture = np.full((90, 90, 3), 50, np.uint8)
    low, high = [40.0, 20, 80, 80], [36.0, 5, 85, 85]  # high's upper edge in low's name
    both = draw(picture, np.array([low, high]), [1, 3], [0.5, 0.9], ["a", "b", "c", "d"])
    alone = draw(picture, np.array([low]), [1], [0.5], ["a", "b", "c", "d"])
    name = (slice(35, 39), slice(22, 28))
    assert (alone[name] == np.array(colour(1))).all(-1).any()
    np.testing.assert_array_equal(both[name], alone[name])


def test_colours_of_neighbours_differ():
    tints = [np.array(colour(i)) for i in range(91)]
    assert min(np.abs(a - b).sum() for a, b in itertools.pairwise(tints)) > 100


def test_pictures_that_are_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").write_text("")
    for name, message in (
        ("text.jpg", "no picture"),
        ("empty.jpg", "no picture"),
        ("none.jpg", "cannot be read"),
    ):
        with pytest.raises(NeasError, match=message):
            read_picture(tmp_path / name)
    with pytest.raises(NeasError, match="ends with"):
        write_picture(tmp_path / "out.gif", np.zeros((2, 2, 3), np.uint8))


def test_coco_labels():
    names = read_labels()
    assert len(names) == 91
    assert (names[0], names[1], names[18], names[90]) == (
        "background",
        "person",
        "dog",
        "toothbrush",
    )
    assert sum(not n.startswith("unused") for n in names[1:]) == 80
    with pytest.raises(NeasError, match="labels"):
        read_labels("nowhere.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_of_any_editor(encoding, tmp_path):
    (tmp_path / "own.txt").write_bytes("Hund\r\nKü\u2028he\r\n\r\n".encode(encoding))
    assert read_labels(str(tmp_path / "own.txt")) == ["Hund", "Kü\u2028he"]


def test_a_folders_pictures_are_files_that_are_not_hidden(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("b.PNG", "a.jpg", "._a.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_pictures(str(tmp_path))] == ["a.jpg", "b.PNG"]
    with pytest.raises(NeasError, match=r"folder\.jpg.* cannot be read"):
        read_picture(tmp_path / "folder.jpg")


@pytest.mark.parametrize("name", ["predict", "export", "train"])
def test_addresses_are_refused_where_files_are_written(name, tmp_path, monkeypatch, capsys):
    module = importlib.import_module(f"detection.{name}")
    place = "model_dir" if name == "train" else "output"
    values = flags.FlagValues()
    names = ("model", "model_dir", "image", "output", "labels", "experiment", "mode")
    for key in names:
        flags.DEFINE_string(key, None if key == "model" else "x", "", flag_values=values)
    values(["x", f"--{place}=gs://bucket/x.png"])
    monkeypatch.setattr(module, "FLAGS", values)
    assert module.main(["x"]) == 2
    text = capsys.readouterr().err
    assert f"{place}: received 'gs://bucket/x.png', which is an address" in text
    assert not list(tmp_path.iterdir())


def test_listed_and_trimmed():
    outputs = {
        "boxes": np.array([[[1, 2, 3, 4], [0, 0, 0, 0]]], np.float32),
        "classes": np.array([[1, 0]]),
        "scores": np.array([[0.5, 0.0]]),
        "num_detections": np.array([1]),
    }
    rows = listed(trimmed(outputs), ["background", "person"])
    assert rows == [{"name": "person", "class": 1, "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}]


def test_what_is_no_detector(tmp_path):
    with pytest.raises(NeasError, match="nothing is at"):
        finder(tmp_path / "none.tflite")
    (tmp_path / "a.tflite").write_text("")
    with pytest.raises(NeasError, match="no file at"):
        read_report(tmp_path / "a.tflite")
    (tmp_path / "a.tflite.json").write_text(json.dumps({"kind": "tflite"}))
    with pytest.raises(NeasError, match="no exported detector"):
        read_report(tmp_path / "a.tflite")
    with pytest.raises(NeasError, match="labels"):
        class_names(tmp_path / "a.tflite")


METRICS = {"AP": 0.33, "AP50": 0.533, "AP75": 0.344, "APs": 0.179, "APm": 0.362, "APl": -1.0}


@pytest.fixture
def run(tmp_path):
    """A finished run's files."""
    params = {
        "task": {
            "init_checkpoint": str(tmp_path / "classifier"),
            "model": {"backbone": {"type": "neas", "neas": {"architecture": "neas_s"}}},
        },
        "trainer": {"train_steps": 100},
    }
    (tmp_path / "params.yaml").write_text(json.dumps(params))
    for step, annotations in ((50, "val.json"), (100, "val.json"), (100, "train.json")):
        evaluations.record(
            tmp_path, step=step, metrics=METRICS, annotations=annotations, records="r"
        )
    return tmp_path


def test_a_finished_run(run):
    row = read_run(run, None, False)
    assert (row["step"], row["annotations"]) == (100, "train.json")
    assert (row["AP"], row["AP_S"], row["AP_L"]) == (33.0, pytest.approx(17.9), None)
    assert read_run(run, "val", False)["annotations"] == "val.json"
    row |= {"name": backbone_name(row["backbone"]), "macs": 281_430_368, "top1": None}
    assert table([row]).splitlines()[1].split()[:10] == [
        *("NEAS", "neas_s", "281.4", "33.0", "53.3", "34.4", "17.9", "36.2", "–", "–")
    ]


def test_an_evaluation_made_again_replaces_the_first(run):
    evaluations.record(
        run, step=100, metrics={"AP": 0.5, "x": float("nan")}, annotations="val.json", records="r"
    )
    rows = evaluations.read(run)
    assert len(rows) == 3 and rows[-1]["metrics"] == {"AP": 0.5}


def test_runs_that_cannot_be_compared(run, tmp_path):
    with pytest.raises(NeasError, match="no file at"):
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "params.yaml").write_text((run / "params.yaml").read_text())
        read_run(tmp_path / "other", None, False)
    with pytest.raises(NeasError, match="not evaluated on 'test'"):
        read_run(run, "test", False)
    with pytest.raises(NeasError, match=r"no params\.yaml"):
        read_run(tmp_path / "nowhere", None, False)
    params = json.loads((run / "params.yaml").read_text())
    params["trainer"]["train_steps"] = 200
    (run / "params.yaml").write_text(json.dumps(params))
    with pytest.raises(NeasError, match="step 100 of 200"):
        read_run(run, None, False)
    assert read_run(run, None, True)["steps"] == 200


def test_top1(run):
    classifier = run / "classifier" / "retrain"
    assert top1_of(str(run / "classifier")) is None
    classifier.mkdir(parents=True)
    (classifier / "results.json").write_text(json.dumps({"ensemble_accuracy": 0.78}))
    assert top1_of(str(run / "classifier")) == pytest.approx(78.0)
    assert given_top1(["runs/a=72.0", "b=c=1"]) == {"runs/a": 72.0, "b=c": 1.0}
    for text in ("72", "a=", "a=101", "=5"):
        with pytest.raises(NeasError, match="FOLDER=PERCENT"):
            given_top1([text])
