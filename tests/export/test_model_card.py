"""The model card beside exports: what it says, and what it leaves alone."""

import json

import pytest
import yaml
from small_ensembles import ENSEMBLES, SPACE

from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import FORMAT
from neas_tf.export.model_card import write_card

NAMES = tuple(f"class {i}" for i in range(SPACE.num_classes))
INFO = LoadedInfo(ENSEMBLES["two_paths"], SPACE, NAMES, Normalisation(), {"tensorflow": "2.20"})
RESULTS = {"ensemble_accuracy": 0.75, "path_accuracies": [0.5, 0.625], "test_examples": 16}


def exported(folder, file="m.tflite", kind="tflite", weights="w", **more):
    """Leaves what an export leaves, but for the file."""
    report = {"format": FORMAT, "file": file, "kind": kind, "quantize": "none", "bytes": 5000}
    report |= {"weights": weights, "macs": 12_345, "params": 678, **more}
    report |= {"inputs": [{"name": "image", "dtype": "float32"}]}
    folder.mkdir(exist_ok=True)
    (folder / f"{file}.json").write_text(json.dumps(report))
    (folder / f"{file}.labels.txt").write_text("\n".join(NAMES))


def run(folder, judged="validation images"):
    """What a run knows of its data and its test."""
    data = {"name": "photos", "sizes": {"train": 90, "search": 30}, "search_judged_by": judged}
    (folder / "retrain").mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "retrain" / "results.json").write_text(json.dumps(RESULTS))
    return folder


def parts(path):
    """Front matter and text of a card."""
    _, front, body = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_card_has_the_figures_of_run_and_files(tmp_path):
    folder, model_dir = tmp_path / "out", run(tmp_path / "run")
    exported(folder, accuracy={"keras": 0.75, "exported": 0.6875, "examples": 16})
    exported(folder, "saved", "saved_model")
    exported(folder, "other.tflite", weights="of another model")
    (folder / "settings.json").write_text("{}")
    assert write_card(folder, INFO, "w", model_dir) == str(folder / "README.md")
    front, body = parts(folder / "README.md")
    assert front["license"] == "unknown" and front["library_name"] == "litert"
    assert front["pipeline_tag"] == "image-classification" and "ensemble" in front["tags"]
    (entry,) = front["model-index"][0]["results"]
    assert entry["dataset"]["name"] == "photos"
    values = {metric["name"]: metric["value"] for metric in entry["metrics"]}
    assert values == {
        "Accuracy of the trained ensemble, 16 test images": 0.75,
        "Accuracy of `m.tflite`, 16 test images": 0.6875,
    }
    assert "75.00% of 16 test images" in body and "the paths alone: 50.00%, 62.50%" in body
    assert "| `m.tflite` | tflite, float32 | 5 | 12,345 | 678 | 68.75% of 16 |" in body
    assert "| `saved` | saved_model, float32 | 5 | 12,345 | 678 | not measured |" in body
    assert "other.tflite" not in body and f"`{INFO.architecture.key}`" in body
    assert "Trained on 90 images of photos; the architecture was chosen by 30 valid" in body
    assert body.count("```python") == 2 and "tensorflow 2.20" in body


def test_a_card_without_a_run_claims_nothing(tmp_path):
    exported(tmp_path, "m.weights.h5", "keras", form="trainable")
    write_card(tmp_path, INFO, "w")
    front, body = parts(tmp_path / "README.md")
    assert "model-index" not in front and "metrics" not in front
    assert "not tested, or its test is not known here" in body
    assert "What it was trained on is not known here" in body
    assert 'model.load_weights("m.weights.h5")' in body


def test_a_card_is_written_again_until_somebody_edits_it(tmp_path):
    path = tmp_path / "README.md"
    exported(tmp_path)
    write_card(tmp_path, INFO, "w")
    first = path.read_text()
    exported(tmp_path, "second.tflite")
    assert write_card(tmp_path, INFO, "w") == str(path)
    assert path.read_text() != first and "second.tflite" in path.read_text()
    for old, new in (("license: unknown", "license: mit"), ("neas-card", "a-card")):
        edited = path.read_text().replace(old, new)
        path.write_text(edited)
        said = write_card(tmp_path, INFO, "w")
        assert "is not as an export left it and stays" in said and path.read_text() == edited
        path.unlink()
        write_card(tmp_path, INFO, "w")


@pytest.mark.parametrize("content", [b"", b"# Mine\n", b"\xff\xfe no UTF-8", b"x" * (1 << 21)])
@pytest.mark.parametrize(
    "file, card",
    [
        ("m.tflite", "m.README.md"),
        ("m.weights.h5", "m.README.md"),
        ("v1.2", "v1.2.README.md"),
        (".keras", ".keras.README.md"),
    ],
)
def test_a_readme_of_somebody_else_stays(tmp_path, content, file, card):
    """And the card lies beside it, of this file alone."""
    path = tmp_path / "README.md"
    path.write_bytes(content)
    before = path.stat()
    exported(tmp_path, file)
    exported(tmp_path, "other.tflite")
    said = write_card(tmp_path, INFO, "w", outputs=[tmp_path / file])
    assert said == f"{tmp_path / card} ({path} is somebody else's and stays)"
    assert path.read_bytes() == content
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    text = (tmp_path / card).read_text("utf-8")
    assert f"| `{file}` |" in text and "other.tflite" not in text
    assert "stays" in write_card(tmp_path, INFO, "w") and path.read_bytes() == content


def test_a_card_beside_somebody_elses_readme_stays_when_it_is_edited(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    exported(tmp_path)
    card = tmp_path / "m.README.md"
    for edited in ("license: mit", "license: apache-2.0"):
        write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.tflite"])
        text = card.read_text("utf-8").replace("license: unknown", edited)
        card.write_text(text, "utf-8")
        said = write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.tflite"])
        assert "m.README.md is not as an export left it and stays" in said
        assert card.read_text("utf-8") == text
        card.unlink()
    card.symlink_to(tmp_path / "nowhere")
    assert "stays" in write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.tflite"])
    assert not (tmp_path / "nowhere").exists()


def test_exports_of_a_name_share_the_card_beside_somebody_elses_readme(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    exported(tmp_path)
    exported(tmp_path, "m.keras", "keras")
    exported(tmp_path, "n.tflite")
    write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.keras", tmp_path / "m.tflite"])
    text = (tmp_path / "m.README.md").read_text("utf-8")
    assert "| `m.tflite` |" in text and "| `m.keras` |" in text and "n.tflite" not in text
    assert not (tmp_path / "n.README.md").exists()


def test_an_edited_card_gets_no_second_one(tmp_path):
    exported(tmp_path)
    write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.tflite"])
    path = tmp_path / "README.md"
    path.write_text(path.read_text("utf-8") + "More of mine.\n", "utf-8")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert "stays" in write_card(tmp_path, INFO, "w", outputs=[tmp_path / "m.tflite"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_links_and_folders_stay(tmp_path):
    exported(tmp_path / "a")
    (tmp_path / "a" / "README.md").symlink_to(tmp_path / "nowhere")
    assert "stays" in write_card(tmp_path / "a", INFO, "w")
    assert not (tmp_path / "nowhere").exists()
    exported(tmp_path / "b")
    (tmp_path / "b" / "README.md").mkdir()
    assert "stays" in write_card(tmp_path / "b", INFO, "w")
