"""The models that a latency table is measured on, as TFLite files of the deployed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.cost.latency_plan import Piece
from neas_tf.ensemble.layers import (
    LayerFactory,
    head_features,
    searchable_layer,
    separable_block,
    stem,
)
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, input_constants
from neas_tf.export.serving import serving_model
from neas_tf.operators import Operator
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

_EXAMPLES = 2  # random inputs that the ranges of an int8 graph come from


def probe_model(pieces: Sequence[Piece], space: SearchSpace, quantize: str) -> bytes:
    """TFLite file of a probe: batch 1, fresh weights, the rewrites of a deployed network.

    Args:
      pieces: from the input to the output.
      space: they belong to.
      quantize: 'none' or 'int8'.

    Returns:
      The file's content. The input is a float image where the probe begins with the stem, else a
      map, of int8 in an int8 graph.
    """
    make = LayerFactory(tf_keras, dtype="float32", seed=0, rewrites=MOBILE_REWRITES)
    first = pieces[0]
    if first.kind == "stem":
        shape = (*space.input_size, space.input_channels)
    else:
        assert first.layer is not None
        shape = (*first.layer.in_size, first.layer.c_in)
    image = x = tf_keras.Input(shape, batch_size=1, name="image")
    for number, piece in enumerate(pieces):
        x = _apply(make, x, piece, f"p{number}", space)
    return _convert(tf_keras.Model(image, x), quantize, first.kind == "stem")


def _apply(make: LayerFactory, x: Any, piece: Piece, prefix: str, space: SearchSpace) -> Any:
    layers = tf_keras.layers
    if piece.kind == "stem":
        normal, width = _normalisation(space), space.input_size[1]
        constants = input_constants(normal.scale, normal.offset, width, MOBILE_REWRITES)
        x = layers.Rescaling(*constants)(x)
        widths = space.stem_channels, space.stem_kernel, space.stem_stride
        x = stem(make, x, *widths, space.activation)
        if space.block_channels:
            x = separable_block(make, x, space.block_channels, space.block_stride, space.activation)
        return x
    if piece.layer is not None:
        return searchable_layer(make, x, prefix, piece.layer, Operator.parse(piece.operator), None)
    head = space.head_channels, space.feature_channels
    x = head_features(make, x, prefix, *head, space.activation)
    return make.dense(layers.Flatten()(x), f"{prefix}_classifier", space.num_classes)


def ensemble_model(architecture: Architecture, space: SearchSpace, quantize: str) -> bytes:
    """TFLite file of a whole deployed ensemble with fresh weights, pixels to logits.

    As the export writes it: batch 1, probabilities too in a float graph, float input and output.
    """
    fused = build_ensemble(
        architecture, space, deploy=True, rewrites=MOBILE_REWRITES, dtype="float32", seed=0
    )
    model = serving_model(
        fused,
        _normalisation(space),
        batch_size=1,
        rewrites=MOBILE_REWRITES,
        probabilities=quantize == "none",
    )
    return _convert(model, quantize, True)


def _normalisation(space: SearchSpace) -> Normalisation:
    return Normalisation((0.5,) * space.input_channels, (0.25,) * space.input_channels)


def _convert(model: Any, quantize: str, image: bool) -> bytes:
    """Converts a Keras model of batch 1."""
    spec = tf.TensorSpec(model.input_shape, tf.float32, name="image" if image else "map")
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    # Without the model beside it the function is frozen as it is. With it, the converter would
    # write and read a SavedModel, layer by layer: the same graph at five times the time.
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(spec)]
    )
    if quantize == "int8":
        rng = np.random.default_rng(0)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if not image:
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8

        def examples():
            for _ in range(_EXAMPLES):
                scale = 255.0 * rng.random(spec.shape) if image else rng.normal(size=spec.shape)
                yield [scale.astype(np.float32)]

        converter.representative_dataset = examples
    try:
        return converter.convert()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NeasError(f"quantize={quantize}: the converter failed ({reason}).") from None
