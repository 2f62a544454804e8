"""What counts as better in a search: by hand, in its files, resumed, and with successive halving."""

import dataclasses
import itertools
import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from search_folders import BUDGET, SETTINGS, SHRUNK, Crash, contents
from tiny_run import TINY, give_supernet
from toy_search import blind_sample, toy_costs, toy_score, toy_search, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.config.settings import NeasConfig
from neas_tf.report.parts.run_data import run_data
from neas_tf.report.reading import read_run
from neas_tf.report.summary import format_summary, summarise
from neas_tf.report.writing import write_report
from neas_tf.run import search_stage
from neas_tf.run.context import open_run
from neas_tf.search.candidate import Candidate, Score
from neas_tf.search.evolution import run_search, top_candidates
from neas_tf.search.fitness import (
    FITNESSES,
    LIKELIHOODS,
    NUMBERS,
    SUMS,
    fitness_values,
    likelihood_sums,
    numbers_of,
)
from neas_tf.search.halving import Look, halve
from neas_tf.search.history import History, best_candidate, pareto_candidates, read_history
from neas_tf.search.variation import SearchSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
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


def scored(architecture):
    """A likelihood that is no function of the accuracy."""
    score, more = toy_score(architecture), sum(map(ord, architecture.key)) % 101 / 100
    numbers = {name: -more - i for i, name in enumerate(NUMBERS)}
    return Score(score.accuracy, score.path_accuracies, numbers=numbers)


def crashing(after=None):
    calls = []

    def evaluate(architectures):
        for architecture in architectures:
            if len(calls) == after:
                raise Crash
            calls.append(architecture)
            yield scored(architecture)

    return evaluate


def with_fitness(fitness, **more):
    return dataclasses.replace(SETTINGS, fitness=fitness, **more)


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


def looks_of(tables):
    """Looks by what each says of the candidates, by key; how many were asked each time."""
    asked = []

    def make(table, images):
        def evaluate(architectures, progress):
            asked.append([a.key for a in architectures])
            progress(0.5)
            progress(1.0)
            return [
                Score(table[a.key], (table[a.key],), numbers={"log_likelihood": -table[a.key]})
                for a in architectures
            ]

        return lambda: Look(evaluate, images)

    return [make(table, images) for table, images in tables], asked


def test_halving_by_hand():
    """Five candidates: three are looked at again, two a third time; means by images."""
    names = ("k3e1", "k3e2", "k3e3", "k3e4", "k3e5")
    architectures = [Architecture(1, ((name,),)) for name in names]
    keys = [a.key for a in architectures]
    first = dict(zip(keys, (0.1, 0.5, 0.4, 0.4, 0.3), strict=True))
    second = dict(zip(keys, (0.9, 0.1, 0.4, 0.5, 0.9), strict=True))
    third = dict.fromkeys(keys, 0.8)
    looks, asked = looks_of([(first, 100), (second, 300), (third, 300)])
    shares = []
    scores = halve(architectures, looks, shares.append)
    assert asked == [keys, keys[1:4], keys[2:4]]  # the second, lucky at first, is found out
    assert [score.looks for score in scores] == [1, 2, 3, 3, 1]
    expected = [0.1, 0.2, (40 + 120 + 240) / 700, (40 + 150 + 240) / 700, 0.3]
    assert [s.accuracy for s in scores] == pytest.approx(expected)
    assert [s.path_accuracies[0] for s in scores] == pytest.approx(expected)
    assert [-s.numbers["log_likelihood"] for s in scores] == pytest.approx(expected)
    assert shares == pytest.approx([0.25, 0.5, 0.65, 0.8, 0.9, 1.0])
    (alone,) = halve(architectures[:1], looks)
    assert alone.looks == 3 and halve([], looks) == []


