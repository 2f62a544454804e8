"""Settings of learning from a teacher while retraining."""

from __future__ import annotations

import dataclasses

from official.modeling import hyperparams

PATHS = "paths"  # as a teacher: each path's are the others
ENSEMBLE, WIDEST = "ensemble", "widest"  # as teachers of a supernet


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


@dataclasses.dataclass
class SupernetDistillationConfig(DistillationConfig):
    """What a supernet's draws learn from each other in a step (docs/method.md, Supernet training).

    Attributes:
      teacher: empty for none; `ensemble`, the paths of a draw learn from the mean of their logits; or
        `widest`, the other draws of a step learn from that mean of the widest one, which
        learns from the labels alone (needs `sandwich`).
      weight: of the teacher's answers in the loss, 0 to 1; the labels have the rest.
    """
