"""What of a user's keras.json and KERAS_BACKEND reaches this project: the backend of Keras 3, no more."""

import contextlib
import json
import os
import subprocess
import sys
import types

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


_START = """
import json, sys
from neas_tf.common import keras_settings
keras_settings.use_tensorflow()
import tensorflow, keras, tf_keras
loaded = [name for name in {names} if name in sys.modules]
import pandas, sklearn.datasets
print(json.dumps([loaded, len(pandas.DataFrame([1])), keras.Sequential.__name__]))
"""


def test_commands_start_without_what_they_do_not_need():
    """They can import it afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", _START.format(names=list(keras_settings._OPTIONAL))],
        cwd=project_file(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[], 1, "Sequential"]


@pytest.mark.parametrize("command", [True, False])
@pytest.mark.parametrize("failing", [True, False])
def test_only_commands_hide_libraries_and_only_from_that_import(command, failing, monkeypatch):
    seen = {}

    def execute(module):
        for name in ("json", "a_library"):
            seen[name] = sys.modules.get(name, "to be imported")
        if failing:
            raise ImportError(module.__name__)

    monkeypatch.setattr(keras_settings, "_OPTIONAL", ("json", "a_library"))
    monkeypatch.setattr(keras_settings, "_tensorflow_only", command)
    with pytest.raises(ImportError) if failing else contextlib.nullcontext():
        keras_settings._import(execute, types.ModuleType("tensorflow"))
    # One that is there already stays: other modules hold it.
    assert seen == {"json": json, "a_library": None if command else "to be imported"}
    assert "a_library" not in sys.modules and sys.modules["json"] is json
