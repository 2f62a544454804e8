"""Two objectives: fronts, room, who breeds, and a search that keeps its front."""

import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_folders import SHRUNK, Crash, contents, counting
from toy_search import toy_evaluate, toy_search

from neas_tf.common.errors import NeasError
from neas_tf.search.candidate import Candidate
from neas_tf.search.evolution import SearchSettings, choose_parents
from neas_tf.search.history import pareto_candidates, read_history
from neas_tf.search.pareto import breeding_order, crowding, front_numbers, pareto_front, unbeaten

TWO = SearchSettings(
    population=8, parents=4, generations=4, seed=1, objective="pareto", pareto_cost="macs"
)
BUDGET = 450
points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def search(folder, evaluate=toy_evaluate, settings=TWO):
    return toy_search(folder, settings, SHRUNK, BUDGET, evaluate)


def beats(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(points)
def test_unbeaten_against_all_pairs(points):
    costs, accuracies = [p[0] for p in points], [p[1] for p in points]
    expected = [not any(beats(q, p) for q in points) for p in points]
    assert unbeaten(costs, accuracies).tolist() == expected


@given(points)
def test_pareto_front_against_all_pairs(points):
    costs, accuracies = [p[0] for p in points], [p[1] for p in points]
    front = pareto_front(costs, accuracies).tolist()

    def beaten(i):
        return any(
            beats(points[j], points[i]) or (points[j] == points[i] and j < i)
            for j in range(len(points))
        )

    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [costs[i] for i in front] == sorted(costs[i] for i in front)


@given(points, st.integers(0, 14))
def test_fronts_are_peeled_off_one_by_one(points, count):
    costs, accuracies = [p[0] for p in points], [p[1] for p in points]
    numbers = front_numbers(costs, accuracies)
    for i, p in enumerate(points):
        beaten_by = [numbers[j] for j, q in enumerate(points) if beats(q, p)]
        assert numbers[i] == max(beaten_by, default=-1) + 1
    some = front_numbers(costs, accuracies, count)
    assert (some == np.minimum(numbers, some.max(initial=0))).all()


def test_room_of_a_front():
    room = crowding([1, 2, 5, 9], [1, 3, 4, 5])
    assert room.tolist() == [np.inf, 4 / 8 + 3 / 4, 7 / 8 + 2 / 4, np.inf]
    assert crowding([3], [1]).tolist() == [np.inf] and crowding([], []).tolist() == []
    assert crowding([1, 1, 1], [2, 2, 2]).tolist() == [np.inf, 0, np.inf]


def test_breeding_order():
    costs, accuracies = [1, 2, 5, 9, 9, 6], [1, 3, 4, 5, 1, 0]
    assert breeding_order(costs, accuracies, 6).tolist() == [0, 3, 2, 1, 4, 5]
    assert breeding_order(costs, accuracies, 3).tolist() == [0, 3, 2]
    assert breeding_order([], [], 3).tolist() == []


@given(points, st.integers(1, 12))
def test_breeding_order_takes_whole_fronts_first(points, count):
    costs, accuracies = [p[0] for p in points], [p[1] for p in points]
    numbers, chosen = front_numbers(costs, accuracies), breeding_order(costs, accuracies, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(points))
    left = set(range(len(points))) - set(chosen.tolist())
    assert all(numbers[i] <= numbers[j] for i in chosen for j in left)


def test_lists_of_unequal_length_are_refused():
    for function in (pareto_front, unbeaten, crowding):
        with pytest.raises(NeasError, match="equal length"):
            function([1, 2], [1])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"objective": "paretto"}, r"search\.objective: unknown name 'paretto'.*'pareto'"),
        ({"pareto_cost": "latencies"}, r"search\.pareto_cost: .*Did you mean 'latency'"),
    ],
)
def test_settings_are_checked(values, text):
    with pytest.raises(NeasError, match=text):
        SearchSettings(**values)


