"""What a search decides by itself."""

import dataclasses

import pytest

from neas_tf.api.plan import Facts, make_plan

FEW = Facts("photos", 48, 12, 3, (16, 16, 16), 180, None, 3)
CIFAR = Facts("cifar10", 50_000, 10_000, 10, (5000,) * 10, 32, (32, 32), 3)


def test_few_pictures():
    plan = make_plan(FEW, {"search": {"max_macs": 60_000_000}})
    settings = plan.settings
    assert settings["data"] == {
        "input_size": [128, 128],
        "search_fraction": 0.25,
        "crop_padding": 16,
    }
    assert settings["space"] == {"scale": "auto"}
    assert settings["supernet"]["batch_size"] == 16 and settings["supernet"]["epochs"] == 80
    assert "12 of 48 training images judge the search" in plan.warnings[0]
    assert "standard error of up to 14 points" in plan.warnings[0]
    assert any("the bound is at" in line for line in plan.lines())


def test_a_known_set():
    plan = make_plan(CIFAR, {})
    assert plan.settings["data"]["input_size"] == [32, 32]
    assert plan.settings["search"]["max_macs"] == 20_000_000
    assert plan.settings["search"]["validation_images"] == 2000
    assert plan.settings["retrain"]["batch_size"] == 128
    assert not plan.warnings


@pytest.mark.parametrize(
    "given, section, kept",
    [
        ({"data": {"input_size": [40, 40]}}, "data", "input_size"),
        ({"data": {"search_fraction": 0.5}}, "data", "search_fraction"),
        ({"search": {"max_params": 100_000}}, "search", "max_macs"),
        ({"space": {"stages": [[8, 2, 1]]}}, "space", "stages"),
        ({"retrain": {"trainer": {}}}, "retrain", "trainer"),
    ],
)
def test_what_is_given_is_left_alone(given, section, kept):
    assert kept not in make_plan(FEW, given).settings.get(section, {})


def test_uneven_classes_and_grey_images_are_told():
    uneven = dataclasses.replace(FEW, counts=(40, 4, 4), channels=1)
    plan = make_plan(uneven, {})
    assert any("class_weights=balanced" in warning for warning in plan.warnings)
    assert plan.settings["data"]["flip"] is False
    balanced = make_plan(uneven, {"data": {"class_weights": "balanced"}})
    assert not any("class_weights" in warning for warning in balanced.warnings)
