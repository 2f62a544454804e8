"""RetinaNet on COCO with a NEAS backbone, inside the TensorFlow Model Garden (docs/detection.md)."""

import neas_tf  # noqa: F401  # first: it settles how Keras is set
