import dataclasses
import functools
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_tables import made_up_table
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.cost.budget import Budget, latency_bound
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.cost_table import METRICS, CostTable
from neas_tf.cost.latency_plan import layer_key, make_plan, space_keys, stem_key
from neas_tf.cost.latency_table import METRIC, LatencyTable, load_table, milliseconds
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.space.zoo import load_space

TABLE = made_up_table(TOY)
COSTS = CostTable(TOY, TABLE)
PAPER = SearchSpace()
MOBILE = load_space(project_file("configs", "spaces", "mobile.yaml"))
SHRUNK = some_shrunk()


def by_hand(table, architecture, space):
    """The prediction, part by part."""
    layers = [stem_key(space)]
    for layer, *names in zip(space.layers, *architecture.paths, strict=True):
        own = names[:1] if layer.number <= architecture.split_point else names
        layers += [layer_key(layer, name) for name in own if name != "skip"]
    heads = [space_keys(space)[-1]] * architecture.num_paths
    total = sum(round(table.scale * table.entries[key]) for key in [*layers, *heads])
    return total + table.constant


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0.5, 2.0), st.integers(-50, 10**6))
def test_predictions_are_sums_and_agree_with_the_cost_table(seed, paths, scale, constant):
    table = made_up_table(PAPER, paths, scale=scale, constant=constant)
    shrunk = ShrunkSpace.full(PAPER, paths)
    ensemble = sampling.uniform(shrunk, np.random.default_rng(seed))
    expected = by_hand(table, ensemble, PAPER)
    assert table.predict_ns(ensemble, PAPER) == expected
    costs = CostTable(PAPER, table)
    assert costs.cost(ensemble).latency_ns == expected
    many = costs.costs(ensemble.to_array(PAPER), paths, (METRIC,))[METRIC]
    assert many.tolist() == [expected] and many.dtype == np.int64


def test_the_column_leaves_the_others_alone():
    plain, ensemble = CostTable(TOY), next(iter(all_ensembles(SHRUNK)))[0]
    assert plain.metrics == METRICS and COSTS.metrics == (*METRICS, METRIC)
    assert plain.cost(ensemble) == dataclasses.replace(COSTS.cost(ensemble), latency_ns=None)
    assert COSTS.operators[METRIC][:, TOY.operator_index("skip")].tolist() == [0] * 4


def test_bounds_on_latency_are_decided_as_those_on_macs():
    ensembles = [e for e, _ in all_ensembles(SHRUNK)]
    values = np.array([COSTS.cost(e).latency_ns for e in ensembles])
    assert COSTS.attainable_range(SHRUNK, METRIC) == (values.min(), values.max())
    Budget(max_latency_ns=int(values.min())).check_attainable(SHRUNK, COSTS)
    text = (
        rf"search\.max_latency_ms: received .* ms, expected at least {milliseconds(values.min())}"
    )
    with pytest.raises(NeasError, match=text):
        Budget(max_latency_ns=int(values.min()) - 1).check_attainable(SHRUNK, COSTS)
    budget = Budget(max_latency_ns=int(np.quantile(values, 0.3)))
    inside = [e for e, v in zip(ensembles, values, strict=True) if v <= budget.max_latency_ns]
    sampler, rng = BudgetSampler(SHRUNK, COSTS, budget), np.random.default_rng(0)
    drawn = {sampler.sample(rng).key for _ in range(300)}
    assert len(drawn) > 100 and drawn <= {e.key for e in inside}


@functools.cache
def all_costs():
    arrays = np.stack([e.to_array(TOY) for e, _ in all_ensembles(SHRUNK)])
    return COSTS.costs(arrays, 2, COSTS.metrics)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.0, 0.6), st.floats(0.0, 1.0))
