"""One fused graph for deployment: SavedModel, TFLite and Keras 3, each with a parity check.

Pixels in, mean of the K paths' logits out (Eq. 1): the normalisation is inside, the trunk is
computed once, and the K classifiers are one matrix product. Beside an export lie `<file>.json`
(its report) and `<file>.labels.txt` (class names, one a line).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.ensemble import build_ensemble, fold_for_deployment, model_slots
from neas_tf.errors import NeasError, check
from neas_tf.export_checks import (
    TOLERANCE,
    Job,
    Runner,
    accuracy,
    expected_convolutions,
    parity,
    predict_exported,
    random_images,
)
from neas_tf.export_files import SIGNATURE, check_output, labels_text
from neas_tf.files import write_text_atomic
from neas_tf.model_store import LoadedInfo, library_versions
from neas_tf.normalisation import Normalisation
from neas_tf.quantizing import check_quantization, convert
from neas_tf.rewrites import MOBILE_REWRITES, NO_REWRITES, Rewrites, input_constants
from neas_tf.tflite_files import counted, end_details, inspect

__all__ = [
    "accuracy",
    "check_output",
    "deployed_model",
    "expected_convolutions",
    "export_keras",
    "export_saved_model",
    "export_tflite",
    "parity",
    "predict_exported",
    "random_images",
    "serving_model",
]


def serving_model(
    fused: Any,
    normalisation: Normalisation,
    *,
    batch_size: int | None = None,
    rewrites: Rewrites = NO_REWRITES,
    probabilities: bool = True,
    keras: Any = tf_keras,
):
    """Wraps a fused ensemble between pixels and probabilities.

    Args:
      fused: `fold_for_deployment`'s model, from normalised images to mean logits.
      normalisation: put in front.
      batch_size: fixed batch size; None leaves it open.
      rewrites: that `fused` was made with.
      probabilities: whether there is a softmax at the end.
      keras: the module that `fused` was built with.

    Returns:
      A model from `image`, float32 (batch, h, w, c) in 0..255, to a dict with `logits` and
      (where wanted) `probabilities`, (batch, classes) each.
    """
    shape = fused.input_shape[1:]
    normalisation.check_channels(shape[-1])
    image = keras.Input(shape, batch_size=batch_size, name="image", dtype="float32")
    scale, offset = input_constants(normalisation.scale, normalisation.offset, shape[1], rewrites)
    x = keras.layers.Rescaling(scale, offset, name="normalisation", dtype="float32")(image)
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


def export_saved_model(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    test: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Writes a SavedModel folder with the signatures `serving_default` and `class_names`.

    `serving_default` takes `image`, float32 (batch, h, w, c) in 0..255; `class_names` takes
    nothing and returns them as strings; they are the asset `labels.txt` as well.

    Args:
      model: tf_keras, trainable form.
      info: what the model is.
      output: folder to write.
      images: (n, h, w, c) in 0..255 for the parity check; None takes random ones.
      tolerance: largest difference of logits that passes.
      overwrite: whether an earlier export may be replaced.
      test: images (n, h, w, c) in 0..255 and labels (n,), for the accuracy before and after.

    Returns:
      The report, as written to `<output>.json`.

    Raises:
      NeasError: when the output is refused or the parity check fails; nothing is written then.
    """

    def write(target: Path) -> dict[str, Any]:
        return {"ops": _write_saved_model(model, info, target)}

    job = Job(info, Path(output), "saved_model", images, tolerance, overwrite, test)
    return job.run(model, write)


