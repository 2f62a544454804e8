"""One searchable layer of the supernet: stacked weights of all operators, chosen by index tensors.

Operators of one stack (same program but for the kernel sizes) share variables whose first axis
("row") is the operator. The row is gathered outside the switch, which chooses the stack; a small
inner switch chooses a kernel. That keeps the traced graph a third of the naive one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf import functional
from neas_tf.errors import check
from neas_tf.operators import SKIP, Operator, Step, batch_norms, operator_steps, squeeze_width
from neas_tf.space import LayerSpec
from neas_tf.supernet_layers import SQUEEZE, FixedLayer


@dataclasses.dataclass(frozen=True)
class Stack:
    """Operators of one stack in one layer: the rows of a set of stacked variables.

    Attributes:
      name: prefix of the variables' roles.
      indices: of the operators in the space, one a row.
      operators: the operators.
      steps: of each operator; they differ in kernel sizes only.
    """

    name: str
    indices: tuple[int, ...]
    operators: tuple[Operator, ...]
    steps: tuple[tuple[Step, ...], ...]

    @classmethod
    def of(cls, name: str, members: dict[int, Operator], layer: LayerSpec) -> Stack:
        """The stack of some operators (by index) in a layer."""
        steps = tuple(operator_steps(operator, layer) for operator in members.values())
        for operator, own in zip(members.values(), steps, strict=True):
            same = [s.structure for s in own] == [s.structure for s in steps[0]]
            names = ", ".join(op.name for op in members.values())
            wanted = f"operators that differ in kernel sizes only, not {names}"
            check(same, f"operator {operator.name!r}: stack", name, wanted)
        return cls(name, tuple(members), tuple(members.values()), steps)

    def role(self, row: int, name: str) -> str:
        """Role of a weight that each operator has for itself."""
        return f"{self.name}/{self.operators[row].variant}/{name}"

    @property
    def batch_norms(self) -> tuple[str, ...]:
        """Names of the batch normalisations, in the order of the moments."""
        return batch_norms(self.steps[0])


class SearchableLayer(FixedLayer):
    """All operators of one searchable layer (paper Fig. 2), for K paths.

    Args:
      layer: the layer's `LayerSpec` (or its dict).
      operators: all operators of the space, which the index tensors refer to.
      num_paths: K.
      can_share, can_split: whether the layer may lie before / behind a split point.
    """

    def __init__(
        self,
        layer: LayerSpec | dict[str, Any],
        operators: tuple[str, ...],
        num_paths: int,
        can_share: bool,
        can_split: bool,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(layer, dict):
            layer = LayerSpec(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in layer.items()}
            )
        self.spec, self.operators, self.num_paths = layer, tuple(operators), num_paths
        self.can_share, self.can_split = can_share, can_split
        members: dict[str, dict[int, Operator]] = {}
        for i, name in enumerate(operators):
            if name in layer.operators and not (operator := Operator.parse(name)).is_skip:
                members.setdefault(operator.stack, {})[i] = operator
        stacks = [Stack.of(name, found, layer) for name, found in members.items()]
        self.stacks = sorted(stacks, key=lambda stack: (stack.operators[0].expansion, stack.name))
        self.has_skip = SKIP in layer.operators
        # Operator index → row within its stack, and → branch (stacks first, then skip).
        self._row, self._branch = [0] * len(operators), [0] * len(operators)
        for branch, stack in enumerate(self.stacks):
            for row, i in enumerate(stack.indices):
                self._row[i], self._branch[i] = row, branch
        if self.has_skip:
            self._branch[self.operators.index(SKIP)] = len(self.stacks)
        # Channels of each batch normalisation's moments: the widest operator's.
        widths = [[s.c_out for s in x.steps[0] if s.has_batch_norm] for x in self.stacks]
        self.moment_widths = [
            max(row[i] for row in widths if i < len(row)) for i in range(max(map(len, widths)))
        ]
        # Which operator each row of a variable belongs to, for the optimizer's mask.
        self.row_operators: dict[str, tuple[int, ...]] = {}

    def build(self, input_shape):
        """Creates the stacked weights of every stack and the kernels of every operator."""
        for stack in self.stacks:
            prefix, rows, before = f"{stack.name}/", len(stack.indices), len(self.roles)
            for step in stack.steps[0]:
                if step.kind == "squeeze_excite":
                    channels, squeezed = step.c_out, squeeze_width(step.c_out)
                    self.add(f"{prefix}se_reduce/kernel", (1, 1, channels, squeezed), "conv", rows)
                    self.add(f"{prefix}se_reduce/bias", (squeezed,), "zeros", rows)
                    self.add(f"{prefix}se_expand/kernel", (1, 1, squeezed, channels), "conv", rows)
                    self.add(f"{prefix}se_expand/bias", (channels,), "zeros", rows)
                    continue
                if not step.spatial:
                    shape = (1, 1, step.c_in, step.c_out)
                    self.add(f"{prefix}{step.role}/kernel", shape, "conv", rows)
                self.add_batch_norm(f"{prefix}{step.role}_bn", step.c_out, rows)
            self.row_operators.update(dict.fromkeys(list(self.roles)[before:], stack.indices))
            for row, (index, steps) in enumerate(zip(stack.indices, stack.steps, strict=True)):
                for step in steps:
                    if step.spatial:
                        role = stack.role(row, f"{step.role}/kernel")
                        # A row axis of one keeps the optimizer's mask uniform.
                        self.add(role, kernel_shape(step), "conv", 1)
                        self.row_operators[role] = (index,)
        super().build(input_shape)

    def call(self, inputs, operators, split_point, statistics=None):
        """Runs the layer for K paths; what they share is computed once.

        Args:
          inputs: K maps (B, H, W, C); the same tensor K times where nothing can have split.
          operators: int32 (K,), indices into the space's operators.
          split_point: int32 scalar s.
          statistics: None for the batch's moments, or K tuples as in the result.

        Returns:
          K maps and K tuples of moments (2, C), one for each batch normalisation in the order of
          the operator's steps, zero-padded to the widest operator's; zeros behind its last one
          and where the operator is skip.
        """
        outputs, moments = [], []
        for k in range(self.num_paths if self.can_split else 1):
            given = None if statistics is None else statistics[k]
            branches = self._branches(inputs[k], operators[k], given)
            index = tf.gather(tf.constant(self._branch, tf.int32), operators[k])
            if k and self.can_share:
                index = tf.where(self.spec.number <= split_point, len(branches), index)
                first = (outputs[0], *moments[0])
                branches.append(lambda first=first: tuple(map(tf.identity, first)))
            result = branches[0]() if len(branches) == 1 else tf.switch_case(index, branches)
            outputs.append(result[0])
            moments.append(tuple(result[1:]))
        missing = self.num_paths - len(outputs)
        return outputs + outputs[:1] * missing, moments + moments[:1] * missing

    def _branches(self, x, operator, statistics) -> list[Callable[[], tuple[tf.Tensor, ...]]]:
        row = tf.gather(tf.constant(self._row, tf.int32), operator)
        branches = []
        for stack in self.stacks:
            prefix, weights = f"{stack.name}/", {}
            # A row of another stack may lie beyond this one's; its branch is not taken.
            last = len(stack.indices) - 1
            for role, rows in self.roles.items():
                name = role.removeprefix(prefix)
                # An operator's own kernels (`<variant>/<role>/kernel`) are no rows.
                if name == role or name.count("/") > 1 or "/moving_" in name:
                    continue
                weights[name] = tf.gather(rows, tf.minimum(row, last)) if last else rows[0]
            branches.append(
                lambda s=stack, w=weights: self._run(_StackMaker(self, s, w, row, statistics), x)
            )
        if self.has_skip:
            branches.append(lambda: (tf.identity(x), *self._padded(())))
        return branches

    def _run(self, make: _StackMaker, x) -> tuple[tf.Tensor, ...]:
        y = make.stack.operators[0].build(make, x, self.spec)
        if self.spec.keeps_shape:
            y = x + y
        return y, *self._padded(make.moments)

    def _padded(self, moments) -> tuple[tf.Tensor, ...]:
        padded = [
            tf.pad(value, [[0, 0], [0, width - value.shape[-1]]])
            for value, width in zip(moments, self.moment_widths, strict=False)
        ]
        rest = [tf.zeros([2, width]) for width in self.moment_widths[len(padded) :]]
        return (*padded, *rest)

    def update_moving(self, moments, momentum, operators=None) -> None:
        """Moves the statistics of the drawn rows only; all other rows keep every bit.

        Args:
          moments: K tuples as `call` returns them.
          momentum: of the running average.
          operators: int32 (K,).
        """
        stacked = [tf.stack(values) for values in zip(*moments, strict=True)]  # (K, 2, C)
        for stack in self.stacks:
            # (rows, K): which path drew which row.
            drew = tf.equal(tf.constant(stack.indices, tf.int32)[:, None], operators[None, :])
            weight = tf.cast(drew, tf.float32)
            weight /= tf.maximum(tf.reduce_sum(weight, 1, keepdims=True), 1.0)
            mask = tf.reduce_any(drew, 1)[:, None]
            for name, values in zip(stack.batch_norms, stacked, strict=False):
                for i, role in enumerate(("moving_mean", "moving_variance")):
                    variable = self.roles[f"{stack.name}/{name}/{role}"]
                    target = tf.linalg.matmul(weight, values[:, i, : variable.shape[-1]])
                    moved = variable * momentum + target * (1.0 - momentum)
                    variable.assign(tf.where(mask, moved, variable))

    def weight(self, operator: str, role: str) -> np.ndarray:
        """The weight of one operator, such as `k5e6` and `expand/kernel`."""
        index = self.operators.index(operator)
        stack = next(s for s in self.stacks if index in s.indices)
        row = stack.indices.index(index)
        own = self.roles.get(stack.role(row, role))
        return (
            own.numpy()[0] if own is not None else self.roles[f"{stack.name}/{role}"].numpy()[row]
        )

    def get_config(self):
        """Keras configuration."""
        return super().get_config() | {
            "seed": self.seed,
            "layer": dataclasses.asdict(self.spec),
            "operators": list(self.operators),
            "num_paths": self.num_paths,
            "can_share": self.can_share,
            "can_split": self.can_split,
        }


class _StackMaker:
    """The maker that runs a stack's program on the rows gathered; it collects the moments."""

    def __init__(self, layer: SearchableLayer, stack: Stack, weights, row, statistics):
        self.stack, self.moments = stack, []
        self._layer, self._weights, self._row, self._statistics = layer, weights, row, statistics

    def conv(self, x, role, filters, kernel=1, stride=1, activation=None):
        """See `Maker.conv`."""
        if kernel == 1:
            x = functional.convolution(x, self._weights[f"{role}/kernel"], stride)
        else:
            x = self._chosen(functional.convolution, x, role, stride)
        return self._finish(x, role, activation)

    def depthwise(self, x, role, kernel, stride=1, activation=None):
        """See `Maker.depthwise`."""
        return self._finish(self._chosen(functional.depthwise, x, role, stride), role, activation)

    def squeeze_excite(self, x):
        """See `Maker.squeeze_excite`."""
        return functional.squeeze_excite(x, *(self._weights[role] for role in SQUEEZE))

    def _chosen(self, function, x, role, stride):
        """A convolution with the kernel of the row, which is no weight of the stack."""
        rows = range(len(self.stack.indices))
        kernels = [self._layer.roles[self.stack.role(r, f"{role}/kernel")][0] for r in rows]
        if len(kernels) == 1:
            return function(x, kernels[0], stride)
        if len({kernel.shape[0] for kernel in kernels}) == 1:
            last = len(kernels) - 1
            return function(x, tf.stack(kernels)[tf.minimum(self._row, last)], stride)
        choices = [lambda kernel=kernel: function(x, kernel, stride) for kernel in kernels]
        return tf.switch_case(self._row, choices)

    def _finish(self, x, role, activation):
        name, given = f"{role}_bn", None
        if self._statistics is not None:
            given = self._statistics[len(self.moments)]
        gamma, beta = (self._weights[f"{name}/{kind}"] for kind in ("gamma", "beta"))
        x, moments = functional.batch_norm(x, gamma, beta, given)
        self.moments.append(moments)
        return functional.ACTIVATIONS[activation](x)


def kernel_shape(step: Step) -> tuple[int, int, int, int]:
    """Shape of a convolution's kernel."""
    if step.kind == "depthwise":
        return step.kernel, step.kernel, step.c_in, 1
    return step.kernel, step.kernel, step.c_in, step.c_out
