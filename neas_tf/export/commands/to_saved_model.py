"""Writes a trained ensemble as one float32 SavedModel, with parity check and report.

neas export saved-model --model_dir=DIR [--output=PATH]
neas export saved-model --arch=neas_s --weights=FILE.weights.h5 --output=PATH
"""

from neas_tf.export.commands import common


def main() -> None:
    """Runs the command."""
    common.run("export_saved_model", "export/saved_model")


if __name__ == "__main__":
    main()
