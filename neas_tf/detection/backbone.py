"""A NEAS ensemble as a Model Garden backbone: levels tapped from the trunk or the merged paths."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from official.modeling import hyperparams
from official.vision.modeling.backbones import factory

from neas_tf.common.errors import check_int, check_rate, unknown_name
from neas_tf.detection.config import NeasBackbone
from neas_tf.ensemble.layers import LayerFactory
from neas_tf.ensemble.levels import MERGES, check_levels, level_layers, merged
from neas_tf.ensemble.model import path_maps
from neas_tf.ensemble.store import model_folder, read_info
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

_FIXED = ("stem_", "block_")
_NUMBER = re.compile(r"(?:trunk|path\d+)_l(\d+)_")


class NeasBackboneModel(tf_keras.Model):
    """Normalised images (batch, height, width, c) to maps by level, `{'3': …, '4': …, '5': …}`.

    Every layer has the name that `neas_tf.ensemble.model.build_ensemble` gives it, so that a
    classifier's weights load by name. Levels at or before the split come from the trunk; after
    it the K paths' maps are merged.

    Attributes:
      architecture: of the ensemble.
      space: that it lies in, at the input size of this model.
      output_specs: shape of every level, (batch, height, width, channels).
    """

    def __init__(
        self,
        architecture: Architecture,
        space: SearchSpace,
        *,
        merge: str = "mean",
        min_level: int = 3,
        drop_path: float = 0.0,
        frozen_layers: int = -1,
        norm_momentum: float = 0.99,
        synchronized: bool = False,
        kernel_regularizer: Any = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ):
        """Builds the network with fresh weights.

        Args:
          architecture, space: the ensemble; the space also gives the input size.
          merge, min_level, drop_path, frozen_layers: see `NeasBackbone`.
          norm_momentum: of the BN averages; their epsilon is the classifier's.
          synchronized: batch moments over all replicas.
          kernel_regularizer: of the dense convolutions; as with Model Garden's mobile backbones
            the depthwise ones have none.
          batch_size: None leaves it open.

        Raises:
          NeasError: for a value out of range, or a network without such a level.
        """
        name = architecture.name or architecture.key
        architecture.check_in(space)
        if merge not in MERGES:
            unknown_name("backbone.neas.merge", merge, MERGES)
        check_rate("backbone.neas.drop_path", drop_path)
        check_int("backbone.neas.frozen_layers", frozen_layers, -1, space.num_layers)
        check_levels("backbone.neas.min_level", min_level, space, name)
        make = LayerFactory(tf_keras, momentum=norm_momentum, synchronized=synchronized, seed=seed)
        shape = (*space.input_size, space.input_channels)
        image = tf_keras.Input(shape, batch_size=batch_size, name="input")
        levels = {n: level for level, n in level_layers(space).items() if level >= min_level}
        _, taps = path_maps(make, image, architecture, space, drop_path, levels)
        outputs = {
            str(levels[n]): merged(make, maps, merge, f"level{levels[n]}_{merge}")
            for n, maps in sorted(taps.items())
        }
        super().__init__(inputs=image, outputs=outputs, name="neas_backbone")
        self.architecture, self.space = architecture, space
        self._output_specs = {level: x.get_shape() for level, x in outputs.items()}
        if kernel_regularizer is not None:
            self._regularise(kernel_regularizer)
        self._freeze(frozen_layers)

    def _regularise(self, regularizer: Any) -> None:
        for layer in self.layers:
            if type(layer) is tf_keras.layers.Conv2D:
                layer.add_loss(functools.partial(_penalty, regularizer, layer))

    def _freeze(self, layers: int) -> None:
        for layer in self.layers if layers >= 0 else ():
            number = _NUMBER.match(layer.name)
            if layer.name.startswith(_FIXED) or (number and int(number[1]) <= layers):
                layer.trainable = False

    @property
    def output_specs(self) -> Mapping[str, tf.TensorShape]:
        """Shape of every level."""
        return self._output_specs


def _penalty(regularizer: Any, layer: Any) -> tf.Tensor:
    return regularizer(layer.kernel)


def architecture_and_space(config: NeasBackbone) -> tuple[Architecture, SearchSpace]:
    """What a backbone's settings name.

    Raises:
      NeasError: when there is no such architecture, or it is not in the space.
    """
    folder = model_folder(config.architecture)
    if folder is not None:
        info = read_info(folder)
        return info.architecture, info.space
    values = config.space.as_dict()
    for field in ("input_size", "input_channels", "num_classes"):
        if not values[field]:
            del values[field]
    space = SearchSpace.from_dict(values)
    return load_architecture(config.architecture, space), space


@factory.register_backbone_builder("neas")
def build_neas(
    input_specs: tf_keras.layers.InputSpec,
    backbone_config: hyperparams.Config,
    norm_activation_config: hyperparams.Config,
    l2_regularizer: tf_keras.regularizers.Regularizer | None = None,
) -> NeasBackboneModel:
    """Model Garden's builder of the backbone `neas`.

    The activations are the ensemble's own (swish); `norm_activation.activation` is that of the
    pyramid and the heads.
    """
    config: NeasBackbone = backbone_config.get()
    architecture, space = architecture_and_space(config)
    batch, height, width, channels = input_specs.shape
    return NeasBackboneModel(
        architecture,
        dataclasses.replace(space, input_size=(height, width), input_channels=channels),
        merge=config.merge,
        min_level=config.min_level,
        drop_path=config.drop_path,
        frozen_layers=config.frozen_layers,
        norm_momentum=norm_activation_config.norm_momentum,
        synchronized=norm_activation_config.use_sync_bn,
        kernel_regularizer=l2_regularizer,
        batch_size=batch,
    )
