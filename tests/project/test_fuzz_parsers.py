"""Readers of outside data, with inputs made by machine: a sentence or a value, nothing else.

The short form of `tests/soak/parsers.py`. What was ever found lies in `tests/corpus/<parser>/`.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import fuzz_engine
import fuzz_targets
import pytest
from fuzz_engine import Target, fuzz, observe
from hypothesis import given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError

CORPUS = Path(__file__).parents[1] / "corpus"
PURE = {target.name: target for target in fuzz_targets.pure_targets()}
CASES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
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
def test_mutated_inputs(name):
    tally = fuzz(PURE[name], random.Random(name), 600, 20.0)
    assert not tally.faults
    assert tally.refused + tally.accepted == tally.tried > 20


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(("format", "paths", "space", "entries", "mean")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=JSON, field=st.integers(0, 40), name=st.sampled_from(sorted(PURE)))
@settings(max_examples=1500)
def test_any_value_in_any_field(value, field, name):
    """JSON of any kind as a whole, or in the place of one field of a sound input."""
    seed, data = PURE[name].seeds[0], json.dumps(value).encode()
    if seed[:1] == b"{" and b"\n" not in seed:
        whole = json.loads(seed)
        key = sorted(whole)[field % len(whole)]
        data = json.dumps(whole | {key: value}).encode()
    assert observe(PURE[name], data, 20.0)[0] in ("accepted", "refused")


@given(data=st.binary(max_size=200) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "replace")),
       name=st.sampled_from(sorted(PURE)))  # fmt: skip
@settings(max_examples=1500)
def test_any_bytes(data, name):
    assert observe(PURE[name], data, 20.0)[0] in ("accepted", "refused")


def test_overrides_and_settings(targets):
    for name in ("overrides", "config_YAML"):
        assert not fuzz(targets[name], random.Random(name), 60, 20.0).faults


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


def test_mutations_change_and_repeat():
    target = PURE["architecture JSON"]
    draw = lambda seed: [  # noqa: E731
        fuzz_engine.mutate(target.seeds[0], random.Random(f"{seed} {i}"), target) for i in range(99)
    ]
    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) > 80 and max(map(len, draw(1))) <= fuzz_engine.LONGEST
