"""Writes a trained ensemble as one TFLite file: `python export/to_tflite.py --model_dir=DIR`.

The command itself is neas_tf/export/commands/to_tflite.py, also `neas export tflite`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.export.commands.to_tflite")
