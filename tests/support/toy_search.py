"""Small spaces, a blind sampler, costs and an objective for the tests of the search."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import strategies as st

from neas_tf.search.candidate import Score
from neas_tf.search.evolution import run_search
from neas_tf.search.history import History
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

OPERATORS = ("k3e4", "k5e4", "k7e4", "k3e6", "skip")


def toy_space(operators=OPERATORS, min_split=1, max_split=6, layers=3) -> SearchSpace:
    return SearchSpace.from_dict(
        {
            "name": "toy",
            "input_size": 16,
            "num_classes": 10,
            "stages": [[16, layers, 1], [24, layers, 2]],
            "operators": list(operators),
            "min_split": min_split,
            "max_split": max_split,
        }
    )


def shrink(shrunk: ShrunkSpace, count: int, seed: int = 0) -> ShrunkSpace:
    """Drops `count` random combinations, or as many as there are above one per layer."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        layers = [i for i, rows in enumerate(shrunk.alive) if len(rows) > 1]
        if not layers:
            break
        i = layers[rng.integers(len(layers))]
        rows = shrunk.alive[i]
        shrunk = shrunk.without(i + 1, rows[rng.integers(len(rows))])
    return shrunk


@st.composite
def shrunk_spaces(draw):
    min_split = draw(st.integers(0, 6))
    space = toy_space(min_split=min_split, max_split=draw(st.integers(min_split, 6)))
    num_paths = draw(st.integers(1, 3))
    shrunk = ShrunkSpace.full(space, num_paths, draw(st.booleans()))
    return shrink(shrunk, draw(st.integers(0, 100)), draw(st.integers(0, 99)))


seeds = st.integers(0, 2**32)


def blind_sample(shrunk: ShrunkSpace):
    """A sampler that knows no budget."""
    splits = shrunk.space.split_points

    def sample(rng: np.random.Generator) -> Architecture:
        split = splits[rng.integers(len(splits))]
        columns = []
        for i, rows in enumerate(shrunk.alive):
            if i < split:
                names = shrunk.alive_operators[i]
                columns.append((names[rng.integers(len(names))],) * shrunk.num_paths)
            else:
                row = rows[rng.integers(len(rows))]
                columns.append(tuple(row[k] for k in rng.permutation(len(row))))
        return Architecture(split, tuple(zip(*columns, strict=True)))

    return sample


def toy_macs(architecture: Architecture) -> int:
    """Made up: a shared layer costs once."""
    price = {"k3e4": 30, "k5e4": 50, "k7e4": 70, "k3e6": 45, "skip": 0}
    shared = sum(price[name] for name in architecture.shared)
    split = architecture.split_point
    return shared + sum(price[name] for row in architecture.paths for name in row[split:])


def toy_costs(architecture: Architecture) -> dict[str, int]:
    macs = toy_macs(architecture)
    return {"macs": macs, "paper_flops": macs + 7, "params": 3 * macs}


def toy_score(architecture: Architecture) -> Score:
    """A smooth objective: every layer has a best operator, diversity helps a bit, plus noise."""
    wanted = ("k5e4", "k3e6", "k7e4", "k3e4", "k7e4", "k5e4")
    rows = architecture.paths
    paths = [sum(a == b for a, b in zip(row, wanted, strict=False)) / 6 for row in rows]
    diversity = sum(len(set(column)) - 1 for column in zip(*rows, strict=True)) / 12
    noise = zlib.crc32(architecture.key.encode()) / 2**32 / 100
    mean = sum(paths) / len(paths)
    return Score(min(1.0, 0.4 + 0.4 * mean + 0.1 * diversity + noise), tuple(paths))


def toy_evaluate(architectures: list[Architecture]):
    for architecture in architectures:
        yield toy_score(architecture)


def toy_search(folder, settings, shrunk, budget=None, evaluate=toy_evaluate, **kwargs):
    return run_search(
        settings,
        shrunk,
        blind_sample(shrunk),
        lambda architecture: budget is None or toy_macs(architecture) <= budget,
        evaluate,
        History(folder, toy_costs),
        context={"budget": {"max_macs": budget}},
        **kwargs,
    )