def test_one_objective_leaves_no_trace(tmp_path):
    """Searches of versions that knew only accuracy go on, and write the same files."""
    one = dataclasses.replace(TWO, objective="accuracy", pareto_cost="params")
    assert not {"objective", "pareto_cost"} & set(one.to_dict())
    with_both = TWO.to_dict()
    assert with_both.pop("objective") == "pareto" and with_both.pop("pareto_cost") == "macs"
    assert one.to_dict() == with_both
    search(tmp_path, settings=one)
    assert sorted(contents(tmp_path)) == ["best.json", "history.jsonl", "state.json"]


def test_parents_spread_over_costs(tmp_path):
    """The most accurate alone would be neighbours; with two objectives the cheap ones breed too."""
    result = search(tmp_path)
    chosen = choose_parents(result.candidates, TWO)
    best = choose_parents(result.candidates, dataclasses.replace(TWO, objective="accuracy"))
    front = pareto_candidates(result.candidates, "macs")
    assert {c.number for c in chosen} <= {c.number for c in front} or len(front) < TWO.parents
    assert np.ptp([c.macs for c in chosen]) > np.ptp([c.macs for c in best])
    assert front[0] in chosen and front[-1] in chosen


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_the_file_holds_exactly_what_nothing_beats(tmp_path, cost):
    chosen = dataclasses.replace(TWO, pareto_cost=cost)
    result = search(tmp_path, settings=chosen)
    value = json.loads((tmp_path / "pareto.json").read_text())
    assert (value["format"], value["cost"]) == ("neas-pareto/1", cost)
    front = [Candidate.from_dict(row) for row in value["front"]]
    everything = [(c.costs[cost], c.accuracy) for c in result.candidates]
    expected = {
        c.number
        for c in result.candidates
        if not any(beats(p, (c.costs[cost], c.accuracy)) for p in everything)
    }
    assert {c.number for c in front} == expected
    assert front == sorted(front, key=lambda c: (c.costs[cost], c.number))
    assert front[-1].accuracy == result.best.accuracy  # inside the budget all of them
    assert all(c == result.candidates[c.number] for c in front)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["x_candidate"] == result.best.number


def test_the_front_is_there_behind_every_generation(tmp_path):
    sizes = []

    def look(generation, new, best):
        value = json.loads((tmp_path / "pareto.json").read_text())
        done = read_history(tmp_path / "history.jsonl")
        assert [row["candidate"] for row in value["front"]] == [
            c.number for c in pareto_candidates(done, "macs")
        ]
        sizes.append(len(done))

    toy_search(tmp_path, TWO, SHRUNK, BUDGET, on_generation=look)
    assert sizes == [8, 16, 24, 32]


def test_crash_at_every_score_ends_with_the_same_bytes(tmp_path):
    result = search(tmp_path / "whole")
    for crash in range(0, 32, 3):
        folder = tmp_path / str(crash)
        with pytest.raises(Crash):
            search(folder, counting([], crash))
        assert search(folder) == result
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_missing_front_is_written_again(tmp_path):
    search(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "pareto.json").unlink()
    calls = []
    search(tmp_path, counting(calls))
    assert contents(tmp_path) == before and not calls


def test_another_objective_is_another_search(tmp_path):
    search(tmp_path)
    before = contents(tmp_path)
    for change, text in (
        ({"pareto_cost": "params"}, 'pareto_cost: was "macs", is "params"'),
        ({"objective": "accuracy"}, 'objective: was "pareto", is null'),
    ):
        with pytest.raises(NeasError, match=text):
            search(tmp_path, settings=dataclasses.replace(TWO, **change))
    assert contents(tmp_path) == before


triples = st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=12)
THREE = dataclasses.replace(TWO, pareto_objectives=("accuracy", "cost", "disagreement"))


