"""Writes a trained ensemble as one float32 SavedModel, with parity check and report.

python export/to_saved_model.py --model_dir=DIR [--output=PATH]
python export/to_saved_model.py --arch=neas_s --weights=FILE.weights.h5 --output=PATH
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from neas_tf.export.commands import common


def main() -> None:
    """Runs the command."""
    common.run("export_saved_model", "export/saved_model")


if __name__ == "__main__":
    main()
