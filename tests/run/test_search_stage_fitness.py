"""The search's stage by each fitness: what it asks for, files and reports, what is refused, its bar."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import TINY, give_supernet
from toy_search import blind_sample, toy_costs, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.config.settings import NeasConfig
from neas_tf.report.parts.run_data import run_data
from neas_tf.report.reading import read_run
from neas_tf.report.summary import format_summary, summarise
from neas_tf.report.writing import write_report
from neas_tf.run import search_stage
from neas_tf.run.context import open_run
from neas_tf.search.candidate import Score
from neas_tf.search.evolution import run_search
from neas_tf.search.fitness import LIKELIHOODS, NUMBERS
from neas_tf.search.history import History
from neas_tf.search.variation import SearchSettings
from neas_tf.space.shrunk_space import ShrunkSpace


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
    run = give_supernet(opened(tmp_path, "search.fitness=accuracy"))
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
