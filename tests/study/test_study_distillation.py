"""What teachers give a retraining, as a study."""

import json

import pytest
from study_plans import SPACE, pretend, toy_plan

from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.study.learning import distillation
from neas_tf.study.units import Taught, Training


def test_the_teacher_is_the_dearest_ensemble_of_the_space():
    key = distillation.largest_ensemble(toy_plan())
    macs = CostTable(SPACE).cost(Architecture.from_key(key)).macs
    assert macs == CostTable(SPACE).attainable_range(ShrunkSpace.full(SPACE, 2, False), "macs")[1]


def test_the_units():
    plan = toy_plan()
    own = distillation.trainings(plan, 1)
    assert list(own) == [distillation.PLAIN, distillation.EACH_OTHER, distillation.LARGER]
    each, larger = (own[n] for n in (distillation.EACH_OTHER, distillation.LARGER))
    how = {"weight": 0.5, "temperature": 2.0}
    assert json.loads(each.settings)["retrain"] == {
        "epochs": 3.0,
        "distillation": {**how, "teacher": "paths"},
    }
    assert type(larger) is Taught and larger.teacher == distillation.teacher(plan)
    assert json.loads(larger.settings)["retrain"]["distillation"] == how
    assert larger.teacher.seed == 0 and larger.seed == 1
    # The teacher comes first, and the ensemble is known when the search is.
    assert larger.needs == (larger.ensemble.search, larger.teacher)

    def no_teacher(unit):
        return None if unit == larger.teacher else pretend(unit)

    assert larger.resolve(no_teacher) is None
    resolved = larger.resolve(pretend)
    assert resolved.to_dict()["teacher"] == larger.teacher.to_dict()
    assert resolved.ensemble == each.resolve(pretend).ensemble


def test_report():
    plan = toy_plan()

    def lookup(unit):
        result = pretend(unit)
        if isinstance(unit, Training):
            value = 0.5 + 0.1 * ("distillation" in unit.settings)
            result |= {"ensemble_accuracy": value, "path_accuracies": [0.3, 0.5]}
        return result

    made = distillation.report(plan, lookup)
    rows = made.values["trainings"]
    assert rows[distillation.EACH_OTHER]["accuracy"].mean == pytest.approx(0.6)
    assert rows[distillation.PLAIN]["gain"].mean == pytest.approx(0.0)
    assert rows[distillation.LARGER]["paths"].mean == pytest.approx(0.4)
    assert "holds here" in made.sentences[0] and "50.00 %" in made.sentences[2]
    nothing = distillation.report(plan, lambda unit: None)
    assert "too little is done" in nothing.sentences[0] and not nothing.tables[0].rows
