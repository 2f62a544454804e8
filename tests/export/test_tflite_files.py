"""What inspecting an integer file finds out before a device does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from neas_tf.common.errors import NeasError
from neas_tf.export.tflite.inspection import inspect


def differences(path, factor: float) -> str:
    """An int8 file with one layer, of channels less their neighbours, which differ by little.

    Its inputs span 255, its weights are 1 and -1, and so its outputs span 510 / factor.
    """
    kernel = np.eye(8) - np.roll(np.eye(8), 1, 1)
    inputs = tf_keras.Input((4, 4, 8))
    model = tf_keras.Model(inputs, tf_keras.layers.Conv2D(8, 1, use_bias=False)(inputs))
    model.set_weights([kernel[None, None].astype(np.float32)])

    def examples():
        rng = np.random.default_rng(0)
        for _ in range(20):
            noise = rng.uniform(-0.5, 0.5, (1, 4, 4, 8)) / factor
            yield [(rng.uniform(0, 255, (1, 4, 4, 1)) + noise).astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())
    return str(path)


def test_a_layer_that_xnnpack_cannot_scale_is_refused(tmp_path):
    with pytest.raises(NeasError, match=r"quantize: the output of .* a factor of \d{3,}, expected"):
        inspect(differences(tmp_path / "model.tflite", 1000.0))


def test_a_smaller_factor_is_run(tmp_path):
    assert inspect(differences(tmp_path / "model.tflite", 50.0))["xnnpack_partitions"] == 1
