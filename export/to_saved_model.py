"""Writes a trained ensemble as one SavedModel: `python export/to_saved_model.py --model_dir=DIR`.

The command itself is neas_tf/export/commands/to_saved_model.py, also `neas export saved-model`.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.common import moved

moved.command(__name__, "neas_tf.export.commands.to_saved_model")