def by_halves(crash_after=None):
    """Scores that depend on the whole generation."""
    calls, given = [], itertools.count()

    def evaluate(architectures):
        calls.append(len(architectures))
        table = {a.key: scored(a).accuracy for a in architectures}
        looks, _ = looks_of([(table, 10), ({k: 0.9 * v for k, v in table.items()}, 10)])
        for score in halve(architectures, looks):
            if next(given) == crash_after:
                raise Crash
            yield Score(score.accuracy, score.path_accuracies * 2, looks=score.looks)

    return evaluate, calls


@pytest.mark.parametrize("crash_after", [0, 3, 5, 14])
def test_a_resumed_search_by_halving_ends_alike(tmp_path, crash_after):
    """The generation that was interrupted is scored again, as a whole."""
    search = lambda name, evaluate: toy_search(  # noqa: E731
        tmp_path / name,
        with_fitness("halving"),
        SHRUNK,
        BUDGET,
        evaluate,
        whole_generations=True,
    )
    evaluate, calls = by_halves()
    expected = search("whole", evaluate)
    assert calls == [5, 5, 5] and expected.best.looks == 2
    with pytest.raises(Crash):
        search("broken", by_halves(crash_after)[0])
    evaluate, calls = by_halves()
    assert search("broken", evaluate) == expected
    assert calls == [5] * (3 - crash_after // 5)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def opened(folder: pathlib.Path, override: str):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], override)
    return open_run(config, str(folder / "run"), tf.distribute.get_strategy())


class FakeEvaluator:
    """In place of the supernet's: scores from the key."""

    images = 20

    def __init__(self):
        self.looks = []

    def evaluate_all(self, architectures, progress):
        progress(1.0)
        length = [len(a.key) for a in architectures]
        return [Score(n / 100, (0.1, 0.2), numbers=dict.fromkeys(NUMBERS, -n / 10)) for n in length]

    def another_look(self, calibration, images, labels):
        self.looks.append((len(calibration), len(images), float(np.asarray(calibration[:]).sum())))
        return self


@pytest.fixture
def fake(monkeypatch):
    evaluator = FakeEvaluator()
    monkeypatch.setattr(search_stage, "load_supernet", lambda *_: None)
    monkeypatch.setattr(search_stage, "make_evaluator", lambda *_: evaluator)
    return evaluator


def test_the_stage_halves_and_the_report_shows_it(tmp_path, fake, capsys):
    run = give_supernet(opened(tmp_path, "search.fitness=halving,search.validation_images=9"))
    with run.writing():
        result = search_stage.search(*run.inputs)
    assert (
        "halving on 9 held-out training images, the best looked at 3 times"
        in capsys.readouterr().err
    )
    (_, whole, first), (_, also, second) = fake.looks  # each look is made once
    assert whole == also == run.info.sizes["search"] > 9 and first != second
    state = json.loads(run.folder("search", "state.json").read_text())
    assert state["search"]["settings"]["fitness"] == "halving"
    assert state["search"]["context"]["looks"] == 3
    by_looks = [sum(c.looks == n for c in result.candidates) for n in (1, 2, 3)]
    assert by_looks == [12, 6, 6] and result.best.looks == 3
    with pytest.raises(NeasError, match=r"holds another search .*looks"):
        search_stage.search(
            *opened(
                tmp_path, "search.fitness=halving,search.validation_images=9,search.looks=2"
            ).inputs
        )


@pytest.mark.parametrize("fitness", [*LIKELIHOODS, "ranks"])
def test_numbers_are_in_the_report_whatever_the_fitness(tmp_path, fake, fitness):
    run = give_supernet(opened(tmp_path, f"search.fitness={fitness}"))
    with run.writing():
        result = search_stage.search(*run.inputs)
    shortest = min(len(c.architecture.key) for c in result.candidates)
    if fitness != "ranks":  # the least accurate ones here
        assert len(result.best.architecture.key) == shortest
    files = read_run(run.model_dir)
    assert files.candidates[0].numbers == result.candidates[0].numbers
    summary = summarise(files)
    assert summary["search"]["fitness"] == fitness
    text = format_summary(summary)
    assert f"winner's log likelihood {result.best.numbers['log_likelihood']:.4f}" in " ".join(
        text.split()
    )
    if fitness == "log_likelihood":
        write_report(run.model_dir)
        page = run.folder("report", "report.html")
        shown = page.read_text("utf-8")
        assert ">log likelihood mixture<th" in shown
        search = run_data(files)["search"]
        assert search["numbers"] == list(NUMBERS)
        assert search["rows"][0]["log_likelihood"] == files.candidates[0].numbers["log_likelihood"]
        assert "log likelihood calibrated" in json.dumps(search["charts"])


def test_a_search_by_accuracy_is_as_before(tmp_path, fake):
    run = give_supernet(opened(tmp_path, ""))
    with run.writing():
        search_stage.search(*run.inputs)
    state = json.loads(run.folder("search", "state.json").read_text())
    assert not {"racing", "looks", "fitness"} & {
        *state["search"]["context"],
        *state["search"]["settings"],
    }


def test_an_old_search_with_races_is_refused_in_a_sentence(tmp_path, fake):
    run = give_supernet(opened(tmp_path, ""))
    with run.writing():
        search_stage.search(*run.inputs)
    path = run.folder("search", "state.json")
    state = json.loads(path.read_text())
    state["search"]["context"]["racing"] = {"racing_error": 0.001, "batch_size": 500}
    path.write_text(json.dumps(state))
    with pytest.raises(
        NeasError, match=r"search with search.racing, which is no more; expected another folder"
    ):
        search_stage.search(*opened(tmp_path, "").inputs)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "search.fitness=acuracy",
            "search.fitness: unknown name .acuracy.; known are .* Did you mean .accuracy.",
        ),
        (
            "search.fitness=halving,search.objective=pareto",
            "search.fitness: received 'halving', expected",
        ),
        ("search.looks=0", "search.looks: received 0"),
        (
            "search.racing=true",
            "search.racing: received True, expected it left out: races are no more",
        ),
    ],
)
def test_bad_settings(tmp_path, override, text):
    with pytest.raises(NeasError, match=text):
        opened(tmp_path, override)


