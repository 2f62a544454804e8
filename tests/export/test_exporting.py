import functools
import hashlib
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from full_disk import full_disk
from small_ensembles import ENSEMBLES, SPACE, randomise
from tflite_arena import arena_bytes, operations

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import literal_path
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.deployed_costs import file_size, peak_activation_bytes
from neas_tf.ensemble.deployed_graph import deployed_graph
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.rewrites import MOBILE_REWRITES
from neas_tf.ensemble.store import LoadedInfo, weights_content, weights_digest
from neas_tf.export import checks as export_checks
from neas_tf.export.artifacts import put_in_place
from neas_tf.export.formats import (
    check_output,
    expected_convolutions,
    export_keras,
    export_saved_model,
    export_tflite,
    parity,
    predict_exported,
    random_images,
)

NAMES = ("cat", "dog", "cow", "hen", "füchse")


def make(architecture):
    model = build_ensemble(architecture, SPACE)
    randomise(model)
    normalisation = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    return model, LoadedInfo(architecture, SPACE, NAMES, normalisation)


@pytest.fixture(scope="module")
def two_paths():
    return make(ENSEMBLES["two_paths"])


@pytest.fixture(scope="module")
def exported(two_paths, tmp_path_factory):
    """By an ensemble's name: model, what it is, its TFLite file in a new folder, the report."""

    @functools.cache
    def export(name):
        model, info = two_paths if name == "two_paths" else make(ENSEMBLES[name])
        path = tmp_path_factory.mktemp(name) / "new" / "model.tflite"
        return model, info, path, export_tflite(model, info, path)

    return export


@pytest.fixture(scope="module")
def saved_model(two_paths, tmp_path_factory):
    """A SavedModel in a folder whose name looks like a pattern, and its report."""
    path = tmp_path_factory.mktemp("rate") / "rate[0.1]" / "saved_model"
    return path, export_saved_model(*two_paths, path, settings={"a": 1})


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_tflite_equals_the_keras_model_and_computes_the_trunk_once(name, exported):
    architecture = ENSEMBLES[name]
    model, info, path, report = exported(name)
    assert report["parity"]["max_abs_diff"] <= 1e-4
    assert report["parity"]["examples"] == 8 and report["parity"]["agreement"] == 1.0
    ops = report["ops"]
    convolutions = expected_convolutions(architecture, SPACE, MOBILE_REWRITES)
    assert ops["CONV_2D"] + ops["DEPTHWISE_CONV_2D"] == convolutions
    active = sum(name != "skip" for name in architecture.shared)
    active += sum(
        n != "skip" for row in architecture.paths for n in row[len(architecture.shared) :]
    )
    assert ops["DEPTHWISE_CONV_2D"] == 1 + active + convolutions - expected_convolutions(
        architecture, SPACE
    )
    assert report["rewrites"] == {"depthwise": True, "gates": True, "normalisation": True}
    assert not any("BATCH" in op for op in ops)  # dilation is an attribute, not a shuffle
    assert ops["FULLY_CONNECTED"] == 1
    # What constraints on memory and size take for the deployed graph is the file.
    nodes = deployed_graph(architecture, SPACE).nodes
    assert [(x.kind, (*x.size, x.channels)) for x in nodes] == operations(path)
    assert 1.0 <= arena_bytes(path) / peak_activation_bytes(architecture, SPACE) < 1.06
    assert file_size(architecture, SPACE) == pytest.approx(report["bytes"], rel=0.05)
    images = random_images(SPACE, 2, seed=5)
    outputs = predict_exported(path, images)
    expected = np.mean(model(info.normalisation.apply(images)), axis=1)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], softmax(expected), atol=1e-4)


def test_report_and_labels_lie_beside_the_file(exported):
    _, info, path, report = exported("two_paths")
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "model.tflite",
        "model.tflite.json",
        "model.tflite.labels.txt",
    ]
    assert json.loads((path.parent / "model.tflite.json").read_text()) == report
    labels = (path.parent / report["labels"]).read_text(encoding="utf-8")
    assert labels.splitlines() == list(NAMES) == report["class_names"]
    content = path.read_bytes()
    assert report["bytes"] == len(content)
    assert report["sha256"] == hashlib.sha256(content).hexdigest()
    cost = CostTable(SPACE).cost(info.architecture)
    assert (report["macs"], report["params"]) == (cost.macs, cost.params)
    assert report["architecture"] == info.architecture.key
    assert report["inputs"][0]["name"] == "image"
    assert report["inputs"][0]["shape"] == [1, 24, 20, 3]
    assert [o["name"] for o in report["outputs"]] == ["logits", "probabilities"]
    assert {"tensorflow", "tf-keras", "ai-edge-litert"} <= set(report["versions"])


