"""A whole run in float16 (loss scaling) and in bfloat16: both trainings learn, the export works."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

SETTINGS = """
space: {stem_channels: 8, stages: [[8, 1, 1], [12, 1, 2]], operators: [k3e1, k3e2, skip],
        min_split: 1, max_split: 1, head_channels: 16, feature_channels: 16}
supernet: {batch_size: 64, warmup_epochs: 0.0, trainer: {train_steps: 40, steps_per_loop: 5}}
shrink: {metric: none}
search: {population: 3, parents: 2, generations: 1, crossover: 0, mutation: 0, max_macs: 0,
         calibration_images: 64, calibration_batch: 64, validation_images: 64, batch_size: 64}
retrain: {batch_size: 64, warmup_epochs: 0.0, trainer: {train_steps: 40, steps_per_loop: 5}}
export: {formats: [tflite], parity_examples: 8}
"""


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_both_stages_learn_and_the_export_works(tmp_path, precision, monkeypatch):
    from neas_tf.config.parse import load_config
    from neas_tf.ensemble import store as model_store
    from neas_tf.run import pipeline

    monkeypatch.setattr(pipeline, "report", lambda run: {})  # pictures are not of interest
    (tmp_path / "small.yaml").write_text(SETTINGS)
    override = f"runtime.mixed_precision_dtype={precision}"
    config = load_config("neas_quickstart", [str(tmp_path / "small.yaml")], override)
    folder = tmp_path / "run"
    try:
        pipeline.run_pipeline(config, str(folder))
        assert tf_keras.mixed_precision.global_policy().compute_dtype == precision
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    for stage in ("supernet", "retrain"):
        lines = (folder / stage / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        assert len(losses) == 8
        # Every step of the supernet draws another ensemble, so compare means.
        assert np.mean(losses[-2:]) < np.mean(losses[:2]) - 0.02, losses
        path = tf.train.latest_checkpoint(str(folder / stage))
        names = dict(tf.train.list_variables(path))
        values = {n: np.asarray(tf.train.load_variable(path, n)) for n in names}
        floats = [v for v in values.values() if v.dtype.kind == "f"]
        assert len(floats) > 20 and all(np.all(np.isfinite(v)) for v in floats)
        assert {v.dtype for v in floats} == {np.dtype("f4")}
        scaled = [n for n in names if "current_loss_scale" in n]
        assert len(scaled) == (precision == "float16"), scaled
    model, _ = model_store.load_model(folder / "retrain" / "model")
    assert all(np.all(np.isfinite(value)) for value in model.get_weights())
    report = json.loads((folder / "export" / "model.tflite.json").read_text())
    assert report["parity"]["max_abs_diff"] < 1e-4
    accuracy = json.loads((folder / "retrain" / "results.json").read_text())["ensemble_accuracy"]
    assert 0.0 <= accuracy <= 1.0
