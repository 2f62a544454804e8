"""The supernet's layers: stacked weights of all operators, chosen by index tensors.

Operators of a layer with the same expansion share variables whose first axis ("row") is the
kernel size. The row is gathered outside the switch, which chooses the expansion; a small inner
switch chooses the depthwise kernel. That keeps the traced graph a third of the naive one.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf import functional
from neas_tf.operators import Operator, bottleneck_width, squeeze_width
from neas_tf.space import LayerSpec

# Batch normalisations of an MBConv, in the order of the moments that a layer returns.
BATCH_NORMS = ("expand_bn", "dw_bn", "project_bn")


class FixedLayer(tf_keras.layers.Layer):
    """A layer without a choice: its weights, by role.

    Args:
      seed: of the initial weights, which depend on it, the layer's name and the role only.
    """

    def __init__(self, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.roles: dict[str, tf.Variable] = {}

    def add(self, role: str, shape: tuple[int, ...], kind: str, rows: int = 0) -> tf.Variable:
        """Creates the weight of a role.

        Args:
          role: its name.
          shape: of one weight.
          kind: conv, dense, zeros, ones, moving_mean or moving_variance.
          rows: a stack of so many weights, each initialised by itself; 0 for no row axis.
        """
        moving = kind.startswith("moving_")
        full = (rows, *shape) if rows else shape
        value = self._initial_value(role, shape, full, kind)
        variable = self.add_weight(
            name=f"{self.name}/{role}",
            shape=full,
            dtype=tf.float32,
            initializer=lambda *_, **__: tf.constant(value),
            trainable=not moving,
            experimental_autocast=False,
            synchronization=(
                tf.VariableSynchronization.ON_READ if moving else tf.VariableSynchronization.AUTO
            ),
            aggregation=(tf.VariableAggregation.MEAN if moving else tf.VariableAggregation.NONE),
        )
        self.roles[role] = variable
        return variable

    def _initial_value(self, role, shape, full, kind) -> np.ndarray:
        if kind not in ("conv", "dense"):
            return np.full(full, 1.0 if kind in ("ones", "moving_variance") else 0.0, np.float32)
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{self.name}/{role}".encode())])
        if kind == "dense":
            limit = shape[-1] ** -0.5
            return rng.uniform(-limit, limit, full).astype(np.float32)
        # He initialisation by fan-out, as in MobileNet and EfficientNet; a depthwise kernel
        # (k, k, C, 1) sends each value to k·k others.
        fan_out = shape[0] * shape[1] * shape[3]
        return (rng.standard_normal(full) * (2.0 / fan_out) ** 0.5).astype(np.float32)

    def add_batch_norm(self, name: str, channels: int, rows: int = 0) -> None:
        """Creates gamma, beta and the moving statistics of a batch normalisation."""
        kinds = (
            ("gamma", "ones"),
            ("beta", "zeros"),
            ("moving_mean", "moving_mean"),
            ("moving_variance", "moving_variance"),
        )
        for role, kind in kinds:
            self.add(f"{name}/{role}", (channels,), kind, rows)

    def normalise(self, x, name: str, statistics):
        """Batch normalisation `name` of a map."""
        gamma, beta = self.roles[f"{name}/gamma"], self.roles[f"{name}/beta"]
        return functional.batch_norm(x, gamma, beta, statistics)

    def update_moving(self, moments: dict[str, tf.Tensor], momentum: float) -> None:
        """Moves the running statistics towards the moments (name → (2, C))."""
        for name, value in moments.items():
            for i, role in enumerate(("moving_mean", "moving_variance")):
                variable = self.roles[f"{name}/{role}"]
                variable.assign(variable * momentum + value[i] * (1.0 - momentum))


class Stem(FixedLayer):
    """3×3 convolution, BN, swish, and the depthwise-separable residual layer with SE."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        stride: int,
        block_channels: int,
        block_stride: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.channels, self.kernel, self.stride = channels, kernel, stride
        self.block_channels, self.block_stride = block_channels, block_stride

    def build(self, input_shape):
        """Creates the weights for images (B, H, W, C)."""
        self.add("conv/kernel", (self.kernel, self.kernel, input_shape[-1], self.channels), "conv")
        self.add_batch_norm("bn", self.channels)
        if self.block_channels:
            squeezed = squeeze_width(self.channels)
            self.add("block/dw/kernel", (3, 3, self.channels, 1), "conv")
            self.add_batch_norm("block/dw_bn", self.channels)
            self.add("block/se_reduce/kernel", (1, 1, self.channels, squeezed), "conv")
            self.add("block/se_reduce/bias", (squeezed,), "zeros")
            self.add("block/se_expand/kernel", (1, 1, squeezed, self.channels), "conv")
            self.add("block/se_expand/bias", (self.channels,), "zeros")
            self.add("block/pw/kernel", (1, 1, self.channels, self.block_channels), "conv")
            self.add_batch_norm("block/pw_bn", self.block_channels)
        super().build(input_shape)

    def call(self, images, statistics=None):
        """Images (B, H, W, C) → (map, moments by name)."""
        statistics, moments, w = statistics or {}, {}, self.roles
        x = functional.convolution(images, w["conv/kernel"], self.stride)
        x, moments["bn"] = self.normalise(x, "bn", statistics.get("bn"))
        x = tf.nn.silu(x)
        if not self.block_channels:
            return x, moments
        y = functional.depthwise(x, w["block/dw/kernel"], self.block_stride)
        y, moments["block/dw_bn"] = self.normalise(y, "block/dw_bn", statistics.get("block/dw_bn"))
        y = tf.nn.silu(y)
        y = functional.squeeze_excite(y, *(w[f"block/{role}"] for role in _SQUEEZE))
        y = functional.convolution(y, w["block/pw/kernel"])
        y, moments["block/pw_bn"] = self.normalise(y, "block/pw_bn", statistics.get("block/pw_bn"))
        residual = self.block_stride == 1 and self.channels == self.block_channels
        return (x + y if residual else y), moments

    def get_config(self):
        """Keras configuration."""
        names = ("channels", "kernel", "stride", "block_channels", "block_stride")
        return super().get_config() | {name: getattr(self, name) for name in ("seed", *names)}


