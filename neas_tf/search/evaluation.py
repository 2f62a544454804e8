"""Scores ensembles with the supernet's weights (docs/method.md, Search), a generation at a time.

BN statistics are recalculated for each candidate: the exact mean of the batch moments (of mean
and mean square) over the calibration images, in one pass through the candidate's own layers; then
accuracy and likelihoods (`fitness`) are measured with them, in one pass too. Both depend, layer by layer, on the operators before only, so all
candidates are evaluated as one prefix tree (`prefix_tree`): every calibration batch, then every
validation batch walks once through every distinct prefix. Between the walks a node keeps its
statistics; within one walk as many maps wait as the tree is deep.

With devices that only a strategy's `run` reaches, candidates are whole forward passes on all of them
(`replicas`), and the rest is the same.

Nothing of the supernet changes. A score is the same, to the bit, whatever is scored with it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from neas_tf.common.errors import check, check_int
from neas_tf.common.normalisation import Normalisation
from neas_tf.cost.cost_table import CostTable
from neas_tf.operators import SKIP
from neas_tf.search.candidate import Score
from neas_tf.search.fitness import SUMS, likelihood_sums, numbers_of
from neas_tf.search.layer_functions import LayerFunctions, Part, statistics_of
from neas_tf.search.prefix_tree import PrefixTree, shares
from neas_tf.search.replicas import EnsembleFunctions, Runner, WholeEnsembles
from neas_tf.space.architecture import Architecture
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches
from neas_tf.uncertainty.measures import disagreement

_SUMS = SUMS + 1  # of a candidate's images: those of its likelihoods, and the disagreement


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The first `images` of some, in batches of one size; iterated again for each use."""

    source: np.ndarray
    size: int
    images: int

    def __len__(self) -> int:
        return self.images // self.size

    def __iter__(self) -> Iterator[np.ndarray]:
        for first in range(0, self.images, self.size):
            yield self.source[first : first + self.size]


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that share out the candidates; all of them make the same calls.

    Attributes:
      count: how many.
      index: of this one.
      merge: makes of each one's bool array one that is true where any of them is.
    """

    count: int = 1
    index: int = 0
    merge: Callable[[np.ndarray], np.ndarray] = lambda values: values


class CandidateEvaluator:
    """Recalculates BN and scores one ensemble or a generation.

    Args:
      supernet: the trained supernet; it is only read, and its weights are taken once.
      calibration: images (n, H, W, C): normalised, or with `normalisation` pixels, uint8; a rest
        smaller than the batch is left out.
      images, labels: held-out images, likewise, and their classes.
      calibration_batch: images a batch of the recalculation.
      batch_size: images a batch of the accuracy.
      devices: names of this process' devices, among which the candidates are dealt out; None for
        TensorFlow's choice.
      workers: the processes that do so together.
      disagreement: whether `evaluate_all` measures the paths' disagreement too.
      xla: whether XLA compiles the functions of the operators.
      normalisation: of pixels, see `calibration`.
      replicas: what runs whole ensembles, in place of `devices`; the supernet was made for it.
    """

    def __init__(
        self,
        supernet: Supernet,
        calibration: np.ndarray,
        images: np.ndarray,
        labels: np.ndarray,
        calibration_batch: int = 128,
        batch_size: int = 500,
        devices: Sequence[str | None] = (None,),
        workers: Workers | None = None,
        disagreement: bool = False,
        xla: bool = False,
        normalisation: Normalisation | None = None,
        replicas: Runner | None = None,
    ):
        check_int("search.calibration_batch", calibration_batch, 1)
        check_int("search.batch_size", batch_size, 1)
        check(len(devices) > 0, "devices", devices, "at least one")
        self.supernet = supernet
        self._calibration_batch, self._batch_size = calibration_batch, batch_size
        self._take(calibration, images, labels)
        self._functions = [
            LayerFunctions(supernet, device, xla, normalisation) for device in devices
        ]
        self._whole = (
            EnsembleFunctions(supernet, replicas, xla, normalisation) if replicas else None
        )
        self._workers, self._disagreement = workers or Workers(), disagreement
        self._costs = CostTable(supernet.space)

    def _take(self, calibration: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        check_int("search.calibration_images: images found", len(calibration), 1)
        check_int("search.validation_images: images found", len(images), 1)
        size = min(self._calibration_batch, len(calibration))
        whole = len(calibration) // size * size
        self._calibration = _Batches(calibration, size, whole)
        self._images, self._labels = images, np.asarray(labels)

    def _macs(self, layer: int, operator: str) -> int:
        """Of an operator in a 1-based layer."""
        index = self.supernet.space.operators.index(operator)
        return int(self._costs.operators["macs"][layer - 1, index])

    @property
    def images(self) -> int:
        """How many held-out images accuracy is measured on."""
        return len(self._labels)

    def evaluate(self, architecture: Architecture) -> Score:
        """Accuracy of one ensemble and of each path."""
        return self.evaluate_all([architecture])[0]

    def evaluate_all(
        self, architectures: Sequence[Architecture], progress: Callable[[float], None] | None = None
    ) -> list[Score]:
        """Scores of several ensembles, in their order; `progress` gets the share done, 0 to 1."""
        rows = zip(*self._measured(architectures, progress), strict=True)
        return [self._score(*row) for row in rows]

    def _score(self, correct: np.ndarray, sums: np.ndarray) -> Score:
        """From bool (K + 1, n) and the sums over the images."""
        *paths, ensemble = (float(np.mean(row)) for row in correct)
        apart = float(sums[-1] / self.images) if self._disagreement else None
        return Score(ensemble, tuple(paths), apart, numbers_of(sums[:-1], self.images))

    def correct(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """bool (C, K + 1, n): which images each path is right about, and last the ensemble."""
        return self._measured(architectures)[0]

    def _measured(
        self, architectures: Sequence[Architecture], progress: Callable[[float], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `correct` returns; and float64 (C, `_SUMS`), over the images.

        Those are `likelihood_sums`, and last the disagreements, 0 where they are not asked for.
        """
        sums = np.zeros((len(architectures), _SUMS))
        with safe_switches() if self._whole else contextlib.nullcontext():
            parts = list(self._generation(architectures, progress, sums))
        if not parts:
            return np.zeros((0, 0, self.images), bool), sums
        correct = np.concatenate(parts, 2)
        # The workers meet once: whom they evaluate does not depend on what the others find. All
        # bits are zero but in what a process has measured itself.
        bits = np.unpackbits(sums.view(np.uint8)).astype(bool)
        merged = self._workers.merge(np.concatenate([correct.ravel(), bits]))
        found, bits = np.split(merged, [correct.size])
        return found.reshape(correct.shape), np.packbits(bits).view(np.float64).reshape(sums.shape)

    def another_look(
        self, calibration: np.ndarray, images: np.ndarray, labels: np.ndarray
    ) -> CandidateEvaluator:
        """The same supernet's weights and functions with other images; see the class."""
        other = copy.copy(self)
        other._take(calibration, images, labels)
        return other

    def statistics(self, architecture: Architecture) -> dict[str, Any]:
        """BN statistics of one ensemble, as `inherited_ensemble` takes them.

        `stem` and `heads` are as in `SupernetOutput.moments`; `layers` has for each layer and path as many
        (2, C) as its operator has batch normalisations, `skip` none.
        """
        share = _Share(self._functions[0], [architecture], [0])
        share.calibrate(self._calibration)
        return share.statistics()

    def logits(self, architecture: Architecture) -> np.ndarray:
        """(K, n, classes) on the held-out images."""
        share = _Share(self._functions[0], [architecture], [0])
        share.calibrate(self._calibration)
        parts = [
            logits
            for first in range(0, len(self._images), self._batch_size)
            for _, logits in share.logits(self._images[first : first + self._batch_size])
        ]
        return np.concatenate(parts, 1)

    def _share(
        self, functions: LayerFunctions, architectures: Sequence[Architecture], numbers: list[int]
    ) -> _Share | WholeEnsembles:
        """What evaluates some of the candidates."""
        if self._whole is None:
            return _Share(functions, architectures, numbers)
        return WholeEnsembles(
            self._whole, architectures, numbers, min(self._batch_size, self.images)
        )

    def _generation(
        self,
        architectures: Sequence[Architecture],
        progress: Callable[[float], None] | None,
        sums: np.ndarray,
    ) -> Iterator[np.ndarray]:
        """Recalculates BN of all candidates, then measures batch after batch.

        Yields:
          bool (C, K + 1, B): whether each path and the ensemble are right about some images;
          False for other workers' candidates.
        """
        if not architectures:
            return
        for architecture in architectures:
            architecture.check_in(self.supernet.space)
        num_paths = self.supernet.num_paths
        dealt = shares(architectures, self._workers.count * len(self._functions), self._macs)
        own = dealt[self._workers.index * len(self._functions) :][: len(self._functions)]
        parts: list[_Share | WholeEnsembles] = [
            self._share(functions, architectures, numbers)
            for functions, numbers in zip(self._functions, own, strict=True)
            if numbers
        ]
        at_once = self._batch_size * (self._whole.runner.count if self._whole else 1)
        done, images_each = 0, self._calibration.images + self.images

        def add(share: _Share | WholeEnsembles, images: int) -> None:
            """A step has seen so many images; the first share of candidates speaks for all."""
            nonlocal done
            if progress and share is parts[0]:
                done += images
                progress(done / (images_each * share.steps))

        with ThreadPoolExecutor(max(1, len(parts))) as pool:
            # With one device, in this thread: errors and interrupts come as they are.
            each = pool.map if len(parts) > 1 else map
            list(each(lambda part: part.calibrate(self._calibration, add), parts))
            for first in range(0, self.images, at_once):
                chosen = slice(first, first + at_once)
                images, labels = self._images[chosen], self._labels[chosen]
                correct = np.zeros((len(architectures), num_paths + 1, len(labels)), bool)

                def measure(part, images=images, labels=labels, correct=correct):
                    for candidate, logits in part.logits(images, add):
                        correct[candidate, :-1] = logits.argmax(-1) == labels
                        correct[candidate, -1] = logits.mean(0).argmax(-1) == labels
                        sums[candidate, :-1] += likelihood_sums(logits, labels)
                        if self._disagreement:
                            sums[candidate, -1] += disagreement(np.swapaxes(logits, 0, 1)).sum()

                list(each(measure, parts))
                yield correct
        if progress:
            progress(1.0)  # of a process without candidates too


