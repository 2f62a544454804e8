"""The deployed form of an ensemble between pixels and probabilities, and its SavedModel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from neas_tf.common.files import write_text_atomic
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.layers import pixel_input
from neas_tf.ensemble.model import fold_for_deployment
from neas_tf.ensemble.rewrites import NO_REWRITES, Rewrites, input_constants
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import SIGNATURE, labels_text
from neas_tf.export.tflite.inspection import counted


def serving_model(
    fused: Any,
    normalisation: Normalisation,
    *,
    batch_size: int | None = None,
    rewrites: Rewrites = NO_REWRITES,
    probabilities: bool = True,
    keras: Any = tf_keras,
):
    """Wraps a fused ensemble (`fold_for_deployment`'s, of the same rewrites) between pixels and probabilities.

    Args:
      batch_size: None leaves it open.
      probabilities: whether there is a softmax at the end.
      keras: the module that `fused` was built with.

    Returns:
      A model from `image`, float32 (batch, h, w, c) in 0..255, to a dict with `logits` and
      (where wanted) `probabilities`, (batch, classes) each.
    """
    shape = fused.input_shape[1:]
    normalisation.check_channels(shape[-1])
    constants = input_constants(normalisation.scale, normalisation.offset, shape[1], rewrites)
    image, x = pixel_input(keras, shape, *constants, batch_size=batch_size)
    outputs = {"logits": fused(x)}
    if probabilities:
        softmax = keras.layers.Softmax(name="probabilities", dtype="float32")
        outputs["probabilities"] = softmax(outputs["logits"])
    return keras.Model(image, outputs)


def deployed_model(
    model: Any,
    info: LoadedInfo,
    rewrites: Rewrites = NO_REWRITES,
    *,
    batch_size: int | None = None,
    probabilities: bool = True,
    keras: Any = tf_keras,
):
    """The fused form of a trained ensemble, as `serving_model` describes it."""
    fused = fold_for_deployment(
        model,
        info.architecture,
        info.space,
        keras=keras,
        rewrites=rewrites,
        input_scale=info.normalisation.scale,
    )
    return serving_model(
        fused,
        info.normalisation,
        batch_size=batch_size,
        rewrites=rewrites,
        probabilities=probabilities,
        keras=keras,
    )


def write_saved_model(
    serving: Any,
    info: LoadedInfo,
    target: Path,
    batch_size: int | None = None,
    gradients: bool = True,
) -> dict[str, int]:
    """Writes a SavedModel with the signatures `serving_default` and `class_names`.

    `serving` is a `tf_keras.Model` from pixels to a dict of outputs, or to logits alone. Without
    `gradients` those of swish, a function of their own for every use of it, are left out. Returns
    the operations of the graph, counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        write_text_atomic(labels, labels_text(info))
        module = tf.Module()
        module.variables_of_model = serving.variables
        module.labels = tf.saved_model.Asset(str(labels))
        shape = (batch_size, *serving.input_shape[1:])

        image = tf.TensorSpec(shape, tf.float32, name="image")

        @tf.function(input_signature=[image], autograph=False)
        def serve(image):
            outputs = serving(image, training=False)
            if not isinstance(outputs, dict):
                outputs = {"logits": outputs}
            return {name: tf.identity(value, name=name) for name, value in outputs.items()}

        @tf.function(input_signature=[], autograph=False)
        def class_names():
            return {"class_names": tf.constant(list(info.class_names))}

        tf.saved_model.save(
            module,
            str(target),
            signatures={SIGNATURE: serve, "class_names": class_names},
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=gradients),
        )
    operations = serve.get_concrete_function().graph.get_operations()
    return counted(op.type for op in operations)
