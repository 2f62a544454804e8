"""The truth: which ensembles are trained, and how sharp what their trainings say is."""

import dataclasses
import math

import numpy as np
import pytest
from study_plans import SPACE, pretend, toy_plan

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.search.history import ensemble_identity
from neas_tf.space.architecture import Architecture
from neas_tf.study.settings import TruthSettings
from neas_tf.study.statistics import kendall, partial_kendall, without_quadratic
from neas_tf.study.tables import ranking
from neas_tf.study.truth import study
from neas_tf.study.truth.fitness import SHOWN, ranking_by_fitness, table_by_fitness, values_of
from neas_tf.study.truth.reliability import (
    ceiling,
    reliability,
    share_of_mean,
    share_of_truth,
    trainings_needed,
)
from neas_tf.study.truth.sets import equal_macs, long_sets
from neas_tf.study.units import Scores, Supernet, Training

MACS = 280_000


def drawn(count=12, tolerance=0.1, seed=0, macs=MACS, num_paths=2):
    return equal_macs(SPACE, num_paths, True, macs, tolerance, count, seed)


def test_equal_macs_lie_within_the_bounds_at_all_split_points_equally_often():
    keys, table = drawn(), CostTable(SPACE)
    architectures = [Architecture.from_key(key).check_in(SPACE) for key in keys]
    assert [a.split_point for a in architectures] == [1, 2, 3, 4] * 3
    assert len({ensemble_identity(a) for a in architectures}) == 12
    macs = [table.cost(a).macs for a in architectures]
    assert 252_000 <= min(macs) <= max(macs) <= 308_000


def test_the_draw_is_a_function_of_its_seed_and_grows_at_its_end():
    assert drawn() == equal_macs.__wrapped__(SPACE, 2, True, MACS, 0.1, 12, 0)
    assert drawn(7) == drawn()[:7]
    assert drawn(seed=1) != drawn()


def test_a_single_path_splits_nowhere():
    keys = drawn(5, num_paths=1)
    assert len({Architecture.from_key(key).paths for key in keys}) == 5


def test_bounds_are_whole_numbers_and_inclusive():
    table = CostTable(SPACE)
    one = table.cost(Architecture.from_key(drawn(1, num_paths=1)[0])).macs
    (key,) = equal_macs(SPACE, 1, True, one, 1e-9, 1, 0)
    assert table.cost(Architecture.from_key(key)).macs == one


@pytest.mark.parametrize(
    "given,words",
    [
        (
            {"macs": 10_000},
            r"study.truth.macs: received 10,000 ± 10.0%, expected what every split point of space "
            r"'toy' has: after layer 1, [\d,]+ to [\d,]+; or",
        ),
        (
            {"count": 4000, "tolerance": 0.001},
            r"study.truth.ensembles: received 4000, that is 1000 that split after layer \d; "
            r"expected fewer",
        ),
    ],
)
def test_what_the_space_has_not(given, words, monkeypatch):
    monkeypatch.setattr("neas_tf.study.truth.sets._TRIES", 2)
    with pytest.raises(NeasError, match=words):
        drawn(**given)


def test_sets_are_of_the_settings():
    plan = toy_plan()
    equal, random = long_sets(plan)
    assert equal.ensembles == drawn(8) and random.ensembles == plan.random_ensembles()
    assert equal.trainings(plan, equal.ensembles[0]) == [
        Training(seed, '{"retrain":{"epochs":3.0}}', equal.ensembles[0]) for seed in (0, 1)
    ]
    whole = toy_plan(truth=TruthSettings(MACS, 0.1, 8, retrain={"epochs": 3}))
    assert long_sets(whole)[0].trainings(whole, "k") == equal.trainings(plan, "k")
    # As long as the base's: the units of `ranking`.
    short = toy_plan(truth=TruthSettings(MACS, 0.1, 8))
    assert long_sets(short)[1].trainings(short, "k")[0] == plan.training(0, "k")
    # Without a number of its own it is the base's `search.max_macs`, and without that there is no set.
    with pytest.raises(NeasError, match="received 200,000"):
        long_sets(toy_plan(truth=TruthSettings()))
    base = {**plan.base, "search": {**plan.base["search"], "max_macs": 0}}
    unbounded = dataclasses.replace(toy_plan(truth=TruthSettings()), base=base)
    assert [one.name for one in long_sets(unbounded)] == ["random"]


def test_trainings_of_an_ensemble_stand_side_by_side():
    equal, random = study.rounds(toy_plan())
    assert len(equal) == len(random) == 16
    for a, b in zip(equal[::2], equal[1::2], strict=True):
        assert a.ensemble == b.ensemble and (a.seed, b.seed) == (0, 1)
    splits = [Architecture.from_key(unit.ensemble).split_point for unit in equal[::2]]
    assert splits == [1, 2, 3, 4] * 2