def beats_thrice(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a[2] >= b[2] and a != b


@given(triples, st.integers(1, 12))
def test_three_objectives_against_all_pairs(points, count):
    columns = [[p[i] for p in points] for i in range(3)]
    expected = [not any(beats_thrice(q, p) for q in points) for p in points]
    assert unbeaten(*columns).tolist() == expected
    numbers = front_numbers(*columns[:2], third=columns[2])
    for i, p in enumerate(points):
        beaten_by = [numbers[j] for j, q in enumerate(points) if beats_thrice(q, p)]
        assert numbers[i] == max(beaten_by, default=-1) + 1
    chosen = breeding_order(*columns[:2], count, columns[2]).tolist()
    left = set(range(len(points))) - set(chosen)
    assert len(chosen) == min(count, len(points))
    assert all(numbers[i] <= numbers[j] for i in chosen for j in left)


def test_room_of_three_objectives():
    room = crowding([1, 2, 5, 9], [1, 3, 4, 5], [7, 7, 7, 7])
    assert room[1] == 4 / 8 + 3 / 4 + 0 and np.isinf(room[[0, 3]]).all()


def evaluate_thrice(architectures):
    """Scores whose disagreement goes against their accuracy."""
    return [
        dataclasses.replace(score, disagreement=round(1 - score.accuracy, 2) + len(a.key) / 1e4)
        for a, score in zip(architectures, toy_evaluate(architectures), strict=True)
    ]


def test_a_search_with_three_objectives(tmp_path):
    result = search(tmp_path / "whole", evaluate_thrice, THREE)
    lines = read_history(tmp_path / "whole" / "history.jsonl")
    assert lines == list(result.candidates) and all(c.disagreement for c in lines)
    value = json.loads((tmp_path / "whole" / "pareto.json").read_text())
    assert value["objectives"] == ["accuracy", "macs", "disagreement"]
    points = {c.number: (c.macs, c.accuracy, c.disagreement) for c in lines}
    expected = {
        n for n, p in points.items() if not any(beats_thrice(q, p) for q in points.values())
    }
    assert {row["candidate"] for row in value["front"]} == expected
    two = {
        c.number
        for c in pareto_candidates(
            [dataclasses.replace(c, disagreement=None) for c in lines], "macs"
        )
    }
    assert two < expected  # the third objective keeps more
    calls = []

    def crashing(architectures):
        for score in evaluate_thrice(architectures):
            if len(calls) == 13:
                raise Crash
            calls.append(score)
            yield score

    with pytest.raises(Crash):
        search(tmp_path / "cut", crashing, THREE)
    assert search(tmp_path / "cut", evaluate_thrice, THREE) == result
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    with pytest.raises(NeasError, match="pareto_objectives"):
        search(tmp_path / "whole", toy_evaluate, TWO)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pareto_objectives": ("cost", "disagreement")}, r"expected \[accuracy, cost\], perhaps"),
        ({"pareto_objectives": ("accuracy", "cost", "latency")}, "perhaps with disagreement"),
        ({"pareto_objectives": ("accuracy", "cost", "cost")}, "perhaps with disagreement"),
        ({"objective": "accuracy"}, "only with search.objective 'pareto'"),
    ],
)
def test_what_cannot_be_three_objectives(values, text):
    with pytest.raises(NeasError, match=rf"search\.pareto_objectives: received .*{text}"):
        dataclasses.replace(THREE, **values)


def test_three_objectives_need_a_table_and_two_paths():
    from neas_tf.config.parse import load_config
    from neas_tf.run.preflight import search_latency, search_settings

    config = load_config("neas_quickstart")
    config.search.objective, config.search.pareto_cost = "pareto", "latency"
    config.search.pareto_objectives = ["accuracy", "cost", "disagreement"]
    assert search_settings(config).disagreement
    with pytest.raises(NeasError, match=r"without a search\.latency_table"):
        search_latency(config, None)
    config.num_paths = 1
    with pytest.raises(NeasError, match="'disagreement', expected num_paths of 2 or more"):
        search_settings(config)
