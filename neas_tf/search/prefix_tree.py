"""The prefix tree of a generation: what its ensembles' paths have in common is computed once.

What enters layer m of a path depends on the operators before m alone: in the recalculation of BN
(each layer normalises with the batch's own moments) as in the measurement of accuracy (with the
statistics of that prefix). So all paths of all ensembles form one tree of operator sequences, in
which a trunk that an ensemble's paths share is only one of many common beginnings. `skip` passes
its input on and is no node.

Pure: no TensorFlow. `evaluation` walks the tree with images.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from neas_tf.common.errors import check, check_int
from neas_tf.operators import SKIP
from neas_tf.space.architecture import Architecture

Number = int | float
LayerCost = Callable[[int, str], Number]


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator after one sequence of operators.

    Attributes:
      parent: number of the node whose map it takes; -1 for the root.
      layer: 1-based searchable layer, 0 for the root, which is the stem.
      operator: its name, '' for the root.
      exits: (path, candidate) of the paths that end here, sorted: head `path` takes the map.
    """

    parent: int
    layer: int
    operator: str
    exits: tuple[tuple[int, int], ...]


class Step(NamedTuple):
    """One node's turn in a walk.

    Attributes:
      number: of the node.
      node: the node.
      drops_input: whether no later step takes the map that this one takes.
      keeps_output: whether a later step takes this one's map.
    """

    number: int
    node: Node
    drops_input: bool
    keeps_output: bool


class PrefixTree:
    """The tree of some ensembles.

    Attributes:
      architectures: the candidates, by their number.
      nodes: depth first, parents before children; number 0 is the root.
    """

    def __init__(self, architectures: Sequence[Architecture]):
        self.architectures = tuple(architectures)
        check(bool(self.architectures), "architectures", architectures, "at least one ensemble")
        for a in self.architectures:
            shape, first = (a.num_paths, a.num_layers), self.architectures[0]
            wanted = f"{first.num_paths} paths of {first.num_layers} layers, as the first has"
            check(shape == (first.num_paths, first.num_layers), f"ensemble {a.key}", shape, wanted)
        children: list[dict[tuple[int, str], int]] = [{}]
        exits: list[list[tuple[int, int]]] = [[]]
        for candidate, architecture in enumerate(self.architectures):
            for path, row in enumerate(architecture.paths):
                at = 0
                for place in _places(row):
                    if place not in children[at]:
                        children[at][place] = len(children)
                        children.append({})
                        exits.append([])
                    at = children[at][place]
                exits[at].append((path, candidate))
        self.nodes: list[Node] = []
        stack = [(0, -1, 0, "")]
        while stack:
            made, parent, layer, operator = stack.pop()
            index = len(self.nodes)
            self.nodes.append(Node(parent, layer, operator, tuple(sorted(exits[made]))))
            later = [(child, index, *place) for place, child in children[made].items()]
            stack += reversed(later)

    def steps(self, candidates: Collection[int] | None = None) -> Iterator[Step]:
        """The walk over the nodes that some candidates need; None for all of them.

        At most one map for each layer and the stem waits at any moment: those between the root
        and the node whose turn it is.
        """
        needed = range(len(self.nodes)) if candidates is None else self._needed(set(candidates))
        waiting = Counter(self.nodes[i].parent for i in needed)
        for i in needed:
            node = self.nodes[i]
            waiting[node.parent] -= 1
            yield Step(i, node, waiting[node.parent] == 0, waiting[i] > 0)

    def _needed(self, candidates: set[int]) -> list[int]:
        """Numbers of the nodes on the candidates' paths, depth first."""
        wanted = [any(c in candidates for _, c in node.exits) for node in self.nodes]
        for i in range(len(self.nodes) - 1, 0, -1):  # children before parents
            wanted[self.nodes[i].parent] |= wanted[i]
        return [i for i, is_wanted in enumerate(wanted) if is_wanted]


def _places(row: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(layer, operator) of a path without its skips."""
    for layer, operator in enumerate(row, 1):
        if operator != SKIP:
            yield layer, operator


@dataclasses.dataclass(frozen=True)
class Work:
    """What one pass of a batch through some ensembles takes, in three ways.

    Attributes:
      full_paths: K whole networks for each ensemble.
      shared_trunk: what an ensemble's paths share up to its split point, once for the ensemble.
      prefix_tree: every prefix that occurs, once for all ensembles.
    """

    full_paths: Number = 0
    shared_trunk: Number = 0
    prefix_tree: Number = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.full_paths + other.full_paths,
            self.shared_trunk + other.shared_trunk,
            self.prefix_tree + other.prefix_tree,
        )


def one_each(layer: int, operator: str) -> int:
    """A layer's cost where evaluations are counted: 1; `skip` computes nothing."""
    return int(operator != SKIP)


def one_each_with_skips(layer: int, operator: str) -> int:
    """The same where `skip` counts as any other operator."""
    return 1


def work(
    architectures: Sequence[Architecture],
    cost: LayerCost = one_each,
    stem: Number = 0,
    head: Number = 0,
) -> Work:
    """The work of evaluating some ensembles together.

    Args:
      architectures: the ensembles.
      cost: of a 1-based layer and an operator's name.
      stem: cost of the stem.
      head: cost of a head.
    """
    full: Number = 0
    trunk: Number = 0
    prefixes: dict[tuple[str, ...], Number] = {}
    ends = set()
    for a in architectures:
        rows = [[cost(m, name) for m, name in enumerate(row, 1)] for row in a.paths]
        full += sum(map(sum, rows)) + a.num_paths * (stem + head)
        split = a.split_point
        trunk += stem + sum(rows[0][:split]) + sum(sum(r[split:]) + head for r in rows)
        for path, (names, costs) in enumerate(zip(a.paths, rows, strict=True)):
            ends.add((names, path))
            for m, value in enumerate(costs, 1):
                prefixes[names[:m]] = value
    tree = sum(prefixes.values()) + (stem if ends else 0) + head * len(ends)
    return Work(full, trunk, tree)


def shares(
    architectures: Sequence[Architecture], count: int, cost: LayerCost = one_each
) -> list[list[int]]:
    """Deals candidates out to `count` devices: neighbours in the tree stay together.

    Args:
      architectures: the candidates.
      count: how many shares; some are empty where there are fewer candidates.
      cost: see `work`; every share has about the same.

    Returns:
      The candidates' numbers, by share; they depend on the arguments alone.
    """
    check_int("devices", count, 1)
    order = sorted(range(len(architectures)), key=lambda i: (architectures[i].paths, i))
    seen: set[tuple[str, ...]] = set()
    added = []  # by each candidate, in this order
    for i in order:
        new = {row[:m] for row in architectures[i].paths for m in range(1, len(row) + 1)} - seen
        seen |= new
        added.append(sum(cost(len(prefix), prefix[-1]) for prefix in new))
    total, before = sum(added) or 1, 0.0
    result: list[list[int]] = [[] for _ in range(count)]
    for i, value in zip(order, added, strict=True):
        result[min(count - 1, int((before + value / 2) * count / total))].append(i)
        before += value
    return [sorted(share) for share in result]
