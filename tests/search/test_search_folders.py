"""Folders of another search, and content that no search wrote: refused, and nothing touched."""

import dataclasses
import json

import pytest
from search_folders import (
    BUDGET,
    OUTSIDE,
    SETTINGS,
    SHRUNK,
    Crash,
    contents,
    counting,
    search,
    write,
)
from toy_search import shrink, toy_search, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.search.evolution import generation_rng
from neas_tf.space.shrunk_space import ShrunkSpace


@pytest.mark.parametrize(
    "change,text",
    [
        ({"settings": dataclasses.replace(SETTINGS, population=6)}, r"settings\.population: was 5, is 6"),
        ({"settings": dataclasses.replace(SETTINGS, seed=2)}, r"settings\.seed: was 1, is 2"),
        ({"budget": 440}, r"context\.budget\.max_macs: was 450, is 440"),
        ({"shrunk": ShrunkSpace.full(toy_space(), 2)}, r"alive\.layer \d: had \d+ entries, has \d+, lost nothing, gained \"k"),
        ({"shrunk": ShrunkSpace.full(toy_space(), 3)}, "num_paths: was 2, is 3"),
        ({"shrunk": shrink(ShrunkSpace.full(toy_space(), 2, False), 9)}, "heterogeneous: was true, is false"),
        ({"shrunk": shrink(ShrunkSpace.full(toy_space(max_split=5), 2), 5)}, r"space\.max_split: was 6, is 5"),
    ],
)  # fmt: skip
def test_another_search_is_refused_and_nothing_touched(finished, undisturbed, change, text):
    with pytest.raises(NeasError, match=text):
        search(finished, **change)
    assert contents(finished) == undisturbed[1]


def test_differences_stay_one_readable_sentence(finished):
    with pytest.raises(NeasError) as caught:
        search(finished, shrunk=ShrunkSpace.full(toy_space(), 3))
    assert len(str(caught.value)) < 1500


def _line(number, **change):
    def edit(lines):
        value = json.loads(lines[number])
        lines[number] = json.dumps({**value, **change}).encode()

    return edit


def _drop(number):
    return lambda lines: lines.pop(number)


def _replace(number, content):
    def edit(lines):
        lines[number] = content

    return edit


@pytest.mark.parametrize(
    "edit,text",
    [
        (_replace(3, b"garbage"), "line 4: is no valid JSON"),
        (_replace(3, b""), "line 4: is no valid JSON"),
        (_replace(3, b"\xff\xfe"), "line 4: is no valid JSON"),
        (_replace(0, b"[]"), "line 1: line: received"),
        (_replace(3, b'{"candidate": 3}'), "line 4: keys: received"),
        (_drop(6), "line 7: candidate: received 7, expected 6"),
        (_line(2, candidate=True), "line 3: candidate"),
        (_line(2, generation=2), "line 3: generation: received 2"),
        (_line(2, origin="elsewhere"), "line 3: origin"),
        (_line(2, accuracy=float("nan")), "line 3: accuracy"),
        (_line(2, accuracy="0.5"), "line 3: accuracy"),
        (_line(2, path_accuracies=[0.5]), "line 3: path_accuracies"),
        (_line(2, key="s1:k3e4|k3e4|k5e4"), "line 3: key"),
        (_line(2, architecture={"format": "x"}), "line 3: architecture.format"),
        (_line(2, macs=1), "line 3: costs"),
        (_line(2, extra="text"), "line 3: extra"),
        (
            _line(2, architecture=OUTSIDE.to_dict(), key=OUTSIDE.key),
            "line 3: does not belong to this search",
        ),
        (lambda lines: lines.append(lines[0]), "line 16: candidate"),
        (_line(2, accuracy=0.99), "state.json.*do not fit the first 15 lines"),
    ],
)
def test_foreign_content_names_the_line(finished, edit, text):
    path = finished / "history.jsonl"
    lines = path.read_bytes().splitlines()
    edit(lines)
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = contents(finished)
    with pytest.raises(NeasError, match=text):
        search(finished)
    assert contents(finished) == before


def test_the_same_ensemble_twice_is_refused(finished):
    path = finished / "history.jsonl"
    lines = path.read_bytes().splitlines()
    lines[4] = json.dumps({**json.loads(lines[1]), "candidate": 4}).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(NeasError, match="line 5: holds the ensemble of line 2 once more"):
        search(finished)


def test_line_that_does_not_follow_from_the_seed(tmp_path):
    # A history of another seed beside a state that has not yet counted its lines.
    other = dataclasses.replace(SETTINGS, seed=2)
    with pytest.raises(Crash):
        search(tmp_path, counting([], 3), settings=other)
    state = json.loads((tmp_path / "state.json").read_bytes())
    state["search"]["settings"]["seed"] = 1
    state["rng"] = generation_rng(1, 0).bit_generator.state
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(NeasError, match="line 1: does not follow from the lines before"):
        search(tmp_path)


