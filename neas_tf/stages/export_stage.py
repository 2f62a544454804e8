"""Stage 4: the retrained ensemble as one fused graph per format, each checked for parity."""

from __future__ import annotations

from typing import Any

import numpy as np

from neas_tf import console, data, exporting, model_store
from neas_tf.errors import NeasError
from neas_tf.files import read_json
from neas_tf.run_context import Run

_FILES = {"tflite": "model.tflite", "saved_model": "saved_model"}


def check_export(run: Run, alone: bool) -> None:
    """Refuses, without writing, a folder that holds nothing to export, when run `alone`."""
    if alone and not run.folder("retrain", "model").exists():
        raise NeasError(
            f"stage: {str(run.model_dir)!r} holds no retrained model; run --stage=retrain first."
        )


def export(run: Run) -> list[dict[str, Any]]:
    """Writes the formats of `export.formats` into `export/`; what is there already is kept.

    Returns:
      The reports, one a format.
    """
    check_export(run, alone=True)
    folder = run.folder("retrain", "model")
    console.heading("Export", ", ".join(run.config.export.formats) or "no formats are asked for")
    reports, loaded = [], None
    with run.timed("export"):
        for name in run.config.export.formats:
            output = run.folder("export", _FILES[name])
            report = output.with_name(output.name + ".json")
            if output.exists() and report.exists():
                reports.append(read_json(report, "export report"))
                console.say(f"   {output} was written before.")
                continue
            loaded = loaded or model_store.load_model(folder)
            model, info = loaded
            images = pixels(run, run.config.export.parity_examples)
            function = {
                "tflite": exporting.export_tflite,
                "saved_model": exporting.export_saved_model,
            }[name]
            with console.native_noise_off():
                reports.append(function(model, info, output, images=images, overwrite=True))
            parity = reports[-1]["parity"]
            console.say(
                f"   {output}: {reports[-1]['bytes'] / 1e3:,.0f} kB, differs by at most "
                f"{parity['max_abs_diff']:.1e} from the trained model."
            )
    return reports


def pixels(run: Run, count: int) -> np.ndarray:
    """Training images as an exported model takes them: float32 (n, H, W, C) in 0..255."""
    images, _ = data.make_arrays(run.info, "train", count, run.config.seed)
    normalisation = run.info.normalisation
    return (images * np.asarray(normalisation.std) + np.asarray(normalisation.mean)) * 255.0
