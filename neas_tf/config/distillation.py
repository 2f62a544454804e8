"""Settings of learning from a teacher while retraining."""

from __future__ import annotations

import dataclasses

from official.modeling import hyperparams

PATHS = "paths"  # as a teacher: each path's are the others


@dataclasses.dataclass
class DistillationConfig(hyperparams.Config):
    """What a retraining learns besides the labels (Hinton et al., 2015; docs/uncertainty.md).

    Attributes:
      teacher: empty for none; `paths`, each path learns from the mean of the others; or a path on
        disk: a run's or a model's folder, a SavedModel's folder or a `.keras` file.
      weight: of the teacher's answers in the loss, 0 to 1; the labels have the rest.
      temperature: that both sides' logits are divided by.
    """

    teacher: str = ""
    weight: float = 0.5
    temperature: float = 2.0