def test_missing_candidate_of_an_earlier_generation(tmp_path, undisturbed):
    first = json.loads(undisturbed[1]["state.json"]) | {
        "generation": 0,
        "candidates": 0,
        "population": [],
        "parents": [],
        "best": None,
        "finished": False,
    }
    lines = undisturbed[1]["history.jsonl"].splitlines()
    kept = lines[:4] + lines[5:]
    kept = [json.dumps({**json.loads(x), "candidate": i}).encode() for i, x in enumerate(kept)]
    write(tmp_path, {"history.jsonl": b"\n".join(kept) + b"\n"})
    first["rng"] = generation_rng(SETTINGS.seed, 0).bit_generator.state
    (tmp_path / "state.json").write_text(json.dumps(first))
    with pytest.raises(NeasError, match="line 5: skips a candidate of generation 0"):
        search(tmp_path)


@pytest.mark.parametrize(
    "content,text",
    [
        (b"{", "no valid JSON"),
        (b"[]", "a JSON object"),
        (b'{"format": "other/1"}', "format: received 'other/1'"),
        (b'{"format": "neas-search-state/1"}', "keys"),
    ],
)
def test_foreign_state(finished, content, text):
    (finished / "state.json").write_bytes(content)
    before = contents(finished)
    with pytest.raises(NeasError, match=text):
        search(finished)
    assert contents(finished) == before


def test_state_with_a_broken_generator(tmp_path, undisturbed):
    with pytest.raises(Crash):
        search(tmp_path, counting([], 7))
    state = json.loads((tmp_path / "state.json").read_bytes())
    state["rng"] = {"bit_generator": "MT19937"}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(NeasError, match=r"rng: received .*expected a generator's state"):
        search(tmp_path)


def test_history_without_a_state_is_refused(finished):
    (finished / "state.json").unlink()
    before = contents(finished)
    with pytest.raises(NeasError, match=r"no state\.json beside it"):
        search(finished)
    assert contents(finished) == before


def test_it_ends_when_it_is_enough(tmp_path):
    """As if the search had as many generations, and for good: a resumed one adds nothing."""
    fewer = dataclasses.replace(SETTINGS, generations=2)
    shorter = toy_search(tmp_path / "shorter", fewer, SHRUNK, BUDGET)
    asked = []

    def enough(generation, scored):
        asked.append(generation)
        return "its time is over" if generation == 1 else ""

    result = toy_search(tmp_path / "search", SETTINGS, SHRUNK, BUDGET, enough=enough)
    assert asked == [0, 1] and result.reason == "its time is over"
    assert [c.architecture for c in result.candidates] == [
        c.architecture for c in shorter.candidates
    ]
    again = toy_search(tmp_path / "search", SETTINGS, SHRUNK, BUDGET)
    assert again == result


def test_the_first_generation_may_end_between_its_parts(tmp_path):
    """What was scored by then is the search's result; who is scored, and how, does not depend on parts."""
    whole = toy_search(tmp_path / "whole", SETTINGS, SHRUNK, BUDGET)
    asked = []

    def enough(generation, scored):
        asked.append((generation, scored))
        return "its time is over" if scored == 4 else ""

    def run():
        return toy_search(
            tmp_path / "search", SETTINGS, SHRUNK, BUDGET, enough=enough, first_part=2
        )

    result = run()
    assert asked == [(0, 2), (0, 4)] and result.reason == "its time is over"
    assert result.candidates == whole.candidates[:4]
    assert run() == result and len(asked) == 2  # it is finished

    def never(generation, scored):
        asked.append((generation, scored))
        return ""

    same = toy_search(tmp_path / "same", SETTINGS, SHRUNK, BUDGET, enough=never, first_part=2)
    assert same == whole and asked[2:] == [(0, 2), (0, 4), (0, 0), (1, 0)]


@pytest.mark.parametrize("scored, more", [(4, 0), (3, 1), (1, 1)])
def test_a_resumed_first_generation_ends_where_the_time_is_over(tmp_path, scored, more):
    """A part that was begun is filled, as the uninterrupted search does; no other one is begun."""

    def over(generation, scored):
        return "its time is over"

    evaluated = []
    with pytest.raises(Crash):
        toy_search(tmp_path, SETTINGS, SHRUNK, BUDGET, counting([], scored), first_part=2)
    result = toy_search(
        tmp_path, SETTINGS, SHRUNK, BUDGET, counting(evaluated), enough=over, first_part=2
    )
    assert len(evaluated) == more and len(result.candidates) == scored + more
    assert result.reason == "its time is over"
