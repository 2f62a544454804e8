"""Units, their store and their schedule, without TensorFlow and with results made up."""

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_plans import BASE, SPACE, pretend, toy_plan
from tiny_run import contents

from neas_tf.common.errors import NeasError
from neas_tf.space.architecture import Architecture
from neas_tf.study.schedule import Local, check_time_limit, progress, work
from neas_tf.study.store import Store
from neas_tf.study.tables.catalogue import STUDIES, all_units
from neas_tf.study.tables.names import NAMES, chosen
from neas_tf.study.units import Found, Scores, Search, Supernet, Training, in_order, settings_text

UNITS = all_units(NAMES, toy_plan())
json_values = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.randoms())
def test_equal_settings_have_equal_keys(settings, random):
    shuffled = list(settings.items())
    random.shuffle(shuffled)
    unit = Supernet(1, settings_text(settings))
    assert unit.key == Supernet(1, settings_text(dict(shuffled))).key
    assert unit.key != Supernet(2, unit.settings).key
    assert unit.key != Supernet(1, settings_text({**settings, "a new one": 1})).key


def test_needs_come_first_and_nothing_twice():
    order = in_order(UNITS)
    assert len(set(order)) == len(order) and set(UNITS) <= set(order)
    for place, unit in enumerate(order):
        assert all(order.index(need) < place for need in unit.needs)


def test_studies_share_units():
    plan = toy_plan()
    kinds = {}
    for name in NAMES:
        own = in_order([unit for part in STUDIES[name].rounds(plan) for unit in part])
        kinds[name] = {unit.key for unit in own if isinstance(unit, Supernet)}
    base = {plan.supernet(seed).key for seed in plan.seeds}
    assert kinds.pop("truth") == set()
    assert all(base <= keys for keys in kinds.values())
    # The budget that is the base's is no other search.
    assert plan.search(plan.supernet(0), max_macs=200_000) == plan.search(plan.supernet(0))
    assert plan.search(plan.supernet(0), max_macs=1) != plan.search(plan.supernet(0))


def test_random_ensembles_are_different_and_lie_in_the_space():
    keys = toy_plan(ensembles=40).random_ensembles()
    assert len(set(keys)) == 40
    for key in keys:
        Architecture.from_key(key).check_in(SPACE)
    assert keys[:8] == toy_plan().random_ensembles()  # more of them keeps those that were
    assert toy_plan(ensembles_seed=1).random_ensembles() != keys[:8]


CANDIDATES = {
    "best": 1,
    "candidates": [
        ["s1:k3e1|k3e2.skip.k3e1|k5e1.k3e1.k3e2", 0.5, 30, 0],
        ["s3:k3e1.k3e2.skip|k3e1|k3e2", 0.9, 20, 0],
        ["s3:k3e1.k3e1.skip|k3e1|k3e2", 0.9, 10, 1],
        ["s4:k3e1.k3e1.skip.k3e1|.|.", 0.7, 5, 1],
    ],
}


@pytest.mark.parametrize(
    "options,key",
    [
        ({}, "s3:k3e1.k3e1.skip|k3e1|k3e2"),  # of equal accuracy the lower MACs
        ({"max_split": 2}, "s1:k3e1|k3e2.skip.k3e1|k5e1.k3e1.k3e2"),
        ({"max_split": 0}, "s1:k3e1|k3e2.skip.k3e1|k5e1.k3e1.k3e2"),  # none: the earliest
        ({"mirror": 1}, "s3:k3e1.k3e1.skip|k3e2|k3e2"),
        ({"unshared": True}, "s0:.|k3e1.k3e1.skip.k3e1|k3e1.k3e1.skip.k3e2"),
    ],
)
def test_what_is_made_of_a_search(options, key):
    assert Found(Search(), **options).ensemble(CANDIDATES) == key


def test_found_is_the_fittest_where_accuracy_is_not_what_counts():
    by_likelihood = {**CANDIDATES, "fitness": [-1.0, -1.2, -1.1, -0.9]}
    assert Found(Search()).ensemble(by_likelihood) == CANDIDATES["candidates"][3][0]
    assert Found(Search(), max_split=3).ensemble(by_likelihood) == CANDIDATES["candidates"][0][0]


