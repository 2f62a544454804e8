"""Stage 4: the retrained ensemble as one fused graph per format, each checked for parity."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tf_keras

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import difference, listed, read_json
from neas_tf.config.export_settings import ExportConfig
from neas_tf.config.resolve import with_augmentation
from neas_tf.config.settings import NeasConfig
from neas_tf.data import DatasetInfo
from neas_tf.ensemble import store as model_store
from neas_tf.export import formats as exporting
from neas_tf.export import images as export_images
from neas_tf.export.artifacts import FINE_TUNING, report_file
from neas_tf.export.model_card import write_card
from neas_tf.export.tflite.outputs import PROBABILITIES
from neas_tf.export.tflite.quantizing import INTEGER, QAT
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity
from neas_tf.run.record import timed
from neas_tf.space.search_space import SearchSpace

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


def check_export(
    config: NeasConfig,
    model_dir: Path,
    info: DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    alone: bool,
) -> None:
    """Refuses, without writing, a folder that holds nothing to export, when run `alone`.

    And one whose model another run has trained: its files would be checked on the wrong images.
    """
    del space, cluster
    if not alone:
        return
    if not (model_dir / model_store.RUN_MODEL).exists():
        raise NeasError(
            f"stage: {str(model_dir)!r} holds no retrained model; run --stage=retrain first."
        )
    Identity("retrain", config, model_dir, info).check()


def export(
    config: NeasConfig,
    model_dir: Path,
    info: DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
) -> list[dict[str, Any]]:
    """Writes the formats of `export.formats` into `export/`.

    What is there already is kept where it was made of the run's model, with these settings.

    Returns:
      The reports, one a format.
    """
    check_export(config, model_dir, info, space, cluster, alone=True)
    settings = config.export
    console.heading("Export", ", ".join(settings.formats) or "no formats are asked for")
    reports, loaded = [], None
    with timed(model_dir, "export", cluster.is_chief), _float32():
        folder = model_dir / model_store.RUN_MODEL
        weights = model_store.weights_digest(folder / model_store.WEIGHTS_FILE)
        for name in settings.formats:
            output = model_dir / "export" / _FILES[name]
            found, why = _made_before(settings, name, output, weights)
            if found is not None and not why:
                reports.append(found)
                console.say(f"   {output} was written before.")
                continue
            if why:
                console.say(f"   {output} is made again: {why}.")
            loaded = loaded or _load(config, folder, info)
            reports.append(_export(config, name, model_dir, info, *loaded))
            parity = reports[-1]["parity"]
            console.say(
                f"   {output}: {reports[-1]['bytes'] / 1e3:,.0f} kB, differs by at most "
                f"{parity['max_abs_diff']:.1e} from the trained model."
            )
        if reports:
            model = model_store.read_info(folder)
            folder = model_dir / "export"
            outputs = [folder / _FILES[name] for name in settings.formats]
            card = write_card(folder, model, weights, model_dir, outputs)
            console.say(f"   Model card: {card}")
    return reports


def _made_before(
    config: ExportConfig, name: str, output: Path, weights: str
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
    settings = _settings(config, name)
    # Without settings it was made by a command of export/, with those that its user wanted.
    made = found.get("settings", {**settings, "quantize": found.get("quantize")})
    changes = difference(made, settings)
    if changes:
        return None, f"its settings were others ({listed(changes)})"
    return found, ""


def _settings(settings: ExportConfig, name: str) -> dict[str, Any]:
    """What an export of the run's model depends on besides its weights.

    Checks are no part of it where they could cost a training.
    """
    kind = name.removeprefix("tflite_")
    value: dict[str, Any] = {"quantize": "none" if kind in _FLOAT else kind}
    if kind in FINE_TUNED:
        names = ["fine_tune_epochs", "fine_tune_rate", "fine_tune_batch"]
    else:
        names = ["parity_examples", "test_examples"]
    value |= {field: getattr(settings, field) for field in names}
    if kind in ("int8", QAT):
        value["calibration_images"] = settings.calibration_images
    if kind == "pruned":
        value["sparsity"] = settings.sparsity
    # Left out where they are not set, as reports had it before there were such settings.
    return (
        value
        | ({"outputs": list(settings.outputs)} if settings.outputs else {})
        | ({"calibrated": True} if settings.calibrated else {})
    )


def _outputs(settings: ExportConfig, quantize: str) -> dict[str, Any]:
    """What a graph gives, as arguments of its exporter; none for the default."""
    names = [n for n in settings.outputs if n != PROBABILITIES or quantize not in INTEGER]
    return ({"outputs": names} if settings.outputs else {}) | {"calibrated": settings.calibrated}


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Models of a block are float32, whatever a run trained in; XNNPACK and TFLite expect that."""
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


def _load(
    config: NeasConfig, folder: Path, info: DatasetInfo
) -> tuple[Any, model_store.LoadedInfo, dict[str, Any]]:
    """The model, what it is, and the arguments that all formats share."""
    model, loaded = model_store.load_model(folder)
    settings = config.export
    images = export_images.training_pixels(info, settings.parity_examples, config.seed)
    common: dict[str, Any] = {"images": images, "overwrite": True}
    if settings.test_examples:
        common["test"] = export_images.test_pixels(info, settings.test_examples, loaded)
    return model, loaded, common


def _export(
    config: NeasConfig,
    name: str,
    model_dir: Path,
    info: DatasetInfo,
    model: Any,
    loaded: model_store.LoadedInfo,
    common: dict[str, Any],
) -> dict[str, Any]:
    settings = config.export
    output = model_dir / "export" / _FILES[name]
    common = common | {"settings": _settings(settings, name)}
    if name == "keras":
        return exporting.export_keras(model, loaded, output, **common)
    if name == "saved_model":
        outputs = _outputs(settings, "none")
        return exporting.export_saved_model(model, loaded, output, **outputs, **common)
    quantize = name.removeprefix("tflite").removeprefix("_") or "none"
    common |= _outputs(settings, quantize)
    if quantize == "int8":
        images = export_images.training_pixels(info, settings.calibration_images, config.seed)
        common = common | {"representative": images}
    if quantize in FINE_TUNED:
        folder = model_dir / FINE_TUNING
        common = common | {"fine_tuning": _fine_tuning(config, info, folder)}
    if quantize == "pruned":
        quantize, common = "none", common | {"sparsity": settings.sparsity}
    return exporting.export_tflite(model, loaded, output, quantize=quantize, **common)


def _fine_tuning(config: NeasConfig, info: DatasetInfo, folder: Path) -> Any:
    """Settings and data for pruning and quantization-aware training."""
    from neas_tf.export.fine_tuning import FineTuning  # tfmot only where it is needed

    settings, retrain = config.export, config.retrain
    return FineTuning(
        with_augmentation(info, retrain),
        folder,
        epochs=settings.fine_tune_epochs,
        rate=settings.fine_tune_rate,
        batch_size=settings.fine_tune_batch,
        seed=config.seed,
        label_smoothing=retrain.label_smoothing,
        calibration_images=settings.calibration_images,
        set_aside=True,
    )
