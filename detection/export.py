"""Writes a trained detector as a SavedModel or TFLite file: `python -m detection.export`.

The command itself is neas_tf/detection/commands/export.py, also `neas detect export`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.detection.commands.export")