def test_a_training_is_known_when_its_search_is():
    search = Search(3, "{}", Supernet(3))
    unit = Training(3, "{}", Found(search))
    results = {}
    lookup = lambda u: results.get(u.key)  # noqa: E731
    assert unit.resolve(lookup) is None
    results[search.key] = CANDIDATES
    assert unit.resolve(lookup) is None  # the search's own needs count too
    results[search.supernet.key] = {}
    resolved = unit.resolve(lookup)
    assert resolved == Training(3, "{}", "s3:k3e1.k3e1.skip|k3e1|k3e2")
    assert resolved.key == Training(3, "{}", resolved.ensemble).key


def test_everything_is_done_once_and_in_order(tmp_path):
    store, done = Store(tmp_path / "studies", BASE), []
    store.begin()

    def run(unit):
        assert all(store.get(need) is not None for need in unit.needs)
        done.append(unit.key)
        return pretend(unit)

    result = work(UNITS, store, Local(run))
    assert not result.left and len(done) == len(set(done))
    assert len(contents(tmp_path / "studies" / "units")) == len(done)
    again = work(UNITS, Store(tmp_path / "studies", BASE), Local(lambda unit: 1 / 0))
    assert again.done == tuple(in_order(UNITS)) and set(again.done) == set(result.done)


def units_of(folder):
    return contents(folder / "units")


class Nodes:
    """An engine of three units at a time, which finish in random order; some of them fail."""

    def __init__(self, fails=lambda unit: False):
        self.waiting, self.fails, self.random = {}, fails, random.Random(0)

    def has_room(self, at_work):
        return at_work < 3

    def start(self, key, unit):
        assert key not in self.waiting and len(self.waiting) < 3
        self.waiting[key] = unit

    def finished(self):
        key = self.random.choice(list(self.waiting))
        unit = self.waiting.pop(key)
        failed = NeasError("engine: no memory.") if self.fails(unit) else (pretend(unit), 1.0)
        return [(key, failed)]


def test_a_cluster_leaves_what_one_process_leaves(tmp_path):
    for name, engine in (("one", Local(pretend)), ("many", Nodes())):
        store = Store(tmp_path / name, BASE)
        store.begin()
        assert not work(UNITS, store, engine).left
    assert units_of(tmp_path / "one") == units_of(tmp_path / "many")


def test_a_unit_that_fails_holds_up_only_what_needs_it(tmp_path, capsys):
    store = Store(tmp_path, BASE)
    store.begin()
    with pytest.raises(NeasError, match=r"^unit search.*units failed\): engine: no memory.$"):
        work(UNITS, store, Nodes(lambda unit: isinstance(unit, Search)))
    left = progress(UNITS, store).left
    assert left and all(isinstance(u, Search) or u.resolve(store.get) is None for u in left)
    assert capsys.readouterr().err.count("no memory") == sum(isinstance(u, Search) for u in left)


def test_lost_weights_are_made_again_first(tmp_path, capsys):
    store, did = Store(tmp_path, BASE), []
    store.begin()
    scores = Scores(0, "{}", Supernet(0), ("s4:k3e1.k3e1.skip.k3e1|.|.",))
    store.put(Supernet(0), pretend(Supernet(0)), 1.0)
    before = contents(tmp_path / "units")

    def run(unit):
        did.append(unit)
        (store.work(unit) / "shrink").mkdir(parents=True)
        (store.work(unit) / "shrink" / "alive.json").touch()
        return pretend(unit) | ({"training": "another"} if unit == Supernet(0) else {})

    assert not work([scores], store, Local(run), lost=store.without_weights).left
    assert did == [Supernet(0), scores]
    assert "came out otherwise than in supernet-" in capsys.readouterr().err
    assert before.items() <= contents(tmp_path / "units").items()


