"""SGD that moves only what was drawn (docs/method.md, Supernet training).

An operator that was not drawn must not move by momentum or weight decay either, so that the
stock optimizers, dense or sparse, do not serve. Between replicas the dense gradient of the whole
supernet is reduced: to reduce only what was drawn would save 63 % of the bytes but, by estimates
for 8 GPUs or a TPU v3-32 (docs/scaling.md), 1 to 3 % of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.supernet.convolutions import cpu_only
from neas_tf.supernet.model import UpdateRule, trunk_scale
from neas_tf.supernet.switches import on_host


class MaskedSGD(tf_keras.optimizers.legacy.Optimizer):
    """Momentum SGD with coupled weight decay on the drawn rows of each variable.

    m ← μ·m − lr·(g + wd·w) and w ← w + m (Nesterov: w + μ·m − lr·(g + wd·w)); rows that were not
    drawn keep weights and momentum bit by bit. The gradient of a variable with rows holds those of
    the drawn rows only, (K, row width), in the order of the paths; where a step draws D ensembles, those
    of all their paths, (D·K, row width), which are added up. The trunk's gradients are divided by K here.

    Args:
      learning_rate: a float or a schedule of the step.
      momentum: μ.
      nesterov: whether to look ahead.
      weight_decay: wd, for kernels; never biases, gamma, beta.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        name: str = "MaskedSGD",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        self._set_hyper("learning_rate", kwargs.get("lr", learning_rate))
        self._set_hyper("decay", self._initial_decay)
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self._rules: dict[str, UpdateRule] = {}
        self._architecture: Callable[[], tf.Tensor] | None = None
        self._num_layers = 0
        self._tables, self._reach = np.zeros([0, 1], np.int32), np.zeros([0, 1], np.int32)

    def watch(
        self,
        variables: Sequence[tf.Variable],
        rules: Sequence[UpdateRule],
        architecture: Callable[[], tf.Tensor],
        num_layers: int,
    ) -> None:
        """Tells the rule of every variable and where the step's architecture is read.

        Also creates the slots: with several replicas they must exist before the first trace.
        """
        self._rules = {_key(v): rule for v, rule in zip(variables, rules, strict=True)}
        self._architecture, self._num_layers = architecture, num_layers
        self._tables, self._reach = _row_tables(rules, num_layers)
        self._create_all_weights(variables)

    def _create_slots(self, var_list):
        for var in var_list:
            self.add_slot(var, "momentum")

    def _prepare_local(self, var_device, var_dtype, apply_state):
        super()._prepare_local(var_device, var_dtype, apply_state)
        if self._architecture is not None:
            architecture, state = self._architecture(), apply_state[(var_device, var_dtype)]
            state["architecture"] = architecture
            # Of all layers at once: 20 layers are 20 times as many small operations one by one.
            with on_host():
                drawn = _drawn(self._tables, architecture, self._num_layers)
            state["drawn"] = _moved(drawn, self._reach) if cpu_only() else _unstacked(drawn)

    def _resource_apply_dense(self, grad, var, apply_state=None):
        state = apply_state[(var.device, var.dtype.base_dtype)]
        rule, slot = self._rules[_key(var)], self.get_slot(var, "momentum")
        if not rule.rows:
            paths = (state["architecture"].shape[-1] - 1) // self._num_layers
            grad = rule.scaled(grad, state["architecture"], paths)
            if self.weight_decay and len(var.shape) > 1:
                grad += self.weight_decay * tf.convert_to_tensor(var)
            return tf.raw_ops.ResourceApplyKerasMomentum(
                var=var.handle,
                accum=slot.handle,
                lr=state["lr_t"],
                grad=grad,
                momentum=self.momentum,
                use_nesterov=self.nesterov,
            )
        drawn = state["drawn"][rule.layer - 1]
        if isinstance(drawn, _Moved):
            return self._update_in_place(state["lr_t"], grad, var, slot, drawn)
        if grad.shape[0] != 1:
            grad = tf.linalg.matmul(drawn.shares, grad)
        return self._update(state["lr_t"], grad, var, slot, rule, drawn)

    def _update(self, rate, grad, var, slot, rule, drawn):
        """Moves the drawn rows; equal ones are written with equal values, in any order."""
        before = tf.gather(var, drawn.row), tf.gather(slot, drawn.row)
        reach = tf.gather(tf.constant(rule.decayed, tf.int32, [len(rule.decayed), 1]), drawn.row)
        after = self._step(rate, grad, *before, _decayed(before[0], reach))
        # Where no path has a row, row 0 is written as it was.
        moves = tf.reduce_any(drawn.first)
        value, velocity = (tf.where(moves, *pair) for pair in zip(after, before, strict=True))
        return tf.group(
            slot.scatter_update(tf.IndexedSlices(velocity, drawn.row)),
            var.scatter_update(tf.IndexedSlices(value, drawn.row)),
        )

    def _update_in_place(self, rate, grad, var, slot, moved):
        """The same in one pass over each row, by an operation of CPUs: 6 % of a step less."""
        grad = tf.linalg.matmul(moved.shares, grad)
        if self.weight_decay:
            grad += self.weight_decay * _decayed(tf.gather(var, moved.row), moved.reach)
        return tf.raw_ops.ResourceSparseApplyKerasMomentum(
            var=var.handle,
            accum=slot.handle,
            lr=rate,
            grad=grad,
            indices=moved.row,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )

    def _step(self, rate, grad, value, velocity, decayed):
        """New weights and momentum."""
        if self.weight_decay:
            grad = grad + self.weight_decay * decayed
        new_velocity = self.momentum * velocity - rate * grad
        move = self.momentum * new_velocity - rate * grad if self.nesterov else new_velocity
        return value + move, new_velocity

    def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
        raise NotImplementedError("Make the gradients dense before apply_gradients.")