def test_what_follows_from_one_tau_by_hand():
    # τ = 1/3 is r = sin 30° = 1/2; of two trainings' mean 2/3; √(1/2) is the sine of 45°.
    assert share_of_truth(1 / 3) == pytest.approx(0.5)
    assert share_of_mean(1 / 3, 2) == pytest.approx(2 / 3)
    assert ceiling(1 / 3, 1) == pytest.approx(0.5)
    assert ceiling(1 / 3, 2) == pytest.approx(2 / math.pi * math.asin(math.sqrt(2 / 3)))
    # n / (1 + n) ≥ sin 45° = 0.7071 from n = 2.41 on.
    assert trainings_needed(1 / 3) == 3
    assert trainings_needed(0.5) == trainings_needed(0.9) == 1
    assert trainings_needed(0.0) is None and trainings_needed(-0.4) is None
    assert ceiling(-0.4, 2) == 0.0 and ceiling(1.0, 1) == pytest.approx(1.0)


@pytest.mark.parametrize("noise", [0.6, 1.2])
def test_what_follows_is_what_a_simulation_finds(noise):
    """20,000 made-up ensembles: the truth, and trainings with normal noise."""
    rng = np.random.default_rng(3)
    true = rng.normal(size=20_000)
    trainings = true + noise * rng.normal(size=(4, 20_000))
    tau = kendall(trainings[0], trainings[1])
    assert share_of_truth(tau) == pytest.approx(1 / (1 + noise**2), abs=0.02)
    for n in (1, 2, 4):
        assert kendall(true, trainings[:n].mean(0)) == pytest.approx(ceiling(tau, n), abs=0.015)
    halves = kendall(trainings[:2].mean(0), trainings[2:].mean(0))
    wanted = 2 / math.pi * math.asin(share_of_mean(tau, 2))
    assert halves == pytest.approx(wanted, abs=0.015)
    assert (trainings_needed(tau) <= 2) == (halves >= 0.5)


def test_reliability_by_hand():
    trainings = [[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.4]]  # 5 of 6 pairs alike
    found = reliability(trainings, [1, 2, 3, 4], 50)
    assert found["kendall"].value == pytest.approx(4 / 6)
    assert found["spearman"].value == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["ceilings"][2].value == pytest.approx(ceiling(4 / 6, 2))
    assert found["ceilings"][1].low == pytest.approx(ceiling(found["kendall"].low, 1))
    assert found["needed"][0] == 1
    # Means 0.15, 0.15, 0.3, 0.4; variances 0.005 twice and 0 twice.
    assert found["spread"] == pytest.approx(np.std([0.15, 0.15, 0.3, 0.4], ddof=1))
    assert found["noise"] == pytest.approx(0.05)
    assert found["of_macs"] == pytest.approx(kendall([1, 2, 3, 4], [0.15, 0.15, 0.3, 0.4]))
    # A quadratic through four equidistant points leaves what their third differences say.
    assert 0.9 < found["explained_by_macs"] < 1