class Head(FixedLayer):
    """One path's 1×1 convolution, pooling, hidden features and classifier."""

    def __init__(self, channels: int, features: int, num_classes: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.channels, self.features, self.num_classes = channels, features, num_classes

    def build(self, input_shape):
        """Creates the weights for maps (B, H, W, C)."""
        self.add("head_conv/kernel", (1, 1, input_shape[-1], self.channels), "conv")
        self.add_batch_norm("head_bn", self.channels)
        self.add("feature/kernel", (1, 1, self.channels, self.features), "conv")
        self.add("feature/bias", (self.features,), "zeros")
        self.add("classifier/kernel", (self.features, self.num_classes), "dense")
        self.add("classifier/bias", (self.num_classes,), "zeros")
        super().build(input_shape)

    def call(self, x, statistics=None):
        """Map (B, H, W, C) → (logits (B, classes) float32, moments by name)."""
        moments, w = {}, self.roles
        x = functional.convolution(x, w["head_conv/kernel"])
        x, moments["head_bn"] = self.normalise(x, "head_bn", (statistics or {}).get("head_bn"))
        x = tf.reduce_mean(tf.nn.silu(x), [1, 2])
        x = tf.nn.silu(functional.dense(x, w["feature/kernel"], w["feature/bias"]))
        x = tf.cast(x, tf.float32)
        return functional.dense(x, w["classifier/kernel"], w["classifier/bias"]), moments

    def get_config(self):
        """Keras configuration."""
        names = ("channels", "features", "num_classes")
        return super().get_config() | {name: getattr(self, name) for name in ("seed", *names)}


_SQUEEZE = ("se_reduce/kernel", "se_reduce/bias", "se_expand/kernel", "se_expand/bias")


@dataclasses.dataclass(frozen=True)
class Group:
    """Operators of one expansion in one layer: the rows of a set of stacked variables."""

    expansion: int
    width: int
    operators: tuple[int, ...]  # indices into the space's operators, one a row
    kernels: tuple[int, ...]


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
        parsed = {i: Operator.parse(n) for i, n in enumerate(operators) if n in layer.operators}
        convolutions = {i: op for i, op in parsed.items() if not op.is_skip}
        self.groups: list[Group] = []
        for expansion in sorted({op.expansion for op in convolutions.values()}):
            members = {i: op for i, op in convolutions.items() if op.expansion == expansion}
            width = bottleneck_width(layer.c_in, expansion)
            kernels = tuple(op.kernel for op in members.values())
            self.groups.append(Group(expansion, width, tuple(members), kernels))
        self.max_width = max(group.width for group in self.groups)
        self.has_skip = any(op.is_skip for op in parsed.values())
        # Operator index → row within its group, and → branch (groups first, then skip).
        self._row = [0] * len(operators)
        self._branch = [0] * len(operators)
        for g, group in enumerate(self.groups):
            for row, i in enumerate(group.operators):
                self._row[i], self._branch[i] = row, g
        for i, op in parsed.items():
            if op.is_skip:
                self._branch[i] = len(self.groups)
        # Which operator each row of a variable belongs to, for the optimizer's mask.
        self.row_operators: dict[str, tuple[int, ...]] = {}

    def build(self, input_shape):
        """Creates the stacked weights of every expansion and the depthwise kernels."""
        c_in, c_out = self.spec.c_in, self.spec.c_out
        for group in self.groups:
            rows, width, prefix = len(group.operators), group.width, f"e{group.expansion}/"
            squeezed = squeeze_width(width)
            before = set(self.roles)
            self.add(f"{prefix}expand/kernel", (1, 1, c_in, width), "conv", rows)
            self.add_batch_norm(f"{prefix}expand_bn", width, rows)
            self.add_batch_norm(f"{prefix}dw_bn", width, rows)
            self.add(f"{prefix}se_reduce/kernel", (1, 1, width, squeezed), "conv", rows)
            self.add(f"{prefix}se_reduce/bias", (squeezed,), "zeros", rows)
            self.add(f"{prefix}se_expand/kernel", (1, 1, squeezed, width), "conv", rows)
            self.add(f"{prefix}se_expand/bias", (width,), "zeros", rows)
            self.add(f"{prefix}project/kernel", (1, 1, width, c_out), "conv", rows)
            self.add_batch_norm(f"{prefix}project_bn", c_out, rows)
            for role in set(self.roles) - before:
                self.row_operators[role] = group.operators
            for i, kernel in zip(group.operators, group.kernels, strict=True):
                role = f"{prefix}k{kernel}/dw/kernel"
                # fan_out of a depthwise kernel is k·k; a row axis of one keeps the mask uniform.
                self.add(role, (kernel, kernel, width, 1), "conv", 1)
                self.row_operators[role] = (i,)
        super().build(input_shape)

    def call(self, inputs, operators, split_point, statistics=None):
        """Runs the layer for K paths; what they share is computed once.

        Args:
          inputs: K maps (B, H, W, C); the same tensor K times where nothing can have split.
          operators: int32 (K,), indices into the space's operators.
          split_point: int32 scalar s.
          statistics: None for the batch's moments, or K tuples as in the result.

        Returns:
          K maps and K tuples of moments: (2, widest) for `expand_bn` and `dw_bn`, (2, C') for
          `project_bn`, zero-padded; zeros where the operator is skip.
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
        for group in self.groups:
            prefix = f"e{group.expansion}/"
            weights = {}
            for role, variable in self.roles.items():
                if role.startswith(prefix) and "/moving_" not in role and "/dw/" not in role:
                    # A row of another group may lie beyond this one's; its branch is not taken.
                    last = len(group.operators) - 1
                    value = tf.gather(variable, tf.minimum(row, last)) if last else variable[0]
                    weights[role.removeprefix(prefix)] = value
            kernels = [self.roles[f"{prefix}k{k}/dw/kernel"][0] for k in group.kernels]
            branches.append(lambda w=weights, k=kernels: self._bottleneck(x, w, k, row, statistics))
        if self.has_skip:
            branches.append(lambda: (tf.identity(x), *self._no_moments()))
        return branches

    def _bottleneck(self, x, w, kernels, row, statistics) -> tuple[tf.Tensor, ...]:
        given = (None, None, None) if statistics is None else statistics
        stride = self.spec.stride

        def norm(y, i):
            name = BATCH_NORMS[i]
            return functional.batch_norm(y, w[f"{name}/gamma"], w[f"{name}/beta"], given[i])

        y = functional.convolution(x, w["expand/kernel"])
        y, expand_moments = norm(y, 0)
        y = tf.nn.silu(y)
        if len(kernels) == 1:
            y = functional.depthwise(y, kernels[0], stride)
        else:
            choices = [lambda k=k, y=y: functional.depthwise(y, k, stride) for k in kernels]
            y = tf.switch_case(row, choices)
        y, depthwise_moments = norm(y, 1)
        y = functional.squeeze_excite(tf.nn.silu(y), *(w[role] for role in _SQUEEZE))
        y = functional.convolution(y, w["project/kernel"])
        y, project_moments = norm(y, 2)
        if self.spec.keeps_shape:
            y = x + y
        missing = [[0, 0], [0, self.max_width - expand_moments.shape[-1]]]
        padded = [tf.pad(m, missing) for m in (expand_moments, depthwise_moments)]
        return y, *padded, project_moments

    def _no_moments(self) -> tuple[tf.Tensor, ...]:
        wide, narrow = tf.zeros([2, self.max_width]), tf.zeros([2, self.spec.c_out])
        return wide, tf.identity(wide), narrow

    def update_moving(self, moments, momentum, operators=None) -> None:
        """Moves the statistics of the drawn rows only; all other rows keep every bit.

        Args:
          moments: K tuples as `call` returns them.
          momentum: of the running average.
          operators: int32 (K,).
        """
        stacked = [tf.stack(values) for values in zip(*moments, strict=True)]  # (K, 2, C)
        for group in self.groups:
            # (rows, K): which path drew which row.
            drew = tf.equal(tf.constant(group.operators, tf.int32)[:, None], operators[None, :])
            weight = tf.cast(drew, tf.float32)
            weight /= tf.maximum(tf.reduce_sum(weight, 1, keepdims=True), 1.0)
            mask = tf.reduce_any(drew, 1)[:, None]
            for name, values in zip(BATCH_NORMS, stacked, strict=True):
                for i, role in enumerate(("moving_mean", "moving_variance")):
                    variable = self.roles[f"e{group.expansion}/{name}/{role}"]
                    target = tf.linalg.matmul(weight, values[:, i, : variable.shape[-1]])
                    moved = variable * momentum + target * (1.0 - momentum)
                    variable.assign(tf.where(mask, moved, variable))

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
