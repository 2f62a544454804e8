"""One fused graph for deployment: SavedModel and TFLite, each with a parity check.

Pixels in, mean of the K paths' logits out (Eq. 1): the normalisation is inside, the trunk is
computed once, and the K classifiers are one matrix product. Beside an export lie `<file>.json`
(its report) and `<file>.labels.txt` (class names, one a line).
"""

from __future__ import annotations

import collections
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from neas_tf.architecture import Architecture
from neas_tf.ensemble import fold_for_deployment
from neas_tf.errors import NeasError, check
from neas_tf.export_files import (
    SIGNATURE,
    check_output,
    describe_export,
    labels_file,
    labels_text,
    report_file,
)
from neas_tf.files import write_json_atomic, write_text_atomic
from neas_tf.model_store import LoadedInfo, replace_path
from neas_tf.normalisation import Normalisation
from neas_tf.operators import SKIP
from neas_tf.space import SearchSpace

TOLERANCE = 1e-4
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "Conv2D", "DepthwiseConv2dNative")


def serving_model(fused: Any, normalisation: Normalisation, *, batch_size: int | None = None):
    """Wraps a fused ensemble between pixels and probabilities.

    Args:
      fused: `fold_for_deployment`'s model, from normalised images to mean logits.
      normalisation: put in front.
      batch_size: fixed batch size; None leaves it open.

    Returns:
      A tf_keras model from `image`, float32 (batch, h, w, c) in 0..255, to a dict with `logits`
      and `probabilities`, both (batch, classes).
    """
    shape = fused.input_shape[1:]
    normalisation.check_channels(shape[-1])
    image = tf_keras.Input(shape, batch_size=batch_size, name="image", dtype="float32")
    x = tf_keras.layers.Rescaling(
        normalisation.scale, normalisation.offset, name="normalisation", dtype="float32"
    )(image)
    logits = fused(x)
    softmax = tf_keras.layers.Softmax(name="probabilities", dtype="float32")
    return tf_keras.Model(image, {"logits": logits, "probabilities": softmax(logits)})


