"""Which images to use and how to prepare them, as a Model Garden config."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from official.modeling import hyperparams

from neas_tf.common.class_names import check_class_names
from neas_tf.common.errors import check, check_int, fail, unknown_name

SOURCES = ("digits", "tfds", "image_folder", "tfrecord")
AUGMENTATIONS = ("none", "crop_flip", "imagenet")
CACHES = ("auto", "memory", "none")
ON_BAD_RECORD = ("skip", "stop")
CLASS_WEIGHTS = ("none", "balanced")
_STRINGS = ("name", "data_dir", "train_split", "test_split", "validation_split", "auto_augment")
POLICIES = ("v0", "reduced_cifar10", "reduced_imagenet", "svhn", "simple", "vit")


@dataclasses.dataclass
class DataConfig(hyperparams.Config):
    """The data set, its splits and the preparation of its images.

    Attributes:
      source: `digits` (8×8 grey digits that ship inside scikit-learn), `tfds` (a prepared
        TensorFlow data set), `image_folder` (`train/<class>/*.jpg`, and the same under `test` or
        `val`, or under both, where those of `val` judge the search; or `<class>/*.jpg` alone) or
        `tfrecord` (records as Model Garden writes them for ImageNet).
      name: name of the TFDS set, such as `cifar10`; for other sources a name for reports.
      data_dir: folder of the data; for `tfds`, empty means `$TFDS_DATA_DIR` or TFDS's default.
        Relative paths mean the caller's folder.
      download: lets TFDS download and prepare a set that is not there.
      train_split, test_split: TFDS split expressions, such as `train[:90%]`.
      validation_split: the same for the images that judge the search; empty holds out
        `search_fraction` of the training split.
      train_pattern, test_pattern: globs of TFRecord files; several with commas; relative ones lie
        in `data_dir`.
      validation_pattern: the same for the images that judge the search, as `validation_split`.
      label_offset: taken off every label of a TFRecord; 1 where classes count from 1.
      num_classes: 0 takes the number from the data set; another number must equal it. `tfrecord`
        needs it (or `class_names`).
      class_names: replaces the data set's names, in the order of the labels.
      input_size: [height, width] in pixels; empty takes the data set's own size.
      input_channels: 1 or 3; 0 takes the data set's own. Grey images are repeated into three
        channels, colour images are turned into grey.
      search_fraction: part of the *training* split that is held out for the search, in [0, 1);
        nothing is where there are validation images.
      test_fraction: part of every class that is the test where a folder has no test pictures of
        its own, in (0, 1).
      split_seed: draws the held-out parts.
      class_weights: of the loss in training: `none`; `balanced` (every class counts the same,
        whatever the number of its images); or a mapping {name of a class: weight}, 1 for the others.
      mean, std: per channel, of images scaled to 0..1; empty takes the data set's own.
      augment: `none`; `crop_flip` (shift by up to `crop_padding` pixels into black, flip);
        `imagenet` (random crop of `crop_area`, resized, flip).
      crop_padding: pixels, for `crop_flip`.
      flip: mirrors every other image; not for digits or letters.
      cutout: side in pixels of a square set to the mean at a random place; 0 for none.
      crop_area: smallest and largest share of the area that `imagenet` crops.
      auto_augment: name of one of Model Garden's AutoAugment policies; empty for none.
      rand_augment: operations per image of RandAugment; 0 for none.
      rand_augment_magnitude: 0..10.
      center_crop_fraction: share of the shorter side that is kept, in the middle, of images
        larger than `input_size` wherever nothing is drawn at random.
      cache: `memory` keeps the decoded images as uint8; `none` decodes again every time; `auto`
        takes memory below 1 GiB unless `augment` is `imagenet`.
      shuffle_buffer: records that are mixed when TFRecords are read one after the other.
      on_bad_record: what happens to an image that cannot be decoded: `skip` leaves it out (or, in
        training from files, puts grey in its place) and says how many there were; `stop` ends with
        an error that names it.
    """

    source: str = "digits"
    name: str = ""
    data_dir: str = ""
    download: bool = False
    train_split: str = "train"
    test_split: str = "test"
    validation_split: str = ""
    train_pattern: str = ""
    test_pattern: str = ""
    validation_pattern: str = ""
    label_offset: int = 0
    num_classes: int = 0
    class_names: list[str] = dataclasses.field(default_factory=list)
    input_size: list[int] = dataclasses.field(default_factory=list)
    input_channels: int = 0
    search_fraction: float = 0.1
    test_fraction: float = 0.2
    split_seed: int = 0
    class_weights: Any = "none"
    mean: list[float] = dataclasses.field(default_factory=list)
    std: list[float] = dataclasses.field(default_factory=list)
    augment: str = "none"
    crop_padding: int = 4
    flip: bool = True
    cutout: int = 0
    crop_area: list[float] = dataclasses.field(default_factory=lambda: [0.08, 1.0])
    auto_augment: str = ""
    rand_augment: int = 0
    rand_augment_magnitude: float = 9.0
    center_crop_fraction: float = 0.875
    cache: str = "auto"
    shuffle_buffer: int = 8192
    on_bad_record: str = "skip"

    def check(self) -> DataConfig:
        """Returns itself when every field is sound.

        Raises:
          NeasError: names the field, what was received and what is expected.
        """
        values = self.as_dict()
        choices = (
            ("source", SOURCES),
            ("augment", AUGMENTATIONS),
            ("cache", CACHES),
            ("on_bad_record", ON_BAD_RECORD),
        )
        for field, known in choices:
            if getattr(self, field) not in known:
                unknown_name(f"data.{field}", getattr(self, field), known)
        if self.auto_augment and self.auto_augment not in POLICIES:
            unknown_name("data.auto_augment", self.auto_augment, POLICIES)
        for field in _STRINGS:
            check(isinstance(values[field], str), f"data.{field}", values[field], "a string")
        check_class_names(self.class_names, "data.class_names")
        for field in ("download", "flip"):
            check(isinstance(values[field], bool), f"data.{field}", values[field], "true or false")
        for field, low, high in (
            ("num_classes", 0, 1 << 20),
            ("label_offset", 0, 1),
            ("crop_padding", 0, 1 << 10),
            ("cutout", 0, 1 << 14),
            ("rand_augment", 0, 16),
            ("shuffle_buffer", 1, 1 << 24),
            ("split_seed", 0, (1 << 31) - 1),
        ):
            check_int(f"data.{field}", values[field], low, high)
        check(self.input_channels in (0, 1, 3), "data.input_channels", self.input_channels, "1, 3")
        if self.input_size:
            check(len(self.input_size) == 2, "data.input_size", self.input_size, "[height, width]")
            for side in self.input_size:
                check_int("data.input_size", side, 1, 1 << 13)
        self._check_real("search_fraction", 0.0, 1.0, open_end=True)
        self._check_real("test_fraction", 0.0, 1.0, open_end=True)
        self._check_real("center_crop_fraction", 0.05, 1.0)
        self._check_real("rand_augment_magnitude", 0.0, 10.0)
        self._check_class_weights()
        area = self.crop_area
        ok = len(area) == 2 and all(isinstance(v, numbers.Real) for v in area)
        check(ok and 0 < area[0] <= area[1] <= 1, "data.crop_area", area, "[smallest, largest] ≤ 1")
        for field in ("mean", "std"):
            finite = all(
                isinstance(v, numbers.Real)
                and math.isfinite(v)
                and (field == "mean" or float(v) > 0)
                for v in values[field]
            )
            check(finite, f"data.{field}", list(values[field]), "one number for each channel")
        if self.auto_augment and self.rand_augment:
            fail("data.rand_augment", self.rand_augment, "0 where auto_augment is set")
        if (self.auto_augment or self.rand_augment or self.cutout) and self.augment == "none":
            fail("data.augment", self.augment, "crop_flip or imagenet with policies or cutout")
        if self.source == "tfds":
            check(bool(self.name), "data.name", self.name, "the name of a TFDS data set")
        if self.source == "image_folder":
            check(bool(self.data_dir), "data.data_dir", self.data_dir, "a folder of images")
        if self.source == "tfrecord":
            for field in ("train_pattern", "test_pattern"):
                check(
                    bool(values[field]), f"data.{field}", values[field], "a glob of TFRecord files"
                )
        return self

    @property
    def weight_setting(self) -> Any:
        """`class_weights` as it was given: Model Garden makes a config of its own of a mapping."""
        given = self.class_weights
        return given.as_dict() if isinstance(given, hyperparams.Config) else given

    def _check_class_weights(self) -> None:
        """Whether the names are those of classes shows when the data are open."""
        given = self.weight_setting
        if isinstance(given, str):
            if given not in CLASS_WEIGHTS:
                unknown_name("data.class_weights", given, CLASS_WEIGHTS)
            return
        ok = isinstance(given, Mapping) and all(
            isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w < 1e6
            for w in given.values()
        )
        expected = "none, balanced or {name of a class: weight of 0 or more}"
        check(ok and bool(given), "data.class_weights", given, expected)

    def _check_real(self, field: str, low: float, high: float, open_end: bool = False) -> None:
        value = getattr(self, field)
        ok = isinstance(value, numbers.Real) and not isinstance(value, bool)
        ok = ok and low <= value <= high and not (open_end and value == high)
        check(ok, f"data.{field}", value, f"a number in [{low}, {high}{')' if open_end else ']'}")
