"""The rules of Algorithm 1: what is dropped, what is kept, and what the report says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.shrinking.drops import (
    Drop,
    ShrinkSettings,
    accuracy_scores,
    apply_drops,
    choose_drops,
    combination_support,
)
from neas_tf.shrinking.measurements import LayerScores, Measurements
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace

SPACE = SearchSpace(
    input_size=(8, 8),
    num_classes=4,
    stages=(Stage(8, 2, 2), Stage(16, 3, 2)),
    operators=("k3e4", "k3e6", "k5e4", "skip"),
    min_split=2,
    max_split=5,
)  # layers 1, 2 never split; 3 has 3 pairs, 4 and 5 have 6


def random_scores(shrunk, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.uniform(size=len(rows)) for rows in shrunk.alive]


def settings_of(remove=4, **more):
    return ShrinkSettings(remove=remove, **more)


def sample(shrunk, num, seed=0):
    """Ensembles of a shrunk space with made-up distances and accuracies."""
    rng = np.random.default_rng(seed)
    space, paths = shrunk.space, shrunk.num_paths
    rows = []
    for _ in range(num):
        split = int(rng.choice(space.split_points))
        columns = np.zeros((paths, space.num_layers), int)
        for m in range(space.num_layers):
            if m + 1 <= split:
                columns[:, m] = rng.choice(shrunk.alive_operator_indices[m])
            else:
                choices = shrunk.alive_combination_indices[m]
                columns[:, m] = rng.permutation(choices[rng.integers(len(choices))])
        rows.append([split, *columns.ravel()])
    distances = rng.gamma(3.0, 2.0, (num, paths, paths))
    accuracies = rng.uniform(0.3, 0.9, (num, paths))
    return Measurements(np.array(rows), distances, accuracies)


def test_lowest_scores_go_in_order():
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = random_scores(shrunk)
    drops = choose_drops(shrunk, scores, settings_of(4))
    everything = sorted(
        (score, number, row)
        for number in (3, 4, 5)
        for score, row in zip(scores[number - 1], shrunk.alive[number - 1], strict=True)
    )
    assert [(d.score, d.layer, d.operators) for d in drops] == everything[:4]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 20), st.integers(2, 3))
def test_rules(seed, remove, threshold, paths):
    """At most k go, every layer keeps one, the threshold holds, the space only shrinks."""
    space = SPACE if paths == 2 else SearchSpace(**{**vars_of(SPACE), "stages": (Stage(8, 3, 2),)})
    shrunk = ShrunkSpace.full(space, paths)
    config = settings_of(remove, min_combinations=threshold)
    for step in range(3):
        drops = choose_drops(shrunk, random_scores(shrunk, seed + step), config)
        after = apply_drops(shrunk, drops)
        removable = sum(len(rows) - 1 for rows in shrunk.alive[space.min_split :])
        room = max(shrunk.num_combinations - threshold, 0)
        assert len(drops) == min(remove, removable, room)
        assert after.num_combinations == shrunk.num_combinations - len(drops)
        for rows, before in zip(after.alive, shrunk.alive, strict=True):
            assert rows and set(rows) <= set(before)
        assert after.alive[: space.min_split] == shrunk.alive[: space.min_split]
        shrunk = after


def vars_of(space):
    values = {name: getattr(space, name) for name in space.__dataclass_fields__}
    return {**values, "min_split": 1, "max_split": 3}


def test_ties_go_by_layer_then_order():
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = [np.zeros(len(rows)) for rows in shrunk.alive]
    drops = choose_drops(shrunk, scores, settings_of(3))
    expected = [(3, row) for row in shrunk.alive[2][:2]] + [(4, shrunk.alive[3][0])]
    assert [(d.layer, d.operators) for d in drops] == expected


def test_budget_guard_passes_over():
    """The cheapest combination of a layer stays when nothing else meets the budget."""
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = random_scores(shrunk)
    needed = shrunk.alive[3][int(np.argmin(scores[3]))]
    drops = choose_drops(
        shrunk, scores, settings_of(40), keeps_budget=lambda s: needed in s.alive[3]
    )
    after = apply_drops(shrunk, drops)
    assert after.alive[3] == (needed,)
    assert [len(rows) for rows in after.alive[2:]] == [1, 1, 1]
    assert choose_drops(shrunk, scores, settings_of(40), keeps_budget=lambda s: False) == []


def test_unmeasured_combinations_stay():
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = random_scores(shrunk)
    scores[3][2] = np.nan
    support = [np.full(len(rows), 9) for rows in shrunk.alive]
    support[4][1] = 2
    config = settings_of(40, min_pair_count=3)
    dropped = {(d.layer, d.operators) for d in choose_drops(shrunk, scores, config, None, support)}
    assert (4, shrunk.alive[3][2]) not in dropped
    assert (5, shrunk.alive[4][1]) not in dropped
    assert len(dropped) == 2 + 5 + 5


def test_metric_none_drops_nothing():
    shrunk = ShrunkSpace.full(SPACE, 2)
    assert choose_drops(shrunk, random_scores(shrunk), settings_of(9, metric="none")) == []


def test_shared_layers_have_their_own_quota():
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = random_scores(shrunk)
    scores[0] *= 1e-6  # single operators do not compete with combinations
    config = settings_of(5, shrink_shared_layers=True)
    drops = choose_drops(shrunk, scores, config)
    shared = [d for d in drops if d.layer <= 2]
    assert [d.layer for d in shared] == [1, 1, 2]  # ⌈5 · 7 / 15⌉, and layer 1 keeps its last
    assert len(drops) - len(shared) == 5
    assert [len(rows) for rows in apply_drops(shrunk, drops).alive[:2]] == [1, 3]


def test_scores_must_fit_the_space():
    shrunk = ShrunkSpace.full(SPACE, 2)
    scores = random_scores(shrunk)
    scores[2] = scores[2][:-1]
    with pytest.raises(NeasError, match="scores of layer 3"):
        choose_drops(shrunk, scores, settings_of())


def test_accuracy_scores_and_support():
    shrunk = ShrunkSpace.full(SPACE, 2)
    quality = np.tile([0.1, 0.2, 0.3, 0.4], (5, 1))
    operators = np.full((5, 4), 6)
    operators[3, 1] = 0
    pairs = np.full((5, 4, 4), 3)
    pairs[4, 0, 2] = pairs[4, 2, 0] = 1
    scores = LayerScores(np.full((5, 4, 4), 0.5), quality, pairs, operators)
    result = accuracy_scores(shrunk, scores)
    np.testing.assert_allclose(result[4], [0.15, 0.2, 0.25, 0.25, 0.3, 0.35])
    assert [np.isnan(v) for v in result[3]] == ["k3e6" in row for row in shrunk.alive[3]]
    np.testing.assert_array_equal(combination_support(shrunk, scores)[4], [3, 1, 3, 3, 3, 3])
    np.testing.assert_array_equal(combination_support(shrunk, scores, "accuracy")[4], [6] * 6)


def test_apply_drops_refuses_what_is_not_there():
    shrunk = ShrunkSpace.full(SPACE, 2)
    drop = Drop(4, ("k3e4", "k3e6"), 0.1)
    smaller = apply_drops(shrunk, [drop])
    with pytest.raises(NeasError, match="layer 4"):
        apply_drops(smaller, [drop])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("metric", "diversty", "Did you mean 'diversity'"),
        ("remove", -1, "shrink.remove"),
        ("num_samples", 0, "shrink.num_samples"),
        ("beta", "automatic", "'auto' or a number > 0"),
        ("beta", float("nan"), "shrink.beta"),
        ("gamma", 0, "shrink.gamma"),
        ("quality_power", True, "shrink.quality_power"),
        ("min_pair_count", 0, "shrink.min_pair_count"),
        ("shrink_shared_layers", 1, "true or false"),
        ("min_combinations", 1.5, "shrink.min_combinations"),
    ],
)
def test_bad_settings(field, value, message):
    with pytest.raises(NeasError, match=message):
        ShrinkSettings(**{field: value})


@pytest.mark.parametrize("metric", ["diversity", "accuracy", "none"])
@pytest.mark.parametrize(("paths", "heterogeneous"), [(2, True), (2, False), (3, True)])
def test_whole_shrink_and_its_report(metric, paths, heterogeneous):
    from neas_tf.shrinking.shrink import shrink

    first = shrunk = ShrunkSpace.full(SPACE, paths, heterogeneous)
    config = ShrinkSettings(metric=metric, remove=2, beta="auto", min_pair_count=1)
    for index in (1, 2):
        measurements = sample(shrunk, 400, seed=index)
        before = shrunk
        shrunk, report = shrink(before, measurements, config, index=index, step=10, epoch=0.5)
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert ShrunkSpace.from_dict(report["alive"], SPACE) == shrunk
        assert report["format"] == "neas-shrink/1" and report["metric"] == metric
        assert report["index"] == index and report["num_samples"] == 400
        assert report["beta"] == pytest.approx(1 / report["distance_quantiles"]["median"])
        assert len(report["dropped"]) == (0 if metric == "none" else 2)
        flagged = [
            {"layer": layer["layer"], "operators": row["operators"], "score": row["score"]}
            for layer in report["layers"]
            for row in layer["combinations"]
            if row["dropped"]
        ]
        assert sorted(flagged, key=lambda d: d["score"]) == report["dropped"]
        for layer, entry in enumerate(report["layers"]):
            rows = [tuple(c["operators"]) for c in entry["combinations"] if c["alive_before"]]
            assert tuple(rows) == before.alive[layer]
            assert len(entry["combinations"]) == len(first.alive[layer])
            n = len(entry["operators"])
            assert np.shape(entry["pair_counts"]) == (n, n) == np.shape(entry["similarity"])
            assert len(entry["quality"]) == len(entry["operator_counts"]) == n
            assert [entry["similarity"][i][i] for i in range(n)] == [1.0] * n
    if metric != "none":
        assert first.num_combinations - shrunk.num_combinations == 4


def test_shrink_refuses_foreign_measurements():
    from neas_tf.shrinking.shrink import shrink

    measurements = sample(ShrunkSpace.full(SPACE, 2), 5)
    with pytest.raises(NeasError, match="measurements"):
        shrink(ShrunkSpace.full(SPACE, 3), measurements, ShrinkSettings(), index=1, step=0, epoch=0)


@pytest.mark.parametrize(
    ("paths", "remove", "gone"),
    [(2, 0, 0), (2, 3, 2), (2, 4, 2), (2, 20, 10), (3, 6, 1), (3, 7, 2)],
)
def test_counted_in_orders_fewer_go(paths, remove, gone):
    """K! orders of a combination of different operators count each, as in A_N^K."""
    wide = dict.fromkeys(("min_split",), 1) | {"max_split": 5}
    space = SearchSpace(**{**{n: getattr(SPACE, n) for n in SPACE.__dataclass_fields__}, **wide})
    shrunk = ShrunkSpace.full(space, paths)
    scores = random_scores(shrunk)
    drops = choose_drops(shrunk, scores, settings_of(remove, count_orders=True))
    assert len(drops) == gone
    assert drops == choose_drops(shrunk, scores, settings_of(gone))


def test_a_combination_that_repeats_an_operator_has_one_order():
    shrunk = ShrunkSpace.full(SPACE, 2, heterogeneous=False)
    scores = [np.full(len(rows), 1.0) for rows in shrunk.alive]
    repeated = shrunk.alive[4].index(("k3e4", "k3e4"))
    scores[4][repeated] = 0.0  # counts 1
    scores[4][shrunk.alive[4].index(("k3e4", "skip"))] = 0.1  # counts 2
    drops = choose_drops(shrunk, scores, settings_of(3, count_orders=True))
    assert [drop.operators for drop in drops] == [("k3e4", "k3e4"), ("k3e4", "skip")]


@pytest.mark.parametrize("name", ["batch_norm", "count_orders"])
def test_unknown_values_of_the_choices_are_refused(name):
    with pytest.raises(NeasError, match=f"shrink.{name}: .*'no'"):
        settings_of(**{name: "no"})
