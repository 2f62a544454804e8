"""A search with a race: who stopped never breeds or wins, and a resumed one ends alike."""

import dataclasses
import itertools
import json
import pathlib

import pytest
import tensorflow as tf
from search_folders import BUDGET, SETTINGS, SHRUNK, Crash, contents
from tiny_run import TINY, give_supernet
from toy_search import blind_sample, toy_costs, toy_score, toy_search, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.config.settings import NeasConfig
from neas_tf.report.reading import read_run
from neas_tf.report.summary import format_summary, summarise
from neas_tf.report.writing import write_report
from neas_tf.run import search_stage
from neas_tf.run.context import open_run
from neas_tf.search.evolution import run_search, top_candidates
from neas_tf.search.history import Candidate, History, Score, best_candidate, read_history
from neas_tf.search.variation import SearchSettings
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace

KEY = "s1:k3e4|k3e4.k3e4.k3e4.k3e4.k3e4|k5e4.k5e4.k5e4.k5e4.k5e4"


def candidate(number, accuracy, images=None):
    a = Architecture.from_key(KEY)
    return Candidate(number, 0, "random", a, accuracy, (0.1, 0.2), toy_costs(a), images)


def test_who_stopped_comes_last():
    stopped, finished = candidate(0, 0.9, 100), candidate(1, 0.5)
    assert best_candidate([stopped, finished]) is finished
    assert top_candidates([stopped, finished, candidate(2, 0.6)], 3)[1:] == [finished]


def test_line_of_the_history(tmp_path):
    history = History(tmp_path, toy_costs)
    a = Architecture.from_key(KEY)
    history.append(a, 0, "random", Score(0.5, (0.25, 0.5), 300))
    (found,) = read_history(history.path)
    assert found.images == 300 and not found.finished and found.costs == toy_costs(a)
    value = json.loads(history.path.read_text())
    assert value["images"] == 300
    assert "images" not in candidate(0, 0.5).to_dict()
    for wrong in (0, None, "many"):
        history.path.write_text(json.dumps(value | {"images": wrong}) + "\n")
        with pytest.raises(NeasError, match="line 1: images: received"):
            read_history(history.path)


def by_rank(crash_after=None):
    """Scores that depend on the whole generation: the worse half of it stops."""
    calls, given = [], itertools.count()

    def evaluate(architectures):
        calls.append(len(architectures))
        scores = [toy_score(a) for a in architectures]
        limit = sorted(s.accuracy for s in scores)[len(scores) // 2]
        for score in scores:
            if next(given) == crash_after:
                raise Crash
            yield dataclasses.replace(score, images=None if score.accuracy >= limit else 50)

    return evaluate, calls


def search(folder, evaluate):
    return toy_search(folder, SETTINGS, SHRUNK, BUDGET, evaluate, whole_generations=True)


@pytest.mark.parametrize("crash_after", [0, 3, 5, 7, 14])
def test_a_resumed_race_ends_alike(tmp_path, crash_after):
    """The generation that was interrupted is raced again, as a whole."""
    evaluate, calls = by_rank()
    expected = search(tmp_path / "whole", evaluate)
    assert calls == [5, 5, 5] and sum(not c.finished for c in expected.candidates) == 6
    for generation in (1, 2):
        before = [c for c in expected.candidates if c.generation < generation]
        state = top_candidates(before, SETTINGS.parents)
        assert all(c.finished for c in state)
    with pytest.raises(Crash):
        search(tmp_path / "broken", by_rank(crash_after)[0])
    evaluate, calls = by_rank()
    assert search(tmp_path / "broken", evaluate) == expected
    assert calls == [5] * (3 - crash_after // 5)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def opened(folder: pathlib.Path, override: str):
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    config = load_config("neas_quickstart", [str(folder / "tiny.yaml")], override)
    return open_run(config, str(folder / "run"), tf.distribute.get_strategy())


class FakeEvaluator:
    """In place of the supernet's: scores from the key; in a race every third candidate stops."""

    def __init__(self):
        self.races = []

    def evaluate_all(self, architectures, progress):
        progress(1.0)
        return [Score(len(a.key) / 100, (0.1, 0.2)) for a in architectures]

    def race(self, architectures, settings, references, progress):
        self.races.append((architectures, settings, references))
        results = self.evaluate_all(architectures, progress)
        return [dataclasses.replace(r, images=None if i % 3 else 40) for i, r in enumerate(results)]


@pytest.fixture
def fake(monkeypatch):
    evaluator = FakeEvaluator()
    monkeypatch.setattr(search_stage, "load_supernet", lambda *_: None)
    monkeypatch.setattr(search_stage, "make_evaluator", lambda *_: evaluator)
    return evaluator


def test_the_stage_races_against_the_best_before(tmp_path, fake, capsys):
    run = give_supernet(opened(tmp_path, "search.racing=true,search.racing_error=0.01"))
    with run.writing():
        result = search_stage.search(*run.inputs)
    assert "stopped early by racing" in capsys.readouterr().err
    assert [len(architectures) for architectures, _, _ in fake.races] == [8, 8, 8]
    for generation, (_, settings, references) in enumerate(fake.races):
        assert (settings.parents, settings.error) == (3, 0.01)
        before = [c for c in result.candidates if c.generation < generation]
        assert references == [c.architecture for c in top_candidates(before, 3)]
    state = json.loads(run.folder("search", "state.json").read_text())
    assert state["search"]["context"]["racing"] == {"racing_error": 0.01, "batch_size": 500}
    with pytest.raises(NeasError, match=r"holds another search .*racing"):
        search_stage.search(*opened(tmp_path, "").inputs)
    # The report ranks those that finished; the others are counted.
    files = read_run(run.model_dir)
    assert [c.number for c in files.candidates if not c.finished] == [
        0,
        3,
        6,
        8,
        11,
        14,
        16,
        19,
        22,
    ]
    summary = summarise(files)
    assert summary["search"]["stopped"] == 9
    assert summary["search"]["best_accuracy"] == result.best.accuracy
    assert "9 of them stopped by the race" in format_summary(summary)
    write_report(run.model_dir)
    assert run.folder("report", "search_scatter.png").stat().st_size > 10_000


def test_a_search_without_a_race_is_as_before(tmp_path, fake):
    run = give_supernet(opened(tmp_path, ""))
    with run.writing():
        search_stage.search(*run.inputs)
    assert not fake.races
    state = json.loads(run.folder("search", "state.json").read_text())
    assert "racing" not in state["search"]["context"]
    assert b'"images"' not in run.folder("search", "history.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "search.racing=true,search.objective=pareto",
            "search.racing: received true with search.ob",
        ),
        ("search.racing_error=0", "search.racing_error: received 0"),
        ("search.racing_error=1.5", "search.racing_error: received 1.5"),
        ("search.racing=maybe", "search.racing"),
    ],
)
def test_bad_settings(tmp_path, override, text):
    with pytest.raises(NeasError, match=text):
        opened(tmp_path, override)


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
    evaluate = search_stage._LazyEvaluator(lambda: report, NeasConfig().search, history)
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
