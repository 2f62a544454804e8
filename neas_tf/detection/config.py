"""Settings of the detector: Model Garden's RetinaNet with one more backbone."""

from __future__ import annotations

import dataclasses

from official.modeling import hyperparams
from official.vision.configs import backbones, retinanet

from neas_tf.config.settings import SpaceConfig


@dataclasses.dataclass
class NeasBackbone(hyperparams.Config):
    """A NEAS ensemble as a backbone.

    Attributes:
      architecture: zoo name, JSON file, canonical key or official list; or the folder of a run
        with a retrained model, which also says the space.
      space: that the architecture was chosen from, where no folder says it. Input size, classes
        and head of it do not matter here.
      merge: how the K paths' maps become one after the split: `mean`, `sum` or `concat`.
      min_level: the finest level that is handed on; 3 is stride 8.
      drop_path: rate of stochastic depth at the last layer; it grows linearly from 0.
      frozen_layers: keeps the stem, the fixed block and so many searchable layers as they were
        initialised, BN statistics included; -1 freezes nothing.
    """

    architecture: str = "neas_s"
    space: SpaceConfig = dataclasses.field(default_factory=SpaceConfig)
    merge: str = "mean"
    min_level: int = 3
    drop_path: float = 0.0
    frozen_layers: int = -1


@dataclasses.dataclass
class Backbone(backbones.Backbone):
    """Model Garden's choice of backbones, and ours."""

    type: str | None = "neas"
    neas: NeasBackbone = dataclasses.field(default_factory=NeasBackbone)


@dataclasses.dataclass
class NeasRetinaNet(retinanet.RetinaNet):
    """RetinaNet with that choice."""

    backbone: Backbone = dataclasses.field(default_factory=Backbone)


@dataclasses.dataclass
class NeasRetinaNetTask(retinanet.RetinaNetTask):
    """Model Garden's task with that model."""

    model: NeasRetinaNet = dataclasses.field(default_factory=NeasRetinaNet)
