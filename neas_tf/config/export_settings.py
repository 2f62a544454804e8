"""Settings of the files that the last stage writes."""

from __future__ import annotations

import dataclasses

from official.modeling import hyperparams


@dataclasses.dataclass
class ExportConfig(hyperparams.Config):
    """The deployable files that the last stage writes.

    Attributes:
      formats: of tflite, tflite_float16, tflite_dynamic, tflite_int8, tflite_int8_qat,
        tflite_pruned, saved_model, keras.
      parity_examples: training images on which an export is compared with the Keras model.
      calibration_images: training images that int8 ranges are measured on.
      test_examples: test images for the accuracy before and after; 0 leaves it out.
      fine_tune_epochs: of tflite_int8_qat and of tflite_pruned, passes over the training images.
      fine_tune_rate: learning rate at their beginning (Adam, cosine); 0 takes 0.00002 for
        tflite_int8_qat and 0.001 for tflite_pruned.
      fine_tune_batch: images a step of theirs.
      sparsity: share of zeros in each pruned kernel of tflite_pruned.
      outputs: beside the logits, of probabilities (int8 files leave them out), disagreement and
        path_logits; [logits] is nothing else, [] the default: probabilities (docs/uncertainty.md).
      calibrated: whether the logits are divided by the temperature that `retrain.calibrate` fits.
    """

    formats: list[str] = dataclasses.field(default_factory=lambda: ["tflite", "saved_model"])
    parity_examples: int = 64
    calibration_images: int = 256
    test_examples: int = 0
    fine_tune_epochs: float = 2.0
    fine_tune_rate: float = 0.0
    fine_tune_batch: int = 128
    sparsity: float = 0.5
    outputs: list[str] = dataclasses.field(default_factory=list)
    calibrated: bool = False
