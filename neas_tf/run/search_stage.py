"""Stage 2: evolution search in the shrunk space (paper section 3.4, Algorithm 2)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_json_atomic
from neas_tf.config.settings import NeasConfig, SearchConfig
from neas_tf.cost.budget import Budget
from neas_tf.cost.budget_sampling import BudgetSampler
from neas_tf.cost.constraints import Constraints
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import milliseconds
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity
from neas_tf.run.parts.pacing import search_end
from neas_tf.run.parts.time_limit import TimePlan
from neas_tf.run.preflight import search_constraints, search_costs, search_settings
from neas_tf.run.record import timed
from neas_tf.run.supernet_stage import FINAL, load_shrunk, load_supernet
from neas_tf.search.candidate import Candidate, Score
from neas_tf.search.evaluation import CandidateEvaluator, Workers
from neas_tf.search.evolution import (
    SearchResult,
    describe_search,
    run_search,
    score_text,
    size_text,
)
from neas_tf.search.fitness import CALIBRATED, HALVING
from neas_tf.search.halving import Look, halve
from neas_tf.search.history import History, best_candidate
from neas_tf.search.variation import SearchSettings
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.training.checkpoints import latest_step
from neas_tf.uncertainty.temperature import check_examples

_NEXT_LOOK = 1 << 32  # between the seeds of two looks, beyond any run's seed


def check_search(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    alone: bool,
) -> None:
    """Refuses, without writing, a folder with another search or settings that cannot work.

    `alone`: the supernet's stage must have finished already.
    """
    Identity("supernet", config, model_dir, info).check()
    if info.sizes["search"] == 0:
        raise NeasError(
            "data.search_fraction: received 0, expected a fraction > 0 of the training split, "
            "on which the search measures accuracy."
        )
    held_out = min(_validation_images(config, info), info.sizes["search"])
    if config.search.fitness == CALIBRATED:
        check_examples(held_out, "search.fitness", repr(CALIBRATED))
    table, budget = search_costs(config, space)
    constraints = search_constraints(config, space)
    history = _history(model_dir / "search", table, constraints)
    if alone or (model_dir / FINAL).exists():
        shrunk = load_shrunk(model_dir, space)
        budget.check_attainable(shrunk, table)
        context = _context(config.search, model_dir, table, constraints)
        history.check(describe_search(search_settings(config), shrunk, context))
    elif history.path.exists():
        raise NeasError(
            f"model_dir: {str(model_dir / 'search')!r} holds a search without the supernet it "
            "belongs to; move it away or choose another folder."
        )


def search(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    space: SearchSpace,
    cluster: Cluster,
    plan: TimePlan | None = None,
) -> SearchResult:
    """Searches the shrunk space with the trained supernet; resumes where it stopped.

    Args:
      config, model_dir, info, space, cluster: of the run.
      plan: of its time, where that is limited.

    Returns:
      The result, also in `search/best.json` and `search/history.jsonl`.
    """
    check_search(config, model_dir, info, space, cluster, alone=True)
    shrunk, settings = load_shrunk(model_dir, space), search_settings(config)
    table, budget = search_costs(config, space)
    constraints = search_constraints(config, space)
    images = min(_validation_images(config, info), info.sizes["search"])
    if cluster.is_chief:
        _announce(config.search, settings, shrunk, table, budget, images)
    with (
        timed(model_dir, "search", cluster.is_chief),
        _folder(model_dir / "search", cluster) as folder,
    ):
        if table.latency is not None:  # the run's own copy, beside what it predicted
            write_json_atomic(folder / "latency_table.json", table.latency.to_dict())
        history = _history(folder, table, constraints)

        def make() -> CandidateEvaluator:
            with cluster.placing():
                supernet = load_supernet(config, model_dir, space)
            return make_evaluator(config, info, supernet, cluster)

        @functools.cache
        def all_held_out() -> tuple[np.ndarray, np.ndarray]:
            return data.make_images(info, "search", 0, config.seed)

        def look_again(evaluator: CandidateEvaluator, number: int) -> CandidateEvaluator:
            return evaluator.another_look(_calibration(config, info, number), *all_held_out())

        evaluate = _LazyEvaluator(make, look_again, config.search, history)
        result = run_search(
            settings,
            shrunk,
            constraints.sampler(_sampler(shrunk, table, budget, config.search.even_splits)),
            lambda a: budget.admits(table.cost(a)) and constraints.admits(a),
            evaluate,
            history,
            context=_context(config.search, model_dir, table, constraints),
            on_generation=_teller(settings.fitness) if cluster.is_chief else None,
            make_bar=evaluate.make_bar if cluster.is_chief else None,
            whole_generations=settings.fitness == HALVING,
            enough=search_end(config, info, plan, cluster) if plan else None,
            first_part=config.search.parents if plan else 0,
        )
    if cluster.is_chief:
        _tell_result(result, settings.fitness)
    return result


def _sampler(
    shrunk: ShrunkSpace, table: CostTable, budget: Budget, even_splits: bool
) -> Callable[[np.random.Generator], Architecture]:
    """What draws the first generation: inside the budget, where there is one."""
    if budget.limits:
        return BudgetSampler(shrunk, table, budget, even_splits=even_splits).sample
    return lambda rng: sampling.uniform(shrunk, rng)


@contextlib.contextmanager
def _folder(folder: Path, cluster: Cluster) -> Iterator[Path]:
    """Where a worker's search writes: the chief in the run's folder, others in one of their own.

    All workers make the same search, of which each evaluates its share; so each begins with what
    the run's folder holds.
    """
    if cluster.is_chief:
        cluster.barrier()  # the others have read it
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary, "search")
        if folder.exists():
            shutil.copytree(folder, own)
        cluster.barrier()
        yield own


def make_evaluator(
    config: NeasConfig, info: data.DatasetInfo, supernet: Supernet, cluster: Cluster
) -> CandidateEvaluator:
    """The evaluator on training images for BN and held-out training images for accuracy.

    Raises:
      NeasError: when no training images are held out for the search.
    """
    settings = config.search
    count, index = cluster.worker
    return CandidateEvaluator(
        supernet,
        _calibration(config, info, 0),
        *data.make_images(info, "search", _validation_images(config, info), config.seed),
        settings.calibration_batch,
        settings.batch_size,
        cluster.local_devices,
        Workers(count, index, cluster.any_worker),
        search_settings(config).disagreement,
        config.runtime.enable_xla,
        info.normalisation,
        cluster.replicas,
    )


def _calibration(config: NeasConfig, info: data.DatasetInfo, number: int) -> np.ndarray:
    """Images for BN, of the first look (0) or a later one, which has others."""
    seed = config.seed + number * _NEXT_LOOK
    return data.make_images(info, "supernet", config.search.calibration_images, seed)[0]


class _LazyEvaluator:
    """Loads the supernet when the first candidate is to be scored: a finished search needs none."""

    def __init__(
        self,
        make: Callable[[], CandidateEvaluator],
        look_again: Callable[[CandidateEvaluator, int], CandidateEvaluator],
        config: SearchConfig,
        history: History,
    ):
        self._make, self._look_again = make, look_again
        self._config, self._history = config, history
        self._looks: dict[int, CandidateEvaluator] = {}
        self._bar: tqdm | None = None

    def make_bar(self, total: int, initial: int) -> tqdm:
        """A bar that moves on while a generation is evaluated, though its scores come together."""
        self._bar = console.bar("search", total, "ensembles", initial)
        return self._bar

    def __call__(self, architectures: list[Architecture]) -> list[Score]:
        own = set(architectures)
        before = [c for c in self._history.candidates if c.architecture not in own]

        def progress(share: float) -> None:
            if self._bar is not None:
                done = len(before) + int(share * len(architectures))
                self._bar.update(max(0, done - self._bar.n))

        if self._config.fitness != HALVING:
            return self._look(0).evaluate_all(architectures, progress)
        numbers = range(self._config.looks)
        return halve(
            architectures, [functools.partial(self._as_look, n) for n in numbers], progress
        )

    def _look(self, number: int) -> CandidateEvaluator:
        if 0 not in self._looks:
            self._looks[0] = self._make()
        if number not in self._looks:
            self._looks[number] = self._look_again(self._looks[0], number)
        return self._looks[number]

    def _as_look(self, number: int) -> Look:
        evaluator = self._look(number)
        return Look(evaluator.evaluate_all, evaluator.images)


def _history(folder: Path, table: CostTable, constraints: Constraints) -> History:
    def costs(architecture: Architecture) -> dict[str, int | float]:
        return {**table.cost(architecture).by_metric(), **constraints.values(architecture)}

    return History(folder, costs)


def _validation_images(config: NeasConfig, info: data.DatasetInfo) -> int:
    return config.search.validation_images or info.sizes["search"]


def _context(
    config: SearchConfig, model_dir: Path, table: CostTable, constraints: Constraints
) -> dict[str, object]:
    """What a score depends on besides the candidate."""
    names = "max_macs min_macs max_params even_splits calibration_images calibration_batch validation_images"
    identity = (model_dir / "supernet" / "identity.json").read_bytes()
    context = {name: getattr(config, name) for name in names.split()} | {
        "supernet": hashlib.sha256(identity).hexdigest()[:16],
        "supernet_step": latest_step(model_dir / "supernet"),
    }
    if table.latency is not None:  # else as it was before there were tables
        context["latency_table"] = table.latency.identity()
        context["max_latency_ms"] = config.max_latency_ms
    if constraints.bounds:
        context["constraints"] = constraints.identity()
    if config.fitness == HALVING:
        context["looks"] = config.looks
    return context


def _announce(
    config: SearchConfig,
    settings: SearchSettings,
    shrunk: ShrunkSpace,
    table: CostTable,
    budget: Budget,
    images: int,
) -> None:
    words = {1: "at most", -1: "at least"}
    bounds = ", ".join(
        [
            f"{words[x.sign]} {_amount(x.metric, x.value)}"
            for x in budget.limits
            if x not in budget.others
        ]
        + list(config.constraints)
    )
    if table.latency is not None:
        bounds += f"; latency as measured on {table.latency.device or 'an unnamed device'}"
    console.heading(
        "Search",
        f"{settings.method}, {settings.generations} generations of {settings.population} ensembles "
        f"out of {shrunk.num_combinations} combinations",
        f"budget: {bounds or 'none'}",
        f"{config.fitness.replace('_', ' ')} on {images:,} held-out training images"
        + (f", the best looked at {config.looks} times" if config.fitness == HALVING else ""),
    )


def _amount(metric: str, value: int | float) -> str:
    if metric == LATENCY:
        return milliseconds(value)
    return f"{console.short_count(value)} {'MACs' if metric == 'macs' else 'parameters'}"


def _tell_result(result: SearchResult, fitness: str) -> None:
    best = result.best
    if result.reason:
        console.say(f"   The search ended early: {result.reason}.")
    console.say(
        f"   Found {best.architecture.key}: {score_text(best, fitness)} with the supernet's weights, "
        f"{size_text(best)}, {len(result.candidates)} ensembles scored."
    )


def _teller(fitness: str) -> Callable[[int, Sequence[Candidate], Candidate], None]:
    def tell(generation: int, new: Sequence[Candidate], best: Candidate) -> None:
        top = score_text(best_candidate(new, fitness), fitness) if new else "none"
        console.say(
            f"   Generation {generation + 1}: {len(new)} new, the best of them {top}; best so far "
            f"{score_text(best, fitness)} at {size_text(best)}."
        )

    return tell
