"""Winners of searches against random ensembles of the same MACs."""

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from study_plans import pretend, toy_plan

from neas_tf.common.errors import NeasError
from neas_tf.search.history import ensemble_identity
from neas_tf.space.architecture import Architecture
from neas_tf.study.settings import TruthSettings, WinnersSettings
from neas_tf.study.statistics import bootstrap_groups
from neas_tf.study.truth import winners
from neas_tf.study.truth.sets import long_sets
from neas_tf.study.units import Found, Search, Supernet, Training

CHOSEN = WinnersSettings(("base", "zero gamma"), ("accuracy", "log_likelihood"), 2)


def test_units_are_searches_within_the_sets_bounds_then_their_winners_as_the_truth_is_trained():
    plan = toy_plan(winners=CHOSEN)
    first, second = winners.rounds(plan)
    assert len(first) == len(second) == 4 + 2 * 4 * 2
    searches, trainings = first[:4], first[4:]
    assert all(isinstance(unit, Search) for unit in searches)
    own = [json.loads(unit.settings)["search"] for unit in searches]
    assert all((s["min_macs"], s["max_macs"]) == (252_000, 308_000) for s in own)
    # Accuracy is what the base's search takes unless it is told.
    assert [s["fitness"] for s in own] == ["accuracy", "log_likelihood"] * 2
    equal = long_sets(plan)[0]
    assert [unit.seed for unit in trainings] == list(equal.seeds) * 8
    assert {unit.settings for unit in trainings} == {equal.trainings(plan, "k")[0].settings}
    assert [unit.ensemble.rank for unit in trainings] == [0] * 8 + [1] * 8
    assert {unit.seed for unit in second[:4]} == {1}


def test_ranks_are_of_different_ensembles_the_best_first():
    search = Search(0, "{}", Supernet())
    keys = [
        "s2:k3e1.k3e1|k3e1.k5e1|k3e1.k3e1",
        "s2:k3e1.k3e1|k3e1.k3e1|k3e1.k5e1",  # the first one, its paths the other way round
        "s2:k3e1.k3e1|k5e1.k5e1|k3e1.k3e1",
        "s2:k3e1.k3e1|k5e2.k5e1|k3e1.k3e1",
    ]
    a, b = (Architecture.from_key(key) for key in keys[:2])
    assert ensemble_identity(a) == ensemble_identity(b)
    result = {"candidates": [[key, 0.5 - i / 10, 100, 0] for i, key in enumerate(keys)]}
    found = [Found(search, rank=rank).ensemble(result) for rank in range(4)]
    assert found == [keys[0], keys[2], keys[3], keys[3]]
    assert Found(search).words == "ensemble found"
    assert Found(search, rank=1).words == "number 2 of what is found"


def test_without_a_number_of_macs_there_is_nothing_to_do():
    plan = toy_plan(truth=TruthSettings())
    base = {**plan.base, "search": {**plan.base["search"], "max_macs": 0}}
    unbounded = type(plan)(plan.settings, base, plan.space)
    assert winners.rounds(unbounded) == []
    assert "study.truth.macs is not set" in winners.report(unbounded, pretend).sentences[0]


def test_report_by_hand():
    """Random ensembles have 0.00 to 0.07, winners of the recipe 0.10 more than the base's, which have 0.035."""
    plan = toy_plan(winners=CHOSEN, resamples=50)
    equal = long_sets(plan)[0]
    chance = {key: i / 100 for i, key in enumerate(equal.ensembles)}
    zero = {
        found.ensemble
        for unit in itertools.chain(*winners.rounds(plan))
        if isinstance(unit, Training)
        and "zero_init" in unit.ensemble.search.supernet.settings
        and (found := unit.resolve(pretend))
    }

    def lookup(unit):
        result = pretend(unit)
        if isinstance(unit, Training):
            value = chance.get(unit.ensemble, 0.135 if unit.ensemble in zero else 0.035)
            result |= {"ensemble_accuracy": value, "path_accuracies": [value - 0.01] * 2}
        return result

    made = winners.report(plan, lookup)
    base, own = (made.values["kinds"][f"{name}, accuracy"]["against"] for name in CHOSEN.recipes)
    deviation = np.std(list(chance.values()), ddof=1)
    assert base["gain"].value == pytest.approx(0.0) and own["gain"].value == pytest.approx(0.1)
    assert own["deviations"].value == pytest.approx(0.1 / deviation)
    assert base["better"] == pytest.approx(0.5) and own["better"] == 1.0
    test = scipy.stats.mannwhitneyu([0.135] * 4, list(chance.values()))
    assert own["p"] == pytest.approx(test.pvalue) and own["p"] < 0.01 < base["p"]
    assert own["gain"].low < 0.1 < own["gain"].high
    assert "zero gamma, accuracy: 4 winners of 2 searches reach 13.50 ± 0.00 %" in made.sentences[2]
    assert "+10.00 points" in made.sentences[2]
    table, by_winner = made.tables
    assert table.rows[0][0] == "random" and len(table.rows) == 5
    assert len(by_winner.rows) == 4 * 2 * 2
    assert made.pictures["winners.png"]()[:4] == b"\x89PNG"


def test_report_of_what_is_not_done():
    plan = toy_plan(winners=CHOSEN)
    assert "too little is done" in winners.report(plan, lambda unit: None).sentences[0]

    def no_trainings(unit):
        return None if isinstance(unit, Training) else pretend(unit)

    made = winners.report(plan, no_trainings)
    assert "too little is done" in made.sentences[0] and not made.pictures
    assert not any(table.rows for table in made.tables)


def test_intervals_know_that_winners_of_one_search_are_alike():
    """Groups of equal values say no more than their number; twelve values apart do."""

    def mean(groups):
        return float(np.mean(np.concatenate(groups)))

    groups = [[0.1] * 4, [0.2] * 4, [0.3] * 4]
    interval = bootstrap_groups(mean, (groups,), 500)
    assert interval.value == pytest.approx(0.2)
    assert interval.low == pytest.approx(0.1) and interval.high > 0.26
    apart = bootstrap_groups(mean, ([np.concatenate(groups)],), 500)
    assert apart.high - apart.low < 0.12
    assert bootstrap_groups(mean, (groups,), 500) == interval
    with pytest.raises(NeasError, match="groups"):
        bootstrap_groups(mean, ([[], [1.0]],), 5)
