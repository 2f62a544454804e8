"""Writes a trained ensemble for Keras 3: `python export/to_keras.py --model_dir=DIR`.

The command itself is neas_tf/export/commands/to_keras.py, also `neas export keras`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.export.commands.to_keras")
