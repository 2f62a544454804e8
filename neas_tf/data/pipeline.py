"""Input pipelines whose batches are a pure function of (seed, step).

Training counts examples g = step·batch + row from the run's beginning. Example g belongs to epoch
e = g // n, where n is the size of the part, and is number g mod n of that epoch's permutation. An
epoch need not end with a batch: batches are always full. So a resumed run that starts at a step
gets what an uninterrupted one would have got, and several input pipelines cut their slices out of
the same global batches. (Very many records are read by several streams, whose epochs are told in
`streams.RecordStreams`.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from neas_tf.common.errors import check_int, fail
from neas_tf.common.normalisation import network_input
from neas_tf.data import batch_augment, policies
from neas_tf.data.bad_records import NOTHING, OUTSIDE, STOPPED
from neas_tf.data.dataset_info import DatasetInfo, Part
from neas_tf.data.loading import make_decoder
from neas_tf.data.reading.decoding import traced
from neas_tf.data.stores import ArrayStore
from neas_tf.data.streams import decoded_stream, encoded_stream, shuffled_position

# Independent uses of a (seed, number) pair; numbers are multiplied by 8 to make room.
_SHIFT, _FLIP, _CUTOUT, _POLICY, _CROP = range(1, 6)
# Damaged images in a row that end a training: chance does not put so many together.
_MOST_DAMAGED = 2048
# Nothing here needs AutoGraph, whose conversion of Model Garden's augmentation takes seconds.
_as_written = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class Slicing:
    """Which rows of the global batch an input pipeline makes, and in which pieces.

    A pipeline feeds `replicas` replicas, each with a batch of its own: piece m holds the rows of
    replica m mod `replicas` in step m // `replicas`.

    Attributes:
      batch: examples in the global batch.
      piece: examples in a replica's batch.
      replicas: replicas that this pipeline feeds.
      first_row: first row of the global batch that is this pipeline's.
    """

    batch: int
    piece: int
    replicas: int
    first_row: int

    @classmethod
    def of(cls, batch_size: int, context: tf.distribute.InputContext | None) -> Slicing:
        """Raises `NeasError` when the replicas cannot share the batch evenly."""
        if context is None:
            return cls(batch_size, batch_size, 1, 0)
        replicas, pipelines = context.num_replicas_in_sync, context.num_input_pipelines
        if batch_size % replicas or replicas % pipelines:
            fail("batch_size", batch_size, f"a multiple of the {replicas} replicas")
        piece, own = batch_size // replicas, replicas // pipelines
        return cls(batch_size, piece, own, context.input_pipeline_id * own * piece)

    def row(self, number: tf.Tensor) -> tf.Tensor:
        """First row of the global batch in piece `number`; int64."""
        return self.first_row + number % self.replicas * self.piece

    def first_example(self, number: tf.Tensor) -> tf.Tensor:
        """Number g of the first example in piece `number`; int64."""
        return number // self.replicas * self.batch + self.row(number)

    def example(self, k: tf.Tensor) -> tf.Tensor:
        """Number g of the k-th example (k counts from step 0) of this pipeline; int64."""
        own = self.replicas * self.piece
        return k // own * self.batch + self.first_row + k % own

    def owns(self, g: tf.Tensor) -> tf.Tensor:
        """Whether example g belongs to this pipeline."""
        row = g % self.batch
        return (row >= self.first_row) & (row < self.first_row + self.replicas * self.piece)

    def own(self, examples: int, drop_remainder: bool) -> int:
        """How many examples of one pass are this pipeline's."""
        steps, rest = divmod(examples, self.batch)
        width = self.replicas * self.piece
        rest = 0 if drop_remainder else min(max(0, rest - self.first_row), width)
        return steps * width + rest

    def pieces(self, examples: int, drop_remainder: bool) -> int:
        """How many pieces it takes to go through `examples` once."""
        steps, rest = divmod(examples, self.batch)
        rest = 0 if drop_remainder else max(0, rest - self.first_row)
        return steps * self.replicas + min(self.replicas, -(-rest // self.piece))


def make_dataset(
    info: DatasetInfo,
    part: str,
    batch_size: int,
    training: bool,
    seed: int = 0,
    start_step: int = 0,
    drop_remainder: bool = False,
    input_context: tf.distribute.InputContext | None = None,
    pixels: bool = False,
) -> tf.data.Dataset:
    """Batches of a part of a data set.

    Args:
      info: the data set.
      part: `train`, `supernet`, `search` or `test`.
      batch_size: examples in a *global* batch.
      training: shuffled, augmented and endless; else once through, in order, as it is.
      seed: draws order and augmentation.
      start_step: number of global batches that were already taken; for training only.
      drop_remainder: leaves out an incomplete last batch; training has none.
      input_context: of `strategy.distribute_datasets_from_function`; the data set then makes the
        per-replica batches of one input pipeline. The global batch of a step does not depend on
        the number of pipelines.
      pixels: leaves the images uint8, a quarter of the bytes on their way to the device, where
        `normalisation.network_input` makes of them what they are without. Training with `cutout`,
        which puts the mean in the place of pixels, makes float32 all the same.

    Returns:
      A data set of (images float32 (b, h, w, c), normalised; labels int32 (b,)). Damaged images in
      files are logged; training puts grey in their place (the numbering must not depend on them),
      evaluation leaves them out. Where nothing but damaged ones come, the data set fails.

    Raises:
      NeasError: for an unknown or empty part, or a batch size that cannot be shared.
    """
    check_int("batch_size", batch_size, 1)
    check_int("seed", seed, 0, (1 << 62) - 1)
    check_int("start_step", start_step, 0)
    source = info.part(part)
    slicing = Slicing.of(batch_size, input_context)
    preparation = _Preparation(info, slicing, seed if training else None, pixels)
    if source.store.kind == "arrays":
        dataset = _from_memory(source, slicing, preparation, start_step, drop_remainder)
    else:
        dataset = _from_files(source, slicing, preparation, start_step, drop_remainder)
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _from_memory(
    part: Part, slicing: Slicing, preparation: _Preparation, start_step: int, drop: bool
) -> tf.data.Dataset:
    """Whole batches gathered from the decoded images."""
    assert isinstance(part.store, ArrayStore)
    images, n = part.store.images, part.size
    with tf.device("CPU:0"):
        labels = tf.constant(part.store.labels)
        indices = None if part.indices is None else tf.constant(part.indices)

    @_as_written
    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        g = slicing.first_example(number) + tf.range(slicing.piece, dtype=tf.int64)
        if preparation.seed is None:
            g = g[: tf.cast(tf.maximum(n - g[0], 0), tf.int32)]
        else:
            g = shuffled_position(g, n, preparation.seed)
        if indices is not None:
            g = tf.gather(indices, g)
        return preparation.finish(tf.gather(images, g), tf.gather(labels, g), number)

    if preparation.seed is None:
        numbers = tf.data.Dataset.range(slicing.pieces(n, drop))
    else:
        numbers = tf.data.Dataset.range(start_step * slicing.replicas, tf.int64.max)
    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE)


def _from_files(
    part: Part, slicing: Slicing, preparation: _Preparation, start_step: int, drop: bool
) -> tf.data.Dataset:
    """Image by image, out of files or records."""
    store = part.store
    assert not isinstance(store, ArrayStore)
    stream = encoded_stream(part, slicing, preparation.seed, start_step, preparation.buffer)

    @_as_written
    def decode(g: tf.Tensor, token: tf.Tensor, label: tf.Tensor, index: tf.Tensor) -> tuple:
        return preparation.decode(g, store.encoded(token), label, index)

    decoded = decoded_stream(stream, decode, preparation.grey)
    training = preparation.seed is not None
    if training:
        batches, first = decoded.batch(slicing.piece, drop_remainder=True), start_step
        limit = min(2 * part.size, _MOST_DAMAGED)  # so many in a row hold a whole epoch
    else:
        batches, first = decoded.batch(slicing.piece, drop_remainder=drop), 0
        if drop:  # whole steps only, whichever pipeline this is
            batches = batches.take(slicing.pieces(part.size, True))
        limit = slicing.own(part.size, drop)
    batches = _refuse_nothing_but_damaged(batches, limit, store.names)
    prepared = batches.enumerate(first * slicing.replicas).map(
        _as_written(
            lambda number, batch: preparation.finish(
                *preparation.checked(store.names, *batch), number
            )
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return prepared if training else prepared.filter(_as_written(lambda _, y: tf.size(y) > 0))


def _refuse_nothing_but_damaged(
    batches: tf.data.Dataset, limit: int, names: Callable[[tf.Tensor], tf.Tensor]
) -> tf.data.Dataset:
    """The same batches, with an error after `limit` damaged images and no sound one among them."""

    @_as_written
    def count(seen: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple]:
        _, _, good, index = batch
        size = tf.size(good, tf.int64)
        seen = tf.where(tf.reduce_any(good), tf.zeros([], tf.int64), seen + size)
        check = tf.debugging.Assert(seen < limit, [NOTHING, names(index[:4])])
        with tf.control_dependencies([check]):
            return tf.identity(seen), batch

    return batches.scan(tf.zeros([], tf.int64), count)


class _Preparation:
    """From pixels to what the step takes; `seed` is None where nothing is random."""

    def __init__(self, info: DatasetInfo, slicing: Slicing, seed: int | None, pixels: bool):
        self.seed = seed
        self.buffer = info.config.shuffle_buffer
        self._info = info
        self._config = info.config
        self._augments = seed is not None and info.config.augment != "none"
        self._cutout = info.config.cutout if self._augments else 0
        self._pixels = pixels and not self._cutout
        self._slicing = slicing
        decoder = make_decoder(info.config, info.input_shape)
        self._fixed = traced(decoder, "fixed")
        self._random_crop = traced(decoder, "random_crop")
        self._random_crop_decoded = traced(decoder, "random_crop_decoded")
        self._crops = seed is not None and info.config.augment == "imagenet"
        self._policy = _policy(info) if seed is not None else None

    def decode(
        self, g: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Number and encoded image of an example → pixels, uint8 (h, w, c), label, True, index."""
        if self._crops:
            seed = self._seed(g, _CROP)
            smallest, largest = self._config.crop_area
            image = self._random_crop(encoded, seed, (smallest, largest))
        else:
            image = self._fixed(encoded)
        return image, label, tf.constant(True), index

    def grey(
        self, _: tf.Tensor, __: tf.Tensor, label: tf.Tensor, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What stands for a damaged image; the third value is False."""
        return (
            tf.fill(self._info.input_shape, tf.constant(128, tf.uint8)),
            label,
            tf.constant(False),
            index,
        )

    def checked(
        self,
        names: Callable[[tf.Tensor], tf.Tensor],
        images: tf.Tensor,
        labels: tf.Tensor,
        good: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reports damaged images; evaluation leaves them out.

        A label out of range is an error; and with `on_bad_record: stop` any damaged image.
        """
        classes = self._info.num_classes
        inside = (labels >= 0) & (labels < classes)
        bad = tf.reduce_sum(tf.cast(~good, tf.int32))
        named = lambda mask: names(tf.boolean_mask(index, mask)[:4])  # noqa: E731
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(inside),
                [f"{OUTSIDE} 0..{classes - 1}:", tf.boolean_mask(labels, ~inside), named(~inside)],
            ),
            tf.cond(
                bad > 0,
                lambda: tf.print(
                    "Damaged images in a batch:", bad, "of", tf.size(good), named(~good)
                ),
                tf.no_op,
            ),
        ]
        if self._config.on_bad_record == "stop":
            checks.append(tf.debugging.Assert(bad == 0, [STOPPED, named(~good)]))
        with tf.control_dependencies(checks):
            images, labels = tf.identity(images), tf.identity(labels)
        if self.seed is None:
            images, labels = tf.boolean_mask(images, good), tf.boolean_mask(labels, good)
        return images, labels

    def finish(
        self, images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments piece `number`, uint8 (b, h, w, c), and normalises it unless pixels are wanted."""
        images.set_shape([images.shape[0], *self._info.input_shape])
        if self._augments:
            images = self._augment(images, number)
        if self._pixels:
            return images, labels
        result = network_input(images, self._info.normalisation)
        if self._cutout:
            height, width, _ = self._info.input_shape
            centers = tf.stack(
                [
                    self._draw(number, _CUTOUT, [2], side)[:, i]
                    for i, side in enumerate((height, width))
                ],
                1,
            )
            result = batch_augment.cutout(result, centers, self._cutout)
        return result, labels

    def _augment(self, images: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        config = self._config
        if self._crops and self._info.in_memory:
            smallest, largest = config.crop_area
            area = (smallest, largest)
            images = self._each(
                lambda image, seed: self._random_crop_decoded(image, seed, area),
                images,
                number,
                _CROP,
            )
        if config.flip:
            flips = self._draw(number, _FLIP, [], 2) > 0
        else:
            flips = tf.zeros([tf.shape(images)[0]], tf.bool)
        if config.augment == "crop_flip" and config.crop_padding:
            offsets = self._draw(number, _SHIFT, [2], 2 * config.crop_padding + 1)
            images = batch_augment.shift_and_flip(images, offsets, flips, config.crop_padding)
        elif config.flip:
            images = batch_augment.flip(images, flips)
        if self._policy:
            images = self._each(self._policy, images, number, _POLICY)
        return images

    def _each(self, function, images: tf.Tensor, number: tf.Tensor, use: int) -> tf.Tensor:
        """Applies a function of an image and a seed to every image of a piece."""
        g = self._slicing.first_example(number) + tf.range(self._slicing.piece, dtype=tf.int64)
        return tf.map_fn(
            lambda pair: function(pair[0], self._seed(pair[1], use)),
            (images, g),
            fn_output_signature=tf.TensorSpec(self._info.input_shape, tf.uint8),
        )

    def _draw(self, number: tf.Tensor, use: int, shape: list[int], limit: int) -> tf.Tensor:
        """int32 (piece, *shape) in [0, limit): this piece's rows of the global batch's draws."""
        slicing = self._slicing
        seed = self._seed(number // slicing.replicas, use)
        drawn = tf.random.stateless_uniform([slicing.batch, *shape], seed, 0, limit, tf.int32)
        return tf.slice(
            drawn,
            tf.stack([tf.cast(slicing.row(number), tf.int32), *[0] * len(shape)]),
            [slicing.piece, *shape],
        )

    def _seed(self, number: tf.Tensor, use: int) -> tf.Tensor:
        return tf.stack([tf.constant(self.seed, tf.int64), tf.cast(number, tf.int64) * 8 + use])


def _policy(info: DatasetInfo) -> policies.Policy | None:
    config, size = info.config, min(info.input_shape[:2])
    if config.auto_augment:
        return policies.auto_augment(config.auto_augment, size)
    if config.rand_augment:
        return policies.rand_augment(config.rand_augment, config.rand_augment_magnitude, size)
    return None
