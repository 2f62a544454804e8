"""One searchable layer of the supernet: all operators in one variable, chosen by index tensors.

The variable has a row for each operator. A step gathers the rows that it draws and hands them to
the layer's program, so that gradients, optimizer and all-reduce see the drawn rows only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf.operators import SKIP, Operator
from neas_tf.space.search_space import LayerSpec
from neas_tf.supernet.fixed_layers import FixedLayer, initial_value
from neas_tf.supernet.layer_program import Choice, LayerShape, layer_program
from neas_tf.supernet.row_layout import Stack


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
        self._branch, self._member = [0] * len(operators), [0] * len(operators)
        for branch, stack in enumerate(self.stacks):
            for member, i in enumerate(stack.indices):
                self._branch[i], self._member[i] = branch, member
        if self.has_skip:
            self._branch[self.operators.index(SKIP)] = len(self.stacks)

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

    def drawn_rows(self, operators: tf.Tensor) -> tf.Tensor:
        """The rows (K, row_width) of operators (K,); the first one where the operator is skip."""
        indices = range(len(self.operators))
        table = [self.members.index(i) if i in self.members else 0 for i in indices]
        return tf.gather(self.rows, tf.gather(tf.constant(table, tf.int32), operators))

    def choice(self, operator: tf.Tensor) -> Choice:
        """What the layer's program needs to know of an operator (int32 scalar)."""
        branch, member = (tf.constant(t, tf.int32) for t in (self._branch, self._member))
        return Choice(tf.gather(branch, operator), tf.gather(member, operator))

    def call(self, inputs, operators, split_point, statistics=None, rows=None):
        """Runs the layer for K paths; what they share is computed once.

        Args:
          inputs: K maps (B, H, W, C); the same tensor K times where nothing can have split.
          operators: int32 (K,), indices into the space's operators.
          split_point: int32 scalar s.
          statistics: None for the batch's moments, or K tuples as in the result.
          rows: `drawn_rows(operators)`, where a gradient by them is wanted.

        Returns:
          K maps and K tuples of moments (2, C), one for each batch normalisation in the order of
          the operator's steps, zero-padded to the widest operator's; zeros after its last one
          and where the operator is skip.
        """
        rows = self.drawn_rows(operators) if rows is None else rows
        # The gradient of a reshape costs nothing, that of `unstack` a copy.
        rows = [tf.reshape(rows, [-1])] if self.num_paths == 1 else tf.unstack(rows)
        outputs: list[tf.Tensor] = []
        moments: list[tuple[tf.Tensor, ...]] = []
        for k in range(self.num_paths if self.can_split else 1):
            # K = 2, layer 5. With s = 7 the layer is shared: path 1 runs its operator, path 2 takes
            # the last branch, which returns `first`, path 1's result. With s = 3 both run their own.
            choice, first = self.choice(operators[k]), None
            if k and self.can_share:
                last = len(self.stacks) + self.has_skip
                shared = self.spec.number <= split_point
                choice = choice._replace(branch=tf.where(shared, last, choice.branch))
                first = (outputs[0], *moments[0])
            given = None if statistics is None else statistics[k]
            result = layer_program(self.shape)(inputs[k], rows[k], choice, first, given)
            outputs.append(result[0])
            moments.append(tuple(result[1:]))
        missing = self.num_paths - len(outputs)
        return outputs + outputs[:1] * missing, moments + moments[:1] * missing

    def update_moving(self, moments, momentum, operators=None) -> None:
        """Moves the statistics of the drawn rows only; all other rows keep every bit.

        `moments` are K tuples as `call` returns them, `operators` int32 (K,).
        """
        values = tf.stack([tf.concat(own, 1) for own in moments])  # (K, 2, ΣC)
        # (rows, K): which path drew which row; skip has none. Paths that drew the same row share it:
        # K = 2, both drew row 1 of 3: weight [[0, 0], [½, ½], [0, 0]], so that row moves to the mean
        # of both paths' moments, and rows 0 and 2 keep theirs.
        drew = tf.equal(tf.constant(self.members, tf.int32)[:, None], operators[None, :])
        weight = tf.cast(drew, tf.float32)
        weight /= tf.maximum(tf.reduce_sum(weight, 1, keepdims=True), 1.0)
        target = tf.einsum("rk,kmc->rmc", weight, values)
        moved = self.moving * momentum + target * (1.0 - momentum)
        mask = tf.reduce_any(drew, 1)[:, None, None]
        self.moving.assign(tf.where(mask, moved, self.moving))

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
