"""The exported detector: the Keras model's boxes in SavedModel and TFLite, and the commands."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import warm
from full_disk import full_disk
from official.vision.ops import anchor
from small_detection import picture, tiny_config
from small_ensembles import randomise

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.detection.commands import predict
from neas_tf.detection.deployment.exporting import check_format, export
from neas_tf.detection.deployment.running import finder
from neas_tf.detection.deployment.serving import (
    ANCHOR_UNIT,
    Detector,
    keras_detections,
    load_detector,
    read_config,
)
from neas_tf.detection.pictures.drawing import write_picture
from neas_tf.detection.pictures.labels import store_names
from neas_tf.detection.pictures.matching import compare
from neas_tf.detection.task import NeasRetinaNetTask

NAMES = ["background", "red", "green", "blue"]
# Wider and higher than the frame, and smaller.
PICTURES = [picture(i, size)[0] for i, size in enumerate([(48, 60), (90, 70), (33, 100)])]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A run's folder with random weights that find boxes; the model and its settings."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(folder)
    model = NeasRetinaNetTask(config.task).build_model()
    randomise(model.backbone)
    rng = np.random.default_rng(3)
    for variable in [*model.head.trainable_variables, *model.decoder.trainable_variables]:
        if "kernel" in variable.name:
            # Small enough that no score is exactly 1: ties may be broken either way.
            variable.assign(0.1 * rng.standard_normal(variable.shape))
        elif "bias" in variable.name:
            variable.assign(tf.zeros(variable.shape))
    (folder / "params.yaml").write_text(json.dumps(config.as_dict()))
    checkpoint = tf.train.Checkpoint(model=model, **model.checkpoint_items)
    tf.train.CheckpointManager(checkpoint, str(folder), 1).save()
    return folder, model, config


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    """What was written, by kind, with its report."""
    folder, (_, model, config) = tmp_path_factory.mktemp("exports"), detector
    result = {}
    for name in ("detector.tflite", "saved_model"):
        report = export(model, config.task, folder / name, pictures=PICTURES, names=NAMES)
        result[name] = (folder / name, report)
    return result


@pytest.mark.parametrize("name", ["d.tflite", "saved"])
def test_a_full_disk_leaves_nothing(name, detector, tmp_path):
    _, model, config = detector
    with full_disk(60_000), pytest.raises(NeasError, match=r"cannot be written .*File too large"):
        export(model, config.task, tmp_path / name, pictures=PICTURES[:1], names=NAMES)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_looks_like_a_pattern(detector, tmp_path):
    folder, model, config = detector
    run = shutil.copytree(folder, tmp_path / "rate[0.1]")
    loaded, _ = load_detector(str(run))
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    again, _ = load_detector(str(run), str(run / "ckpt-1"))
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])
    export(model, config.task, run / "d.tflite", pictures=PICTURES[:1], names=NAMES)
    assert finder(run / "d.tflite")(PICTURES[0])["scores"].size


@pytest.mark.parametrize("name", ["detector.tflite", "saved_model"])
def test_the_same_boxes(name, exported):
    path, report = exported[name]
    parity = report["parity"]
    assert parity["matched"] == parity["boxes"] >= 30
    assert parity["lowest_iou"] >= 0.99
    assert parity["largest_score_difference"] < 1e-4
    assert json.loads(path.with_name(f"{name}.json").read_text()) == report
    assert path.with_name(f"{name}.labels.txt").read_text().split() == NAMES
    for shot in PICTURES:
        found = finder(path)(shot)
        assert (found["boxes"] >= 0).all() and (np.diff(found["scores"]) <= 0).all()
        assert (found["boxes"] <= [*shot.shape[:2], *shot.shape[:2]]).all()
        assert set(found["classes"]) <= {1, 2, 3}


def test_both_exports_find_the_same_in_pictures(exported):
    """The TFLite file's letterbox is OpenCV's, the SavedModel's is TensorFlow's."""
    found = [[finder(path)(p) for p in PICTURES] for path, _ in exported.values()]
    result = compare(*found, least_iou=0.9)
    assert result["matched"] >= 0.9 * result["boxes"] > 0


def test_no_operation_needs_tensorflow_on_the_device(exported):
    _, report = exported["detector.tflite"]
    assert report["ops"]["NON_MAX_SUPPRESSION_V4"] == 1
    assert not [name for name in report["ops"] if name.startswith("Flex") or name == "CUSTOM"]


def test_suppression_is_by_class_and_obeys_the_threshold(detector):
    _, model, config = detector
    graph = Detector(model, config.task, max_detections=40)
    frame = np.random.default_rng(0).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    model.detection_generator.get_config()["max_num_detections"] = 40
    try:
        (expected,) = keras_detections(model, graph, [frame])
    finally:
        model.detection_generator.get_config()["max_num_detections"] = 10
    outputs = graph.detect(tf.constant(frame[None]))
    count = int(outputs["num_detections"][0])
    found = {k: outputs[k][0, :count].numpy() for k in ("boxes", "classes", "scores")}
    result = compare([expected], [found])
    assert count > 20 and result["matched"] == result["boxes"]
    strict = Detector(model, config.task, score_threshold=float(found["scores"][4]) + 1e-6)
    assert int(strict.detect(tf.constant(frame[None]))["num_detections"][0]) <= 4


@pytest.mark.parametrize("quantize", ["float16", "dynamic"])
def test_smaller_files(quantize, detector, exported, tmp_path):
    _, model, config = detector
    report = export(
        *(model, config.task, tmp_path / "small.tflite"),
        quantize=quantize,
        pictures=PICTURES,
        names=NAMES,
    )
    assert report["bytes"] < 0.95 * exported["detector.tflite"][1]["bytes"]
    assert report["parity"]["matched"] > 0
    if quantize == "float16":
        assert report["parity"]["matched"] == report["parity"]["boxes"]


def test_no_table_of_floats_is_rounded_in_smaller_files(detector):
    """Anchors are integers, near to Model Garden's, in large frames too."""
    _, model, config = detector
    task = dataclasses.replace(config.task)
    task.model = dataclasses.replace(config.task.model, input_size=[800, 1333, 3])
    graph = Detector(model, task)
    boxes = anchor.Anchor(3, 5, 2, [0.5, 1.0, 2.0], 2.0, graph.frame).multilevel_boxes
    exact = np.concatenate([np.reshape(boxes[str(level)], (-1, 4)) for level in (3, 4, 5)])
    assert graph.anchors.dtype == np.int32 and exact.max() > 1300
    assert np.abs(np.float32(graph.anchors) / ANCHOR_UNIT - exact).max() < 1e-3


