"""Every stage is handed pixels, and finds what it finds with images that come normalised."""

from __future__ import annotations

import json

import tensorflow as tf
from tiny_run import TINY

from neas_tf import data
from neas_tf.config.parse import load_config
from neas_tf.run import retrain_stage, search_stage, supernet_stage
from neas_tf.run.context import open_run
from neas_tf.search.evaluation import CandidateEvaluator

SHORT = {
    "supernet": {"epochs": 0.5, "warmup_epochs": 0.0},
    "shrink": {
        "every_epochs": 0.25,
        "num_samples": 8,
        "min_pair_count": 1,
        "batch_norm": "recalculated",
    },
    "search": {"generations": 1, "calibration_images": 64},
    "retrain": {"epochs": 0.25, "warmup_epochs": 0.0},
}


def stages(folder):
    """What the stages leave of a short run: metrics, measurements, scores, test, weights."""
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], SHORT)
    run = open_run(config, str(folder / "run"), tf.distribute.OneDeviceStrategy("CPU:0"))
    with run.writing():
        supernet_stage.train_supernet(*run.inputs)
        search_stage.search(*run.inputs)
        retrain_stage.retrain(*run.inputs)
    found = run.model_dir
    names = [
        *("supernet/metrics.jsonl", "retrain/metrics.jsonl", "retrain/results.json"),
        *("retrain/pictures.json", "search/best.json"),
        *(str(path.relative_to(found)) for path in sorted(found.glob("shrink/shrink_*.json"))),
    ]
    return {name: (found / name).read_text() for name in names}


def test_all_stages_take_pixels_and_find_the_same(tmp_path, monkeypatch):
    kinds = {"pipelines": set(), "subsets": set()}
    make, subset, evaluator = data.make_dataset, data.make_images, CandidateEvaluator.__init__

    def noted_dataset(*arguments, **settings):
        made = make(*arguments, **settings)
        images, _ = made.element_spec
        kinds["pipelines"].add((arguments[1], images.dtype))
        return made

    def noted_images(info, part, *arguments):
        images, labels = subset(info, part, *arguments)
        kinds["subsets"].add((part, images.dtype.name))
        return images, labels

    monkeypatch.setattr(data, "make_dataset", noted_dataset)
    monkeypatch.setattr(data, "make_images", noted_images)
    (tmp_path / "pixels").mkdir()
    found = stages(tmp_path / "pixels")
    assert kinds == {
        "pipelines": {(part, tf.uint8) for part in ("supernet", "train", "test")},
        "subsets": {("supernet", "uint8"), ("search", "uint8")},
    }

    def normalised_dataset(*arguments, **settings):
        return make(*arguments, **(settings | {"pixels": arguments[1] == "test"}))

    def normalised_images(info, *arguments):
        images, labels = subset(info, *arguments)
        return info.normalisation.apply(images), labels

    def without(self, *arguments, **settings):
        *others, _, replicas = arguments  # between them the normalisation
        evaluator(self, *others, None, replicas, **settings)

    monkeypatch.setattr(data, "make_dataset", normalised_dataset)
    monkeypatch.setattr(data, "make_images", normalised_images)
    monkeypatch.setattr(CandidateEvaluator, "__init__", without)
    (tmp_path / "normalised").mkdir()
    expected = stages(tmp_path / "normalised")
    assert len(found) == 7 and found == expected
