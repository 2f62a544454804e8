"""Multiply-accumulates of a backbone, counted in its graph: the same rule for every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from official.vision.configs import common
from official.vision.modeling import backbones as _backbones  # noqa: F401
from official.vision.modeling.backbones import factory

from neas_tf.common.errors import NeasError

# Importing these two modules registers the backbones.
from neas_tf.detection import backbone as _backbone  # noqa: F401
from neas_tf.detection.config import Backbone

SIZE = (224, 224)
LEVELS = ("3", "4", "5")  # what RetinaNet's pyramid takes


def backbone_macs(config: Any, size: tuple[int, int] = SIZE) -> int:
    """MACs of convolutions and dense layers up to the last level, for one image of (height, width).

    `config` is `task.model.backbone`; Table 6 of the paper means 224².
    """
    with tf.Graph().as_default():
        model = factory.build_backbone(
            input_specs=tf_keras.layers.InputSpec(shape=[1, *size, 3]),
            backbone_config=config,
            norm_activation_config=common.NormActivation(use_sync_bn=False),
        )
        maps = model(tf.zeros((1, *size, 3)), training=False)
    return graph_macs([maps[level] for level in LEVELS if level in maps])


def macs_of_settings(backbone: Mapping[str, Any]) -> int:
    """Like `backbone_macs`, from the settings in a run's params.yaml."""
    config = Backbone()
    try:
        config.override(dict(backbone), is_strict=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"task.model.backbone: not settings of a backbone ({reason}).") from None
    return backbone_macs(config)


def graph_macs(outputs: Sequence[tf.Tensor]) -> int:
    """MACs of the convolutions and matrix products that tensors of a graph depend on.

    Shapes must be static, maps NHWC and the batch 1.
    """
    total, seen, waiting = 0, set(), [tensor.op for tensor in outputs]
    while waiting:
        node = waiting.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        waiting += [tensor.op for tensor in node.inputs]
        if node.type in ("Conv2D", "DepthwiseConv2dNative"):
            pixels = int(np.prod(node.outputs[0].shape[1:3]))
            total += pixels * int(np.prod(node.inputs[1].shape))
        elif node.type == "MatMul":
            total += int(np.prod(node.inputs[1].shape))
    return total
