"""The K-path supernet (paper sections 3.3 and 3.4): one traced graph for every ensemble.

The architecture enters as an int32 tensor (1 + K·d,) = [split point, K rows of d operator
indices], `Architecture.to_array`. Layers before the split are computed once.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet import fixed_layers, searchable_layer
from neas_tf.supernet.fixed_layers import Head, Stem
from neas_tf.supernet.searchable_layer import Drawn, SearchableLayer, drawn_in


class SupernetOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
      logits: (K, B, classes) float32.
      features: (K, B, H, W, C), the paths' maps after the last searchable layer.
      moments: mean and variance of every batch normalisation that ran, the same structure as is taken for
        `statistics`: `stem` (2, C) by name, `layers` for each layer and path (2, ΣC) as in
        `LayerProgram`, `heads` for each path (2, C) by name.
    """

    logits: tf.Tensor
    features: tf.Tensor
    moments: Any


class Supernet(tf_keras.Model):
    """One weight set per (layer, operator), K heads.

    `heterogeneous` says whether a combination must hold K different operators, `momentum` is that of the
    running BN statistics, `zero_init_residual` is for `SearchableLayer`.
    """

    def __init__(
        self,
        space: SearchSpace,
        num_paths: int,
        heterogeneous: bool = True,
        momentum: float = 0.9,
        seed: int = 0,
        zero_init_residual: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.space, self.num_paths, self.momentum, self.seed = space, num_paths, momentum, seed
        self.stem = Stem(space, seed=seed, name="stem")
        self.searchable = [
            SearchableLayer(
                layer,
                space.operators,
                num_paths,
                can_share=layer.number <= space.max_split,
                can_split=layer.number > space.min_split,
                zero_init_residual=zero_init_residual,
                seed=seed,
                name=f"layer{layer.number:02d}",
            )
            for layer in space.layers
        ]
        self.heads = [Head(space, seed=seed, name=f"head{k + 1}") for k in range(num_paths)]
        self.stem.build((None, *space.input_size, space.input_channels))
        for layer, spec in zip(self.searchable, space.layers, strict=True):
            layer.build((None, *spec.in_size, spec.c_in))
        for head in self.heads:
            head.build((None, *space.layers[-1].out_size, space.out_channels))
        self.built = True
        # The combinations alive, for the checkpoint: one number each, over all layers.
        whole = ShrunkSpace.full(space, num_paths, heterogeneous)
        self.alive = tf.Variable(
            tf.ones([sum(map(len, whole.alive))]), trainable=False, name="alive_combinations"
        )
        self._whole = whole

    def set_shrunk(self, shrunk: ShrunkSpace) -> None:
        """Records the combinations alive, which are saved with the weights."""
        flags = [
            row in set(left)
            for rows, left in zip(self._whole.alive, shrunk.alive, strict=True)
            for row in rows
        ]
        self.alive.assign(np.array(flags, np.float32))

    def shrunk(self) -> ShrunkSpace:
        """The space that `set_shrunk` recorded."""
        flags = iter(self.alive.numpy() > 0.5)
        alive = tuple(tuple(row for row in rows if next(flags)) for rows in self._whole.alive)
        return dataclasses.replace(self._whole, alive=alive)

    def drawn(self, architecture: tf.Tensor) -> Drawn:
        """What the ensemble draws in the searchable layers."""
        return drawn_in(self.searchable, architecture)

    def drawn_rows(self, drawn: Drawn) -> list[tf.Tensor]:
        """For each searchable layer the weights (K, row width) that the ensemble draws."""
        return [
            tf.gather(layer.rows, own.rows)
            for layer, own in zip(self.searchable, drawn.layers, strict=True)
        ]

    def call(self, images, architecture, statistics=None, rows=None, drawn=None) -> SupernetOutput:
        """Runs one ensemble.

        Args:
          images: (B, H, W, channels), normalised.
          architecture: int32 (1 + K·d,).
          statistics: BN statistics in the structure of `SupernetOutput.moments`; None
            normalises with the batch's own moments (training and recalibration).
          rows: `drawn_rows`, where gradients by them are wanted.
          drawn: `drawn(architecture)`, where it is known already.
        """
        drawn = self.drawn(architecture) if drawn is None else drawn
        rows = rows or [None] * len(self.searchable)
        given = statistics or {"stem": None, "layers": [None] * len(self.searchable), "heads": None}
        x, stem_moments = self.stem(tf.cast(images, self.compute_dtype), given["stem"])
        maps, layer_moments = [x] * self.num_paths, []
        for m, layer in enumerate(self.searchable):
            maps, moments = layer(maps, drawn.layers[m], given["layers"][m], rows[m])
            layer_moments.append(moments)
        logits, head_moments = [], []
        for k, head in enumerate(self.heads):
            own = given["heads"][k] if given["heads"] else None
            path_logits, moments = head(maps[k], own)
            logits.append(path_logits)
            head_moments.append(moments)
        everything = {"stem": stem_moments, "layers": layer_moments, "heads": head_moments}
        return SupernetOutput(tf.stack(logits), tf.stack(maps), everything)

    def update_moving(self, moments, drawn: Drawn) -> None:
        """Moves the running BN statistics of the drawn operators towards a step's moments."""
        fixed = self.stem.moving_of(moments["stem"])
        for head, values in zip(self.heads, moments["heads"], strict=True):
            fixed += head.moving_of(values)
        fixed_layers.update_moving(fixed, self.momentum)
        searchable_layer.update_moving(self.searchable, moments["layers"], drawn, self.momentum)


class UpdateRule(NamedTuple):
    """How one trainable variable takes part in a step.

    Attributes:
      layer: 1-based searchable layer, 0 for the stem, -1 for a head.
      rows: operator index of each row of the variable's first axis; () where it has no rows.
      decayed: how many numbers at a row's beginning weight decay reaches, for each row.
    """

    layer: int
    rows: tuple[int, ...] = ()
    decayed: tuple[int, ...] = ()

    def scaled(self, gradient: tf.Tensor, architecture: tf.Tensor, num_paths: int) -> tf.Tensor:
        """The gradient times `gradient_scale`."""
        scale = self.gradient_scale(architecture, num_paths)
        return gradient if isinstance(scale, float) and scale == 1.0 else gradient * scale

    def gradient_scale(self, architecture: tf.Tensor, num_paths: int) -> tf.Tensor | float:
        """1/K in the shared trunk, else 1.

        The gradient is linear in what enters the trunk, so that dividing that by K is the same
        as dividing the trunk's weight gradients.
        """
        if self.layer < 0 or num_paths == 1:
            return 1.0
        if self.layer == 0:
            return 1.0 / num_paths
        return trunk_scale(self.layer, architecture[0], num_paths)


def trunk_scale(layer: int | np.ndarray, split: tf.Tensor, num_paths: int) -> tf.Tensor:
    """1/K for searchable layers (1-based, one or several) before the split point, 1 after it."""
    return tf.where(layer <= split, 1.0 / num_paths, 1.0)


def update_rules(supernet: Supernet) -> list[UpdateRule]:
    """The rule of every variable in `supernet.trainable_variables`, in that order."""
    rules = {id(v): UpdateRule(0) for v in supernet.stem.trainable_variables}
    for number, layer in enumerate(supernet.searchable, 1):
        rules[id(layer.rows)] = UpdateRule(number, layer.members, layer.decayed)
    for head in supernet.heads:
        rules |= {id(v): UpdateRule(-1) for v in head.trainable_variables}
    return [rules[id(v)] for v in supernet.trainable_variables]
