"""Stage 2: evolution search in the shrunk space (paper section 3.4, Algorithm 2)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from neas_tf import data, sampling
from neas_tf.architecture import Architecture
from neas_tf.budget_sampling import BudgetSampler
from neas_tf.errors import NeasError
from neas_tf.evaluation import CandidateEvaluator
from neas_tf.evolution import SearchResult, run_search, tqdm_bar
from neas_tf.files import read_json
from neas_tf.run_context import Run
from neas_tf.search_state import History, Score
from neas_tf.shrunk_space import ShrunkSpace
from neas_tf.stages.supernet_stage import load_supernet
from neas_tf.supernet import Supernet
from neas_tf.training_loop import latest_step
from neas_tf.variation import SearchSettings


def search(run: Run) -> SearchResult:
    """Searches the run's shrunk space with its trained supernet; goes on where it stopped.

    Returns:
      The result, also in `search/best.json` and `search/history.jsonl`.
    """
    shrunk = load_shrunk(run)
    run.budget.check_attainable(shrunk, run.table)
    config = run.config.search
    names = [field.name for field in dataclasses.fields(SearchSettings)]
    values = {name: getattr(config, name) for name in names}
    for name in ("crossover", "mutation"):
        values[name] = None if values[name] < 0 else values[name]
    values["seed"] = config.seed if config.seed >= 0 else run.config.seed
    settings = SearchSettings(**values)
    evaluate = _LazyEvaluator(run)
    if run.budget.limits:
        sampler = BudgetSampler(shrunk, run.table, run.budget, even_splits=config.even_splits)
        sample = sampler.sample
    else:

        def sample(rng: np.random.Generator) -> Architecture:
            return sampling.uniform(shrunk, rng)

    def costs(architecture: Architecture) -> dict[str, int]:
        cost = run.table.cost(architecture)
        return {"macs": cost.macs, "paper_flops": cost.paper_flops, "params": cost.params}

    history = History(run.folder("search"), costs)
    with run.timed("search"):
        result = run_search(
            settings,
            shrunk,
            sample,
            lambda architecture: run.budget.admits(run.table.cost(architecture)),
            evaluate,
            history,
            context=_context(run),
            make_bar=tqdm_bar,
        )
    best = result.best
    logging.info(
        "Found %s: %.2f %% with the supernet's weights, %.2f M MACs.",
        best.architecture.key,
        100 * best.accuracy,
        best.macs / 1e6,
    )
    return result


def load_shrunk(run: Run) -> ShrunkSpace:
    """The shrunk space that stage 1 left."""
    path = run.folder("shrink", "alive.json")
    if not path.exists():
        raise NeasError(
            f"stage: {str(run.model_dir)!r} holds no finished supernet; run --stage=supernet first."
        )
    return ShrunkSpace.from_dict(read_json(path, "shrink/alive.json"), run.space)


def make_evaluator(run: Run, supernet: Supernet) -> CandidateEvaluator:
    """The evaluator on training images for BN and held-out training images for accuracy.

    Raises:
      NeasError: when no training images are held out for the search.
    """
    config, seed = run.config.search, run.config.seed
    if run.info.sizes["search"] == 0:
        raise NeasError(
            "data.search_fraction: received 0, allowed is a fraction > 0 of the training split, "
            "on which the search measures accuracy."
        )
    calibration, _ = data.make_arrays(run.info, "supernet", config.calibration_images, seed)
    count = config.validation_images or run.info.sizes["search"]
    images, labels = data.make_arrays(run.info, "search", count, seed)
    return CandidateEvaluator(
        supernet, calibration, images, labels, config.calibration_batch, config.batch_size
    )


class _LazyEvaluator:
    """Loads the supernet when the first candidate is to be scored: a finished search needs none."""

    def __init__(self, run: Run):
        self._run, self._evaluator = run, None

    def __call__(self, architectures: list[Architecture]) -> Iterator[Score]:
        if self._evaluator is None:
            self._evaluator = make_evaluator(self._run, load_supernet(self._run))
        return self._scores(architectures)

    def _scores(self, architectures: Iterable[Architecture]) -> Iterator[Score]:
        for architecture in architectures:
            result = self._evaluator.evaluate(architecture)
            yield Score(result.accuracy, result.path_accuracies)


def _context(run: Run) -> dict[str, object]:
    """What a score depends on besides the candidate."""
    config = run.config.search
    names = "max_macs min_macs max_params even_splits calibration_images calibration_batch validation_images"
    identity = run.folder("supernet", "identity.json").read_bytes()
    return {name: getattr(config, name) for name in names.split()} | {
        "supernet": hashlib.sha256(identity).hexdigest()[:16],
        "supernet_step": latest_step(run.folder("supernet")),
    }
