"""The deployed form of an ensemble between pixels and probabilities, and its SavedModel."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from neas_tf.common.files import write_text_atomic
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.layers import pixel_input
from neas_tf.ensemble.model import PATH_LOGITS, build_ensemble, fold_for_deployment
from neas_tf.ensemble.rewrites import NO_REWRITES, Rewrites, input_constants
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import SIGNATURE, labels_text
from neas_tf.export.tflite.inspection import counted
from neas_tf.export.tflite.outputs import DISAGREEMENT, check_calibrated


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
      (where wanted) `probabilities`, (batch, classes) each, and `path_logits` (batch, K, classes)
      where `fused` has them.
    """
    shape = fused.input_shape[1:]
    normalisation.check_channels(shape[-1])
    constants = input_constants(normalisation.scale, normalisation.offset, shape[1], rewrites)
    image, x = pixel_input(keras, shape, *constants, batch_size=batch_size)
    found = fused(x)
    outputs = {"logits": found}
    if isinstance(found, (list, tuple)):
        outputs = dict(zip(("logits", PATH_LOGITS), found, strict=True))
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
    paths: bool = False,
    keras: Any = tf_keras,
):
    """The fused form of a trained ensemble, as `serving_model` describes it; perhaps with `paths`."""
    fused = fold_for_deployment(
        model,
        info.architecture,
        info.space,
        keras=keras,
        rewrites=rewrites,
        input_scale=info.normalisation.scale,
        outputs=PATH_LOGITS if paths else "logits",
    )
    return serving_model(
        fused,
        info.normalisation,
        batch_size=batch_size,
        rewrites=rewrites,
        probabilities=probabilities,
        keras=keras,
    )


def calibrated_model(model: Any, info: LoadedInfo) -> Any:
    """A copy of an ensemble (trainable form) with all logits divided by its temperature: exact, for
    the temperature goes into the classifiers.

    Raises:
      NeasError: where no temperature was fitted.
    """
    check_calibrated(info)
    twin = build_ensemble(info.architecture, info.space, dtype="float32")
    twin.set_weights(model.get_weights())
    for layer in twin.layers:
        if layer.name.endswith("_classifier"):
            layer.set_weights([value / info.temperature for value in layer.get_weights()])
    return twin


def disagreement(path_logits: tf.Tensor) -> tf.Tensor:
    """(1/K) Σ_k KL(p_k ‖ p̄) of softmax(logits), p̄ their mean: (b, K, classes) to nats (b,)."""
    with tf.name_scope(f"{DISAGREEMENT}_of_paths"):
        logs = tf.nn.log_softmax(path_logits)
        shares = tf.exp(logs)
        mean = tf.math.log(tf.maximum(tf.reduce_mean(shares, 1, keepdims=True), 1e-30))
        return tf.reduce_mean(tf.reduce_sum(shares * (logs - mean), 2), 1)


def write_saved_model(
    serving: Any,
    info: LoadedInfo,
    target: Path,
    batch_size: int | None = None,
    outputs: Sequence[str] = (),
    gradients: bool = True,
) -> dict[str, int]:
    """Writes a SavedModel with the signatures `serving_default` and `class_names`.

    `serving` is a `tf_keras.Model` from pixels to a dict of outputs, or to logits alone. Of `outputs`
    (`tflite.outputs.OPTIONAL`) those are added that it lacks. Without `gradients` those of swish, a
    function of their own for every use of it, are left out. Returns the operations, counted.
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
            found = serving(image, training=False)
            found = dict(found) if isinstance(found, dict) else {"logits": found}
            if DISAGREEMENT in outputs:
                found[DISAGREEMENT] = disagreement(found[PATH_LOGITS])
            if PATH_LOGITS in found and PATH_LOGITS not in outputs:
                del found[PATH_LOGITS]
            return {name: tf.identity(value, name=name) for name, value in found.items()}

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
