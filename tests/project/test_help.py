"""`-h` and `--help` of every command answer without TensorFlow, which takes seconds to load."""

import subprocess
import sys

import pytest

from neas_tf.common.paths import project_file

COMMANDS = (
    *(("-m", f"neas_tf.{name}") for name in ("train", "describe", "evaluate", "measure_latency")),
    *(("-m", f"neas_tf.{name}") for name in ("convert_torch", "report", "study")),
    *((f"export/{name}.py",) for name in ("to_tflite", "to_saved_model", "to_keras")),
    *(("-m", f"detection.{name}") for name in ("export", "predict", "evaluate", "compare")),
    *(("-m", "neas_tf", *words) for words in (("latency",), ("detect", "predict"), ("doctor",))),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1])
def test_help_loads_no_tensorflow(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--help"],
        cwd=project_file(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    usage = f"usage: python -X importtime {' '.join(command)} ["
    assert " ".join(done.stdout.split()).startswith(usage), done.stdout[:200]
    assert "\n  --" in done.stdout
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line]
    assert "neas_tf" in loaded
    assert not {"tensorflow", "tf_keras", "keras", "official", "altair", "vl_convert"} & set(loaded)


@pytest.mark.parametrize("command", ["neas_tf.study", "neas_tf.report"])
def test_short_help_is_the_same(command):
    said = [
        subprocess.run(
            [sys.executable, "-m", command, flag],
            cwd=project_file(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in ("-h", "--help")
    ]
    assert said[0] == said[1]
