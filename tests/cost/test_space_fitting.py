"""Spaces that fit a budget, over budgets, images and numbers of paths."""

import dataclasses

import pytest

from neas_tf.common.errors import NeasError
from neas_tf.config.parse import load_config
from neas_tf.config.resolve import resolve_space
from neas_tf.cost.budget import Budget
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.space_fitting import fit_space
from neas_tf.data import DataConfig, load
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

MACS = (1, 3, 10, 30, 100, 300, 600)
SIDES = (16, 32, 64, 128, 224)


@pytest.mark.parametrize("millions", MACS)
@pytest.mark.parametrize("side", SIDES)
def test_every_budget_is_attainable(millions, side):
    for paths in (1, 2, 3) if millions in (3, 300) else (2,):
        bound = millions * 10**6
        fit = fit_space((side, side), 3, 10, paths, {"macs": bound})
        full = ShrunkSpace.full(fit.space, paths)
        Budget(max_macs=bound).check_attainable(full, CostTable(fit.space))
        low, high = fit.ranges["macs"]
        assert fit.share == (bound - low) / (high - low)
        # A million for 224×224 pixels is hardly enough for a stem.
        tight = (millions, side) in ((1, 128), (1, 224), (3, 224))
        assert 0.05 <= fit.share < 0.8 if tight else 0.35 <= fit.share < 0.46
        assert min(fit.space.layers[-1].out_size) >= 4


def test_the_paper_s_space_is_one_of_the_family():
    """NEAS-S's budget at 224² gives the paper's stages, strides and operators, at another width."""
    fit = fit_space((224, 224), 3, 1000, 2, {"macs": 301_500_768})
    paper = SearchSpace()
    same = ("operators", "min_split", "max_split", "stem_stride", "block_stride")
    assert all(getattr(fit.space, name) == getattr(paper, name) for name in same)
    shapes = [[(s.layers, s.stride) for s in space.stages] for space in (fit.space, paper)]
    assert shapes[0] == shapes[1]


def test_the_tighter_of_two_bounds_decides():
    macs = fit_space((32, 32), 3, 10, 2, {"macs": 30_000_000})
    both = fit_space((32, 32), 3, 10, 2, {"macs": 30_000_000, "params": 100_000})
    assert both.space.stages[-1].channels < macs.space.stages[-1].channels
    assert 0.35 <= both.shares["params"] < 0.46 < both.shares["macs"]
    params = fit_space((32, 32), 3, 10, 2, {"params": 5_000_000})
    assert 0.35 <= params.share < 0.46


def test_too_little_is_refused_with_the_least():
    with pytest.raises(NeasError, match=r"max_macs: received 50,000, .* of 2 paths has [\d,]+; sm"):
        fit_space((64, 64), 3, 10, 2, {"macs": 50_000})


def test_a_config_is_fitted_once_and_stays_so():
    config = load_config(
        "neas_quickstart", (), {"space.scale": "auto", "search.max_macs": "2M", "num_paths": 3}
    )
    info = load(DataConfig())
    space = resolve_space(config, info)
    assert space.name == "auto" and space.num_layers == 6 and space.input_channels == 1
    assert config.space.scale == "fitted"
    assert resolve_space(config, info) == space
    again = load_config("neas_quickstart", (), {"space": config.space.as_dict(), "num_paths": 3})
    assert resolve_space(again, info) == space
    for changes, said in (
        ({"search.max_macs": 0}, "space.scale: received 'auto', expected search.max_macs or"),
        ({"space.scale": "wide"}, "space.scale: received 'wide', expected 'auto'"),
    ):
        with pytest.raises(NeasError, match=said):
            resolve_space(
                load_config("neas_quickstart", (), {"space.scale": "auto", **changes}), info
            )


def test_a_fit_tells_where_the_bound_lies():
    fit = fit_space((32, 32), 3, 10, 2, {"macs": 10_000_000})
    low, high = fit.ranges["macs"]
    assert fit.text() == (
        f"9 layers of {'-'.join(str(s.channels) for s in fit.space.stages)} channels at 32×32; its "
        f"ensembles have {low:,} to {high:,} MACs (the bound is at {fit.share:.0%})"
    )
    assert dataclasses.replace(fit, shares={"macs": 2.0}).text().endswith("(the bound is at 100%)")
