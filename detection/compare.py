"""Finished runs in the columns of the paper's Table 6: `python -m detection.compare`.

The command itself is neas_tf/detection/commands/compare.py, also `neas detect compare`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.detection.commands.compare")