class _Drawn(NamedTuple):
    """Which rows of a layer a step moves.

    Attributes:
      row: int64 (K,), the row of each path, that of another path where its operator has none (skip);
        of D ensembles (D·K,), all their paths.
      first: bool (K,), whether the path has a row and no path before has the same.
      shares: float32 (K, K), by how much path j's gradient moves the row of path i: that of paths
        with the same operator, divided by K where layer is in the trunk of path j's ensemble.

    With K = 2 and rows for the operators 0, 1, 2:
      both paths draw 1 in the trunk: row (1, 1), first (yes, no), shares [[½, ½], [½, ½]]: row 1
        moves by half the sum of both gradients.
      they draw 0 and 2 after the split: row (0, 2), first (yes, yes), shares the identity.
      they draw skip and 0: row (0, 0), first (no, yes), shares [[0, 1], [0, 1]]: row 0 moves by the
        second path's gradient; the first path has none and only fills the shape.
    """

    row: tf.Tensor
    first: tf.Tensor
    shares: tf.Tensor


class _Moved(NamedTuple):
    """The rows of a layer that a step moves, each once: those of `_Drawn` whose `first` is true.

    Attributes:
      row: int64 (n,).
      shares: float32 (n, K).
      reach: int32 (n, 1), how many numbers at a row's beginning weight decay reaches.
    """

    row: tf.Tensor
    shares: tf.Tensor
    reach: tf.Tensor


def _row_tables(rules: Sequence[UpdateRule], num_layers: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 (d, N): the row of each operator in each layer, -1 where it has none; (d, R): `decayed`."""
    own = {rule.layer: rule for rule in rules if rule.rows}
    tables = np.full(
        [num_layers, max((max(r.rows) for r in own.values()), default=0) + 2], -1, np.int32
    )
    reach = np.zeros([num_layers, max((len(r.rows) for r in own.values()), default=0)], np.int32)
    for layer, rule in own.items():
        tables[layer - 1, list(rule.rows)] = np.arange(len(rule.rows))
        reach[layer - 1, : len(rule.rows)] = rule.decayed
    return tables, reach


def _unstacked(drawn: _Drawn) -> list[_Drawn]:
    """Of each layer."""
    return [_Drawn(*parts) for parts in zip(*map(tf.unstack, drawn), strict=True)]


def _drawn(tables: np.ndarray, architecture: tf.Tensor, num_layers: int) -> _Drawn:
    """With the layers as the first axis, from `_row_tables`."""
    draws = tf.reshape(architecture, [-1, architecture.shape[-1]])  # (D, 1 + K·d)
    operators = tf.transpose(tf.reshape(draws[:, 1:], [-1, num_layers]))  # (d, D·K)
    operators = tf.minimum(operators, tables.shape[1] - 1)  # the last one: without a row
    own = tf.gather(tf.constant(tables), operators, axis=1, batch_dims=1)
    has_row = own >= 0
    row = tf.where(has_row, own, tf.maximum(tf.reduce_max(own, 1, keepdims=True), 0))
    same = tf.equal(row[:, :, None], row[:, None, :])
    shares = tf.cast(same & has_row[:, None, :], tf.float32)
    num_paths = (draws.shape[1] - 1) // num_layers
    if num_paths != 1:
        splits = tf.repeat(draws[:, 0], num_paths)  # (D·K,)
        layers = np.arange(1, num_layers + 1, dtype=np.int32)[:, None, None]
        shares *= trunk_scale(layers, splits, num_paths)  # that of path j, in all rows i
    earlier = np.tri(row.shape[1], k=-1, dtype=bool) & has_row[:, None, :]
    first = has_row & ~tf.reduce_any(same & earlier, 2)
    return _Drawn(tf.cast(row, tf.int64), first, shares)


def _moved(drawn: _Drawn, reach: np.ndarray) -> list[_Moved]:
    """Of each layer, from `_drawn`; `reach` (d, R) is that of `_row_tables`."""
    places = tf.where(drawn.first)  # (n of all layers, 2), layer by layer
    rows = tf.gather_nd(drawn.row, places)
    reached = tf.gather_nd(tf.constant(reach), tf.stack([places[:, 0], rows], 1))
    found = _Moved(rows, tf.gather_nd(drawn.shares, places), reached[:, None])
    sizes = tf.reduce_sum(tf.cast(drawn.first, tf.int32), 1)
    parts = (tf.split(part, sizes, num=len(reach)) for part in found)
    return [_Moved(*own) for own in zip(*parts, strict=True)]


def _decayed(values: tf.Tensor, reach: tf.Tensor) -> tf.Tensor:
    """Of the rows' values (n, row width) those that weight decay reaches, zeros elsewhere."""
    return tf.where(np.arange(values.shape[1], dtype=np.int32) < reach, values, 0.0)


def _key(var) -> str:
    """One name for a variable and its copies on the replicas."""
    if isinstance(var, tf.distribute.DistributedValues):
        return var._unique_id
    # A replica's copy knows the whole by itself or by its handle.
    for holder in (var, var.handle):
        container = getattr(holder, "_distributed_container", None)
        if container is not None:
            return container()._unique_id
    return var._unique_id