def export_tflite(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    rewrites: Rewrites = MOBILE_REWRITES,
    quantize: str = "none",
    representative: np.ndarray | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
) -> dict[str, Any]:
    """Writes a TFLite file (batch 1, the converter folds batch normalisation).

    An int8 graph has the output `logits` only: XNNPACK has no int8 softmax, and steps of 1/256 say
    little about 1000 classes. The other arguments, result and errors are those of
    `export_saved_model`.

    Args:
      model: tf_keras, trainable form.
      info: what the model is.
      output: file to write.
      images: for the parity check.
      tolerance: for `quantize='none'`; the other formats report differences, but must be finite.
      overwrite: whether an earlier export may be replaced.
      test: for the accuracy.
      rewrites: exact ones for small devices.
      quantize: one of `quantizing.QUANTIZATIONS`.
      representative: for int8, (n, h, w, c) in 0..255.
      input_type, output_type: with int8 also `uint8` or `int8`.
    """
    has_images = representative is not None and len(representative) > 0
    check_quantization(quantize, input_type, output_type, has_images)

    def write(target: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            saved = Path(folder) / "model"
            _write_saved_model(model, info, saved, 1, rewrites, quantize != "int8")
            content = convert(
                saved,
                quantize,
                images=representative,
                input_type=input_type,
                output_type=output_type,
            )
        target.write_bytes(content)
        inputs, outputs = end_details(target)
        inputs[0]["range"] = [0, 255]
        found = inspect(target) | {"inputs": inputs, "outputs": outputs}
        found |= {"quantize": quantize, "rewrites": rewrites.to_dict()}
        islands = found.pop("float_islands")
        if quantize == "int8":
            if islands:
                raise NeasError(f"quantize=int8: the graph has float islands {islands}.")
            found |= {"float_islands": {}, "representative_images": len(representative)}
        return found

    bound = tolerance if quantize == "none" else float("inf")
    job = Job(info, Path(output), "tflite", images, bound, overwrite, test, rewrites)
    return job.run(model, write)


def export_keras(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    test: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Writes a file for Keras 3; arguments, result and errors as in `export_saved_model`.

    A `.keras` file holds the whole model, pixels to logits and probabilities. A `.weights.h5` file
    holds the weights of the trainable form, `build_ensemble(architecture, space, keras=keras)`.
    """
    import keras

    name = str(output)
    kinds = (".keras", ".weights.h5")
    check(name.endswith(kinds), "output", name, f"a file that ends with {' or '.join(kinds)}")
    whole = name.endswith(".keras")

    def write(target: Path) -> dict[str, Any]:
        if whole:
            twin = deployed_model(model, info, keras=keras)
            twin.save(str(target))
        else:
            twin = build_ensemble(info.architecture, info.space, keras=keras, dtype="float32")
            if model_slots(twin) != model_slots(model):
                raise NeasError(f"model: its layers are not {info.architecture.key!r}'s.")
            twin.set_weights(model.get_weights())
            twin.save_weights(str(target))
        versions = library_versions("tensorflow", "tf-keras", "keras", "numpy")
        layers = _layers_of(twin)
        return {"form": "serving" if whole else "trainable", "layers": layers, "versions": versions}

    def read_weights(path: Path) -> Runner:
        twin = build_ensemble(info.architecture, info.space, keras=keras, dtype="float32")
        twin.load_weights(str(path))
        return lambda image: {
            "logits": np.mean(twin.predict_on_batch(info.normalisation.apply(image)), axis=1)
        }

    reader = None if whole else read_weights
    job = Job(info, Path(output), "keras", images, tolerance, overwrite, test, reader=reader)
    return job.run(model, write)


def _layers_of(model: Any) -> dict[str, int]:
    """How often each kind of layer occurs, inner models included."""
    layers = []
    for layer in model.layers:
        layers += layer.layers if hasattr(layer, "layers") else [layer]
    return counted(type(layer).__name__ for layer in layers)


def _write_saved_model(
    model: Any,
    info: LoadedInfo,
    target: Path,
    batch_size: int | None = None,
    rewrites: Rewrites = NO_REWRITES,
    probabilities: bool = True,
) -> dict[str, int]:
    """Writes the SavedModel and returns the operations of its graph, counted."""
    serving = deployed_model(
        model, info, rewrites, batch_size=batch_size, probabilities=probabilities
    )
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.txt"
        write_text_atomic(labels, labels_text(info))
        module = tf.Module()
        module.variables_of_model = serving.variables
        module.labels = tf.saved_model.Asset(str(labels))
        spec = tf.TensorSpec(serving.input_shape, tf.float32, name="image")

        @tf.function(input_signature=[spec])
        def serve(image):
            outputs = serving(image, training=False)
            return {name: tf.identity(value, name=name) for name, value in outputs.items()}

        @tf.function(input_signature=[])
        def class_names():
            return {"class_names": tf.constant(list(info.class_names))}

        tf.saved_model.save(
            module, str(target), signatures={SIGNATURE: serve, "class_names": class_names}
        )
    operations = serve.get_concrete_function().graph.get_operations()
    return counted(op.type for op in operations)
