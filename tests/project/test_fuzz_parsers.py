"""Readers of outside data, with inputs made by machine: a sentence or a value, nothing else.

The short form of `tests/soak/parsers.py`. What was ever found lies in `tests/corpus/<parser>/`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import fuzz_targets
import pytest
from fuzz_engine import JSON, Target, changed, observe
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError

CORPUS = Path(__file__).parents[1] / "corpus"
PURE = {target.name: target for target in fuzz_targets.pure_targets()}
CASES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
SOUND = ("accepted", "refused")
# Damaged in a way that leaves something sound, or that only looks dangerous.
HARMLESS = {
    "YAML_text/empty",
    "search_history/nul_bytes_as_after_a_power_cut",  # a half-written line, which is dropped
}


@pytest.fixture(scope="module")
def targets():
    """All parsers by the name of their folder in the corpus."""
    found = [*PURE.values(), *fuzz_targets.tensorflow_targets()]
    return {folder_name(target.name): target for target in found}


def folder_name(name: str) -> str:
    return name.replace(" ", "_").replace(":", "")


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.relative_to(CORPUS).as_posix())
def test_what_was_found_stays_mended(path, targets):
    """Each is refused with a sentence, but for those that hold something sound."""
    kind, _ = observe(targets[path.parent.name], path.read_bytes(), 20.0)
    name = path.relative_to(CORPUS).as_posix()
    assert kind == ("accepted" if name in HARMLESS else "refused")


def test_the_corpus_names_parsers(targets):
    assert {path.parent.name for path in CASES} <= set(targets)
    assert {path.relative_to(CORPUS).as_posix() for path in CASES} >= HARMLESS
    assert set(fuzz_targets.TENSORFLOW_TARGETS) == {t.name for t in targets.values()} - set(PURE)


@pytest.mark.parametrize("name", PURE)
def test_seeds_are_read(name):
    """An input that is refused at once would lead the fuzzer nowhere."""
    kinds = [observe(PURE[name], seed, 20.0)[0] for seed in PURE[name].seeds]
    assert set(kinds) <= {"accepted", "refused"} and "accepted" in kinds


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=200)
@given(data=st.data())
def test_changed_inputs(name, data):
    assert observe(PURE[name], data.draw(changed(PURE[name])), 20.0)[0] in SOUND


@pytest.mark.parametrize("name", fuzz_targets.TENSORFLOW_TARGETS)
@settings(max_examples=50)
@given(data=st.data())
def test_changed_inputs_of_parsers_with_tensorflow(name, targets, data):
    target = targets[folder_name(name)]
    assert observe(target, data.draw(changed(target)), 20.0)[0] in SOUND


@given(data=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200)
       | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")),
       name=st.sampled_from(sorted(PURE)))  # fmt: skip
@settings(max_examples=1000)
def test_any_bytes(data, name):
    assert observe(PURE[name], data, 20.0)[0] in SOUND


def fault(read, data=b"x", seconds=20.0):
    return observe(Target("t", read, [b"x"]), data, seconds)[0]


def test_the_watch_sees_what_it_is_there_for(tmp_path):
    """Errors of other kinds, hangs, files, commands, and messages that no terminal can show."""

    def message(text):
        error = NeasError("x")
        error.args = (text,)
        raise error

    assert fault(lambda data: data) == "accepted"
    assert fault(lambda data: {}[data]) == "KeyError in ?"
    assert fault(lambda data: (_ for _ in ()).throw(MemoryError)) == "MemoryError in ?"
    assert fault(lambda data: message("a sentence")) == "refused"
    assert fault(lambda data: message("\ud800")).startswith("a NeasError that is no")
    assert fault(lambda data: message("x" * 5000)).startswith("a NeasError that is no")
    for write in (
        lambda data: (tmp_path / "a").write_bytes(data),
        lambda data: (tmp_path / "b").mkdir(),
        lambda data: os.system("true"),
    ):
        assert fault(write).startswith("side effect: ")

    def endless(data):
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # as careless readers do
                continue

    assert fault(endless, seconds=0.2) == "hang over 0.2 s"


def test_changes_reach_what_careless_readers_do_not_expect():
    def careless(data):
        try:
            value = json.loads(data)
        except ValueError:
            raise NeasError("no JSON") from None
        return float(value["mean"][0])

    target = Target("careless", careless, [b'{"mean": [0.5, 0.4], "std": [1.0]}'])
    search = settings(phases=[Phase.generate], max_examples=20_000)
    for kind in ("KeyError", "OverflowError"):
        shows = lambda data, kind=kind: fault(careless, data).startswith(kind)  # noqa: E731
        found = find(changed(target), shows, settings=search)
        assert fault(careless, found) == f"{kind} in ?"