def test_int8_is_the_network_alone(detector, exported, tmp_path):
    _, model, config = detector
    report = export(
        *(model, config.task, tmp_path / "small.tflite"),
        quantize="int8",
        pictures=PICTURES,
        calibration=PICTURES,
        names=NAMES,
    )
    assert report["tensor_types"]["int8"] > report["tensor_types"]["float32"]
    islands = report["float_islands"]
    assert "CONV_2D" not in islands and "DEPTHWISE_CONV_2D" not in islands
    assert {"EXP", "TOPK_V2", "NON_MAX_SUPPRESSION_V4"} <= set(islands)
    parity = report["parity"]
    assert parity["matched"] >= 0.7 * parity["boxes"] > 0


def test_what_is_refused(detector, exported, tmp_path):
    _, model, config = detector
    path, _ = exported["detector.tflite"]
    before = path.read_bytes()
    options = {"pictures": PICTURES, "names": NAMES}
    with pytest.raises(NeasError, match="holds an earlier export"):
        export(model, config.task, path, **options)
    assert path.read_bytes() == before
    with pytest.raises(NeasError, match="quantize: received 'int8'"):
        check_format(tmp_path / "saved_model", "int8", True)
    with pytest.raises(NeasError, match="int8 needs pictures"):
        check_format(tmp_path / "a.tflite", "int8", False)
    with pytest.raises(NeasError, match="unknown name 'int4'"):
        check_format(tmp_path / "a.tflite", "int4", True)
    with pytest.raises(NeasError, match="labels"):
        export(model, config.task, tmp_path / "a.tflite", pictures=PICTURES, names=["a"])
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint_or_of_something_else(detector, tmp_path):
    with pytest.raises(NeasError, match=r"holds no params\.yaml"):
        read_config(str(tmp_path))
    params = (detector[0] / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params)
    with pytest.raises(NeasError, match="holds none; train first"):
        load_detector(str(tmp_path))
    tf.train.Checkpoint(x=tf.Variable(1.0)).save(str(tmp_path / "ckpt"))
    with pytest.raises(NeasError, match="is not that of the detector"):
        load_detector(str(tmp_path))
    (tmp_path / "params.yaml").write_text("task: {model: {backbon: 1}}")
    with pytest.raises(NeasError, match="not that of a detector"):
        read_config(str(tmp_path))


