"""`neas.search` from arrays, a dataset and a folder, with the fewest steps that show it."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from image_files import folder

import neas_tf as neas
from neas_tf import data as neas_data
from neas_tf.api import store
from neas_tf.api.search import given_settings, prepare
from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config

FEW = {
    "max_macs": "80k",
    "space": {
        "stages": [[8, 1, 1], [12, 1, 2]],
        "operators": ["k3e1", "k3e2", "skip"],
        "min_split": 1,
        "max_split": 2,
        "stem_channels": 8,
        "stem_stride": 1,
        "block_channels": 0,
        "head_channels": 16,
        "feature_channels": 16,
    },
    "supernet": {"epochs": 2.0, "batch_size": 8},
    "shrink": {"metric": "none"},
    "population": 4,
    "parents": 2,
    "generations": 2,
    "crossover": 1,
    "mutation": 1,
    "retrain": {"epochs": 4.0, "batch_size": 8},
    "export": {"formats": ["tflite"]},
}


def pictures(number, seed=0):
    """Grey 8×8 images in 0..1 whose brighter half tells the class, and names of classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, number)
    images = rng.uniform(0, 0.4, (number, 8, 8))
    images[labels == 1, 4:] += 0.5
    images[labels == 0, :4] += 0.5
    return images, np.array(["low", "high"])[1 - labels]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    data = pictures(60), pictures(20, 1)
    model_dir = tmp_path_factory.mktemp("arrays") / "run"
    parts = {"test": data[1], "validation": pictures(30, 2)}
    return neas.search(data[0], **parts, model_dir=model_dir, **FEW), data


