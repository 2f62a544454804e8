"""What counts as better in a search: by hand, in its files, and resumed."""

import itertools
import json
import math

import numpy as np
import pytest
from search_folders import BUDGET, SETTINGS, SHRUNK, Crash, contents, scored, with_fitness
from toy_search import toy_costs, toy_score, toy_search

from neas_tf.common.errors import NeasError
from neas_tf.search.candidate import Candidate, Score
from neas_tf.search.evolution import top_candidates
from neas_tf.search.fitness import (
    FITNESSES,
    NUMBERS,
    SUMS,
    fitness_values,
    likelihood_sums,
    numbers_of,
)
from neas_tf.search.history import History, best_candidate, pareto_candidates, read_history
from neas_tf.space.architecture import Architecture
from neas_tf.uncertainty.temperature import fit_temperature

KEY = "s1:k3e4|k3e4.k3e4.k3e4.k3e4.k3e4|k5e4.k5e4.k5e4.k5e4.k5e4"


def candidate(number, accuracy, images=None, looks=None, **numbers):
    a = Architecture.from_key(KEY)
    return Candidate(
        number,
        0,
        "random",
        a,
        accuracy,
        (0.1, 0.2),
        toy_costs(a),
        images,
        numbers=numbers,
        looks=looks,
    )


def test_likelihoods_by_hand():
    """Two images, two paths, two classes; the first path says 3 : 1, the second 1 : 1."""
    odds = math.log(3)
    logits = np.array([[[odds, 0], [odds, 0]], [[0, 0], [0, 0]]], np.float32)  # (K, B, classes)
    found = numbers_of(likelihood_sums(logits, np.array([0, 1])), 2)
    # Mean logits ln √3 : 0, so √3 / (1 + √3) for the first class.
    one = math.sqrt(3) / (1 + math.sqrt(3))
    own = (math.log(one) + math.log(1 - one)) / 2
    assert found["log_likelihood"] == pytest.approx(own)
    # Mean probabilities 5/8 and 3/8.
    mixture = (math.log(5 / 8) + math.log(3 / 8)) / 2
    assert found["log_likelihood_mixture"] == pytest.approx(mixture)
    # Right in one of two: the best is to say nothing, as T → ∞; 4 is the most.
    assert found["temperature"] == 4.0
    least = 1 / (1 + 3 ** (-1 / 8))
    expected = (math.log(least) + math.log(1 - least)) / 2
    assert found["log_likelihood_calibrated"] == pytest.approx(expected)


def test_a_temperature_by_hand():
    """Right in 3 of 4 with logits ±2: calibrated it says 3/4, so 4/T = ln 3."""
    logits = np.array([[[2.0, -2.0]] * 4])
    found = numbers_of(likelihood_sums(logits, np.array([0, 0, 0, 1])), 4)
    assert found["temperature"] == pytest.approx(4 / math.log(3), rel=0.01)
    expected = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    assert found["log_likelihood_calibrated"] == pytest.approx(expected, abs=1e-5)
    assert found["log_likelihood_calibrated"] > found["log_likelihood"]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [3, 100])
def test_the_temperature_is_that_of_a_fit(scale, classes):
    rng = np.random.default_rng(1)
    labels = rng.integers(classes, size=500)
    logits = scale * (rng.normal(size=(3, 500, classes)) + 0.5 * np.eye(classes)[labels])
    parts = [likelihood_sums(logits[:, i : i + 90], labels[i : i + 90]) for i in range(0, 500, 90)]
    found, fit = numbers_of(sum(parts), 500), fit_temperature(logits.mean(0), labels)
    assert 0.25 < fit.temperature < 4
    assert found["temperature"] == pytest.approx(fit.temperature, rel=0.01)
    assert found["log_likelihood_calibrated"] == pytest.approx(-fit.after, abs=1e-4)
    assert found["log_likelihood"] == pytest.approx(-fit.before)


def test_what_is_not_known_is_missing():
    one = numbers_of(likelihood_sums(np.zeros((1, 1, 2)), np.array([0])), 1)
    assert set(one) == {"log_likelihood", "log_likelihood_mixture"}  # T needs two images
    assert numbers_of(np.full(SUMS, np.nan), 2) == {}
    broken = np.array([[[np.nan, 0.0], [1.0, 0.0]]])
    assert numbers_of(likelihood_sums(broken, np.array([0, 0])), 2) == {}
    huge = np.array([[[1e30, 0.0], [0.0, 0.0]]] * 2)  # no probability of 0 has a logarithm of −∞
    assert np.isfinite(likelihood_sums(huge, np.array([1, 0]))).all()


def test_fitness_by_hand():
    rows = [
        candidate(0, 0.5, log_likelihood=-1.0, log_likelihood_calibrated=-0.9, looks=1),
        candidate(1, 0.7, log_likelihood=-1.2, log_likelihood_calibrated=-0.8, looks=3),
        candidate(2, 0.6, log_likelihood=-1.1, log_likelihood_mixture=-1.0, looks=3),
        candidate(3, 0.7),
    ]
    values = {name: fitness_values(rows, name).tolist() for name in FITNESSES}
    assert values["accuracy"] == [0.5, 0.7, 0.6, 0.7]
    assert values["log_likelihood"][:3] == [-1.0, -1.2, -1.1] > values["log_likelihood"][3:]
    assert np.argsort(values["log_likelihood_calibrated"])[-2:].tolist() == [0, 1]
    assert np.argmax(values["log_likelihood_mixture"]) == 2
    # Ranks from below: accuracy 1, 3.5, 2, 3.5; log-likelihood 4, 2, 3, 1.
    assert values["ranks"] == [2.5, 2.75, 2.5, 2.25]
    assert values["halving"] == [2.5, 6.7, 6.6, 2.7]
    assert [best_candidate(rows, name).number for name in FITNESSES] == [1, 0, 1, 2, 1, 1]
    assert [c.number for c in top_candidates(rows, 3, "log_likelihood")] == [0, 2, 1]
    assert [c.number for c in top_candidates(rows, 3, "halving")] == [1, 2, 3]
    (front,) = {c.number for c in pareto_candidates(rows, "macs", "log_likelihood")}
    assert front == 0 and fitness_values([], "ranks").tolist() == []


