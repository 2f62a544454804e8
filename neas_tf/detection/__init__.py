"""RetinaNet on COCO with a NEAS backbone, inside the TensorFlow Model Garden."""
