"""One fused graph for deployment: SavedModel, TFLite and Keras 3, each with a parity check.

Pixels in, mean of the K paths' logits out (Eq. 1): the normalisation is inside, the trunk is
computed once, and the K classifiers are one matrix product. Beside an export lie `<file>.json`
(its report) and `<file>.labels.txt` (class names, one a line).
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neas_tf.common.errors import NeasError, fail
from neas_tf.ensemble.model import PATH_LOGITS, build_ensemble, model_slots
from neas_tf.ensemble.rewrites import MOBILE_REWRITES, Rewrites
from neas_tf.ensemble.store import LoadedInfo, library_versions, weights_content
from neas_tf.export.artifacts import check_ending, check_output
from neas_tf.export.checks import (
    Job,
    Runner,
    accuracy,
    expected_convolutions,
    parity,
    predict_exported,
    random_images,
)
from neas_tf.export.images import training_pixels
from neas_tf.export.serving import (
    calibrated_model,
    deployed_model,
    serving_model,
    write_saved_model,
)
from neas_tf.export.tflite.conversion import Conversion, gzipped
from neas_tf.export.tflite.inspection import counted
from neas_tf.export.tflite.outputs import (
    PROBABILITIES,
    check_calibrated,
    check_outputs,
    described,
    needs_paths,
)
from neas_tf.export.tflite.quantizing import INTEGER, QAT, check_quantization

if TYPE_CHECKING:
    from neas_tf.export.fine_tuning import FineTuning

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


def export_saved_model(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    outputs: Sequence[str] = (PROBABILITIES,),
    calibrated: bool = False,
    **checks: Any,
) -> dict[str, Any]:
    """Writes a SavedModel folder with the signatures `serving_default` and `class_names`.

    `serving_default` takes `image`, float32 (batch, h, w, c) in 0..255; `class_names` takes
    nothing and returns them as strings; they are the asset `labels.txt` as well.

    Args:
      model: tf_keras, trainable form.
      outputs: beside the logits: probabilities, disagreement, path_logits (`tflite.outputs`).
      calibrated: whether all logits are divided by the model's temperature.
      **checks: of `checks.Job`: images, tolerance, overwrite, test, settings.

    Returns:
      The report, as written to `<output>.json`.

    Raises:
      NeasError: when the output is refused or the parity check fails; nothing is written then.
    """

    check_ending(output, "saved_model")
    outputs = check_outputs(outputs, info.architecture.num_paths)
    source = calibrated_model(model, info) if calibrated else model

    def write(target: Path) -> dict[str, Any]:
        serving = deployed_model(
            source, info, probabilities=PROBABILITIES in outputs, paths=needs_paths(outputs)
        )
        ops = write_saved_model(serving, info, target, outputs=outputs)
        return {"ops": ops, "outputs": described(info, outputs), **_heat(info, calibrated)}

    job = Job(info, Path(output), "saved_model", before=model, **checks)
    return job.run(source, write)


def export_tflite(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    *,
    rewrites: Rewrites = MOBILE_REWRITES,
    quantize: str = "none",
    representative: np.ndarray | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
    outputs: Sequence[str] | None = None,
    calibrated: bool = False,
    fine_tuning: FineTuning | None = None,
    sparsity: float = 0.0,
    **checks: Any,
) -> dict[str, Any]:
    """Writes a TFLite file (batch 1, the converter folds batch normalisation).

    An int8 graph has no output `probabilities`: XNNPACK has no int8 softmax, and steps of 1/256 say
    little about 1000 classes; `disagreement` is computed in float from its integers. The other arguments, result and errors are those of
    `export_saved_model`; the tolerance is for `quantize='none'`, the other formats report
    differences, but must be finite.

    Args:
      rewrites: exact ones for small devices.
      quantize: one of `quantizing.QUANTIZATIONS`.
      representative: for int8, (n, h, w, c) in 0..255.
      input_type, output_type: with int8 and int8_qat also `uint8` or `int8`.
      outputs: beside the logits; None is probabilities where the graph can have them.
      fine_tuning: for int8_qat and pruning.
      sparsity: share of zeros that the kernels are pruned to beforehand; 0 does not prune.
    """
    check_ending(output, "tflite")
    has_images = representative is not None and len(representative) > 0
    check_quantization(quantize, input_type, output_type, has_images)
    if outputs is None:
        outputs = () if quantize in INTEGER else (PROBABILITIES,)
    outputs = check_outputs(outputs, info.architecture.num_paths, quantize, input_type, output_type)
    if calibrated:
        check_calibrated(info)
    check_output(output, checks.get("overwrite", False))  # before hours of training
    ends = (input_type, output_type, outputs)
    conversion = Conversion(info, rewrites, quantize, representative, *ends)
    head = PATH_LOGITS if needs_paths(outputs) else "logits"
    source, network, notes, plain = model, None, {}, None
    if sparsity or quantize == QAT:
        if fine_tuning is None:
            fail("fine_tuning", None, "settings, for int8_qat and pruning")
        from neas_tf.export import fine_tuning as tuning  # tfmot only where it is needed

        if checks.get("images") is None:
            checks["images"] = training_pixels(fine_tuning.data, 64, fine_tuning.seed)
        if sparsity:
            if quantize == QAT:
                network = tuning.begin_quantization(
                    model, info, fine_tuning, rewrites, outputs=head
                )
            plain = conversion.content(model, network)
            pruned = tuning.prune(model, info, fine_tuning, sparsity)
            source, notes = pruned.model, pruned.report
        if quantize == QAT:
            trained = tuning.quantize(source, info, fine_tuning, rewrites, bool(sparsity), head)
            network, notes = trained.model, notes | trained.report
    if calibrated:
        source, notes = calibrated_model(source, info), notes | _heat(info, calibrated)
        if network is not None:
            from neas_tf.export.quantization_aware import divide_logits

            divide_logits(network, notes["temperature"])

    def write(target: Path) -> dict[str, Any]:
        content = conversion.content(source, network)
        target.write_bytes(content)
        found = conversion.describe(target) | notes
        if plain is not None:
            found["gzip_bytes"] = {"before": gzipped(plain), "after": gzipped(content)}
        return found

    if quantize != "none":
        checks["tolerance"] = float("inf")
    job = Job(info, Path(output), "tflite", rewrites=rewrites, before=model, **checks)
    return job.run(source, write, network)


def export_keras(
    model: Any,
    info: LoadedInfo,
    output: str | os.PathLike[str],
    **checks: Any,
) -> dict[str, Any]:
    """Writes a file for Keras 3; arguments, result and errors as in `export_saved_model`.

    A `.keras` file holds the whole model, pixels to logits and probabilities. A `.weights.h5` file
    holds the weights of the trainable form, `build_ensemble(architecture, space, keras=keras)`.
    """
    import keras
    from keras.src.saving import saving_lib  # the public one writes to paths only

    check_ending(output, "keras")
    whole = str(output).endswith(".keras")

    def write(target: Path) -> dict[str, Any]:
        if whole:
            twin = deployed_model(model, info, keras=keras)
            content = io.BytesIO()  # there is HDF5 in it: see `weights_content`
            saving_lib.save_model(twin, content)
            target.write_bytes(content.getvalue())
        else:
            twin = build_ensemble(info.architecture, info.space, keras=keras, dtype="float32")
            if model_slots(twin) != model_slots(model):
                raise NeasError(f"model: its layers are not {info.architecture.key!r}'s.")
            twin.set_weights(model.get_weights())
            target.write_bytes(weights_content(twin))
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
    job = Job(info, Path(output), "keras", reader=reader, **checks)
    return job.run(model, write)


def _heat(info: LoadedInfo, calibrated: bool) -> dict[str, Any]:
    """What a report says of the temperature inside an export."""
    return {"temperature": info.temperature} if calibrated else {}


def _layers_of(model: Any) -> dict[str, int]:
    """How often each kind of layer occurs, inner models included."""
    layers: list[Any] = []
    for layer in model.layers:
        layers += layer.layers if hasattr(layer, "layers") else [layer]
    return counted(type(layer).__name__ for layer in layers)