def test_a_quadratic_taken_off_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    assert without_quadratic(5 - 2 * x + 3 * x**2, x) == pytest.approx(np.zeros(4), abs=1e-9)
    # (−1, 3, −3, 1) is what no quadratic over four equidistant points explains.
    assert without_quadratic(x**2 + np.array([-1, 3, -3, 1]), x) == pytest.approx([-1, 3, -3, 1])
    assert without_quadratic([1.0, 2.0, 6.0], [7, 7, 7]) == pytest.approx([-2, -1, 3])
    rng = np.random.default_rng(0)
    macs, left = rng.random(200), rng.normal(size=(2, 200))
    both = 50 * macs**2 + left  # MACs order both sides alike; what is left of them, not
    assert kendall(*both) > 0.8 and abs(partial_kendall(*both, macs)) < 0.15
    assert math.isnan(partial_kendall([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [1, 2, 3]))


def made_up(noise):
    """A lookup in which an ensemble's accuracy is a function of its key, and some noise."""

    def lookup(unit):
        value = pretend(Training(7, "{}", unit.ensemble))["ensemble_accuracy"]
        value += noise * pretend(unit)["ensemble_accuracy"]
        return {**pretend(unit), "ensemble_accuracy": value, "macs": MACS}

    return lookup


def test_the_report_says_how_sharp_the_truth_is():
    values = study.report(toy_plan(), made_up(0)).values
    assert set(values) == {
        "equal MACs, 3 epochs",
        "random, 3 epochs",
        "random, 1 epochs",
        "short_with_long",
    }
    whole = values["equal MACs, 3 epochs"]
    assert (
        whole["kendall"].value == pytest.approx(1.0)
        and whole["complete"] == 8
        and whole["needed"][0] == 1
    )
    assert values["short_with_long"] == pytest.approx(1.0)
    assert study.report(toy_plan(), made_up(3)).values["random, 3 epochs"]["kendall"].value < 0.99


def test_a_partial_set_says_how_much_of_it_is_there():
    plan = toy_plan()
    equal = study.rounds(plan)[0]
    done = {unit.key for unit in equal[:13]}  # six ensembles twice, one once
    lookup = lambda unit: made_up(1)(unit) if unit.key in done else None  # noqa: E731
    report = study.report(plan, lookup)
    assert "(6 of 8 ensembles)" in report.sentences[0]
    row = report.values["equal MACs, 3 epochs"]
    assert (
        row["trained"] == 7 and row["complete"] == 6 and row["kendall"].low <= row["kendall"].value
    )
    assert "0 of 8 ensembles are trained 2 times, too few" in report.sentences[1]
    assert report.tables[0].rows[0][1:3] == ("7 of 8", "6 (2 seeds)")


KEYS = tuple("abcdefgh")


def scored(accuracies, likelihoods=None):
    value = {"accuracies": accuracies, "path_accuracies": []}
    if likelihoods:
        names = ("log_likelihood", "log_likelihood_calibrated", "log_likelihood_mixture")
        value["numbers"] = dict.fromkeys(names, likelihoods)
    return Scores(0, "{}", Supernet(0), KEYS), value


def test_ranking_by_fitness_by_hand():
    """Accuracy orders as MACs do, which is all it knows; likelihood orders what MACs leave."""
    macs = [float(i) for i in range(8)]
    left = [3, -5, 1, 7, -7, 4, -2, -1]
    truth = {
        key: {"accuracy": m / 7 + 0.01 * x, "macs": m}
        for key, m, x in zip(KEYS, macs, left, strict=True)
    }
    noise = [0.2, -0.1, 0.1, -0.3, 0.3, 0.0, -0.2, 0.1]
    accuracies = [m + 0.1 * n for m, n in zip(macs, noise, strict=True)]
    found = ranking_by_fitness([scored(accuracies, [float(x) for x in left])], truth, 20)
    assert tuple(found) == SHOWN
    assert (
        found["accuracy"]["kendall"].mean == pytest.approx(1.0)
        and abs(found["accuracy"]["partial"].mean) < 0.5
    )
    row = found["log_likelihood"]
    assert row["partial"].mean == pytest.approx(1.0) and row["kendall"].mean < 0.5
    assert found["ranks"]["kendall"].mean > row["kendall"].mean
    low, high = row["partial_interval"]
    assert low <= high == pytest.approx(1.0)
    assert len(table_by_fitness({"a truth: supernets": found}).rows) == len(SHOWN)


def test_what_supernets_say_together():
    """Errors that cancel out leave the truth's order, though each supernet has its own, on its own scale."""
    order = np.array([0.0, 1.3, 2.1, 3.7, 4.2, 5.9, 6.1, 7.8])
    truth = {key: {"accuracy": order[i], "macs": i % 3} for i, key in enumerate(KEYS)}
    error = np.array([3.0, -3.0, 2.0, -2.0, -2.0, 2.0, -3.0, 3.0])  # at right angles to the order
    error -= order * (error @ (order - order.mean())) / (order @ (order - order.mean()))
    both = [scored((order + error).tolist()), scored((7 * (order - error)).tolist())]
    found = ranking_by_fitness(both, truth, 5)["accuracy"]
    assert max(found["partial_each"]) < 0.9
    assert found["partial_together"] == pytest.approx(1.0)
    (row,) = table_by_fitness({"both": {"accuracy": found}}).rows
    assert row[-1] == "1.00" and ", " in row[5]
    many = ranking_by_fitness(3 * both, truth, 5)["accuracy"]
    (row,) = table_by_fitness({"six": {"accuracy": many}}).rows
    low, high = sorted(found["partial_each"])
    assert row[5] == f"{low:.2f} to {high:.2f}"
    # Equal scores everywhere say nothing.
    alone = ranking_by_fitness([both[0], scored([0.5] * 8)], truth, 5)["accuracy"]
    assert alone["partial_together"] == pytest.approx(found["partial_each"][0])


def test_results_of_before_have_no_likelihood():
    truth = {key: {"accuracy": 0.1 * i, "macs": i % 3} for i, key in enumerate(KEYS)}
    accuracies = [0.1 * i for i in range(8)]
    unit, value = scored(accuracies)
    assert values_of(unit, value, "log_likelihood") is None
    assert tuple(ranking_by_fitness([(unit, value)], truth, 5)) == ("accuracy",)
    both = [(unit, value), scored(accuracies, accuracies)]
    assert tuple(ranking_by_fitness(both, truth, 5)) == ("accuracy",)
    assert ranking_by_fitness([], truth, 5) == {}


def test_the_ranking_study_scores_both_sets_by_every_fitness():
    plan = toy_plan()
    units = [unit for part in ranking.rounds(plan) for unit in part if isinstance(unit, Scores)]
    assert {unit.ensembles for unit in units} == {drawn(8), plan.random_ensembles()}
    found = ranking.report(plan, pretend).values["by_fitness"]
    assert "equal MACs, 3 epochs: diversity" in found and "random, 1 epochs: none" in found
    assert all(tuple(row) == SHOWN for row in found.values())
    unnamed = toy_plan(truth=TruthSettings(0, 0.1, 8))  # no MACs of its own: today's set alone
    units = [unit for part in ranking.rounds(unnamed) for unit in part if isinstance(unit, Scores)]
    assert {unit.ensembles for unit in units} == {plan.random_ensembles()}
