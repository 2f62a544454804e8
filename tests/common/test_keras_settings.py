"""That nobody's keras.json or KERAS_BACKEND reaches this project."""

import json
import os
import subprocess
import sys
import types

import pytest

from neas_tf.common import keras_settings
from neas_tf.common.errors import NeasError
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


def test_another_backend_is_refused():
    keras = types.SimpleNamespace(backend=types.SimpleNamespace(backend=lambda: "jax"))
    with pytest.raises(NeasError, match="Keras runs on 'jax'"):
        keras_settings.check_backend(keras)
