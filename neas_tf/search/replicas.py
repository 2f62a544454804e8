"""Whole ensembles of the supernet, on this process' device or on the replicas of a strategy.

A device that `tf.device` gives can walk a generation's tree on its own (`evaluation`). A TPU's cores
run the programs that a strategy's `run` hands them; a plain `tf.function` stays on the host. There a
candidate is one forward pass of the supernet with the architecture as argument, in the one program
that serves all ensembles, and each replica has a batch of its own. What the tree saves is given up
for that: 1.4 times the work in a search of the paper's space, but two programs instead of two for
each operator and shape, and no map between two layers leaves the device.

Batches are dealt whole, each as large on several replicas as on one, and what came of them is put
together on the host in their order. So moments, distances and logits do not depend on the number of
replicas: where batches do not fill the last round, replicas repeat one, and that result is dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from neas_tf.common.normalisation import Normalisation, network_input
from neas_tf.search.layer_functions import statistics_of
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet

Batch = tuple[np.ndarray, ...]
# (dealt batches, what is the same for all of them…) → what came of each batch, in their order.
OfBatches = Callable[..., list[Any]]


class Runner(Protocol):
    """Where a function of a batch runs.

    Attributes:
      count: how many batches it takes at a time.
    """

    count: int

    def deal(self, batches: Sequence[Batch]) -> Any:
        """Brings batches of one shape to where they are used, perhaps several times."""

    def compiled(self, function: Callable[..., Any], xla: bool) -> OfBatches:
        """`function(*batch, *same)` for each of some dealt batches, traced once; `xla`: and compiled."""


class Here:
    """One batch after the other on the device that TensorFlow chooses."""

    count = 1

    def deal(self, batches: Sequence[Batch]) -> list[tuple[tf.Tensor, ...]]:
        """See `Runner.deal`."""
        return [tuple(map(tf.constant, batch)) for batch in batches]

    def compiled(self, function: Callable[..., Any], xla: bool) -> OfBatches:
        """See `Runner.compiled`."""
        made = tf.function(function, autograph=False, jit_compile=True if xla else None)
        return lambda dealt, *same: [made(*batch, *same) for batch in dealt]


class _Round(NamedTuple):
    """One batch on each replica, of which the first `used` are asked for."""

    batch: Any
    used: int


class Replicas:
    """One batch on each replica of a strategy at a time, through its `run`.

    On a slice of several hosts the replicas are those of all hosts: one process drives them.

    Args:
      strategy: in whose scope the supernet's variables were made.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.count = int(strategy.num_replicas_in_sync)
        self._devices = strategy.extended.worker_devices

    def deal(self, batches: Sequence[Batch]) -> list[_Round]:
        """See `Runner.deal`."""
        rounds = []
        for first in range(0, len(batches), self.count):
            own = batches[first : first + self.count]
            place = functools.partial(self._placed, own)
            values = self._strategy.experimental_distribute_values_from_function(place)
            rounds.append(_Round(values, len(own)))
        return rounds

    def compiled(self, function: Callable[..., Any], xla: bool) -> OfBatches:
        """See `Runner.compiled`; a TPU's replicas are compiled anyhow."""
        run: Callable[..., Any]
        if xla and not isinstance(self._strategy, tf.distribute.TPUStrategy):
            # Without a graph around it, in which TensorFlow puts all replicas' programs on the first
            # device.
            program = tf.function(function, autograph=False, jit_compile=True)
            run = functools.partial(self._run, lambda *arguments: program(*arguments))
        else:
            run = self._everywhere(function)

        def each(dealt: Sequence[_Round], *same: Any) -> list[Any]:
            return [
                found for batch, used in dealt for found in self._brought(run(*batch, *same), used)
            ]

        return each

    def _placed(self, batches: Sequence[Batch], context: tf.distribute.experimental.ValueContext):
        """A replica's batch, on its device: it is used for every ensemble."""
        number = context.replica_id_in_sync_group
        batch = batches[min(number, len(batches) - 1)]
        with tf.device(self._devices[number]):
            return tuple(tf.identity(part) for part in batch)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._strategy.run(function, args=arguments)

    def _everywhere(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that runs on all replicas, as one graph: a TPU takes nothing else."""
        return tf.function(functools.partial(self._run, function), autograph=False)

    def _brought(self, found: Any, used: int) -> Iterator[Any]:
        """What the first `used` replicas returned, on the host."""
        local = [self._strategy.experimental_local_results(v) for v in tf.nest.flatten(found)]
        for replica in range(used):
            values = [value[replica].numpy() for value in local]
            yield tf.nest.pack_sequence_as(found, values)


class EnsembleFunctions:
    """What is asked of a supernet's ensembles; one program each serves them all.

    Statistics, of all batch normalisations of an ensemble side by side, are one tensor (2, N).

    Args:
      supernet: the supernet; its weights are read at every call.
      runner: where the functions run.
      xla: whether XLA compiles them.
      normalisation: of pixels; None where images come normalised.
    """

    def __init__(
        self,
        supernet: Supernet,
        runner: Runner | None = None,
        xla: bool = False,
        normalisation: Normalisation | None = None,
    ):
        self.supernet, self.runner = supernet, runner or Here()
        self._xla, self._normalisation = xla, normalisation
        # Of `SupernetOutput.moments`: the channels of each part.
        self._layout = {
            "stem": supernet.stem.norm_widths,
            "layers": [
                [sum(layer.shape.moment_widths)] * supernet.num_paths
                for layer in supernet.searchable
            ],
            "heads": [head.norm_widths for head in supernet.heads],
        }
        self._moments = self.runner.compiled(self._batch_moments, xla)
        self._logits = self.of(lambda output: output.logits)

    def of(self, measured: Callable[..., Any]) -> OfBatches:
        """What `measured(output, *labels)` makes of a forward pass.

        Returns:
          From dealt batches of images and what else `measured` takes, an architecture's code and its
          statistics (None for those of each batch) to the results, by batch.
        """

        def forward(x, *others):
            *labels, architecture, statistics = others
            given = None if statistics is None else self._apart(statistics)
            x = network_input(x, self._normalisation)
            return measured(self.supernet(x, architecture, given), *labels)

        return self.runner.compiled(forward, self._xla)

    def moments(self, dealt: Any, architecture: Any) -> list[Any]:
        """Mean and mean square (2, N) of each batch, which average exactly."""
        return self._moments(dealt, architecture)

    def statistics(self, dealt: Any, architecture: Any) -> tf.Tensor:
        """Mean and variance (2, N) over equally large batches."""
        each = self.moments(dealt, architecture)
        return statistics_of(tf.add_n(each), len(each))

    def logits(self, dealt: Any, architecture: Any, statistics: Any) -> list[Any]:
        """(K, B, classes) of each batch of images."""
        return self._logits(dealt, architecture, statistics)

    def _batch_moments(self, x, *others):
        architecture = others[-1]  # after labels, which nothing here needs
        found = self.supernet(network_input(x, self._normalisation), architecture).moments
        mean, variance = tf.unstack(tf.concat(tf.nest.flatten(found), 1))
        return tf.stack([mean, variance + tf.square(mean)])

    def _apart(self, statistics):
        """The structure that the supernet takes."""
        parts = tf.split(statistics, tf.nest.flatten(self._layout), axis=1)
        return tf.nest.pack_sequence_as(self._layout, parts)


class WholeEnsembles:
    """The candidates `numbers` of all `architectures`, each as a forward pass of its own.

    It is asked as a device's share of a generation is.
    """

    def __init__(
        self,
        functions: EnsembleFunctions,
        architectures: Sequence[Architecture],
        numbers: Sequence[int],
        batch: int,
    ):
        self.numbers, self._functions, self._batch = list(numbers), functions, batch
        space = functions.supernet.space
        self._codes = [tf.constant(architectures[c].to_array(space)) for c in numbers]
        self._statistics: list[tf.Tensor] = []

    @property
    def steps(self) -> int:
        """How often each image is used."""
        return len(self.numbers)

    def calibrate(self, batches: Iterable[np.ndarray], add: Callable[..., None]) -> None:
        """Recalculates the statistics of every candidate; `add` gets this and images done."""
        functions, sums, count = self._functions, [0.0] * len(self._codes), 0
        for own in _groups(batches, functions.runner.count):
            dealt = functions.runner.deal([(images,) for images in own])
            for i, code in enumerate(self._codes):
                sums[i] = sum(functions.moments(dealt, code), start=sums[i])
                add(self, sum(map(len, own)))
            count += len(own)
        self._statistics = [statistics_of(tf.constant(total), count) for total in sums]

    def logits(
        self, images: np.ndarray, add: Callable[..., None]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(candidate, its logits (K, B, classes)) of each."""
        size = self._batch
        batches = [_filled(images[i : i + size], size) for i in range(0, len(images), size)]
        dealt = self._functions.runner.deal([(batch,) for batch in batches])
        for number, code, own in zip(self.numbers, self._codes, self._statistics, strict=True):
            found = self._functions.logits(dealt, code, own)
            yield number, np.concatenate(found, 1)[:, : len(images)]
            add(self, len(images))


def _groups(values: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    group: list[np.ndarray] = []
    for value in values:
        group.append(value)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _filled(images: np.ndarray, size: int) -> np.ndarray:
    """A batch of full size: one program serves the rest, and with given statistics no image sees another."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), 0)])
