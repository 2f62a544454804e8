"""K-path evolution search: Algorithm 2 of the paper (section 3.4, appendix B).

A search runs `generations` populations. The first is random. Each later one has `crossover`
children of two of the best `parents` of all generations so far, `mutation` mutants of one of them,
and random ensembles until the population is full. The control (paper Fig. 5) is `random`. With two
or three objectives (`objective: pareto`) the parents are those that NSGA-II would take instead.

A proposal outside the shrunk space or the budget, or scored before in the whole search, is thrown
away and drawn again, `PROPOSAL_TRIES` times in a row at most (`RANDOM_TRIES` for a random one). So
no ensemble is scored twice. In a space with few ensembles left a generation may then be smaller;
one without any new candidate ends the search, which says so in the log and in `state.json`.
`history.ensemble_identity` says which candidates are the same ensemble.

All that is random in generation g comes from `default_rng([seed, TAG, g])` and the scores of the
generations before, so that a resumed search repeats an uninterrupted one exactly.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tqdm import tqdm

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.cost.constraints import NothingFound
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import milliseconds
from neas_tf.search.candidate import ORIGINS, Candidate, Score
from neas_tf.search.fitness import ACCURACY, LOG_LIKELIHOOD, RANKS, fitness_values
from neas_tf.search.history import History, best_candidate, ensemble_identity, objectives
from neas_tf.search.pareto import breeding_order
from neas_tf.search.variation import SearchSettings, crossover, mutate
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace

TAG = 0x5EA2C4  # Keeps the search's random numbers apart from those of other stages.
PROPOSAL_TRIES = 200
RANDOM_TRIES = 1000

Sample = Callable[[np.random.Generator], Architecture]
Evaluate = Callable[[list[Architecture]], Iterable[Score]]


def top_candidates(
    candidates: Sequence[Candidate], count: int, fitness: str = ACCURACY
) -> list[Candidate]:
    """The `count` fittest of those that no race stopped; ties go to the earlier one."""
    finished = [c for c in candidates if c.finished]
    values = fitness_values(finished, fitness).tolist()
    order = sorted(range(len(finished)), key=lambda i: (-values[i], finished[i].number))
    return [finished[i] for i in order[:count]]


def choose_parents(candidates: Sequence[Candidate], settings: SearchSettings) -> list[Candidate]:
    """Who breeds: the fittest, or with more objectives the least beaten and crowded ones."""
    metric = settings.cost_metric
    if metric is None:
        return top_candidates(candidates, settings.parents, settings.fitness)
    costs, values, third = objectives(candidates, metric, settings.fitness)
    order = breeding_order(costs, values, settings.parents, third)
    return [candidates[i] for i in order]


def propose(
    settings: SearchSettings,
    shrunk: ShrunkSpace,
    sample: Sample,
    admits: Callable[[Architecture], bool],
    scored: Sequence[Candidate],
    rng: np.random.Generator,
) -> list[tuple[str, Architecture]]:
    """(origin, ensemble) of the next generation: at most `population` new, admitted ones.

    Args:
      sample: draws a random ensemble; it should know the budget, for what `admits` refuses is
        only drawn again.
      admits: whether an ensemble is inside the budget.
      scored: all candidates of the generations before.
      rng: of this generation.
    """
    seen = {ensemble_identity(c.architecture) for c in scored}
    result: list[tuple[str, Architecture]] = []

    def add(origin: str, count: int, tries: int, draw: Callable[[], Architecture]) -> None:
        for _ in range(count):
            for _ in range(tries):
                architecture = draw()
                identity = ensemble_identity(architecture)
                if identity in seen or not shrunk.contains(architecture):
                    continue
                if admits(architecture):
                    seen.add(identity)
                    result.append((origin, architecture))
                    break
            else:
                return

    parents = [c.architecture for c in choose_parents(scored, settings)]
    if settings.method == "evolution" and len(parents) > 1:

        def child() -> Architecture:
            a, b = rng.choice(len(parents), 2, replace=False)
            return crossover(parents[a], parents[b], shrunk, rng)

        add("crossover", settings.num_crossover, PROPOSAL_TRIES, child)
    if settings.method == "evolution" and parents:

        def mutant() -> Architecture:
            return mutate(parents[rng.integers(len(parents))], shrunk, settings, rng)

        add("mutation", settings.num_mutation, PROPOSAL_TRIES, mutant)
    try:
        add("random", settings.population - len(result), RANDOM_TRIES, lambda: sample(rng))
    except NothingFound:  # fatal where there is nothing to go on with
        if not scored and not result:
            raise
    return result


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes:
      best: the fittest candidate; ties went to lower MACs, then to the earlier one.
      candidates: all, by number.
      reason: why it ended before all generations were full, '' when it did not.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    reason: str = ""


def generation_rng(seed: int, generation: int) -> np.random.Generator:
    """The generator of one generation."""
    return np.random.default_rng([seed, TAG, generation])


def run_search(
    settings: SearchSettings,
    shrunk: ShrunkSpace,
    sample: Sample,
    admits: Callable[[Architecture], bool],
    evaluate: Evaluate,
    history: History,
    *,
    context: Mapping[str, Any] | None = None,
    on_generation: Callable[[int, list[Candidate], Candidate], None] | None = None,
    make_bar: Callable[[int, int], tqdm] | None = None,
    whole_generations: bool = False,
    enough: Callable[[int, int], str] | None = None,
    first_part: int = 0,
) -> SearchResult:
    """Runs Algorithm 2, or continues the search that the history's folder holds.

    Args:
      settings, shrunk, sample, admits: see `propose`.
      evaluate: scores the new candidates of one generation, in order; a generator may yield them
        one by one, and each is on disk before the next is asked for. A score must depend on its
        candidate alone, for a resumed search asks only for what the history lacks.
      history: the folder.
      context: what the scores and the budget depend on besides (budget, checkpoint, …), as JSON; a
        folder with another one is refused.
      on_generation: called with (generation, its candidates, best so far) after every generation
        once it is saved.
      make_bar: (total, already done) -> progress bar; `evaluate` may move it ahead of the scores.
      whole_generations: whether a resumed search asks for its whole generation again, because a
        score depends on the generation's other candidates too (halving).
      enough: called with each generation that is not the last one, after it is scored, and 0; says
        why the search is to end with it, or ''.
      first_part: the first generation is scored so many at a time, and `enough` is asked between
        them too, with 0 and how many are scored, also before a resumed search scores any; 0 scores
        it as a whole, as do `whole_generations`.

    Returns:
      The result; of a finished search at once, without an evaluation.

    Raises:
      NeasError: for a folder of another search, a history that does not belong to it, and when no
        ensemble of the space is inside the budget.
    """
    search, fitness = describe_search(settings, shrunk, context), settings.fitness
    first = _state(0, False, "", [], settings)

    def why_not(architecture: Architecture) -> str:
        reason = shrunk.why_not(architecture)
        return reason or ("" if admits(architecture) else "it is outside the budget.")

    state = history.open(search, first, why_not)
    done = history.candidates  # Grows with every score.
    start = _first_generation(state, history, settings)
    if state["finished"] and len(done) == state["candidates"]:
        result = SearchResult(best_candidate(done, fitness), tuple(done), state["reason"])
        if not history.best_path.exists():
            history.write_best(result.best, fitness)
        if settings.cost_metric and not history.pareto_path.exists():
            history.write_pareto(done, settings.cost_metric, fitness)
        return result
    if done:
        logging.info("Search: continues at generation %d with %d candidates.", start + 1, len(done))
    bar = make_bar(settings.population * settings.generations, len(done)) if make_bar else None
    try:
        for generation in range(start, settings.generations):
            rng = generation_rng(settings.seed, generation)
            if generation == state["generation"]:
                history.restore(rng, state["rng"])
            scored = [c for c in history.candidates if c.generation < generation]
            proposals = propose(settings, shrunk, sample, admits, scored, rng)
            if not scored and not proposals:
                raise NeasError(
                    f"search: no ensemble of the shrunk space inside the budget was found in "
                    f"{RANDOM_TRIES} random draws; expected a budget that the space attains."
                )
            missing, reason = _match(proposals, len(scored), generation, history), ""
            size = first_part if not generation and not whole_generations else 0
            while missing:
                known = len(proposals) - len(missing)
                rest = known % size if size else 0  # a resumed search first fills a part
                if enough and size and known and not rest and (reason := enough(generation, known)):
                    break
                end = size - rest if size else None
                part, missing = missing[:end], missing[end:] if size else []
                asked = proposals if whole_generations else part
                for (origin, architecture), score in _scores(part, asked, evaluate):
                    history.append(architecture, generation, origin, score)
                    if bar:
                        bar.update(max(0, len(done) - bar.n))
                        best = best_candidate(done, fitness)
                        bar.set_postfix_str(_postfix(best, fitness))
            reached = [c for c in history.candidates if c.generation <= generation]
            new, best = reached[len(scored) :], best_candidate(reached, fitness)
            last = not new or bool(reason) or generation + 1 == settings.generations
            if not new:
                reason = (
                    f"generation {generation + 1} found no new ensemble in {RANDOM_TRIES} random "
                )
                reason += "draws: the space has no or hardly any more inside the budget"
            if not last and enough and (reason := enough(generation, 0)):
                last = True
            if last:
                if len(done) > len(reached):
                    _refuse_line(history, len(reached), "is after the end of this search")
                history.write_best(best, fitness)
            if settings.cost_metric:
                history.write_pareto(reached, settings.cost_metric, fitness)
            now = _state(generation + 1 if new else generation, last, reason, reached, settings)
            history.write_state({"format": state["format"], "search": state["search"], **now})
            _log(generation, settings, new, best, reason)
            if on_generation:
                on_generation(generation, new, best)
            if last:
                return SearchResult(best, tuple(reached), reason)
    finally:
        if bar:
            bar.close()
    raise AssertionError("The last generation returns.")


def describe_search(
    settings: SearchSettings, shrunk: ShrunkSpace, context: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything that the course of a search depends on, in words that people can compare.

    It is what `History.open` and `History.check` compare with the folder's.
    """
    alive = {
        f"layer {layer.number}": ["+".join(row) for row in rows]
        for layer, rows in zip(shrunk.space.layers, shrunk.alive, strict=True)
    }
    space = {key: value for key, value in shrunk.space.to_dict().items() if key != "name"}
    return {
        "settings": settings.to_dict(),
        "context": dict(context or {}),
        "num_paths": shrunk.num_paths,
        "heterogeneous": shrunk.heterogeneous,
        "space": space,
        "alive": alive,
    }


