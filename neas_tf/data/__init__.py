"""Images for the search: sources, splits, input pipelines that repeat exactly.

`load(DataConfig(...))` opens a data set and returns a `DatasetInfo`; `make_dataset` turns one of
its parts into a `tf.data.Dataset` of normalised batches; `make_arrays` draws a fixed subset.
"""

from neas_tf.data.data_config import DataConfig
from neas_tf.data.dataset_info import PARTS, DatasetInfo
from neas_tf.data.failures import batches_of, failures
from neas_tf.data.loading import load
from neas_tf.data.pipeline import make_dataset
from neas_tf.data.reading.contents import changed_since
from neas_tf.data.subsets import make_arrays

__all__ = [
    "PARTS",
    "DataConfig",
    "DatasetInfo",
    "batches_of",
    "changed_since",
    "failures",
    "load",
    "make_arrays",
    "make_dataset",
]