def test_latency_and_macs_together(share, macs_share):
    """The verdict on two bounds is that of trying all ensembles."""
    costs = all_costs()
    budget = Budget(
        max_latency_ns=int(np.quantile(costs[METRIC], share)),
        min_macs=int(np.quantile(costs["macs"], macs_share)),
    )
    fits = budget.admits_each(costs)
    assert budget.attainable(SHRUNK, COSTS) == fits.any()
    if fits.any():
        sample = BudgetSampler(SHRUNK, COSTS, budget).sample(np.random.default_rng(1))
        assert budget.admits(COSTS.cost(sample))


def test_two_bounds_that_no_ensemble_keeps_are_named_with_what_is_left():
    low, _ = COSTS.attainable_range(SHRUNK, METRIC)
    _, most = COSTS.attainable_range(SHRUNK, "macs")
    text = (
        r"search\.min_macs, search\.max_latency_ms: received .* with min_macs the least predicted "
        r"latency is .* ms, with max_latency_ms the most MACs are [\d,]+\."
    )
    with pytest.raises(NeasError, match=text):
        Budget(max_latency_ns=low, min_macs=most).check_attainable(SHRUNK, COSTS)


def test_the_paper_space_decides_two_bounds_quickly():
    """Fronts of (latency, MACs) stay small enough."""
    costs = CostTable(PAPER, made_up_table(PAPER))
    shrunk = ShrunkSpace.full(PAPER)
    low, high = costs.attainable_range(shrunk, METRIC)
    budget = Budget(max_latency_ns=(2 * low + high) // 3, min_macs=500_000_000)
    assert budget.attainable(shrunk, costs) in (True, False)


@pytest.mark.parametrize(
    ("value", "bound"), [(0, None), (0.0, None), (8.5, 8_500_000), (3, 3_000_000), (1e-7, None)]
)
def test_milliseconds_of_the_config(value, bound):
    assert latency_bound(value) == bound


@pytest.mark.parametrize("bad", [-1, float("nan"), 1e9, "5", True])
def test_bad_milliseconds_are_refused(bad):
    with pytest.raises(NeasError, match=r"search\.max_latency_ms"):
        latency_bound(bad)


def test_file_round_trip(tmp_path):
    table = made_up_table(TOY, measurement={"threads": 1}, fit={}, validation={"x": 1})
    table.save(tmp_path / "lut.json")
    found = load_table(tmp_path / "lut.json")
    assert found == table and found.validation == {"x": 1}
    assert found.fingerprint() == table.fingerprint()
    value = json.loads((tmp_path / "lut.json").read_text())
    assert value["format"] == "neas-latency-table/1"
    other = dataclasses.replace(table, scale=1.5)
    assert other.fingerprint() != table.fingerprint()
    assert dataclasses.replace(table, made_for="x").fingerprint() == table.fingerprint()


def change(**changes):
    return lambda value: value.update(changes)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (change(format="neas-latency-table/9"), "format: received 'neas-latency-table/9'"),
        (change(entries={}), "entries"),
        (change(entries={"stem": -1}), r"entries\['stem'\]: received -1"),
        (change(entries={"stem": 1.5}), r"entries\['stem'\]: received 1.5"),
        (change(scale=0.0), "scale: received 0.0"),
        (change(scale="1"), "scale: received '1'"),
        (change(num_paths=0), "num_paths: received 0"),
        (change(quantize="int4"), "quantize: unknown name 'int4'"),
        (change(constant=1.5), "constant: received 1.5"),
        (change(constant=77), "fingerprint: .* changed by hand"),
        (change(extra=1), "unknown name 'extra'"),
        (change(device=3), "device: received 3"),
        (change(measurement=[]), "measurement: received"),
        (lambda value: value.pop("entries"), "entries too"),
        (lambda value: value.clear(), "format: received None"),
    ],
)
def test_bad_files_are_refused_with_one_sentence(tmp_path, edit, text):
    value = TABLE.to_dict()
    edit(value)
    path = tmp_path / "lut.json"
    path.write_text(json.dumps(value))
    with pytest.raises(NeasError, match=text) as caught:
        load_table(path, "search.latency_table")
    assert str(caught.value).startswith("search.latency_table") and "\n" not in str(caught.value)


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(NeasError, match=r"search\.latency_table: no file at"):
        load_table(tmp_path / "none.json", "search.latency_table")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(NeasError, match="no valid JSON"):
        load_table(tmp_path / "bad.json")


