"""What else the time of a search can buy."""

import dataclasses
import json

import pytest
from study_plans import pretend, toy_plan

from neas_tf.space.architecture import Architecture
from neas_tf.study.settings import TruthSettings, WinnersSettings
from neas_tf.study.truth import worth
from neas_tf.study.truth.sets import long_sets
from neas_tf.study.truth.winners import winners_search
from neas_tf.study.units import (
    Costs,
    Found,
    Pace,
    Search,
    Supernet,
    TimedTraining,
    Training,
    found,
)

CHOSEN = WinnersSettings(("zero gamma", "base"), ("log_likelihood", "accuracy"), 2)


@pytest.fixture
def plan():
    return toy_plan(winners=CHOSEN)


def test_all_take_the_time_of_the_search_and_the_training(plan):
    """200 s of supernet, 100 s of search, and 3 epochs of 50 s: 9 epochs without a search, 3 with one."""
    own = worth.contenders(plan, 0)
    assert list(own)[:4] == [worth.FOUND, worth.CHANCE, worth.LONG_CHANCE, worth.SINGLE]
    assert set(plan.settings.rivals) & set(own)
    resolved = {name: one.training.resolve(pretend) for name, one in own.items()}
    assert all(type(training) is Training for training in resolved.values())
    epochs = {n: json.loads(t.settings)["retrain"]["epochs"] for n, t in resolved.items()}
    assert epochs.pop(worth.FOUND) == epochs.pop(worth.CHANCE) == epochs.pop(worth.SINGLE) == 3.0
    assert set(epochs.values()) == {9.0}


def test_a_training_that_is_dearer_or_searched_longer_has_fewer_epochs():
    total = {"supernet": 200.0, "search": 100.0, "epoch": 50.0}
    timed = TimedTraining(0, "{}", "k", Costs(), Costs(), 3.0)
    assert timed.epochs_at({"supernet": 0.0, "search": 0.0, "epoch": 80.0}, total) == 5.0
    assert timed.epochs_at({"supernet": 90.0, "search": 35.0, "epoch": 50.0}, total) == 6.0
    assert timed.epochs_at({"supernet": 900.0, "search": 0.0, "epoch": 50.0}, total) == 1.0


def test_what_is_found_is_the_first_of_winners(plan):
    own = worth.contenders(plan, 1)
    search = winners_search(plan, "zero gamma", "log_likelihood", 1)
    assert own[worth.FOUND].training.ensemble == Found(search)
    assert own[worth.CHANCE].training.ensemble == long_sets(plan)[0].ensembles[1]
    single = own[worth.SINGLE].training
    settings = json.loads(single.ensemble.search.supernet.settings)
    assert settings["num_paths"] == json.loads(single.settings)["num_paths"] == 1
    assert settings["supernet"]["zero_init_residual"] is True
    assert settings["shrink"]["remove"] < plan.base["shrink"]["remove"]
    searched = json.loads(single.ensemble.search.settings)["search"]
    assert searched["max_macs"] == 308_000 and searched["fitness"] == "log_likelihood"


def test_costs_are_known_with_the_search(plan):
    costs = worth.contenders(plan, 0)[worth.FOUND].costs
    assert costs.resolve(lambda unit: None) is None
    known = costs.resolve(pretend)
    assert known.search == costs.ensemble.search.resolve(pretend)
    assert Architecture.from_key(known.ensemble) and known.needs == ()
    assert known.key != Costs(0, known.settings, known.ensemble).key
    assert "search" in known.to_dict()


def test_report(plan):
    made = worth.report(plan, pretend)
    summary = made.values["contenders"]
    assert summary[worth.FOUND]["seconds"].mean == pytest.approx(450.0)
    assert summary[worth.FOUND]["found_seconds"].mean == pytest.approx(300.0)
    assert summary[worth.LONG_CHANCE]["seconds"].mean == pytest.approx(450.0)
    assert summary[worth.LONG_CHANCE]["epochs"].mean == 9.0
    assert summary[worth.CHANCE]["seconds"].count == 0
    first = worth.contenders(plan, 0)[worth.FOUND].training
    accuracy = made.values["results"][worth.FOUND][0]["accuracy"]
    assert accuracy == found(first, pretend)["ensemble_accuracy"]
    assert len(made.sentences) == 4 and made.sentences[0].startswith("test accuracy in equal time")
    assert made.pictures["worth.png"]()[:4] == b"\x89PNG"
    nothing = worth.report(plan, lambda unit: None)
    assert not nothing.tables[0].rows and not nothing.pictures


def test_a_seed_of_one_side_alone_is_not_compared(plan):
    """Seed 1 has found something poor, and nothing beside it yet: the sentences are those of seed 0."""
    one, both = (
        type(plan)(dataclasses.replace(plan.settings, seeds=seeds), plan.base, plan.space)
        for seeds in ((0,), (0, 1))
    )
    extra = worth.contenders(both, 1)[worth.FOUND].training

    def lookup(unit):
        if unit.seed == 0:
            return pretend(unit)
        result = pretend(unit) if isinstance(unit, Supernet | Search | Pace) else None
        if unit == extra.resolve(pretend):
            result = pretend(unit) | {"ensemble_accuracy": 0.001}
        return result

    made, alone = worth.report(both, lookup), worth.report(one, pretend)
    assert made.values["contenders"][worth.FOUND]["accuracy"].count == 2
    assert made.sentences == alone.sentences


def test_without_a_number_of_macs_there_is_nothing_to_do(plan):
    base = {**plan.base, "search": {**plan.base["search"], "max_macs": 0}}
    unbounded = type(plan)(toy_plan(truth=TruthSettings()).settings, base, plan.space)
    assert worth.rounds(unbounded) == []
    assert "study.truth.macs is not set" in worth.report(unbounded, pretend).sentences[0]