def test_the_result_is_a_keras_model_with_its_numbers(found, tmp_path):
    result, (_, (images, names)) = found
    assert isinstance(result.model, keras.Model)
    assert result.class_names == ("high", "low")
    pixels = np.round(images * 255)[..., None].astype(np.float32)
    probabilities = result.model.predict(pixels, verbose=0)
    assert probabilities.shape == (20, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    right = np.array(result.class_names)[probabilities.argmax(1)] == names
    assert right.mean() == pytest.approx(result.accuracy)
    assert result.cost.macs <= 80_000 and result.architecture.num_paths == 2
    assert len(result.history) == 8 and result.report.is_file()
    assert f"accuracy {result.accuracy:.2%}" in repr(result)
    result.model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras").predict(pixels, verbose=0)
    np.testing.assert_array_equal(again, probabilities)


def test_the_same_call_again_finds_everything_done(found, monkeypatch):
    result, (train, test) = found
    before = {path: path.stat().st_mtime_ns for path in result.model_dir.rglob("data/*")}
    parts = {"test": test, "validation": pictures(30, 2)}
    again = neas.search(train, **parts, model_dir=result.model_dir, **FEW)
    assert again.architecture == result.architecture and again.accuracy == result.accuracy
    assert before == {path: path.stat().st_mtime_ns for path in before}
    loaded = neas.load(result.model_dir)
    assert loaded.accuracy == result.accuracy and loaded.plan["given"]["search"]["parents"] == 2
    for changed in (
        {"data": pictures(60, 5)},
        {"validation": pictures(30, 5)},
        {"validation": None},
        {"test": None},
    ):
        said = r"not those that .* was begun with|was begun with data, validation, test; expected"
        with pytest.raises(NeasError, match=said):
            neas.search(**{"data": train, **parts, **changed}, model_dir=result.model_dir, **FEW)


def test_validation_pictures_judge_the_search_and_nothing_is_trained_on_them(found):
    result, ((images, _), _) = found
    (line,) = [why for what, why in result.plan["reasons"] if what == "search"]
    assert line == "judged on 30 validation pictures, which nothing is trained on"
    assert "30 validation pictures" in result.plan["warnings"][0]
    record = json.loads((result.model_dir / "data.json").read_text())
    assert record["sizes"] == {"train": 60, "supernet": 60, "search": 30, "test": 20}
    assert record["search_judged_by"] == "validation images"
    assert record["search_indices_sha256"] is None
    assert list(record["files"]["validation"]) == ["validation-00000.tfrecord"]
    for stage in ("supernet", "retrain"):
        identity = json.loads((result.model_dir / stage / "identity.json").read_text())
        assert identity["images"] == record["sizes"]
    scores = [round(score * 30, 6) for row in result.history for score in row["path_accuracies"]]
    assert scores and all(score == round(score) for score in scores)  # of 30, and of no others
    config = load_config("neas_own_data", [str(result.model_dir / "params.yaml")])
    info = neas_data.load(config.data)
    stored = {part: info.parts[part].store.images.numpy()[..., 0] for part in info.parts}
    np.testing.assert_array_equal(stored["search"], np.round(pictures(30, 2)[0] * 255))
    for part in ("train", "supernet"):
        np.testing.assert_array_equal(stored[part], np.round(images * 255))


def test_validation_without_a_test_is_the_test(tmp_path, capsys):
    prepare(pictures(30), None, pictures(10, 1), tmp_path / "run", given_settings({}))
    assert "those are the test, which nothing is chosen by" in capsys.readouterr().err
    record = json.loads((tmp_path / "run" / store.FOLDER / store.FILE).read_text())
    assert {part: sum(counts) for part, counts in record["counts"].items()} == {
        "train": 30,
        "test": 10,
    }
    root = folder(tmp_path / "photos", test="val")
    _, plan = prepare(str(root), None, None, tmp_path / "a", given_settings({}))
    assert "those are the test" in capsys.readouterr().err
    assert any("training images judge the search" in line for line in plan.lines())


def test_a_store_of_before_validation_had_a_part_of_its_own(tmp_path):
    parts = pictures(30), pictures(10, 1), pictures(10, 2)
    prepare(*parts[:2], None, tmp_path / "run", given_settings({}))
    path = tmp_path / "run" / store.FOLDER / store.FILE
    record = json.loads(path.read_text())
    del record["first_sha256_of"]
    path.write_text(json.dumps(record))
    prepare(*parts[:2], None, tmp_path / "run", given_settings({}))
    with pytest.raises(NeasError, match="was begun with no validation of its own"):
        prepare(*parts, tmp_path / "run", given_settings({}))


def test_the_model_card_tells_of_the_files_and_its_code_runs(found, monkeypatch):
    result, _ = found
    text = (result.model_dir / "export" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    metadata = yaml.safe_load(front)
    (entry,) = metadata["model-index"][0]["results"]
    assert entry["metrics"][0]["value"] == result.accuracy
    assert metadata["pipeline_tag"] == "image-classification" and "`model.tflite`" in body
    assert "Trained on 60 images of own_data; the architecture was chosen by 30 valid" in body
    assert f"{result.accuracy:.2%} of 20 test images" in body and "high, low" in body
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    monkeypatch.chdir(result.model_dir / "export")
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (1, 2)


def test_exports(found, tmp_path):
    result, _ = found
    outputs = ["logits", "disagreement"]
    path = result.export(tmp_path / "m.tflite", quantize="int8", outputs=outputs)
    (report,) = tmp_path.glob("m.tflite.json")
    assert sorted(o["name"] for o in json.loads(report.read_text())["outputs"]) == sorted(outputs)
    assert path.is_file() and (tmp_path / "m.tflite.labels.txt").read_text() == "high\nlow\n"
    card = (tmp_path / "README.md").read_text()
    assert "| `m.tflite` | tflite, int8 |" in card and f"{result.accuracy:.2%} of 20 test" in card
    for name, quantize, said in (
        ("m.onnx", "none", "ends with .tflite or .keras"),
        ("n.tflite", "int3", "quantize: received 'int3'"),
        ("n.keras", "int8", "expected 'none' for a keras export"),
    ):
        with pytest.raises(NeasError, match=said):
            result.export(tmp_path / name, quantize=quantize)
    for options, said in (
        ({"outputs": ["disagreements"]}, "outputs: .*'disagreement'"),
        ({"outputs": "disagreement"}, "expected a list of names"),
        ({"outputs": ["probabilities"], "quantize": "int8"}, "outputs: received 'probabilities'"),
        ({"calibrated": True}, "retrain.calibrate"),
    ):
        with pytest.raises(NeasError, match=said):
            result.export(tmp_path / "o.tflite", **options)
    with pytest.raises(NeasError, match="outputs: received"):
        result.export(tmp_path / "o.keras", outputs=outputs)
    assert not list(tmp_path.glob("o.*"))


def test_a_folder_and_a_dataset_are_planned_alike(tmp_path):
    """The same pictures as files and as a dataset of different sizes: same sizes and counts."""
    root = folder(tmp_path / "photos")
    config, plan = prepare(str(root), None, None, tmp_path / "a", given_settings({}))
    assert config.data.source == "image_folder" and config.data.input_size == [24, 20]
    assert config.space.scale == "auto" and config.search.max_macs == 20_000_000
    assert plan.warnings and not (tmp_path / "a").exists()

    def files():
        for path in sorted((root / "train").rglob("*.*")):
            yield tf.io.decode_image(path.read_bytes()).numpy(), path.parent.name

    config, _ = prepare(files(), None, None, tmp_path / "b", given_settings({}))
    record = json.loads((tmp_path / "b" / store.FOLDER / store.FILE).read_text())
    assert record["class_names"] == ["cat", "dog", "owl"]
    assert record["counts"] == {"train": [5, 5, 5], "test": [1, 1, 1]}
    assert config.data.input_size == [24, 20] and config.data.source == "tfrecord"


def test_a_folder_with_all_three_parts(tmp_path):
    root = folder(tmp_path / "photos")
    folder(tmp_path / "more", test="validation")
    (tmp_path / "more" / "validation").rename(root / "validation")
    _, plan = prepare(str(root), None, None, tmp_path / "run", given_settings({}))
    assert plan.settings["data"]["search_fraction"] == 0
    assert any("judged on 9 validation pictures" in line for line in plan.lines())
    with pytest.raises(NeasError, match=r"data.search_fraction: received '0.3 beside 9 valid"):
        prepare(str(root), None, None, tmp_path / "run", given_settings({"search_fraction": 0.3}))


def test_a_broken_dataset_leaves_no_store(tmp_path):
    images, names = pictures(30)

    def broken():
        yield from zip(images, names, strict=True)
        raise OSError("unplugged")

    for data in (broken(), zip(images, names, strict=True)):
        try:
            prepare(data, None, None, tmp_path / "run", given_settings({}))
        except NeasError as error:
            assert "failed after 30 examples (OSError: unplugged)" in str(error)
            assert not (tmp_path / "run" / store.FOLDER).exists()
    assert (tmp_path / "run" / store.FOLDER / store.FILE).is_file()


@pytest.mark.parametrize(
    "labels, said",
    [
        (np.zeros(30, int), "all examples have the label 0, expected two classes"),
        (np.array([0, 900] * 15), "expected class numbers from 0, or names"),
        (["a"] * 29 + [3], "class numbers or names, not both"),
        (np.arange(30), "no class has more than one image"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, said):
    with pytest.raises(NeasError, match=said):
        prepare((pictures(30)[0], labels), None, None, tmp_path / "run", given_settings({}))
    assert not (tmp_path / "run" / store.FOLDER).exists()


def test_labels_from_one_and_names_by_number(tmp_path, capsys):
    data = pictures(30)[0], np.array([1, 2, 3] * 10)
    config, _ = prepare(data, None, None, tmp_path / "run", given_settings({}))
    assert config.data.label_offset == 1 and config.data.class_names == ["1", "2", "3"]
    assert "Labels count from 1" in capsys.readouterr().err
    given = given_settings({"class_names": ["x", "y", "z"]})
    config, _ = prepare(data, None, None, tmp_path / "named", given)
    assert config.data.class_names == ["x", "y", "z"]


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"max_mac": "6M"}, "neas.search: unknown name 'max_mac'.*Did you mean 'max_macs'"),
        ({"max_macs": "lots"}, "search.max_macs: received 'lots', expected a count such as 60M"),
        ({"epochs": 3}, "expected the section beside it"),
        ({"retrain": {"epoch": 3}}, "retrain.epoch: unknown name 'epoch'.*'epochs'"),
        ({"max_latency_ms": "2ms"}, "expected measure=True .* beside it"),
        ({"generations": "many"}, "search.generations: received 'many', expected an integer"),
    ],
)
def test_settings_that_are_refused(settings, said):
    with pytest.raises(NeasError, match=said):
        given_settings(settings)


