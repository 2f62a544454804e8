"""The files of a search: crashes anywhere, foreign content, another search's folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from search_folders import FILES, OUTSIDE, Crash, contents, counting, search, write
from toy_search import toy_costs, toy_score, toy_space

from neas_tf.common.errors import NeasError
from neas_tf.search.candidate import Candidate, Score
from neas_tf.search.history import History, read_history
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace


def test_files(undisturbed):
    result, files = undisturbed
    assert sorted(files) == sorted(FILES)
    lines = [json.loads(line) for line in files["history.jsonl"].splitlines()]
    assert [*lines[0]] == [
        "candidate",
        "generation",
        "origin",
        "architecture",
        "key",
        "accuracy",
        "path_accuracies",
        "macs",
        "paper_flops",
        "params",
    ]
    assert [Candidate.from_dict(line) for line in lines] == list(result.candidates)
    best = json.loads(files["best.json"])
    assert Architecture.from_dict(best) == result.best.architecture
    assert best["x_accuracy"] == result.best.accuracy
    assert best["x_macs"] == result.best.macs
    state = json.loads(files["state.json"])
    assert state["finished"] and state["generation"] == 3 and state["candidates"] == 15
    assert state["population"] == list(range(10, 15))
    assert state["best"] == result.best.number and len(state["parents"]) == 3
    assert state["rng"]["bit_generator"] == "PCG64"


@pytest.mark.parametrize("crash", range(15))
def test_crash_before_any_score(tmp_path, undisturbed, crash):
    first, second = [], []
    with pytest.raises(Crash):
        search(tmp_path, counting(first, crash))
    assert search(tmp_path, counting(second)) == undisturbed[0]
    assert first + second == [c.architecture for c in undisturbed[0].candidates]
    assert contents(tmp_path) == undisturbed[1]


def test_crash_at_every_score(tmp_path, undisturbed):
    scored = []
    for _ in range(14):
        calls = []
        with pytest.raises(Crash):
            search(tmp_path, counting(calls, 1))
        scored += calls
    last = []
    assert search(tmp_path, counting(last)) == undisturbed[0]
    scored += last
    assert scored == [c.architecture for c in undisturbed[0].candidates]
    assert contents(tmp_path) == undisturbed[1]


def snapshots(tmp_path):
    """The folder's content behind every score and behind every generation."""
    taken = []

    def evaluate(architectures):
        for architecture in architectures:
            taken.append(contents(tmp_path))
            yield toy_score(architecture)
        taken.append(contents(tmp_path))

    search(tmp_path, evaluate)
    return [*taken, contents(tmp_path)]


def test_crash_in_the_middle_of_a_line(tmp_path, undisturbed):
    taken = snapshots(tmp_path / "whole")
    history = undisturbed[1]["history.jsonl"]
    ends = [i + 1 for i, byte in enumerate(history) if byte == 10]
    for number, files in enumerate(taken[:-1]):
        begin = len(files.get("history.jsonl", b""))
        end = next((e for e in ends if e > begin), begin)
        for cut in sorted({begin + 1, (begin + end) // 2, end - 2, end - 1, end}):
            folder = tmp_path / f"{number}_{cut}"
            write(folder, files | {"history.jsonl": history[:cut]})
            calls = []
            assert search(folder, counting(calls)) == undisturbed[0]
            # Only a line that lacks more than its line feed costs another evaluation.
            kept = sum(e <= cut + 1 for e in ends)
            assert len(calls) == 15 - kept
            assert contents(folder) == undisturbed[1]


def test_history_cut_anywhere_behind_a_finished_search(tmp_path, undisturbed):
    history = undisturbed[1]["history.jsonl"]
    for cut in range(0, len(history), 97):
        folder = tmp_path / str(cut)
        write(folder, undisturbed[1] | {"history.jsonl": history[:cut]})
        assert search(folder) == undisturbed[0]
        assert contents(folder) == undisturbed[1]


def test_old_state_with_a_longer_history(tmp_path, undisturbed):
    for number, files in enumerate(snapshots(tmp_path / "whole")):
        folder = tmp_path / str(number)
        write(
            folder,
            {"state.json": files["state.json"]}
            | {"history.jsonl": undisturbed[1]["history.jsonl"]},
        )
        calls = []
        assert search(folder, counting(calls)) == undisturbed[0]
        assert not calls and contents(folder) == undisturbed[1]


def test_dropped_line_is_logged(finished, caplog):
    path = finished / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level("WARNING", logger="absl"):
        search(finished)
    assert "dropped line 15, half-written" in caplog.text


def test_half_written_character_and_zero_bytes(finished, undisturbed):
    path = finished / "history.jsonl"
    for tail in (b'{"candidate": 15, "key": "\xc3', b"\0" * 64, b"{"):
        whole = undisturbed[1]["history.jsonl"]
        lines = whole.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) + tail)
        search(finished)
        assert contents(finished) == undisturbed[1]


