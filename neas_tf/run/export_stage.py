"""Stage 4: the retrained ensemble as one fused graph per format, each checked for parity."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import difference, listed, read_json
from neas_tf.config.resolve import with_augmentation
from neas_tf.ensemble import store as model_store
from neas_tf.export import formats as exporting
from neas_tf.export import images as export_images
from neas_tf.export.artifacts import FINE_TUNING, report_file
from neas_tf.export.tflite.quantizing import QAT
from neas_tf.run.context import Run

_FILES = {
    "tflite": "model.tflite",
    "tflite_float16": "model_float16.tflite",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_int8": "model_int8.tflite",
    "tflite_int8_qat": "model_int8_qat.tflite",
    "tflite_pruned": "model_pruned.tflite",
    "saved_model": "saved_model",
    "keras": "model.keras",
}
_FLOAT = ("tflite", "saved_model", "keras", "pruned")
# These train the model on.
FINE_TUNED = (QAT, "pruned")


def check_export(run: Run, alone: bool) -> None:
    """Refuses, without writing, a folder that holds nothing to export, when run `alone`.

    And one whose model another run has trained: its files would be checked on the wrong images.
    """
    if not alone:
        return
    if not run.folder("retrain", "model").exists():
        raise NeasError(
            f"stage: {str(run.model_dir)!r} holds no retrained model; run --stage=retrain first."
        )
    run.check_identity("retrain")


def export(run: Run) -> list[dict[str, Any]]:
    """Writes the formats of `export.formats` into `export/`.

    What is there already is kept where it was made of the run's model, with these settings.

    Returns:
      The reports, one a format.
    """
    check_export(run, alone=True)
    console.heading("Export", ", ".join(run.config.export.formats) or "no formats are asked for")
    reports, loaded = [], None
    with run.timed("export"), _float32():
        weights = model_store.weights_digest(
            run.model_dir / model_store.RUN_MODEL / model_store.WEIGHTS_FILE
        )
        for name in run.config.export.formats:
            output = run.folder("export", _FILES[name])
            found, why = _made_before(run, name, output, weights)
            if found is not None and not why:
                reports.append(found)
                console.say(f"   {output} was written before.")
                continue
            if why:
                console.say(f"   {output} is made again: {why}.")
            loaded = loaded or _load(run)
            reports.append(_export(run, name, output, *loaded))
            parity = reports[-1]["parity"]
            console.say(
                f"   {output}: {reports[-1]['bytes'] / 1e3:,.0f} kB, differs by at most "
                f"{parity['max_abs_diff']:.1e} from the trained model."
            )
    return reports


def _made_before(
    run: Run, name: str, output: Path, weights: str
) -> tuple[dict[str, Any] | None, str]:
    """The report of a format's export, None without one, and why it is not this model's, or ''."""
    report = report_file(output)
    if not (output.exists() and report.exists()):
        return None, ""
    found = read_json(report, "export report")
    if not isinstance(found, dict) or found.get("weights") is None:
        return None, "its report does not say which weights it was made of"
    if found["weights"] != weights:
        return None, "it was made of other weights"
    settings = _settings(run, name)
    # Without settings it was made by a command of export/, with those that its user wanted.
    made = found.get("settings", {**settings, "quantize": found.get("quantize")})
    changes = difference(made, settings)
    if changes:
        return None, f"its settings were others ({listed(changes)})"
    return found, ""


def _settings(run: Run, name: str) -> dict[str, Any]:
    """What an export of the run's model depends on besides its weights.

    Checks are no part of it where they could cost a training.
    """
    settings = run.config.export
    kind = name.removeprefix("tflite_")
    value: dict[str, Any] = {"quantize": "none" if kind in _FLOAT else kind}
    if kind in FINE_TUNED:
        names = ("fine_tune_epochs", "fine_tune_rate", "fine_tune_batch")
        value |= {field: getattr(settings, field) for field in names}
    else:
        names = ("parity_examples", "test_examples")
        value |= {field: getattr(settings, field) for field in names}
    if kind in ("int8", QAT):
        value["calibration_images"] = settings.calibration_images
    if kind == "pruned":
        value["sparsity"] = settings.sparsity
    return value


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Models of a block are float32, whatever a run trained in; XNNPACK and TFLite expect that."""
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


def _load(run: Run) -> tuple[Any, model_store.LoadedInfo, dict[str, Any]]:
    """The model, what it is, and the arguments that all formats share."""
    model, info = model_store.load_model(run.folder("retrain", "model"))
    settings = run.config.export
    common: dict[str, Any] = {"images": pixels(run, settings.parity_examples), "overwrite": True}
    if settings.test_examples:
        common["test"] = export_images.test_pixels(run.info, settings.test_examples, info)
    return model, info, common


def _export(run: Run, name: str, output: Any, model: Any, info: Any, common: dict) -> dict:
    common = common | {"settings": _settings(run, name)}
    if name == "saved_model":
        return exporting.export_saved_model(model, info, output, **common)
    if name == "keras":
        return exporting.export_keras(model, info, output, **common)
    settings = run.config.export
    quantize = name.removeprefix("tflite").removeprefix("_") or "none"
    if quantize == "int8":
        common = common | {"representative": pixels(run, settings.calibration_images)}
    if quantize in FINE_TUNED:
        common = common | {"fine_tuning": _fine_tuning(run)}
    if quantize == "pruned":
        quantize, common = "none", common | {"sparsity": settings.sparsity}
    return exporting.export_tflite(model, info, output, quantize=quantize, **common)


def _fine_tuning(run: Run) -> Any:
    """Settings and data for pruning and quantization-aware training."""
    from neas_tf.export.fine_tuning import FineTuning  # tfmot only where it is needed

    settings, retrain = run.config.export, run.config.retrain
    return FineTuning(
        with_augmentation(run.info, retrain),
        run.folder(*FINE_TUNING.parts),
        epochs=settings.fine_tune_epochs,
        rate=settings.fine_tune_rate,
        batch_size=settings.fine_tune_batch,
        seed=run.config.seed,
        label_smoothing=retrain.label_smoothing,
        calibration_images=settings.calibration_images,
        set_aside=True,
    )


def pixels(run: Run, count: int) -> np.ndarray:
    """Training images as an exported model takes them: float32 (n, H, W, C) in 0..255."""
    return export_images.training_pixels(run.info, count, run.config.seed)
