"""Input pipeline against a step, and the retraining step's benchmark, at tiny size."""

import dataclasses
import importlib.util
import json

import pytest

from benchmarks import feeding, input_pipeline, retraining_step
from neas_tf.space.search_space import SearchSpace


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return feeding.photographs(tmp_path_factory.mktemp("photographs"))


def test_photographs_go_through_the_whole_recipe(photos):
    assert photos.input_shape == (224, 224, 3) and photos.sizes["train"] == 36
    config = photos.config
    assert (config.augment, config.auto_augment, config.cache) == ("imagenet", "v0", "none")
    space = feeding.space_of(photos)
    assert space == dataclasses.replace(SearchSpace(), num_classes=2)


def test_feeding_reports_both_speeds_and_the_waiting(photos):
    seen = []

    def step(images, labels):
        seen.append((tuple(images.shape), tuple(labels.shape)))
        return sum(range(300_000))  # some work

    found = feeding.feed(photos, 4, 2, step)
    assert seen == [((4, 224, 224, 3), (4,))] * 6
    assert found["pipeline_images_per_cpu_second"] > 0 and found["step_images_per_cpu_second"] > 0
    assert found["ratio"] > 0 and 0 <= found["waiting_share"] <= 1
    rows = input_pipeline.targets({"small": found})
    assert f"waits {found['waiting_share']:.1%}" in rows[0]["what"]
    assert rows[0]["value"] == round(found["ratio"], 4) and rows[1]["met"] is None


def test_small_images_get_strides_for_cifar():
    space = feeding.space_of(input_pipeline.random_data())
    assert space.input_size == (32, 32) and space.num_classes == 10
    assert space.layers[-1].out_size == (4, 4)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_retraining_steps_are_compared(tmp_path):
    path = "k3e4" + ".skip" * 3 + "".join(".k3e4" + ".skip" * 3 for _ in range(4))
    arguments = [f"--architecture=s20:{path}|.|.", "--size=32", "--batch_size=4", "--rounds=1"]
    assert retraining_step.main([*arguments, f"--output={tmp_path / 'out.json'}"]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert list(report["implementations"]) == ["ours", "torch", "torch_channels_last"]
    for one in report["implementations"].values():
        assert one["ms"] > 0 and one["images_per_cpu_second"] > 0 and one["memory_gb"] > 0
    (row,) = report["targets"]
    assert row["value"] == report["ratios"]["torch_channels_last"]


def test_bad_input_ends_with_2(capsys):
    bad = {"--architecture=neas_xl": "neas_xl", "--rounds=-1": "--rounds", "--size=4": "--size"}
    for argument, text in bad.items():
        assert retraining_step.main([argument]) == 2
        assert text in capsys.readouterr().err
