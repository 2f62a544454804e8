"""The registered experiments: Model Garden's recipe for RetinaNet on COCO, and YAML files over it.

| name | data | recipe |
|---|---|---|
| `neas_retinanet_coco` | COCO 2017 | Model Garden's: 640², 72 epochs, batch 256 |
| `neas_retinanet_coco_paper` | COCO 2017 | the paper's (section 4.4): 12 epochs, batch 32 |
| `neas_retinanet_coco_mini` | the COCO subset of the tests | overfits 57 images on a CPU |
"""

from __future__ import annotations

import functools

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.vision.configs import retinanet

from neas_tf.common.paths import config_file
from neas_tf.common.yaml_text import load_yaml_file
from neas_tf.detection import config as configs

NAMES = ("neas_retinanet_coco", "neas_retinanet_coco_paper", "neas_retinanet_coco_mini")


def _experiment(name: str) -> cfg.ExperimentConfig:
    """Model Garden's settings with our model, then the file of `NAMES[0]`, then the experiment's."""
    config = cfg.ExperimentConfig(task=configs.NeasRetinaNetTask())
    recipe = retinanet.retinanet_resnetfpn_coco().as_dict()
    del recipe["task"]["model"]["backbone"]
    overrides = [recipe]
    for file in dict.fromkeys((NAMES[0], name)):
        overrides.append(
            load_yaml_file(config_file("detection", "experiments", f"{file}.yaml"), name)
        )
    for override in overrides:
        config.override(override, is_strict=False)
    return config


for _name in NAMES:
    exp_factory.register_config_factory(_name)(functools.partial(_experiment, _name))
