import json

import numpy as np
import pytest
from digits_ensemble import dataset, ensemble, tuning

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.rewrites import MOBILE_REWRITES
from neas_tf.export import fine_tuning
from neas_tf.export.formats import export_tflite
from neas_tf.training.checkpoints import latest_step


@pytest.fixture(scope="module")
def digits():
    return dataset()


@pytest.fixture(scope="module")
def trained(digits):
    return ensemble(digits)


@pytest.fixture(scope="module")
def pruned(trained, digits, tmp_path_factory):
    """One pruning of eleven steps that was not disturbed."""
    folder = tmp_path_factory.mktemp("pruned")
    return fine_tuning.prune(*trained, tuning(digits, folder), 0.7), folder


@pytest.fixture(scope="module")
def quantized(pruned, trained, digits):
    """Quantization-aware training of the pruned model, in the same folder."""
    (result, folder), info = pruned, trained[1]
    settings = tuning(digits, folder)
    return fine_tuning.quantize(result.model, info, settings, MOBILE_REWRITES, True), settings


def kernels(model):
    return {
        layer.name: layer.get_weights()[0]
        for layer in model.layers
        if fine_tuning.is_prunable(layer)
    }


def test_pruning_reaches_its_share_in_every_kernel(pruned, trained):
    result, folder = pruned
    found = result.report["pruning"]
    shares = {name: np.mean(value == 0) for name, value in kernels(result.model).items()}
    assert {name: round(float(s), 4) for name, s in shares.items()} == found["layers"]
    for name, value in kernels(result.model).items():
        assert shares[name] == pytest.approx(0.7, abs=0.5 / value.size + 1e-6), name
    assert found["target"] == 0.7 and 0.69 < found["pruned_layers"] < 0.71
    assert 0.4 < found["all_weights"] < found["pruned_layers"]
    assert "stem_conv" not in found["layers"] and "path1_classifier" in found["layers"]
    assert result.report["pruning_fine_tuning"]["steps"] == 11
    assert not np.any(trained[0].get_layer("path1_classifier").get_weights()[0] == 0)
    assert (folder / "pruned" / "train").is_dir()
    lines = (folder / "pruned" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 11


def test_training_learns_the_digits(pruned):
    _, folder = pruned
    lines = [json.loads(x) for x in (folder / "pruned" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_stopped_pruning_goes_on_as_if_it_had_not(pruned, trained, digits, tmp_path, monkeypatch):
    original = fine_tuning.TrainingLoop.train_to

    def stop(loop, step):
        original(loop, 5)
        raise KeyboardInterrupt

    settings = tuning(digits, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning.TrainingLoop, "train_to", stop)
        with pytest.raises(KeyboardInterrupt):
            fine_tuning.prune(*trained, settings, 0.7)
    assert latest_step(tmp_path / "pruned") == 5
    again = fine_tuning.prune(*trained, settings, 0.7)
    for one, other in zip(again.model.weights, pruned[0].model.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=one.name)


def test_other_settings_are_refused(pruned, trained, digits):
    _, folder = pruned
    before = sorted(folder.rglob("*"))
    for settings, sparsity, name in (
        ({"seed": 1}, 0.7, "seed"),
        ({"rate": 0.01}, 0.7, "rate"),
        ({}, 0.8, "sparsity"),
    ):
        with pytest.raises(NeasError, match=rf"another fine-tuning \({name}: was"):
            fine_tuning.prune(*trained, tuning(digits, folder, **settings), sparsity)
    other = ensemble(digits, seed=9)
    with pytest.raises(NeasError, match="weights: was"):
        fine_tuning.prune(*other, tuning(digits, folder), 0.7)
    assert sorted(folder.rglob("*")) == before


def test_checkpoints_of_nobody_knows_what_are_refused(pruned, trained, digits, tmp_path):
    (tmp_path / "pruned").mkdir()
    for file in (pruned[1] / "pruned").glob("ck*"):
        (tmp_path / "pruned" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(NeasError, match="checkpoints without"):
        fine_tuning.prune(*trained, tuning(digits, tmp_path), 0.7)


def test_quantization_keeps_the_zeros_and_moves_the_rest(quantized, pruned, trained):
    result, settings = quantized
    begin = fine_tuning.begin_quantization(pruned[0].model, trained[1], settings, MOBILE_REWRITES)
    moved = 0
    for new, old in zip(result.model.trainable_variables, begin.trainable_variables, strict=True):
        new, old = new.numpy(), old.numpy()
        if old.ndim > 1:
            assert not np.any(new[old == 0]), "a zero of the pruning was trained"
        moved += not np.array_equal(new, old)
    assert moved > len(begin.trainable_variables) // 2
    # The same command again trains nothing and ends with the same kernels and ranges.
    again = fine_tuning.quantize(pruned[0].model, trained[1], settings, MOBILE_REWRITES, True)
    for one, other in zip(again.model.variables, result.model.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.name)
    assert result.report["fine_tuning"]["rate"] == 2e-5


def test_an_export_takes_a_finished_training_from_its_folder(quantized, trained, tmp_path):
    (result, settings), (model, info) = quantized, trained
    report = export_tflite(
        model,
        info,
        tmp_path / "m.tflite",
        quantize="int8_qat",
        fine_tuning=settings,
        sparsity=0.7,
        input_type="uint8",
        output_type="int8",
    )
    assert report["float_islands"] == {} and "float32" not in report["tensor_types"]
    assert report["xnnpack_partitions"] == 1 and report["not_delegated"] == {"QUANTIZE": 1}
    image = report["inputs"][0]
    assert (image["dtype"], image["scale"], image["zero_point"]) == ("uint8", 1.0, 0)
    assert report["emulation"]["agreement"] > 0.8
    assert report["emulation"]["max_abs_diff"] < 0.15 * report["emulation"]["max_abs_logit"]
    assert report["pruning"]["target"] == 0.7
    assert report["fine_tuning"] == result.report["fine_tuning"]
    assert report["gzip_bytes"]["after"] < report["gzip_bytes"]["before"]


def test_settings_are_checked(digits, tmp_path):
    for field, value, name in (
        ("epochs", 0.0, "fine_tune_epochs"),
        ("rate", 1.5, "fine_tune_rate"),
        ("batch_size", 0, "fine_tune_batch"),
        ("seed", -1, "fine_tune_seed"),
    ):
        with pytest.raises(NeasError, match=name):
            tuning(digits, tmp_path, **{field: value})
    for sparsity in (0.0, 1.0, -0.5):
        with pytest.raises(NeasError, match="sparsity"):
            fine_tuning.prune(*ensemble(digits), tuning(digits, tmp_path), sparsity)
    with pytest.raises(NeasError, match=r"fine_tune\.batch_size"):
        fine_tuning.prune(*ensemble(digits), tuning(digits, tmp_path, batch_size=5000), 0.5)
    assert not list(tmp_path.iterdir())


def test_export_without_settings_is_refused(trained, tmp_path):
    for arguments in ({"quantize": "int8_qat"}, {"sparsity": 0.5}):
        with pytest.raises(NeasError, match="fine_tuning"):
            export_tflite(*trained, tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())
