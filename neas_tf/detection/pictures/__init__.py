"""COCO's annotations, records, class names, and boxes on pictures."""