def _state(
    generation: int,
    finished: bool,
    reason: str,
    candidates: Sequence[Candidate],
    settings: SearchSettings,
) -> dict[str, Any]:
    """The state that goes with `candidates` when `generation` is the next one."""
    newest = candidates[-1].generation if candidates else 0
    return {
        "generation": generation,
        "candidates": len(candidates),
        "population": [c.number for c in candidates if c.generation == newest],
        "parents": [c.number for c in choose_parents(candidates, settings)],
        "best": best_candidate(candidates, settings.fitness).number if candidates else None,
        "rng": generation_rng(settings.seed, generation).bit_generator.state,
        "finished": finished,
        "reason": reason,
    }


def _first_generation(state: Mapping[str, Any], history: History, settings: SearchSettings) -> int:
    """The generation to continue with, after comparing the state with the history."""
    start, count, done = state["generation"], state["candidates"], history.candidates
    if len(done) < count:  # Lines were lost: go back to where the history ends.
        return min(start, done[-1].generation if done else 0)
    if state["finished"] and len(done) > count:
        _refuse_line(history, count, "is after the end of this search")
    expected = _state(start, state["finished"], state["reason"], done[:count], settings)
    differences = [k for k in expected if k != "rng" and expected[k] != state[k]]
    if differences or (start >= settings.generations and not state["finished"]):
        raise NeasError(
            f"search state {str(history.state_path)!r}: {', '.join(differences or ['finished'])} "
            f"received that do not fit the first {count} lines of {history.path.name}, expected "
            f"the state that this search wrote."
        )
    return start


