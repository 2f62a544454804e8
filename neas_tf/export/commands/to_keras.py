"""Writes a trained ensemble for Keras 3, with parity check and report.

neas export keras --model_dir=DIR [--output=PATH.keras]
neas export keras --model_dir=DIR --output=PATH.weights.h5

A `.keras` file is the whole model, pixels in 0..255 to logits and probabilities. A `.weights.h5`
file is for `neas_tf.ensemble.model.build_ensemble(architecture, space, keras=keras)`, to train on.
"""

from neas_tf.export.commands import common


def main() -> None:
    """Runs the command."""
    common.run("export_keras", "export/model.keras")


if __name__ == "__main__":
    main()