def test_saved_model_has_named_signatures_and_class_names(two_paths, saved_model):
    (model, info), (path, report) = two_paths, saved_model
    assert json.loads((path.parent / "saved_model.json").read_text()) == report
    loaded = tf.saved_model.load(literal_path(path))
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1]["image"].shape.as_list() == [None, 24, 20, 3]
    images = random_images(SPACE, 3)
    outputs = serve(image=tf.constant(images, tf.float32))
    expected = np.mean(model(info.normalisation.apply(images)), axis=1)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], softmax(expected), atol=1e-4)
    names = loaded.signatures["class_names"]()["class_names"].numpy()
    assert tuple(name.decode() for name in names) == NAMES
    assert (path / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines() == list(NAMES)
    convolutions = report["ops"]["Conv2D"] + report["ops"]["DepthwiseConv2dNative"]
    assert convolutions == expected_convolutions(info.architecture, SPACE)
    again = export_saved_model(model, info, path, overwrite=True)
    assert again["parity"]["max_abs_diff"] <= 1e-4
    assert len(list(path.parent.iterdir())) == 3


@pytest.mark.parametrize("export", [export_tflite, export_saved_model])
def test_a_failed_parity_check_leaves_nothing(export, two_paths, tmp_path, monkeypatch):
    model, info = two_paths
    # What the model is given is no longer what the graph makes of the same pixels.
    monkeypatch.setattr(Normalisation, "apply", lambda self, pixels: np.float32(pixels) / 255)
    with pytest.raises(NeasError, match="differ from the Keras model's"):
        export(model, info, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_large_logits_may_round_in_proportion(two_paths, tmp_path):
    """float32 rounds logits of some thousands by more than 1e-4; a wrong graph is off by more."""
    model, info = make(ENSEMBLES["two_paths"])
    for layer in model.layers:
        if "classifier" in layer.name:
            layer.set_weights([1e4 * weight for weight in layer.get_weights()])
    parity = export_tflite(model, info, tmp_path / "out")["parity"]
    assert parity["max_abs_logit"] > 1000 and parity["max_abs_diff"] > 1e-4
    assert parity["tolerance"] == pytest.approx(1e-4 * parity["max_abs_logit"])
    job = export_checks.Job(info, tmp_path / "none", "tflite")
    with pytest.raises(
        NeasError, match=r"of up to 280, differ .* by 0.029, expected at most 0.028"
    ):
        job._check_parity({"max_abs_diff": 0.029, "max_abs_logit": 280.0})
    with pytest.raises(NeasError, match=r"expected at most 0.0001"):
        job._check_parity({"max_abs_diff": 2e-4, "max_abs_logit": 0.5})


def test_parity_sees_not_a_number(two_paths, tmp_path, monkeypatch):
    model, info = two_paths
    nothing = {
        "max_abs_diff": float("nan"),
        "max_abs_logit": 0.0,
        "examples": 1,
        "agreement": 0.0,
    }
    monkeypatch.setattr(export_checks, "parity", lambda *args: nothing)
    job = export_checks.Job(info, tmp_path / "out", "saved_model")
    with pytest.raises(NeasError, match="nan"):
        job.run(model, lambda target: {"bytes": target.write_bytes(b"written")})
    assert not list(tmp_path.iterdir())


def test_a_trunk_computed_twice_is_refused(two_paths, saved_model, tmp_path, monkeypatch):
    model, info = two_paths
    monkeypatch.setattr(export_checks, "expected_convolutions", lambda *args: 3)
    job = export_checks.Job(info, tmp_path / "out", "saved_model")
    with pytest.raises(NeasError, match="convolutions, the ensemble 3"):
        job.run(model, lambda target: target.mkdir() or {"ops": saved_model[1]["ops"]})
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(two_paths, tmp_path):
    model, info = two_paths
    path = tmp_path / "model.tflite"
    path.write_bytes(b"someone else's")
    for overwrite in (False, True):
        with pytest.raises(NeasError, match="not an export of ours"):
            export_tflite(model, info, path, overwrite=overwrite)
    assert path.read_bytes() == b"someone else's"
    path.unlink()
    report = tmp_path / "model.tflite.json"
    report.write_text('{"format": "neas-export/1", "file": "model.tflite"}')
    check_output(path)  # left over from an interrupted export
    path.write_bytes(b"an earlier export")
    with pytest.raises(NeasError, match="earlier export"):
        check_output(path)
    check_output(path, overwrite=True)
    report.write_text("{}")
    with pytest.raises(NeasError, match="not an export of ours"):
        check_output(path, overwrite=True)
    with pytest.raises(NeasError, match="cannot be written"):
        export_saved_model(model, info, path / "below")
    assert path.read_bytes() == b"an earlier export"


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.tflite", "saved_model"])
def test_a_full_disk_leaves_nothing(name, two_paths, tmp_path):
    model, info = two_paths
    kinds = {"m.tflite": export_tflite, "saved_model": export_saved_model}
    with full_disk(2000), pytest.raises(NeasError, match=r"cannot be written .*File too large"):
        kinds.get(name, export_keras)(model, info, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_exports_in_a_folder_that_looks_like_a_pattern(saved_model):
    """The parity check loads the SavedModel, which TensorFlow does not find by itself."""
    path, report = saved_model
    assert path.parent.name == "rate[0.1]" and report["parity"]["examples"]
    assert (path / "saved_model.pb").exists()


def test_a_report_says_which_weights_it_is_of(two_paths, saved_model):
    (model, _), (_, report) = two_paths, saved_model
    assert report["settings"] == {"a": 1}
    assert report["weights"] == weights_digest(weights_content(model))


@pytest.mark.parametrize("there", [True, False])
def test_a_new_report_is_never_beside_an_old_export(there, tmp_path, monkeypatch):
    """Killed in the middle: the export stage goes by what the report says."""
    output, new = tmp_path / "m.tflite", tmp_path / "t" / "m.tflite"
    if there:
        output.write_text("old")
        (tmp_path / "m.tflite.json").write_text("old")
    new.parent.mkdir()
    new.write_text("new")
    moves = []
    replace = os.replace

    def moved(source, target):
        if str(source).startswith(str(new)):
            moves.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", moved)
    put_in_place(new, output, {}, "a\n")
    last = moves[-1]
    assert last == ("m.tflite.json" if there else "m.tflite") and len(moves) == 3
    assert output.read_text() == "new"


def test_parity_wants_images(two_paths, tmp_path):
    model, info = two_paths
    with pytest.raises(NeasError, match="images"):
        parity(model, tmp_path, np.zeros((0, 24, 20, 3)), info.normalisation)
