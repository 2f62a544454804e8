"""Writes a trained ensemble as one float32 TFLite file, with parity check and report.

python export/to_tflite.py --model_dir=DIR [--output=PATH]
python export/to_tflite.py --arch=neas_s --weights=FILE.weights.h5 --output=PATH
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: make the project importable
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export import common


def main() -> None:
    """Runs the command."""
    common.run("export_tflite", "export/model.tflite")


if __name__ == "__main__":
    main()
