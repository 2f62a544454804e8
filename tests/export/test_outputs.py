"""Outputs of exports beside the logits, and logits divided by a temperature: equal to Keras'."""

import dataclasses

import digits_ensemble
import numpy as np
import pytest
from small_ensembles import ENSEMBLES, SPACE

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.checks import predict_exported
from neas_tf.export.formats import export_saved_model, export_tflite
from neas_tf.export.tflite.inspection import interpreter
from neas_tf.export.tflite.outputs import check_outputs
from neas_tf.uncertainty.measures import disagreement

ALL = ("path_logits", "disagreement")


@pytest.fixture(scope="module")
def digits():
    """(data, model, what it is with T = 2, test pixels and labels, logits of the paths)."""
    info = digits_ensemble.dataset()
    model, what = digits_ensemble.ensemble(info)
    for layer in model.layers:  # so that the paths are apart
        if layer.name.endswith("_classifier"):
            layer.set_weights([4 * value for value in layer.get_weights()])
    images, labels = data.make_arrays(info, "test", 48, 0)
    scale, offset = (np.array(v) for v in (info.normalisation.scale, info.normalisation.offset))
    pixels = np.clip(np.rint((images - offset) / scale), 0, 255).astype(np.uint8)
    paths = model.predict(info.normalisation.apply(pixels.astype(np.float32)), verbose=0)
    return info, model, dataclasses.replace(what, temperature=2.0), pixels, labels, paths


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Settings of a quantization-aware training, which the first export does and the next one finds."""
    folder = tmp_path_factory.mktemp("tuning")
    return digits_ensemble.tuning(digits[0], folder, epochs=0.2, rate=1e-9)


@pytest.fixture(scope="module")
def trained_logits(digits, trained, tmp_path_factory):
    """What the file of that training gives, which has no further outputs."""
    _, model, what, pixels, labels, _ = digits
    output = tmp_path_factory.mktemp("qat") / "m.tflite"
    options = {"quantize": "int8_qat", "fine_tuning": trained, "images": pixels}
    export_tflite(model, what, output, test=(pixels, labels), **options)
    return predict_exported(output, pixels)


def test_float_exports_have_all_outputs(digits, tmp_path):
    _, model, what, pixels, _, paths = digits
    for calibrated, heat in ((False, 1.0), (True, 2.0)):
        for kind, export in (("saved", export_saved_model), ("m.tflite", export_tflite)):
            output = tmp_path / f"{calibrated}{kind}"
            outputs = ("probabilities", *ALL)
            report = export(model, what, output, outputs=outputs, calibrated=calibrated)
            assert {row["name"] for row in report["outputs"]} == {"logits", *outputs}
            assert report.get("temperature") == (2.0 if calibrated else None)
            found = predict_exported(output, pixels)
            shape = (len(pixels), 2, 10)
            assert found["path_logits"].shape == shape and found["disagreement"].shape == (48,)
            np.testing.assert_allclose(found["path_logits"], paths / heat, atol=1e-4)
            np.testing.assert_allclose(found["logits"], paths.mean(1) / heat, atol=1e-4)
            expected = disagreement(paths / heat)
            np.testing.assert_allclose(found["disagreement"], expected, atol=1e-5)
            assert expected.min() > 0.01


@pytest.mark.parametrize("quantize", ["float16", "int8", "int8_qat"])
def test_quantized_files_have_them_too(quantize, digits, trained_logits, tmp_path):
    """Within quantization, and the classes are those of the file without these outputs."""
    info, model, what, pixels, labels, paths = digits
    options = {"quantize": quantize, "images": pixels, "test": (pixels, labels)}
    if quantize == "int8":
        options["representative"] = pixels
    found = {}
    if quantize == "int8_qat":
        tuning = digits_ensemble.tuning(info, tmp_path / "tuning", epochs=0.2, rate=1e-9)
        options["fine_tuning"] = tuning
        found[()] = trained_logits
    for outputs in (ALL,) if found else ((), ALL):
        output = tmp_path / f"{len(outputs)}.tflite"
        report = export_tflite(model, what, output, outputs=outputs, **options)
        found[outputs] = predict_exported(output, pixels)
    assert set(found[()]) == {"logits"} and set(found[ALL]) == {"logits", *ALL}
    step = np.ptp(paths) / 255
    within = (0.5 if quantize == "float16" else 12) * step
    assert np.abs(found[ALL]["path_logits"] - paths).max() < within
    assert np.abs(found[ALL]["logits"] - paths.mean(1)).max() < within
    # In float from the file's own integers: nothing of it is rounded again. Quantization-aware
    # graphs round `path_logits` once more than what disagreement is taken of.
    own = disagreement(found[ALL]["path_logits"])
    atol = 0.02 if quantize == "int8_qat" else 1e-5
    np.testing.assert_allclose(found[ALL]["disagreement"], own, atol=atol)
    both = [found[outputs]["logits"].argmax(-1) for outputs in ((), ALL)]
    assert np.mean(both[0] == both[1]) > 0.95
    assert report["accuracy"]["agreement"] > 0.95
    if quantize != "float16":
        assert report["float_islands"] == {}
    signature = interpreter(output).get_signature_runner("serving_default")
    assert set(signature.get_output_details()) == {"logits", *ALL}


def test_int8_divided_by_a_temperature(digits, trained, trained_logits, tmp_path):
    _, model, what, pixels, _, paths = digits
    output = tmp_path / "calibrated.tflite"
    options = {"quantize": "int8_qat", "fine_tuning": trained, "images": pixels}
    export_tflite(model, what, output, calibrated=True, **options)
    found = predict_exported(output, pixels)["logits"]
    np.testing.assert_allclose(trained_logits["logits"] / 2, found, atol=np.ptp(paths) / 255)


def test_what_cannot_be_exported(tmp_path):
    one = ENSEMBLES["one_path"]
    model = build_ensemble(one, SPACE)
    info = LoadedInfo(one, SPACE, tuple("abcde"), Normalisation())
    for options, said in (
        ({"outputs": ["disagreement"]}, "received 'disagreement', expected an ensemble of 2 paths"),
        ({"outputs": ["doubt"]}, "outputs: unknown name 'doubt'"),
        ({"calibrated": True}, r"retrained with retrain\.calibrate=true"),
    ):
        for export in (export_saved_model, export_tflite):
            with pytest.raises(NeasError, match=said):
                export(model, info, tmp_path / "m", **options)
    with pytest.raises(NeasError, match="steps of 1/256 say little"):
        check_outputs(["probabilities"], 2, "int8")
    with pytest.raises(NeasError, match="'uint8', expected float32 with the output disagreement"):
        check_outputs(["disagreement"], 2, "int8", "uint8", "float32")
    assert list(tmp_path.iterdir()) == []
