"""RetinaNet on COCO with a NEAS backbone, inside the TensorFlow Model Garden (method section 7)."""

import neas_tf  # noqa: F401  # first: it settles how Keras is set
