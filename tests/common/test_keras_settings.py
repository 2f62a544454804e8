"""What of a user's keras.json and KERAS_BACKEND reaches this project: the backend of Keras 3, no more."""

import json
import os
import subprocess
import sys

import pytest

from neas_tf.common import keras_settings
from neas_tf.common.paths import project_file

_CODE = """
import neas_tf, keras, tf_keras, json, os
print(json.dumps([
    keras.backend.backend(), keras.config.floatx(), keras.config.epsilon(),
    keras.config.image_data_format(), tf_keras.backend.floatx(), tf_keras.backend.epsilon(),
    tf_keras.backend.image_data_format(), os.environ["KERAS_BACKEND"], os.environ["KERAS_HOME"],
]))
"""


def test_both_libraries_are_set(tmp_path):
    unsound = {"image_data_format": "channels_first", "floatx": "float64", "epsilon": 1}
    (tmp_path / "keras.json").write_text(json.dumps(unsound))
    environment = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env=os.environ | environment,
        cwd=project_file(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ours = ["float32", 1e-07, "channels_last"]
    # The user's environment is as it was, for what the process starts later.
    wanted = ["tensorflow", *ours, *ours, "nonsense", str(tmp_path)]
    assert json.loads(done.stdout.splitlines()[-1]) == wanted
    assert json.loads((tmp_path / "keras.json").read_text()) == unsound


@pytest.mark.parametrize(
    "text,odd",
    [
        ("{}", False),
        ('{"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow"}', False),
        ('{"backend": "jax"}', True),
        ('{"floatx": "float16"}', True),
        ("[1]", True),
        ("{bad", True),
        ("\xff", True),
    ],
)
def test_which_files_are_passed_over(tmp_path, text, odd):
    assert not keras_settings._odd(str(tmp_path))
    (tmp_path / "keras.json").write_text(text, encoding="latin-1")
    assert bool(keras_settings._odd(str(tmp_path))) == odd


@pytest.mark.parametrize(
    "variable,setting,wanted",
    [
        ("jax", "{}", "jax"),
        ("jax", '{"backend": "torch"}', "jax"),
        ("", '{"backend": "jax"}', "jax"),
        (None, '{"backend": "torch"}', "tensorflow"),  # not installed
        ("nonsense", "{}", "tensorflow"),
        ("numpy", "{}", "tensorflow"),  # trains nothing
        (None, '{"backend": ["jax"]}', "tensorflow"),
        (None, "{bad", "tensorflow"),
    ],
)
def test_whose_backend(variable, setting, wanted, tmp_path, monkeypatch):
    """The user's, where it trains and is installed; in a command of the project always TensorFlow."""
    (tmp_path / "keras.json").write_text(setting)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    monkeypatch.setattr(
        keras_settings.importlib.util, "find_spec", lambda name: name in ("jax", "numpy") or None
    )
    monkeypatch.setattr(keras_settings, "_tensorflow_only", False)
    assert keras_settings._backend() == wanted
    keras_settings.use_tensorflow()
    assert keras_settings._backend() == "tensorflow"