def command(name, *arguments):
    return subprocess.run(
        [warm.python(), "-m", f"detection.{name}", *map(str, arguments)],
        cwd=project_file(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_predict(exported, tmp_path):
    path, _ = exported["detector.tflite"]
    write_picture(tmp_path / "in.png", PICTURES[0])
    flags = (f"--model={path}", f"--image={tmp_path / 'in.png'}", "--score_threshold=0")
    done = command("predict", *flags, f"--output={tmp_path / 'out.png'}", "--format=json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["detections"]
    assert rows and {row["name"] for row in rows} <= set(NAMES)
    assert (tmp_path / "out.png").stat().st_size > 100
    done = command("predict", *flags, f"--output={tmp_path / 'out.gif'}")
    assert done.returncode == 2 and done.stderr.startswith("detection.predict: output: received")
    done = command("predict", f"--model={path}", "--image=none.png", "--output=out.png")
    assert done.returncode == 2 and "none.png" in done.stderr


def test_a_run_has_its_own_class_names_or_none(detector, tmp_path):
    """Those of COCO would be another data set's."""
    run = tmp_path / "run"
    shutil.copytree(detector[0], run)
    found, names = predict._of_run(str(run), PICTURES[0])
    rows = predict.listed(found, names)
    assert rows and {row["name"] for row in rows} <= {"1", "2", "3"}
    store_names(run, NAMES)
    found, names = predict._of_run(str(run), PICTURES[0])
    assert {row["name"] for row in predict.listed(found, names)} <= set(NAMES)
    (tmp_path / "own.txt").write_text("a\nb\nc\n")
    with pytest.raises(NeasError, match=r"labels: received '3 names'.* 4 names"):
        predict._of_run(str(run), PICTURES[0], str(tmp_path / "own.txt"))


def test_evaluate(exported, tmp_path):
    path, _ = exported["detector.tflite"]
    write_picture(tmp_path / "1.png", PICTURES[0])
    count = len(finder(path)(PICTURES[0])["scores"])
    row = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81}
    value = {
        "images": [{"id": 7, "file_name": "1.png"}],
        "annotations": [row | {"iscrowd": 0}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES[1:], 1)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(value))
    flags = (f"--model={path}", f"--images={tmp_path}")
    done = command("evaluate", *flags, f"--annotations={tmp_path / 'boxes.json'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{count} boxes in 1 pictures\nAP ")
    done = command("evaluate", *flags, f"--annotations={tmp_path / '1.png'}")
    assert done.returncode == 2 and done.stderr.startswith(
        "detection.evaluate: annotations: received"
    )


def test_the_export_command_refuses_before_it_starts_tensorflow(tmp_path):
    done = command("export", f"--model_dir={tmp_path}", f"--output={tmp_path / 'a.tflite'}")
    assert done.returncode == 2 and done.stderr.startswith(
        "detection.export: images: received None"
    )
    done = command("compare")
    assert done.returncode == 2 and "folders of runs" in done.stderr
