"""Bounds on what functions say of ensembles: what a line means, sampling, and what is refused."""

import dataclasses
import functools
import math

import numpy as np
import pytest
from spaces_for_tests import TOY, all_ensembles, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.constraint_functions import (
    Constraint,
    additive,
    parse,
    settings_of,
    source_digest,
)
from neas_tf.cost.constraints import NothingFound, load_constraints
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

SHRUNK = some_shrunk()
OWN = """
import math
def widest(architecture, space):
    return max(row.count("k5e3") for row in architecture.paths) + 0.5
def raises(architecture, space): raise ValueError("no such\\nlayer")
def nan(architecture, space): return math.nan
def text(architecture, space): return "many"
def nothing(architecture, space): pass
def macs(architecture, space): return 1
number = 3
def pairs(architecture, space): return len(set(architecture.paths[0])) ** 2
pairs.additive = True
def halves(architecture, space): return 0.3 * architecture.num_layers
halves.additive = True
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, `own_bounds`."""
    (tmp_path / "own_bounds.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    import sys

    sys.modules.pop("own_bounds", None)


@additive
def weighted(architecture, space):
    """A made-up sum: each place and operator its own price."""
    index = space.operator_index
    split, total = architecture.split_point, 1000
    for k, row in enumerate(architecture.paths):
        total += 77 + sum(
            (m + 1) * (10 + index(name) ** 2) for m, name in enumerate(row) if m >= split or not k
        )
    return total


@pytest.mark.parametrize("num_paths", [1, 2, 3])
@pytest.mark.parametrize("ends", [(1, 4), (0, 3), (2, 2), (0, 0), (4, 4)])
def test_a_sum_over_layers_becomes_a_column(num_paths, ends):
    space = dataclasses.replace(TOY, min_split=ends[0], max_split=ends[1])
    name = settings_of([Constraint(weighted, max=10**9)])
    constraints = load_constraints(name, space, num_paths)
    table = CostTable(space, columns=constraints.columns)
    shrunk = ShrunkSpace.full(space, num_paths)
    rng = np.random.default_rng(0)
    sampler = BudgetSampler(shrunk, table, Budget())
    arrays = np.array([sampler.sample_array(rng) for _ in range(50)])
    architectures = [sampler.sample(rng) for _ in range(50)]
    for a in architectures:
        assert table.cost(a).others == {"weighted": weighted(a, space)}
        assert constraints.all_values(a) == {"weighted": weighted(a, space)}
    many = table.costs(arrays, num_paths, ("weighted",))["weighted"]
    low, high = table.attainable_range(shrunk, "weighted")
    assert low <= many.min() and many.max() <= high


def test_the_sampler_keeps_all_bounds_and_loses_no_ensemble(own):
    lines = [*settings_of([Constraint(weighted, max=1450)]), "own_bounds:widest<=1.5"]
    constraints = load_constraints(lines, TOY, 2)
    table = CostTable(TOY, columns=constraints.columns)
    budget = dataclasses.replace(Budget(max_macs=200_000_000), others=constraints.limits())
    draw = constraints.sampler(BudgetSampler(SHRUNK, table, budget).sample)

    def fits(a):
        return weighted(a, TOY) <= 1450 and max(row.count("k5e3") for row in a.paths) <= 1

    expected = {a.key: p for a, p in all_ensembles(SHRUNK) if fits(a)}
    drawn = [draw(np.random.default_rng(i)).key for i in range(2000)]
    assert set(drawn) <= set(expected) and len(expected) > 40
    likely = sorted(expected, key=expected.__getitem__)[-20:]
    share = sum(expected[key] for key in likely) / sum(expected.values())
    assert np.mean([key in set(likely) for key in drawn]) == pytest.approx(share, abs=0.05)
    # The same seed, the same ensemble.
    assert drawn[:20] == [draw(np.random.default_rng(i)).key for i in range(20)]


def test_what_cannot_be_kept_ends_with_what_was_met(own):
    constraints = load_constraints(["own_bounds:widest<=0.25"], TOY, 2)
    draw = constraints.sampler(BudgetSampler(SHRUNK, CostTable(TOY), Budget()).sample)
    message = (
        r"search.constraints: own_bounds:widest<=0.25 kept by none of 5,000 random ensembles inside "
        r"the budget; expected bounds that the space attains: widest had 0.5 to [34].5\."
    )
    with pytest.raises(NothingFound, match=message):
        draw(np.random.default_rng(0))
    constraints = load_constraints(settings_of([Constraint(weighted, max=5)]), TOY, 2)
    table = CostTable(TOY, columns=constraints.columns)
    budget = dataclasses.replace(Budget(), others=constraints.limits())
    with pytest.raises(NeasError, match=r"constraints weighted: received 5, expected at least 1,2"):
        budget.check_attainable(SHRUNK, table)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("own_bounds:widest", "received 'own_bounds:widest', expected 'function<=bound'"),
        ("own_bounds:widest=5", "expected 'function<=bound'"),
        ("own_bounds:widest<5", "expected 'function<=bound'"),
        ("own_bounds:widest<=", "expected 'function<=bound'"),
        (7, "received 7, expected 'function<=bound'"),
        (
            "own_bounds:widest<=5parsec",
            "bound of own_bounds:widest: received '5parsec', expected a",
        ),
        ("own_bounds:widest<=nan", "expected a number such as"),
        ("peak_memory<=5", "received 'peak_memory', expected module:function, or one of peak_act"),
        ("own_bounds.py:widest<=5", r"importing own_bounds\.py raises ModuleNotFoundError"),
        ("no_such_module:f<=5", "importing no_such_module raises ModuleNotFoundError"),
        ("own_bounds:deep<=5", "module 'own_bounds' has no 'deep'"),
        ("__main__:deep<=5", "known there only: call neas.search again"),
        ("own_bounds:number<=5", r"number: received 3, expected a function\(architecture, space\)"),
        ("own_bounds:raises<=5", "raises raises ValueError: no such layer for the ensemble s"),
        ("own_bounds:nan<=5", "nan gives nan for the ensemble s.*expected a finite number"),
        ("own_bounds:text<=5", "text gives 'many' for the ensemble"),
        ("own_bounds:nothing<=5", "nothing gives None for the ensemble"),
        ("own_bounds:macs<=5", "expected a function of another name, as 'macs' is a cost already"),
        ("own_bounds:pairs<=5", "pairs is marked additive and is no sum over layers: for s"),
        ("own_bounds:halves<=5", "additive halves: received 1.2, expected whole numbers"),
    ],
)
def test_one_sentence_for_what_is_wrong(line, message, own):
    with pytest.raises(NeasError, match=message) as caught:
        load_constraints([line], TOY, 2)
    assert str(caught.value).startswith("search.constraints") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["own_bounds:widest<=5", "own_bounds:widest<=4"], "expected one bound of this kind"),
        (["own_bounds:widest<=5", "own_bounds:widest>=6"], "expected bounds that go together"),
        (
            ["file_size<=5", "neas_tf.ensemble.deployed_costs:file_size<=6"],
            "one bound of this kind",
        ),
    ],
)
def test_lines_that_do_not_go_together(lines, message, own):
    with pytest.raises(NeasError, match=message):
        parse(lines)