def test_a_table_of_another_space_or_number_of_paths_is_refused():
    with pytest.raises(NeasError, match=r"with 2 paths, but num_paths is 3; measure .*=3"):
        TABLE.check_fits(TOY, 3)
    wider = dataclasses.replace(TOY, operators=(*TOY.operators, "k7e2"), name="wider")
    with pytest.raises(NeasError, match=r"'toy' and lacks 'k7e2 8>8 s1 16x12', .*'wider'"):
        TABLE.check_fits(wider, 2)
    larger = dataclasses.replace(TOY, input_size=(32, 32))
    with pytest.raises(NeasError, match=r"lacks 'stem 1>8 k3 s1 32x32 block8s1'.* and \d+ more"):
        CostTable(larger, TABLE)
    with pytest.raises(NeasError, match=r"split point|layers"):
        TABLE.predict_ns(Architecture.from_key("s1:k3e2|k3e2|k3e2"), TOY)


def test_a_table_serves_spaces_that_need_less_of_it():
    """Fewer operators and other split points change no shape."""
    narrow = dataclasses.replace(TOY, operators=("k5e3", "skip"), min_split=2, name="narrow")
    costs = CostTable(narrow, TABLE)
    ensemble = Architecture(2, (("k5e3", "skip", "k5e3", "skip"),) * 2)
    assert costs.cost(ensemble).latency_ns == TABLE.predict_ns(ensemble, TOY)


@pytest.mark.parametrize("space", [TOY, PAPER, MOBILE], ids=["toy", "paper", "mobile"])
def test_the_plan_measures_every_entry_as_a_difference(space):
    plan = make_plan(space)
    assert set(plan.entries) == set(space_keys(space))
    for difference in plan.entries.values():
        longer = plan.probes[difference.longer]
        if difference.shorter:
            shorter = plan.probes[difference.shorter]
            assert longer[: len(shorter)] == shorter
            assert len(longer) - len(shorter) == difference.copies
        else:
            assert [piece.kind for piece in longer] == ["stem"]
    for pieces in plan.probes.values():
        shapes = [p.layer for p in pieces if p.kind == "layer"]
        for before, after in itertools.pairwise(shapes):
            assert (after.c_in, after.in_size) == (before.c_out, before.out_size)


def test_spaces_of_several_families():
    """Operators are names and shapes; the head depends on the space's activation."""
    keys = space_keys(MOBILE)
    assert any(key.startswith("uib_s5m3e4 ") for key in keys)
    assert any(key.startswith("fused_k3e2_relu ") for key in keys)
    swish = dataclasses.replace(MOBILE, activation="swish")
    assert space_keys(swish)[0] != keys[0] and space_keys(swish)[-1] != keys[-1]
    ensemble = sampling.uniform(ShrunkSpace.full(MOBILE), np.random.default_rng(0))
    table = made_up_table(MOBILE)
    assert table.predict_ns(ensemble, MOBILE) == by_hand(table, ensemble, MOBILE)


def test_describe_prints_the_prediction(tmp_path):
    made_up_table(PAPER).save(tmp_path / "lut.json")
    command = [sys.executable, "-m", "neas_tf.describe", "--arch=neas_s"]
    command += [f"--latency_table={tmp_path / 'lut.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ms predicted (float32, a phone)" in done.stdout
    done = subprocess.run(
        [*command, "--input_size=192"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "lacks 'stem" in done.stderr and done.stdout == ""


def test_importing_needs_no_tensorflow():
    code = "import neas_tf.cost.latency_table, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_load_gives_a_frozen_table():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TABLE.scale = 2.0
    assert isinstance(LatencyTable.from_dict(TABLE.to_dict()), LatencyTable)
