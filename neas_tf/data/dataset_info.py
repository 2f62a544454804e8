"""An opened data set: its classes, its parts and its normalisation."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from neas_tf.common.errors import NeasError, unknown_name
from neas_tf.common.normalisation import Normalisation
from neas_tf.data.reading.contents import contents

if TYPE_CHECKING:
    import tensorflow as tf

    from neas_tf.data.data_config import DataConfig
    from neas_tf.data.stores import Store

# The whole training split; the training split less the held-out part; the held-out part, or the
# validation images and nothing held out; the test.
PARTS = ("train", "supernet", "search", "test")


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the examples of a store.

    Attributes:
      store: where the examples lie.
      indices: int64 (n,), ascending; None for all of them.
    """

    store: Store
    indices: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.store.size if self.indices is None else len(self.indices)

    @property
    def labels(self) -> np.ndarray | None:
        """int32 (n,), or None where only reading every record would tell."""
        labels = self.store.labels
        return labels if labels is None or self.indices is None else labels[self.indices]

    @functools.cached_property
    def mask(self) -> tf.Tensor:
        """bool (examples of the store,): which `indices` has; one tensor for all graphs."""
        import tensorflow as tf

        mask = np.zeros(self.store.size, bool)
        mask[self.indices] = True
        with tf.init_scope(), tf.device("CPU:0"):
            return tf.constant(mask)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """An opened data set.

    Attributes:
      name: for reports.
      config: what it was opened with.
      class_names: in the order of the labels.
      input_shape: (height, width, channels).
      normalisation: to be put into an exported model, which then takes 0..255 images.
      parts: by the names in `PARTS`.
      skipped: damaged images left out at loading, per split.
      files: of the sources of `train`, `validation` and `test`, as `contents.describe_files` tells
        of them.
    """

    name: str
    config: DataConfig
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    normalisation: Normalisation
    parts: dict[str, Part]
    skipped: dict[str, int]
    files: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def sizes(self) -> dict[str, int]:
        """Examples in each part."""
        return {name: part.size for name, part in self.parts.items()}

    @property
    def in_memory(self) -> bool:
        """Whether the decoded images are kept in memory."""
        return self.parts.get("train", self.parts["test"]).store.kind == "arrays"

    @property
    def has_validation(self) -> bool:
        """Whether validation images judge the search, not some of the training images."""
        return "search" in self.parts and self.parts["search"].indices is None

    def judges(self) -> str:
        """What the search is judged by, for people; '' for nothing."""
        count = self.sizes["search"]
        of = "validation images" if self.has_validation else "of them held out"
        return f"{count:,} {of} for the search, " if count else ""

    def part(self, name: str) -> Part:
        """One part, which must not be empty.

        Raises:
          NeasError: for an unknown or empty part.
        """
        if name not in self.parts:
            unknown_name("part", name, self.parts)
        part = self.parts[name]
        if part.size == 0:
            raise NeasError(
                f"data.search_fraction: received {self.config.search_fraction}, which leaves no "
                f"example in the part {name!r} of {self.name!r}."
            )
        return part

    def describe(self) -> dict[str, Any]:
        """JSON record of what was read and what was held out, as digests where it is long."""
        held_out, digest = self.parts["search"].indices, None
        if held_out is not None:
            digest = hashlib.sha256(np.asarray(held_out, "<i8").tobytes()).hexdigest()
        return {
            "name": self.name,
            "source": self.config.source,
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            "sizes": self.sizes,
            "split_seed": self.config.split_seed,
            "search_judged_by": "validation images" if held_out is None else "training images",
            "search_indices_sha256": digest,
            "normalisation": self.normalisation.to_dict(),
            "skipped": dict(self.skipped),
            "in_memory": self.in_memory,
            **contents(self.class_names, self.files),
        }