def test_bounds_have_units_and_lines_an_identity(own):
    lines = ["file_size_int8 <= 1.5MB", "file_size_int8>=500kB", "own_bounds:widest>=-0.5"]
    bounds = parse(lines)
    assert [bound.value for bound in bounds] == [1_500_000, 500_000, -0.5]
    assert [bound.text for bound in bounds] == [
        "file_size_int8<=1500000",
        "file_size_int8>=500000",
        "own_bounds:widest>=-0.5",
    ]
    assert parse(["file_size_int8<=1500kB"])[0].identity() == bounds[0].identity()
    assert [bound.additive for bound in bounds] == [True, True, False]


def test_functions_of_a_session():
    def first(architecture, space):
        return 1

    def second(architecture, space):
        return 2

    lines = settings_of([Constraint(first, max="3"), "file_size<=5MB", Constraint(second, min=1)])
    assert [bound.function for bound in parse(lines)][::2] == [first, second]
    assert source_digest(first) != source_digest(second)
    assert source_digest(functools.partial(first, 1)) != source_digest(functools.partial(first, 2))
    assert settings_of(["file_size<=1"]) == settings_of("file_size<=1") == ["file_size<=1"]
    (shipped,) = settings_of([Constraint(parse(["file_size<=1"])[0].function, max=9)])
    assert shipped == "file_size<=9"
    two = (lambda a, s: 1, lambda a, s: 2)
    for bad, message in (
        ([Constraint(f, max=1) for f in two], "two of this name"),
        ([first], r"expected Constraint\(function, max=…\)"),
    ):
        with pytest.raises(NeasError, match=message):
            settings_of(bad)
    with pytest.raises(
        NeasError, match=r"bound of .*first: received None, expected max=… or min=…"
    ):
        Constraint(first)
    with pytest.raises(NeasError, match="received 5, expected a function"):
        Constraint(5, max=1)


def test_shipped_ones_in_the_papers_space():
    lines = ["file_size_int8<=8MB", "peak_activation_bytes_int8<=2.5MB"]
    space = SearchSpace()
    constraints = load_constraints(lines, space, 2)
    table = CostTable(space, columns=constraints.columns)
    budget = dataclasses.replace(Budget(max_macs=400_000_000), others=constraints.limits())
    full = ShrunkSpace.full(space, 2)
    draw = constraints.sampler(BudgetSampler(full, table, budget, even_splits=True).sample)
    for seed in range(3):
        a = draw(np.random.default_rng(seed))
        values = constraints.all_values(a)
        assert values["file_size_int8"] <= 8_000_000 and table.cost(a).macs <= 400_000_000
        assert values["peak_activation_bytes_int8"] <= 2_500_000
        assert math.isfinite(sum(values.values()))