def test_a_time_limit_stops_behind_a_unit(tmp_path):
    store, now = Store(tmp_path, BASE), [0.0]
    store.begin()

    def clock():
        return now[0]

    def run(unit):
        now[0] += 50.0
        return pretend(unit)

    result = work(UNITS, store, Local(run, clock), seconds_limit=120.0, clock=clock)
    assert len(units_of(tmp_path)) == 3 and result.left
    assert json.loads((tmp_path / "seconds" / f"{UNITS[0].needs[0].key}.json").read_text()) == 50.0


def test_a_store_of_other_settings_is_refused_and_left_alone(tmp_path):
    store = Store(tmp_path, BASE)
    store.begin()
    store.put(UNITS[0].needs[0], {"x": 1}, 2.0)
    before = contents(tmp_path)
    changed = {**BASE, "shrink": {**BASE["shrink"], "remove": 5}}
    with pytest.raises(NeasError, match=r"another set of studies \(shrink.remove: was 4, is 5\)"):
        Store(tmp_path, changed)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name,text,words",
    [
        ("notes.txt", "mine", "holds files of something else"),
        ("study.json", "{", "no valid JSON"),
        ("study.json", "[]", "is not of format 'neas-study/1'"),
        ("study.json", '{"format": "neas-study/1"}', "has no base settings"),
    ],
)
def test_folders_of_something_else_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(NeasError, match=words):
        Store(tmp_path, BASE)
    assert contents(tmp_path) == before


def test_an_address_is_no_folder_of_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NeasError, match="model_dir: received 'gs://b/x', which is an address"):
        Store("gs://b/x", BASE)
    assert not contents(tmp_path)


def test_a_unit_file_of_another_study_is_refused(tmp_path):
    first, second = Store(tmp_path / "a", BASE), Store(tmp_path / "b", {**BASE, "num_paths": 3})
    unit = Supernet(0)
    for store in (first, second):
        store.begin()
    first.put(unit, {"x": 1}, 1.0)
    name = f"units/{unit.key}.json"
    (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    with pytest.raises(NeasError, match="is not of this study"):
        second.get(unit)


def test_names_and_limits_are_checked():
    assert chosen("all") == NAMES and chosen("paths, ranking") == ("paths", "ranking")
    for text in ("rankin", "", ",", "ranking,nothing"):
        with pytest.raises(NeasError, match="study: unknown name"):
            chosen(text)
    assert check_time_limit(2.0) == 120.0
    for minutes in (-1.0, float("nan"), float("inf")):
        with pytest.raises(NeasError, match="time_limit"):
            check_time_limit(minutes)


def test_progress_counts_what_is_needed_as_well(tmp_path):
    store = Store(tmp_path, BASE)
    store.begin()
    scores = Scores(0, "{}", Supernet(0), ("s4:k3e1.k3e1.skip.k3e1|.|.",))
    assert progress([scores], store).left == (Supernet(0), scores)
    store.put(Supernet(0), {}, 1.0)
    assert progress([scores], store).done == (Supernet(0),)
    assert dataclasses.replace(scores, seed=1).key != scores.key


def test_studies_begun_before_a_setting_existed_go_on_with_its_default(tmp_path):
    newer = {**BASE, "shrink": {**BASE.get("shrink", {}), "new": 1}}
    store = Store(tmp_path, BASE)
    store.begin()
    store.put(UNITS[0], {"x": 1}, 1.0)
    assert Store(tmp_path, newer, newer).get(UNITS[0]) == {"x": 1}
    with pytest.raises(NeasError, match=r"another set of studies \(shrink.new: was 1, is 2\)"):
        Store(tmp_path, {**BASE, "shrink": {**newer["shrink"], "new": 2}}, newer)


def test_studies_begun_before_there_was_a_fitness_were_by_accuracy(tmp_path):
    search = {"population": 4}
    Store(tmp_path, {**BASE, "search": search}).begin()
    papers = {**BASE, "search": {**search, "fitness": "accuracy"}}
    todays = {**BASE, "search": {**search, "fitness": "log_likelihood"}}
    Store(tmp_path, papers, todays)
    with pytest.raises(NeasError, match=r'search.fitness: was "accuracy", is "log_likelihood"'):
        Store(tmp_path, todays, todays)