def test_settings_of_races_that_were_off_are_passed_over(tmp_path):
    """As params.yaml of old runs have them."""
    run = opened(tmp_path, "search.racing=false,search.racing_error=0.001")
    assert not hasattr(run.config.search, "racing")


def test_one_held_out_image_has_no_temperature(tmp_path, fake):
    override = "search.fitness=log_likelihood_calibrated,search.validation_images=1"
    run = give_supernet(opened(tmp_path, override))
    words = "search.fitness: received 'log_likelihood_calibrated' with 1 held-out image, expected 2"
    with pytest.raises(NeasError, match=words):
        search_stage.search(*run.inputs)


class ReportingEvaluator:
    """Reports progress as the work is done, and scores when all is done."""

    def __init__(self, seen):
        self.seen = seen

    def evaluate_all(self, architectures, progress):
        for share in (0.25, 0.5, 0.5, 1.0):
            progress(share)
            self.seen()
        return [Score(0.5, (0.5, 0.5)) for _ in architectures]


def test_the_bar_moves_with_the_work(tmp_path, capsys):
    """It runs ahead of the scores, which are then not counted again."""
    settings, positions = SearchSettings(population=4, generations=3, parents=2), []
    shrunk, history = ShrunkSpace.full(toy_space(), 2), History(tmp_path, toy_costs)
    report = ReportingEvaluator(lambda: positions.append(evaluate._bar.n))
    evaluate = search_stage._LazyEvaluator(lambda: report, None, NeasConfig().search, history)
    run_search(
        settings,
        shrunk,
        blind_sample(shrunk),
        lambda architecture: True,
        evaluate,
        history,
        make_bar=evaluate.make_bar,
    )
    assert positions == [1, 2, 2, 4, 5, 6, 6, 8, 9, 10, 10, 12]
    assert "search: 12 of 12 ensembles" in capsys.readouterr().err
