"""Trains and evaluates a detector: `python -m detection.train`.

The command itself is neas_tf/detection/commands/train.py, also `neas detect train`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.detection.commands.train")