def export_saved_model(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
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

    Returns:
      The report, as written to `<output>.json`.

    Raises:
      NeasError: when the output is refused or the parity check fails; nothing is written then.
    """

    def write(target: Path) -> dict[str, int]:
        return _write_saved_model(model, info, target)

    return _export(model, info, Path(output), "saved_model", write, images, tolerance, overwrite)


def export_tflite(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    images: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a float32 TFLite file (batch 1, the converter folds batch normalisation).

    Arguments, result and errors are those of `export_saved_model`.
    """

    def write(target: Path) -> dict[str, int]:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _write_saved_model(model, info, Path(folder) / "model", batch_size=1)
            converter = tf.lite.TFLiteConverter.from_saved_model(
                str(Path(folder) / "model"), signature_keys=[SIGNATURE]
            )
            target.write_bytes(converter.convert())
        return tflite_ops(target)

    return _export(model, info, Path(output), "tflite", write, images, tolerance, overwrite)


def parity(
    model: Any, exported: str | os.PathLike[str], images: np.ndarray, normalisation: Normalisation
) -> dict[str, Any]:
    """Compares an export with the Keras model that it was made of.

    Args:
      model: tf_keras, trainable form, from normalised images to logits (batch, K, classes).
      exported: `.tflite` file or SavedModel folder.
      images: (n, h, w, c) in 0..255.
      normalisation: of the model.

    Returns:
      `max_abs_diff` of the ensemble's logits, `max_abs_logit`, number of `examples`, and
      `agreement`: the share of images with the same first class.
    """
    images = np.asarray(images, np.float32)
    check(images.ndim == 4 and len(images) > 0, "images", images.shape, "(n, h, w, c), n ≥ 1")
    expected = np.mean(model.predict(normalisation.apply(images), verbose=0), axis=1)
    logits = predict_exported(exported, images)["logits"]
    return {
        "max_abs_diff": float(np.max(np.abs(logits - expected))),
        "max_abs_logit": float(np.max(np.abs(expected))),
        "examples": len(images),
        "agreement": float(np.mean(logits.argmax(-1) == expected.argmax(-1))),
    }


def predict_exported(exported: str | os.PathLike[str], images: np.ndarray) -> dict[str, np.ndarray]:
    """Runs an export on images (n, h, w, c) in 0..255, one by one; outputs (n, classes) by name."""
    run = _runner(exported)
    rows = [run(np.asarray(image[None], np.float32)) for image in images]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def tflite_ops(path: str | os.PathLike[str]) -> dict[str, int]:
    """How often each operation occurs in a TFLite file, by name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    return _counted(op["op_name"] for op in interpreter._get_ops_details())


def expected_convolutions(architecture: Architecture, space: SearchSpace) -> int:
    """Convolutions of the fused graph, depthwise ones included, with a trunk that runs once."""
    mbconv, block, head = 5, 4, 2  # SE has two
    columns = [
        architecture.shared,
        *(row[architecture.split_point :] for row in architecture.paths),
    ]
    layers = sum(name != SKIP for column in columns for name in column)
    fixed = 1 + (block if space.block_channels else 0)
    return fixed + mbconv * layers + head * architecture.num_paths


def random_images(space: SearchSpace, count: int = 8, seed: int = 0) -> np.ndarray:
    """Pictures of smooth random colours, uint8 (count, h, w, c), for a parity check without data.

    Noise pixel by pixel is unlike any picture: it can drive a network's activations to where
    float32 rounds by more than the tolerance.
    """
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0, 255, (count, 7, 7, space.input_channels))  # corners of patches
    for axis, side in ((1, space.input_size[0]), (2, space.input_size[1])):
        position = np.linspace(0, 6, side)
        low = np.minimum(position.astype(int), 5)
        rest = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        first, second = (np.take(pictures, low + i, axis) for i in (0, 1))
        pictures = first * (1 - rest) + second * rest
    return np.round(pictures).astype(np.uint8)


def _export(
    model: Any,
    info: LoadedInfo,
    output: Path,
    kind: str,
    write: Callable[[Path], dict[str, int]],
    images: np.ndarray | None,
    tolerance: float,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes, checks and describes beside the output, then renames: all of it or nothing."""
    check_output(output, overwrite)
    images = random_images(info.space) if images is None else images
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            new = Path(folder) / output.name
            ops = write(new)
            _check_trunk_once(info, ops)
            result = parity(model, new, images, info.normalisation)
            if not result["max_abs_diff"] <= tolerance:
                raise NeasError(
                    f"export {str(output)!r}: its logits differ from the Keras model's by "
                    f"{result['max_abs_diff']:.3g}, allowed is {tolerance:.3g}; nothing was written."
                )
            report = describe_export(info, output, new, kind, ops, result)
            # The report first, for it says whose the rest is; the export last: where it is, the
            # files that belong to it are too.
            write_json_atomic(report_file(output), report)
            write_text_atomic(labels_file(output), labels_text(info))
            replace_path(new, output)
    except OSError as error:
        raise NeasError(f"export {str(output)!r}: cannot be written ({error}).") from None
    return report


def _write_saved_model(
    model: Any, info: LoadedInfo, target: Path, batch_size: int | None = None
) -> dict[str, int]:
    """Writes the SavedModel and returns the operations of its graph, counted."""
    fused = fold_for_deployment(model, info.architecture, info.space)
    serving = serving_model(fused, info.normalisation, batch_size=batch_size)
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
    return _counted(op.type for op in operations)


def _counted(names) -> dict[str, int]:
    return dict(sorted(collections.Counter(names).items()))


def _check_trunk_once(info: LoadedInfo, ops: dict[str, int]) -> None:
    found = sum(ops.get(name, 0) for name in _CONVOLUTIONS)
    expected = expected_convolutions(info.architecture, info.space)
    if found != expected:
        raise NeasError(
            f"export: the graph has {found} convolutions, the ensemble {expected}; nothing was "
            "written."
        )


def _runner(exported: str | os.PathLike[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    if os.path.isdir(exported):
        loaded = tf.saved_model.load(str(exported))
        serve = loaded.signatures[SIGNATURE]

        def run_saved_model(image, _keeps_variables_alive=loaded):
            return {name: value.numpy() for name, value in serve(image=tf.constant(image)).items()}

        return run_saved_model
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(exported), num_threads=1).get_signature_runner(SIGNATURE)
    return lambda image: {name: np.array(value) for name, value in runner(image=image).items()}
