import json

import keras as keras3
import numpy as np
import pytest
from small_ensembles import ENSEMBLES, SPACE, randomise
from tflite_arena import arena_bytes, operations

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.deployed_costs import file_size_int8, peak_activation_bytes_int8
from neas_tf.ensemble.deployed_graph import deployed_graph
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.rewrites import NO_REWRITES
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.formats import (
    export_keras,
    export_saved_model,
    export_tflite,
    predict_exported,
    random_images,
)
from neas_tf.export.tflite.inspection import inspect
from neas_tf.export.tflite.quantizing import check_quantization

NAMES = tuple("abcde")


def make(architecture):
    model = build_ensemble(architecture, SPACE)
    randomise(model)
    return model, LoadedInfo(architecture, SPACE, NAMES, Normalisation())


@pytest.fixture(scope="module")
def two_paths():
    return make(ENSEMBLES["two_paths"])


@pytest.fixture(scope="module")
def images():
    return random_images(SPACE, 16, seed=3)


@pytest.fixture(scope="module")
def plain(two_paths, tmp_path_factory):
    """The report of a float file."""
    return export_tflite(*two_paths, tmp_path_factory.mktemp("plain") / "plain.tflite")


@pytest.mark.parametrize("name", ["one_path", "three_paths", "nothing_shared", "all_shared"])
def test_int8_is_all_integer_in_one_partition(name, images, tmp_path):
    model, info = make(ENSEMBLES[name])
    report = export_tflite(
        model,
        info,
        tmp_path / "m.tflite",
        quantize="int8",
        representative=images,
        input_type="int8",
        output_type="int8",
        images=images,
    )
    assert report["float_islands"] == {} and "float32" not in report["tensor_types"]
    assert report["xnnpack_partitions"] == 1 and report["not_delegated"] == {}
    assert report["inputs"][0]["dtype"] == "int8"
    assert {o["dtype"] for o in report["outputs"]} == {"int8"}
    assert all(o["scale"] > 0 for o in report["outputs"])
    parity = report["parity"]
    assert 0 < parity["max_abs_diff"] < 0.25 * parity["max_abs_logit"]
    assert report["quantize"] == "int8" and report["representative_images"] == len(images)
    assert file_size_int8(ENSEMBLES[name], SPACE) == pytest.approx(report["bytes"], rel=0.05)
    assert json.loads((tmp_path / "m.tflite.json").read_text()) == report


def test_int8_with_float_ends_converts_there_only(two_paths, images, tmp_path):
    model, info = two_paths
    path = tmp_path / "m.tflite"
    report = export_tflite(model, info, path, quantize="int8", representative=images)
    assert report["float_islands"] == {} and report["xnnpack_partitions"] == 1
    assert report["not_delegated"] == {}
    assert report["ops"]["QUANTIZE"] == 1 and report["ops"]["DEQUANTIZE"] == 1
    assert report["inputs"][0]["dtype"] == "float32"
    assert list(predict_exported(path, images[:2])) == ["logits"]
    nodes = deployed_graph(info.architecture, SPACE, int8=True).nodes
    assert [(x.kind, (*x.size, x.channels)) for x in nodes] == operations(path)
    assert 1.0 <= arena_bytes(path) / peak_activation_bytes_int8(info.architecture, SPACE) < 1.06


def test_int8_takes_the_bytes_of_a_camera(two_paths, images, tmp_path):
    model, info = two_paths
    path = tmp_path / "m.tflite"
    report = export_tflite(
        model, info, path, quantize="int8", representative=images // 2 + 50, input_type="uint8"
    )
    image = report["inputs"][0]
    assert (image["dtype"], image["scale"], image["zero_point"]) == ("uint8", 1.0, 0)
    assert report["xnnpack_partitions"] == 1 and report["not_delegated"] == {"QUANTIZE": 1}


@pytest.mark.parametrize("quantize", ["float16", "dynamic"])
def test_smaller_weights_in_a_float_graph(quantize, two_paths, plain, images, tmp_path):
    model, info = two_paths
    labels = np.zeros(len(images), np.int32)
    report = export_tflite(
        model, info, tmp_path / "m.tflite", quantize=quantize, test=(images, labels)
    )
    assert report["bytes"] < plain["bytes"]
    assert report["parity"]["max_abs_diff"] < 0.05 * report["parity"]["max_abs_logit"]
    assert report["accuracy"]["examples"] == len(images)
    assert report["accuracy"]["agreement"] > 0.8
    assert "accuracy" not in plain and plain["quantize"] == "none"


def test_inspection_finds_what_a_plain_graph_has(two_paths, tmp_path):
    model, info = two_paths
    path = tmp_path / "m.tflite"
    report = export_tflite(model, info, path, rewrites=NO_REWRITES)
    found = inspect(path)
    assert found["ops"] == report["ops"] and "float32" in found["tensor_types"]
    assert found["float_islands"] and found["xnnpack_partitions"] >= 1
    assert report["rewrites"] == {"depthwise": False, "gates": False, "normalisation": False}
    assert report["parity"]["max_abs_diff"] <= 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("int4", "float32", "float32", True), "quantize"),
        (("int8", "float32", "float32", False), "representative_dataset"),
        (("int8", "int16", "float32", True), "input_type"),
        (("float16", "uint8", "float32", True), "input_type"),
        (("none", "float32", "int8", False), "output_type"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(NeasError, match=message):
        check_quantization(*arguments)


def test_int8_without_images_writes_nothing(two_paths, tmp_path):
    model, info = two_paths
    for images in (None, np.zeros((0, 24, 20, 3))):
        with pytest.raises(NeasError, match="noise will not do"):
            export_tflite(
                model, info, tmp_path / "m.tflite", quantize="int8", representative=images
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["two_paths", "three_paths"])
def test_keras_3_files_give_the_same_logits(name, images, tmp_path):
    model, info = make(ENSEMBLES[name])
    expected = np.mean(model(info.normalisation.apply(images)), axis=1)
    report = export_keras(model, info, tmp_path / "m.keras")
    assert report["parity"]["max_abs_diff"] <= 1e-4 and report["form"] == "serving"
    assert report["layers"]["Dense"] == 1
    loaded = keras3.saving.load_model(tmp_path / "m.keras", compile=False)
    logits = loaded(images.astype(np.float32))["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    report = export_keras(model, info, tmp_path / "m.weights.h5")
    assert report["parity"]["max_abs_diff"] <= 1e-4 and report["form"] == "trainable"
    twin = build_ensemble(info.architecture, SPACE, keras=keras3)
    twin.load_weights(tmp_path / "m.weights.h5")
    logits = np.mean(twin(info.normalisation.apply(images)), axis=1)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_keras_3_files_have_one_of_two_endings(two_paths, tmp_path):
    model, info = two_paths
    with pytest.raises(NeasError, match="output"):
        export_keras(model, info, tmp_path / "m.h5")
    assert not list(tmp_path.iterdir())


def test_accuracy_before_and_after(two_paths, images, tmp_path):
    model, info = two_paths
    labels = np.mean(model(info.normalisation.apply(images)), axis=1).argmax(-1)
    labels[:4] = (labels[:4] + 1) % SPACE.num_classes
    report = export_saved_model(model, info, tmp_path / "m", test=(images, labels))
    assert report["accuracy"] == {
        "examples": 16,
        "keras": 0.75,
        "exported": 0.75,
        "agreement": 1.0,
    }
