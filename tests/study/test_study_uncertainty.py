"""What ensembles know of their errors, and corruptions, as a study."""

import json

import pytest
from study_plans import pretend, toy_plan

from neas_tf.space.architecture import Architecture
from neas_tf.study.settings import WinnersSettings
from neas_tf.study.truth import uncertainty
from neas_tf.study.units import Robustness, Training, Uncertain


@pytest.fixture
def plan():
    chosen = WinnersSettings(("zero gamma",), ("log_likelihood",), 2)
    return toy_plan(winners=chosen, corrupted_size=(32, 32), robust_images=7, max_split=3)


def test_the_networks(plan):
    own = {
        name: Architecture.from_key(training.resolve(pretend).ensemble)
        for name, training in uncertainty.trainings(plan, 0).items()
    }
    hetero = own["hetero"]
    assert hetero.split_point <= 3 and hetero.num_paths == 2
    for path in (0, 1):
        assert own[f"homo (path {path + 1})"].paths == (hetero.paths[path],) * 2
    assert own["separate"].paths == hetero.paths and own["separate"].split_point == 0
    single = uncertainty.trainings(plan, 0)["single network"]
    assert json.loads(single.settings)["num_paths"] == 1
    assert all('"epochs":3.0' in t.settings for t in uncertainty.trainings(plan, 0).values())


def test_units_measure_every_network_with_the_same_corruptions(plan):
    first, second = uncertainty.rounds(plan)
    assert len(first) == len(second) == 5 * 3
    robust = [unit for unit in first + second if isinstance(unit, Robustness)]
    assert {(unit.seed, unit.images, unit.corrupted_size) for unit in robust} == {(0, 7, (32, 32))}
    assert {unit.training.seed for unit in robust} == {0, 1}


def test_report_by_hand(plan):
    """The hetero ensemble has half the errors of the single network; its second path is the better one."""

    def lookup(unit):
        result = pretend(unit)
        if isinstance(unit, Training):
            result |= {"path_accuracies": [0.4, 0.6][-len(result["path_accuracies"]) :]}
        if isinstance(unit, Uncertain):
            single = '"num_paths":1' in unit.training.settings
            result["ensemble"] |= {"accuracy": 0.7, "aurc": 0.4 if single else 0.2}
            for number, row in enumerate(result["paths"]):
                row |= {"accuracy": 0.4 + 0.2 * number, "aurc": 0.3}
        if isinstance(unit, Robustness):
            single = '"num_paths":1' in unit.training.settings
            row = {"clean": 0.1, "errors": [[0.4 if single else 0.2] * 5] * 15, "mean": 0.4}
            result |= {"ensemble": row, "paths": [{**row, "clean": 0.3}, {**row, "clean": 0.2}]}
        return result

    made = uncertainty.report(plan, lookup)
    sure, robust = made.values["uncertainty"], made.values["robustness"]
    assert sure["hetero"]["aurc"].mean == pytest.approx(0.2)
    assert sure["its best path"]["accuracy"].mean == pytest.approx(0.6)
    assert sure["its best path"]["disagreement_auroc"].count == 0
    assert sure["single network"]["aurc"].mean == pytest.approx(0.4)
    assert "hetero > single network" in made.sentences[0] and "holds here" in made.sentences[0]
    assert robust["hetero"]["mce"].mean == pytest.approx(0.5)
    assert robust["single network"]["mce"].mean == pytest.approx(1.0)
    assert robust["its best path"]["clean"].mean == pytest.approx(0.2)
    assert "with a chance of 70.0 ± 0.0 %" in made.sentences[6]
    assert all(make()[:4] == b"\x89PNG" for make in made.pictures.values())
    assert set(made.pictures) == {"risk_coverage.png", "corruptions.png"}


def test_report_of_nothing(plan):
    made = uncertainty.report(plan, lambda unit: None)
    assert not made.pictures and not any(table.rows for table in made.tables)
