"""Stage 2: evolution search in the shrunk space (paper section 3.4, Algorithm 2)."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_json_atomic
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import milliseconds
from neas_tf.run.context import Run
from neas_tf.run.preflight import search_settings
from neas_tf.run.supernet_stage import load_supernet
from neas_tf.search.evaluation import CandidateEvaluator, Workers
from neas_tf.search.evolution import (
    Bar,
    SearchResult,
    describe_search,
    run_search,
    size_text,
    top_candidates,
    tqdm_bar,
)
from neas_tf.search.history import Candidate, History, Score
from neas_tf.search.racing import RaceSettings
from neas_tf.search.variation import SearchSettings
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.training.checkpoints import latest_step


def check_search(run: Run, alone: bool) -> None:
    """Refuses, without writing, a folder with another search or settings that cannot work.

    Args:
      run: the run.
      alone: whether the supernet's stage must have finished already.
    """
    run.check_identity("supernet")
    if run.info.sizes["search"] == 0:
        raise NeasError(
            "data.search_fraction: received 0, allowed is a fraction > 0 of the training split, "
            "on which the search measures accuracy."
        )
    if alone or run.folder("shrink", "alive.json").exists():
        shrunk = load_shrunk(run)
        run.budget.check_attainable(shrunk, run.table)
        search_of = describe_search(search_settings(run.config), shrunk, _context(run))
        _history(run).check(search_of)
    elif _history(run).path.exists():
        raise NeasError(
            f"model_dir: {str(run.folder('search'))!r} holds a search without the supernet it "
            "belongs to; move it away or choose another folder."
        )


def search(run: Run) -> SearchResult:
    """Searches the run's shrunk space with its trained supernet; goes on where it stopped.

    Returns:
      The result, also in `search/best.json` and `search/history.jsonl`.
    """
    check_search(run, alone=True)
    shrunk, settings = load_shrunk(run), search_settings(run.config)
    if run.is_chief:
        _announce(run, shrunk, settings)
    if run.budget.limits:
        even = run.config.search.even_splits
        sample = BudgetSampler(shrunk, run.table, run.budget, even_splits=even).sample
    else:

        def sample(rng: np.random.Generator) -> Architecture:
            return sampling.uniform(shrunk, rng)

    with run.timed("search"), _folder(run) as folder:
        if run.table.latency is not None:  # the run's own copy, beside what it predicted
            write_json_atomic(folder / "latency_table.json", run.table.latency.to_dict())
        history, bar = _history(run, folder), _Bar()
        result = run_search(
            settings,
            shrunk,
            sample,
            lambda architecture: run.budget.admits(run.table.cost(architecture)),
            _LazyEvaluator(run, history, bar),
            history,
            context=_context(run),
            on_generation=_tell_generation if run.is_chief else None,
            make_bar=bar.make if run.is_chief else None,
            whole_generations=run.config.search.racing,
        )
    if run.is_chief:
        _tell_result(result)
    return result


@contextlib.contextmanager
def _folder(run: Run) -> Iterator[Path]:
    """Where a worker's search writes: the chief in the run's folder, others in one of their own.

    All workers make the same search, of which each evaluates its share; so each begins with what
    the run's folder holds.
    """
    if run.is_chief:
        run.barrier()  # the others have read it
        yield run.folder("search")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "search")
        if run.folder("search").exists():
            shutil.copytree(run.folder("search"), folder)
        run.barrier()
        yield folder


def load_shrunk(run: Run) -> ShrunkSpace:
    """The shrunk space that stage 1 left."""
    path = run.folder("shrink", "alive.json")
    if not path.exists() or not latest_step(run.folder("supernet")):
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
    calibration, _ = data.make_arrays(run.info, "supernet", config.calibration_images, seed)
    images, labels = data.make_arrays(run.info, "search", _validation_images(run), seed)
    count, index = run.worker
    return CandidateEvaluator(
        supernet,
        calibration,
        images,
        labels,
        config.calibration_batch,
        config.batch_size,
        run.local_devices,
        Workers(count, index, run.any_worker),
    )


class _Bar:
    """A bar that moves on while a generation is evaluated, though its scores come together."""

    def __init__(self):
        self._bar: Bar | None = None
        self._ahead = 0

    def make(self, total: int, initial: int) -> Bar:
        """See `run_search`."""
        self._bar = tqdm_bar(total, initial)
        return self

    def advance(self, done: int) -> None:
        """So many ensembles' worth of the generation's work is done."""
        if self._bar is not None and done > self._ahead:
            self._bar.update(done - self._ahead)
            self._ahead = done

    def update(self, n: int = 1) -> None:
        """See `Bar`: a score that was counted ahead is not counted again."""
        known = min(n, self._ahead)
        self._ahead -= known
        self._bar.update(n - known)

    def set_postfix_str(self, s: str) -> None:
        """See `Bar`."""
        self._bar.set_postfix_str(s)

    def close(self) -> None:
        """See `Bar`."""
        self._bar.close()


class _LazyEvaluator:
    """Loads the supernet when the first candidate is to be scored: a finished search needs none."""

    def __init__(self, run: Run, history: History, bar: _Bar):
        self._run, self._history, self._bar, self._evaluator = run, history, bar, None

    def __call__(self, architectures: list[Architecture]) -> list[Score]:
        if self._evaluator is None:
            self._evaluator = make_evaluator(self._run, load_supernet(self._run))
        config, count = self._run.config.search, len(architectures)

        def progress(share: float) -> None:
            self._bar.advance(int(share * count))

        if config.racing:
            race = RaceSettings(config.parents, config.racing_error)
            results = self._evaluator.race(architectures, race, self._best(architectures), progress)
        else:
            results = self._evaluator.evaluate_all(architectures, progress)
        return [Score(r.accuracy, r.path_accuracies, r.images) for r in results]

    def _best(self, architectures: list[Architecture]) -> list[Architecture]:
        """The parents that a generation came from, best first."""
        own = set(architectures)
        before = [c for c in self._history.candidates if c.architecture not in own]
        parents = top_candidates(before, self._run.config.search.parents)
        return [c.architecture for c in parents]


def _history(run: Run, folder: Path | None = None) -> History:
    def costs(architecture: Architecture) -> dict[str, int]:
        cost = run.table.cost(architecture)
        return {metric: getattr(cost, metric) for metric in run.table.metrics}

    return History(folder or run.folder("search"), costs)


def _validation_images(run: Run) -> int:
    return run.config.search.validation_images or run.info.sizes["search"]


def _context(run: Run) -> dict[str, object]:
    """What a score depends on besides the candidate."""
    config = run.config.search
    names = "max_macs min_macs max_params even_splits calibration_images calibration_batch validation_images"
    identity = run.folder("supernet", "identity.json").read_bytes()
    context = {name: getattr(config, name) for name in names.split()} | {
        "supernet": hashlib.sha256(identity).hexdigest()[:16],
        "supernet_step": latest_step(run.folder("supernet")),
    }
    if run.table.latency is not None:  # else as it was before there were tables
        context["latency_table"] = run.table.latency.identity()
        context["max_latency_ms"] = config.max_latency_ms
    if config.racing:
        names = ("racing_error", "batch_size")  # a race looks behind every batch
        context["racing"] = {name: getattr(config, name) for name in names}
    return context


def _announce(run: Run, shrunk: ShrunkSpace, settings: SearchSettings) -> None:
    words = {1: "at most", -1: "at least"}
    budget = ", ".join(f"{words[x.sign]} {_amount(x.metric, x.value)}" for x in run.budget.limits)
    table = run.table.latency
    if table is not None:
        budget += f"; latency as measured on {table.device or 'an unnamed device'}"
    console.heading(
        "Search",
        f"{settings.method}, {settings.generations} generations of {settings.population} ensembles "
        f"out of {shrunk.num_combinations} combinations",
        f"budget: {budget or 'none'}",
        f"accuracy on {min(_validation_images(run), run.info.sizes['search']):,} held-out training "
        "images" + (", stopped early by racing" if run.config.search.racing else ""),
    )


def _amount(metric: str, value: int | float) -> str:
    if metric == LATENCY:
        return milliseconds(value)
    return f"{console.short_count(value)} {'MACs' if metric == 'macs' else 'parameters'}"


def _tell_result(result: SearchResult) -> None:
    best = result.best
    if result.reason:
        console.say(f"   The search ended early: {result.reason}.")
    stopped = sum(not c.finished for c in result.candidates)
    console.say(
        f"   Found {best.architecture.key}: {best.accuracy:.2%} with the supernet's weights, "
        f"{size_text(best)}, {len(result.candidates)} ensembles scored"
        + (f", {stopped} of them stopped by the race." if stopped else ".")
    )


def _tell_generation(generation: int, new: Sequence[Candidate], best: Candidate) -> None:
    top = max((c.accuracy for c in new if c.finished), default=0.0)
    console.say(
        f"   Generation {generation + 1}: {len(new)} new, the best of them {top:.2%}; best so far "
        f"{best.accuracy:.2%} at {size_text(best)}."
    )