def _ignore(share: _Share, images: int) -> None:
    """No meter."""


class _Share:
    """The candidates `numbers` of all `architectures`, which one device evaluates."""

    def __init__(
        self,
        functions: LayerFunctions,
        architectures: Sequence[Architecture],
        numbers: Sequence[int],
    ):
        self.numbers, self._functions = list(numbers), functions
        self.tree = PrefixTree([architectures[c] for c in numbers])
        # (2, C) by node, and by node and path for the heads.
        self._statistics: dict[int | tuple[int, int], tf.Tensor] = {}

    @property
    def steps(self) -> int:
        """How often each image is used."""
        return len(self.tree.nodes)

    def calibrate(self, batches: _Batches, add: Callable = _ignore) -> None:
        """Recalculates the statistics of every node."""
        sums: dict[int | tuple[int, int], tf.Tensor] = {}

        def visit(key, part: Part, x):
            if key not in sums:
                sums[key] = part.zeros()
            y, sums[key] = part.recalculate(x, sums[key])
            return y

        for images in batches:
            for _ in self._walk(images, visit, add):
                pass
        with self._functions.on_device():
            self._statistics = {
                key: statistics_of(value, len(batches)) for key, value in sums.items()
            }

    def logits(
        self, images: np.ndarray, add: Callable = _ignore
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(candidate, its logits (K, B, classes)) of each."""
        num_paths = len(self.tree.architectures[0].paths)
        waiting: dict[int, dict[int, np.ndarray]] = {i: {} for i in range(len(self.numbers))}

        def visit(key, part: Part, x):
            return part.run(x, self._statistics[key])

        for path, candidates, logits in self._walk(images, visit, add):
            values = logits.numpy()
            for i in candidates:
                waiting[i][path] = values
                if len(waiting[i]) == num_paths:
                    found = waiting.pop(i)
                    yield self.numbers[i], np.stack([found[k] for k in range(num_paths)])

    def statistics(self) -> dict[str, Any]:
        """Of the only candidate."""
        (architecture,) = self.tree.architectures
        parts, found = self._functions, self._statistics
        layers: list[list[tuple[tf.Tensor, ...]]] = [[] for _ in range(architecture.num_layers)]
        heads = []
        with parts.on_device():
            places = {
                (node.parent, node.layer, node.operator): i
                for i, node in enumerate(self.tree.nodes)
            }
            for path, row in enumerate(architecture.paths):
                at = 0
                for m, name in enumerate(row, 1):
                    values: tuple[tf.Tensor, ...] = ()
                    if name != SKIP:
                        at = places[at, m, name]
                        values = tuple(parts.operator(m, name).split(found[at]).values())
                    layers[m - 1].append(values)
                heads.append(parts.head(path).split(found[at, path]))
            stem = parts.stem().split(found[0])
        return {"stem": stem, "layers": layers, "heads": heads}

    def _walk(
        self, images: np.ndarray, visit: Callable, add: Callable
    ) -> Iterator[tuple[int, list[int], tf.Tensor]]:
        """One batch through the tree: (path, candidates that end there, the head's output)."""
        parts, maps = self._functions, dict[int, tf.Tensor]()
        with parts.on_device():
            batch = tf.constant(images)
        for index, node, drops_input, keeps_output in self.tree.steps():
            with parts.on_device():
                if index:
                    x = maps.pop(node.parent) if drops_input else maps[node.parent]
                    y = visit(index, parts.operator(node.layer, node.operator), x)
                    del x
                else:
                    y = visit(0, parts.stem(), batch)
                ends: dict[int, list[int]] = {}
                for path, candidate in node.exits:
                    ends.setdefault(path, []).append(candidate)
                outputs = [visit((index, path), parts.head(path), y) for path in ends]
            if keeps_output:
                maps[index] = y
            del y
            for (path, found), output in zip(ends.items(), outputs, strict=True):
                yield path, found, output
            add(self, len(images))
