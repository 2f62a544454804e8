"""One searchable layer of the supernet: all operators in one variable, chosen by index tensors.

The variable has a row for each operator. A step gathers the rows that it draws and hands them to
the layer's program, so that gradients, optimizer and all-reduce see the drawn rows only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from neas_tf.operators import SKIP, Operator
from neas_tf.space.search_space import LayerSpec
from neas_tf.supernet.fixed_layers import FixedLayer, initial_value
from neas_tf.supernet.layer_program import Choice, LayerShape, layer_program
from neas_tf.supernet.row_layout import Stack
from neas_tf.supernet.switches import on_host

_NEVER = 1 << 20  # more than any split point


class LayerDraw(NamedTuple):
    """What the K paths of an ensemble draw in one layer.

    Attributes:
      choices: of each path, what it runs; the integers are in host memory.
      rows: int64 (K,), each path's row; the first one where its operator has none (skip).
    """

    choices: list[Choice]
    rows: tf.Tensor


class Drawn(NamedTuple):
    """What the K paths of an ensemble draw in d layers, of at most R rows each.

    Attributes:
      layers: of each layer.
      weights: float32 (R, K, d), by how much each path's moments move a row's statistics.
      moves: bool (R, d), whether any path drew the row.
    """

    layers: list[LayerDraw]
    weights: tf.Tensor
    moves: tf.Tensor


def drawn_in(layers: Sequence[SearchableLayer], architecture: tf.Tensor) -> Drawn:
    """What an ensemble draws, in all layers at once and where integers are cheap.

    `architecture` is int32 (1 + K·d,), for as many layers d.
    """
    tables = _tables(layers)
    with on_host():
        drawn = tf.transpose(tf.reshape(architecture[1:], [-1, len(layers)]))  # (d, K)
        num_paths = drawn.shape[1]
        branches, members, rows = (
            tf.gather(tf.constant(table), drawn, axis=1, batch_dims=1)
            for table in (tables.branches, tables.members, tables.rows)
        )
        # K = 2, layer 5. With s = 7 the layer is shared: path 1 runs its operator, path 2 takes
        # the last branch, which returns path 1's result. With s = 3 both run their own.
        later = np.arange(num_paths) > 0
        shared = (tables.numbers <= architecture[0])[:, None] & later
        branches = tf.where(shared, tables.last[:, None], branches)
        # Which path drew which row; skip has none. Paths that drew the same row share it: K = 2,
        # both drew row 1 of 3: weights [[0, 0], [½, ½], [0, 0]], so that row moves to the mean
        # of both paths' moments, and rows 0 and 2 keep theirs.
        # Layers of fewer rows have operators -1, which no path draws.
        drew = tf.equal(tables.operators.T[:, None], tf.transpose(drawn))  # (R, K, d)
        weights = tf.cast(drew, tf.float32)
        weights /= tf.maximum(tf.reduce_sum(weights, 1, keepdims=True), 1.0)
        moves = tf.reduce_any(drew, 1)
        branches, members = (tf.unstack(tf.reshape(part, [-1])) for part in (branches, members))
    choices = [Choice(*pair) for pair in zip(branches, members, strict=True)]
    own = [choices[first : first + num_paths] for first in range(0, len(choices), num_paths)]
    each = [LayerDraw(*pair) for pair in zip(own, tf.unstack(rows), strict=True)]
    return Drawn(each, weights, moves)


def update_moving(
    layers: Sequence[SearchableLayer],
    moments: Sequence[Sequence[tf.Tensor]],
    drawn: Drawn,
    momentum: float,
) -> None:
    """Moves the running BN statistics of the drawn rows only; all other rows keep every bit.

    Layers with equally many rows R go together, their channels side by side: eight operations for
    all of them instead of eight each.

    Args:
      layers: of the supernet.
      moments: of each, K times (2, ΣC), as its `call` returns them.
      drawn: `drawn_in` of them.
      momentum: of the averages.
    """
    together: dict[int, list[int]] = {}
    for number, layer in enumerate(layers):
        together.setdefault(len(layer.members), []).append(number)
    for count, numbers in together.items():
        variables = [layers[number].moving for number in numbers]
        widths = [int(variable.shape[2]) for variable in variables]
        place = np.repeat(numbers, widths)  # of each channel, its layer
        paths = zip(*(moments[number] for number in numbers), strict=True)
        values = tf.stack([tf.concat(own, 1) for own in paths])  # (K, 2, ΣC)
        weights = tf.gather(drawn.weights[:count], place, axis=2)
        target = tf.reduce_sum(weights[:, :, None] * values, 1)  # (R, 2, ΣC)
        before = tf.concat(variables, 2)
        after = before * momentum + target * (1.0 - momentum)
        moves = tf.gather(drawn.moves[:count], place, axis=1)[:, None]
        after = tf.split(tf.where(moves, after, before), widths, 2)
        for variable, value in zip(variables, after, strict=True):
            variable.assign(value)


class _Tables(NamedTuple):
    """What operators are in d layers.

    Attributes:
      branches, members: int32 (d, N), of each operator of the space.
      rows: int64 (d, N), likewise; 0 for skip.
      operators: int32 (d, R), of each row; -1 after the last.
      last: int32 (d,), the branch that returns the first path's result.
      numbers: int32 (d,), the layers' numbers, beyond every split point where a layer cannot be shared.
    """

    branches: np.ndarray
    members: np.ndarray
    rows: np.ndarray
    operators: np.ndarray
    last: np.ndarray
    numbers: np.ndarray


def _tables(layers: Sequence[SearchableLayer]) -> _Tables:
    most = max(len(layer.members) for layer in layers)
    rows, operators = [], []
    for layer in layers:
        members = layer.members
        every = range(len(layer.operators))
        rows.append([members.index(i) if i in members else 0 for i in every])
        operators.append([*members, *[-1] * (most - len(members))])
    numbers = [layer.spec.number if layer.can_share else _NEVER for layer in layers]
    columns = (
        [layer.branch_of for layer in layers],
        [layer.member_of for layer in layers],
        np.array(rows, np.int64),
        operators,
        [len(layer.stacks) + layer.has_skip for layer in layers],
        numbers,
    )
    return _Tables(*(np.asarray(c, getattr(c, "dtype", np.int32)) for c in columns))


class SearchableLayer(FixedLayer):
    """All operators of one searchable layer (paper Fig. 2), for K paths.

    Args:
      layer: its shapes, and which operators it has.
      operators: all operators of the space, which the index tensors refer to.
      num_paths: K.
      can_share, can_split: whether the layer may lie before / after a split point.
      zero_init_residual: whether operators with a residual connection begin as the identity: the
        gamma of their last batch normalisation is 0 at first.
    """

    def __init__(
        self,
        layer: LayerSpec,
        operators: tuple[str, ...],
        num_paths: int,
        can_share: bool,
        can_split: bool,
        zero_init_residual: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.zero_init_residual = zero_init_residual
        self.spec, self.operators, self.num_paths = layer, tuple(operators), num_paths
        self.can_share, self.can_split = can_share, can_split
        members: dict[str, dict[int, Operator]] = {}
        for i, name in enumerate(operators):
            if name in layer.operators and not (operator := Operator.parse(name)).is_skip:
                members.setdefault(operator.stack, {})[i] = operator
        stacks = [Stack.of(name, found, layer) for name, found in members.items()]
        self.stacks = sorted(stacks, key=lambda stack: (stack.operators[0].expansion, stack.name))
        self.has_skip = SKIP in layer.operators
        decayed = {i: stack.decayed for stack in self.stacks for i in stack.indices}
        self.members = tuple(sorted(decayed))
        self.decayed = tuple(decayed[i] for i in self.members)
        widths = itertools.zip_longest(*(s.norm_widths for s in self.stacks), fillvalue=0)
        self.shape = LayerShape(
            tuple(self.stacks),
            self.has_skip,
            layer.keeps_shape,
            max(stack.width for stack in self.stacks),
            tuple(map(max, widths)),
            (*layer.out_size, layer.c_out),
        )
        # Operator index → branch (stacks first, then skip), and → number within its stack.
        self.branch_of, self.member_of = [0] * len(operators), [0] * len(operators)
        for branch, stack in enumerate(self.stacks):
            for member, i in enumerate(stack.indices):
                self.branch_of[i], self.member_of[i] = branch, member
        if self.has_skip:
            self.branch_of[self.operators.index(SKIP)] = len(self.stacks)

    def build(self, input_shape):
        """Creates the operators' rows and their running statistics."""
        rows = np.zeros([len(self.members), self.shape.row_width], np.float32)
        for stack in self.stacks:
            drawn: dict[str, np.ndarray] = {}
            for member, index in enumerate(stack.indices):
                for role, place in stack.places.items():
                    name, count = stack.stacked_role(member, role)
                    shape = stack.shape(member, role)
                    if name not in drawn:
                        full = f"{self.name}/{name}"
                        passed = self.zero_init_residual and self.shape.residual
                        kind = "zeros" if passed and role == stack.last_gamma else place.kind
                        drawn[name] = initial_value(self.seed, full, shape, kind, count)
                    value = drawn[name][member if count > 1 else 0].ravel()
                    row = rows[self.members.index(index)]
                    row[place.offset : place.offset + value.size] = value
        self.rows = self.add("rows", rows)
        statistics = np.zeros([len(self.members), 2, sum(self.shape.moment_widths)], np.float32)
        statistics[:, 1] = 1.0
        self.moving = self.add("moving", statistics, trainable=False)
        super().build(input_shape)

    def call(self, inputs, drawn: LayerDraw, statistics=None, rows=None):
        """Runs the layer for K paths; what they share is computed once.

        Args:
          inputs: K maps (B, H, W, C); the same tensor K times where nothing can have split.
          drawn: what the paths draw here.
          statistics: None for the batch's moments, or K tensors as in the result.
          rows: (K, row width) of `self.rows`, where a gradient by them is wanted.

        Returns:
          K maps and K times mean and variance (2, ΣC) of the batch normalisations, see `LayerProgram`.
        """
        rows = tf.gather(self.rows, drawn.rows) if rows is None else rows
        # The gradient of a reshape costs nothing, that of `unstack` a copy.
        rows = [tf.reshape(rows, [-1])] if self.num_paths == 1 else tf.unstack(rows)
        outputs: list[tf.Tensor] = []
        moments: list[tf.Tensor] = []
        for k in range(self.num_paths if self.can_split else 1):
            first = (outputs[0], moments[0]) if k and self.can_share else None
            given = None if statistics is None else statistics[k]
            result = layer_program(self.shape)(inputs[k], rows[k], drawn.choices[k], first, given)
            outputs.append(result[0])
            moments.append(result[1])
        missing = self.num_paths - len(outputs)
        return outputs + outputs[:1] * missing, moments + moments[:1] * missing

    def weight(self, operator: str, role: str) -> np.ndarray:
        """The weight of one operator, such as `k5e6` and `expand/kernel` or `dw_bn/moving_mean`."""
        index = self.operators.index(operator)
        stack = next(s for s in self.stacks if index in s.indices)
        member, row = stack.indices.index(index), self.members.index(index)
        name, _, kind = role.partition("/")
        if kind.startswith("moving_"):
            number = stack.batch_norms.index(name)
            begin = sum(self.shape.moment_widths[:number])
            values = self.moving.numpy()[row, int(kind == "moving_variance")]
            return values[begin : begin + stack.norm_widths[number]]
        place, shape = stack.places[role], stack.shape(member, role)
        values = self.rows.numpy()[row, place.offset :]
        return values[: int(np.prod(shape))].reshape(shape)

    def take_weights(self, operator: str, values: Mapping[str, np.ndarray]) -> bool:
        """Gives an operator its weights, by role; False, and nothing done, where they do not fit."""
        if operator not in self.operators or self.operators.index(operator) not in self.members:
            return False
        index = self.operators.index(operator)
        stack = next(s for s in self.stacks if index in s.indices)
        member = stack.indices.index(index)
        shapes = {role: stack.shape(member, role) for role in stack.places}
        if {role: value.shape for role, value in values.items()} != shapes:
            return False
        rows = self.rows.numpy()
        row = rows[self.members.index(index)]
        for role, value in values.items():
            offset = stack.places[role].offset
            row[offset : offset + value.size] = value.ravel()
        self.rows.assign(rows)
        return True