def test_ties_go_to_fewer_macs_and_then_to_the_earlier_one():
    same = [candidate(n, 0.5, log_likelihood=-1.0) for n in range(2)]
    assert best_candidate(same, "log_likelihood").number == 0
    other = "s6:k3e4.k3e4.k3e4.k3e4.k3e4.k3e4|.|."
    small = Candidate.from_dict(
        {
            **same[0].to_dict(),
            "candidate": 2,
            **toy_costs(Architecture.from_key(other)),
            "architecture": Architecture.from_key(other).to_dict(),
            "key": other,
        }
    )
    assert best_candidate([*same, small], "log_likelihood").number == 2


def test_who_was_stopped_by_a_race_of_old_comes_last():
    stopped, finished = candidate(0, 0.9, 100), candidate(1, 0.5)
    assert best_candidate([stopped, finished]) is finished
    assert top_candidates([stopped, finished, candidate(2, 0.6)], 3)[1:] == [finished]


def test_line_of_the_history(tmp_path):
    """All numbers, or those that there are; a line of an older search has none."""
    history = History(tmp_path, toy_costs)
    a = Architecture.from_key(KEY)
    numbers = dict.fromkeys(NUMBERS, -0.5)
    history.append(a, 0, "random", Score(0.5, (0.25, 0.5), numbers=numbers, looks=2))
    (found,) = read_history(history.path)
    assert found.numbers == numbers and found.looks == 2 and found.costs == toy_costs(a)
    value = json.loads(history.path.read_text())
    assert value["log_likelihood"] == -0.5 and value["looks"] == 2
    old = {k: v for k, v in value.items() if k not in (*NUMBERS, "looks")} | {"images": 300}
    history.path.write_text(json.dumps(old) + "\n")
    (found,) = read_history(history.path)
    assert found.numbers == {} and found.looks is None
    assert found.images == 300 and not found.finished
    assert not {*NUMBERS, "looks", "images"} & set(candidate(0, 0.5).to_dict())
    for name, wrong in (("images", 0), ("looks", None), ("looks", 0), ("temperature", "hot")):
        history.path.write_text(json.dumps(value | {name: wrong}) + "\n")
        with pytest.raises(NeasError, match=f"line 1: {name}: received"):
            read_history(history.path)


def crashing(after=None):
    calls = []

    def evaluate(architectures):
        for architecture in architectures:
            if len(calls) == after:
                raise Crash
            calls.append(architecture)
            yield scored(architecture)

    return evaluate


@pytest.mark.parametrize("objective", ["accuracy", "pareto"])
@pytest.mark.parametrize("fitness", ["log_likelihood", "log_likelihood_mixture", "ranks"])
def test_a_search_by_another_fitness_resumes_to_the_same_bytes(tmp_path, fitness, objective):
    settings = with_fitness(fitness, objective=objective)
    search = lambda name, evaluate: toy_search(  # noqa: E731
        tmp_path / name, settings, SHRUNK, BUDGET, evaluate
    )
    expected = search("whole", crashing())
    assert expected.best == best_candidate(expected.candidates, fitness)
    best = json.loads((tmp_path / "whole" / "best.json").read_text())
    assert (
        best["x_fitness"] == fitness
        and best["x_log_likelihood"] == expected.best.numbers["log_likelihood"]
    )
    for after in (0, 4, 7, 14):
        with pytest.raises(Crash):
            search(f"broken{after}", crashing(after))
        assert search(f"broken{after}", crashing()) == expected
        assert contents(tmp_path / f"broken{after}") == contents(tmp_path / "whole")
    with pytest.raises(NeasError, match=r"holds another search .*fitness"):
        toy_search(tmp_path / "whole", SETTINGS, SHRUNK, BUDGET, crashing())


def test_numbers_change_nothing_where_accuracy_counts(tmp_path):
    """An old folder continues, and its new lines have numbers; the search's files are as before."""
    plain = toy_search(tmp_path / "plain", SETTINGS, SHRUNK, BUDGET)
    state = json.loads((tmp_path / "plain" / "state.json").read_text())
    assert "fitness" not in state["search"]["settings"]
    with_numbers = toy_search(tmp_path / "numbers", SETTINGS, SHRUNK, BUDGET, crashing())
    names = [c.architecture.key for c in plain.candidates]
    assert [c.architecture.key for c in with_numbers.candidates] == names
    calls = itertools.count()

    def old(architectures):
        for architecture in architectures:
            if next(calls) == 7:
                raise Crash
            yield toy_score(architecture)

    with pytest.raises(Crash):
        toy_search(tmp_path / "old", SETTINGS, SHRUNK, BUDGET, old)
    continued = toy_search(tmp_path / "old", SETTINGS, SHRUNK, BUDGET, crashing())
    assert [c.architecture.key for c in continued.candidates] == names
    assert [bool(c.numbers) for c in continued.candidates] == [False] * 7 + [True] * 8