def _match(
    proposals: list[tuple[str, Architecture]], first: int, generation: int, history: History
) -> list[tuple[str, Architecture]]:
    """The proposals that the history lacks, after comparing it with those that it has."""
    known = [c for c in history.candidates[first:] if c.generation == generation]
    for candidate, expected in zip(known, proposals, strict=False):
        if (candidate.origin, candidate.architecture) != expected:
            _refuse_line(
                history, candidate.number, f"does not follow from the lines before ({expected[1]})"
            )
    if len(known) > len(proposals):
        _refuse_line(history, first + len(proposals), "is one more than its generation has")
    if len(known) < len(proposals) and len(history.candidates) > first + len(known):
        _refuse_line(history, first + len(known), f"skips a candidate of generation {generation}")
    return proposals[len(known) :]


def _refuse_line(history: History, number: int, fault: str) -> None:
    raise NeasError(f"search history {str(history.path)!r}, line {number + 1}: {fault}.")


def _scores(
    missing: list[tuple[str, Architecture]],
    asked: list[tuple[str, Architecture]],
    evaluate: Evaluate,
) -> Iterable[tuple[tuple[str, Architecture], Score]]:
    """What is missing with its score; `asked` may begin with some that the history has."""
    if missing:
        scores = iter(evaluate([architecture for _, architecture in asked]))
        scores = itertools.islice(scores, len(asked) - len(missing), None)
        yield from zip(missing, scores, strict=True)


def _postfix(best: Candidate, fitness: str) -> str:
    return f"best {score_text(best, fitness)} at {size_text(best)}"


def score_text(candidate: Candidate, fitness: str) -> str:
    """A candidate's accuracy, and its log-likelihood where that is what counts."""
    value = candidate.numbers.get(LOG_LIKELIHOOD if fitness == RANKS else fitness)
    return f"{candidate.accuracy:.2%}" + ("" if value is None else f" ({value:.4f} nats)")


def size_text(candidate: Candidate) -> str:
    """What a candidate costs: its MACs, and its latency where a table predicts one."""
    text = f"{console.short_count(candidate.macs)} MACs"
    costs = candidate.costs
    return f"{text}, {milliseconds(costs[LATENCY])}" if LATENCY in costs else text


def _log(
    generation: int,
    settings: SearchSettings,
    new: list[Candidate],
    best: Candidate,
    reason: str,
) -> None:
    if reason:
        logging.info("Search: ended early, %s.", reason)
        return
    origins = [candidate.origin for candidate in new]
    logging.info(
        "Search generation %d of %d: %d new ensembles (%s), %s.",
        generation + 1,
        settings.generations,
        len(new),
        ", ".join(f"{origins.count(origin)} {origin}" for origin in reversed(ORIGINS)),
        _postfix(best, settings.fitness),
    )
