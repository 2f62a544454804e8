"""RetinaNet on COCO with a NEAS backbone, inside the TensorFlow Model Garden (paper section 4.4)."""

import neas_tf  # noqa: F401  # first: it settles how Keras is set
