"""Images for the search: sources, splits, input pipelines that repeat exactly.

`load(DataConfig(...))` opens a data set and returns a `DatasetInfo`; `make_dataset` turns one of
its parts into a `tf.data.Dataset` of normalised batches; `make_arrays` draws a fixed subset.
The names below are imported when they are asked for: some of the modules need no TensorFlow.
"""

from typing import TYPE_CHECKING

from neas_tf.common.moved import face

if TYPE_CHECKING:
    from neas_tf.data.bad_records import batches_of, failures
    from neas_tf.data.data_config import DataConfig
    from neas_tf.data.dataset_info import PARTS, DatasetInfo
    from neas_tf.data.loading import load
    from neas_tf.data.pipeline import make_dataset
    from neas_tf.data.reading.contents import changed_since, recorded_counts
    from neas_tf.data.subsets import class_weights, make_arrays, make_images

__all__ = [
    "PARTS",
    "DataConfig",
    "DatasetInfo",
    "batches_of",
    "changed_since",
    "class_weights",
    "failures",
    "load",
    "make_arrays",
    "make_dataset",
    "make_images",
    "recorded_counts",
]

__getattr__ = face(
    __name__,
    {
        "neas_tf.data.data_config": "DataConfig",
        "neas_tf.data.dataset_info": "PARTS DatasetInfo",
        "neas_tf.data.bad_records": "batches_of failures",
        "neas_tf.data.loading": "load",
        "neas_tf.data.pipeline": "make_dataset",
        "neas_tf.data.reading.contents": "changed_since recorded_counts",
        "neas_tf.data.subsets": "class_weights make_arrays make_images",
    },
)
