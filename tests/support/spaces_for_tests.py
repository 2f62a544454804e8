"""Small spaces, and all their ensembles, for tests that count everything."""

import itertools
from collections.abc import Iterator

from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace

TOY = SearchSpace(
    name="toy",
    input_size=(16, 12),
    input_channels=1,
    num_classes=10,
    stem_channels=8,
    stem_stride=1,
    block_channels=8,
    stages=(Stage(8, 2, 1), Stage(16, 2, 2)),
    operators=("k3e2", "k5e3", "k3e4", "skip"),
    min_split=1,
    max_split=4,
    head_channels=24,
    feature_channels=32,
)


def some_shrunk(num_paths: int = 2, heterogeneous: bool = True) -> ShrunkSpace:
    """The toy space less a few combinations and one operator of its first layer."""
    shrunk = ShrunkSpace.full(TOY, num_paths, heterogeneous)
    for number in (1, 2, 2, 4):
        shrunk = shrunk.without(number, shrunk.alive[number - 1][0])
    return shrunk


def all_ensembles(shrunk: ShrunkSpace) -> Iterator[tuple[Architecture, float]]:
    """Every ensemble, with its probability under `sampling.uniform`."""
    space = shrunk.space
    for split in space.split_points:
        columns = []
        for layer in space.layers:
            m = layer.number - 1
            if layer.number <= split:
                names = shrunk.alive_operators[m]
                columns.append([((name,) * shrunk.num_paths, 1 / len(names)) for name in names])
                continue
            column = []
            for combination in shrunk.alive[m]:
                orders = sorted(set(itertools.permutations(combination)))
                weight = 1 / len(shrunk.alive[m]) / len(orders)
                column += [(order, weight) for order in orders]
            columns.append(column)
        for choice in itertools.product(*columns):
            probability = 1 / len(space.split_points)
            for _, weight in choice:
                probability *= weight
            rows = tuple(zip(*(column for column, _ in choice), strict=True))
            yield Architecture(split, rows), probability