@pytest.mark.parametrize(
    "data, said",
    [
        ("nowhere/", "expected a folder of pictures"),
        ("empty", "is empty; expected one folder for each class"),
        ("one", "holds one folder, 'cat'"),
        ("a_file", "and this is a file"),
    ],
)
def test_folders_that_are_refused(tmp_path, monkeypatch, data, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "made", classes=("cat",))
    (tmp_path / "made" / "train").rename(tmp_path / "one")
    (tmp_path / "a_file").touch()
    with pytest.raises(NeasError, match=said):
        prepare(data, None, None, tmp_path / "run", given_settings({}))
    assert not (tmp_path / "run").exists()


def test_numbers_of_numpy_and_paths_are_settings(tmp_path):
    given = given_settings(
        {"max_macs": np.int64(5), "input_size": 32, "space": {"operators": ("k3e3", "skip")}},
        {"retrain.init": "scratch"},
    )
    assert given == {
        "retrain": {"init": "scratch"},
        "search": {"max_macs": 5},
        "data": {"input_size": [32, 32]},
        "space": {"operators": ["k3e3", "skip"]},
    }


def test_the_package_is_the_function_and_a_package():
    import neas_tf.search.evolution

    assert neas.search is neas_tf.search and callable(neas.search)
    assert neas_tf.search.evolution.__name__ == "neas_tf.search.evolution"
    with pytest.raises(NeasError, match="unknown name 'max_mac'"):
        neas.search("x", max_mac=3)
    with pytest.raises(NeasError, match=r"holds no retrained model|there is no folder"):
        neas.load("nowhere")