def test_finished_search_returns_its_result_and_writes_nothing(finished, undisturbed):
    before = {f: f.stat().st_mtime_ns for f in finished.iterdir()}
    calls = []
    assert search(finished, counting(calls)) == undisturbed[0]
    assert not calls and before == {f: f.stat().st_mtime_ns for f in finished.iterdir()}


def test_finished_search_writes_a_missing_winner_again(finished, undisturbed):
    (finished / "best.json").unlink()
    search(finished)
    assert contents(finished) == undisturbed[1]


def test_exhausted_search_is_finished_too(tmp_path):
    space = toy_space(("k3e4", "k5e4"), min_split=1, max_split=2, layers=1)
    shrunk = ShrunkSpace.full(space, 1)
    result = search(tmp_path / "a", shrunk=shrunk)
    assert len(result.candidates) == 4 and "generation 2 found no new" in result.reason
    calls = []
    assert search(tmp_path / "a", counting(calls), shrunk=shrunk) == result and not calls
    for crash in range(4):
        with pytest.raises(Crash):
            search(tmp_path / str(crash), counting([], crash), shrunk=shrunk)
        assert search(tmp_path / str(crash), shrunk=shrunk) == result
        assert contents(tmp_path / str(crash)) == contents(tmp_path / "a")


def test_lost_history_starts_again(finished, undisturbed):
    (finished / "history.jsonl").unlink()
    assert search(finished) == undisturbed[0]
    assert contents(finished) == undisturbed[1]


def test_infinite_accuracy_is_refused(tmp_path):
    with pytest.raises(NeasError, match="accuracy of s"):
        search(tmp_path, lambda archs: [Score(float("nan"), (0.0, 0.0)) for _ in archs])
    assert not (tmp_path / "history.jsonl").exists()


def test_read_history(finished, undisturbed):
    path = finished / "history.jsonl"
    assert read_history(path) == list(undisturbed[0].candidates)
    path.write_bytes(path.read_bytes()[:-5])
    before = path.read_bytes()
    assert read_history(path) == list(undisturbed[0].candidates[:-1])
    assert path.read_bytes() == before
    with pytest.raises(NeasError, match="no file"):
        read_history(finished / "none.jsonl")


def test_numpy_numbers_are_written_as_plain_ones(tmp_path):
    history = History(tmp_path, lambda a: {k: np.int64(v) for k, v in toy_costs(a).items()})
    history.append(OUTSIDE, 0, "random", Score(np.float32(0.5), (np.float32(0.5), 0.25)))
    (candidate,) = read_history(history.path)
    assert candidate.costs == toy_costs(OUTSIDE) and candidate.path_accuracies == (0.5, 0.25)


CHILD = """
import sys, time
sys.path[:0] = {paths!r}
import search_folders as t
def slow(architectures):
    for architecture in architectures:
        time.sleep(0.03)
        yield t.toy_score(architecture)
t.search(sys.argv[1], slow)
"""


def test_kill_9(tmp_path, undisturbed):
    tests = Path(__file__).resolve().parents[1]
    code = CHILD.format(paths=[str(tests / "support"), str(tests.parent)])
    history = tmp_path / "history.jsonl"
    for lines in (3, 9):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        end = time.monotonic() + 60
        while not history.exists() or history.read_bytes().count(b"\n") < lines:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert search(tmp_path) == undisturbed[0]
    assert {n: c for n, c in contents(tmp_path).items() if n in FILES} == undisturbed[1]
