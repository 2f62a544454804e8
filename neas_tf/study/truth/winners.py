"""Does a search find better ensembles than chance does at the same MACs? (study `winners`; ours)"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from neas_tf.report.page import Table
from neas_tf.space.architecture import Architecture
from neas_tf.study.reporting import Report, accuracies_picture, number, percent
from neas_tf.study.statistics import Interval, Mean, bootstrap_groups
from neas_tf.study.tables.correlations import truth_of
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth.sets import EQUAL_MACS, TruthSet, epochs_of, long_sets, macs_bounds
from neas_tf.study.units import Found, Lookup, Search, Training, Unit

TITLE = "Winners: what searches find against random ensembles of the same MACs"
PAPER = "nothing; it judges supernets and fitnesses by what is found with them"


def chance_set(plan: Plan) -> TruthSet | None:
    """The random ensembles; None where no MACs are set."""
    first = long_sets(plan)[0]
    return first if first.name == EQUAL_MACS else None


def _kinds(plan: Plan) -> list[tuple[str, str]]:
    """Recipe of the supernet and fitness of the search."""
    chosen = plan.settings.winners
    return [(recipe, fitness) for recipe in chosen.recipes for fitness in chosen.fitness]


def winners_search(plan: Plan, recipe: str, fitness: str, seed: int) -> Search:
    """Between the bounds of the set of equal MACs, with a recipe's supernet."""
    low, high = macs_bounds(plan)
    bounds = {"max_macs": high, "min_macs": low, "fitness": fitness}
    return plan.search(plan.recipe_supernet(seed, recipe), **bounds)


def first_search(plan: Plan, seed: int) -> Search:
    """That of the first recipe and fitness, which other studies take what is found from."""
    chosen = plan.settings.winners
    return winners_search(plan, chosen.recipes[0], chosen.fitness[0], seed)


def nothing_to_compare() -> Report:
    """The report of a study that needs ensembles of equal MACs, where there are none."""
    return Report({}, (), ("There is no set of equal MACs: study.truth.macs is not set.",))


def _trainings(plan: Plan, search: Search, rank: int, chance: TruthSet) -> list[Training]:
    ensemble = Found(search, rank=rank)
    return [plan.training(seed, ensemble, retrain=chance.retrain) for seed in chance.seeds]


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed: all searches, then their winners, the best of each first."""
    chance = chance_set(plan)
    if chance is None:
        return []
    result = []
    for seed in plan.seeds:
        searches = [winners_search(plan, *kind, seed) for kind in _kinds(plan)]
        trainings = [
            unit
            for rank in range(plan.settings.winners.best)
            for search in searches
            for unit in _trainings(plan, search, rank, chance)
        ]
        result.append([*searches, *trainings])
    return result


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and the picture, of what is done."""
    chance = chance_set(plan)
    if chance is None:
        return nothing_to_compare()
    truth = truth_of({key: chance.trainings(plan, key) for key in chance.ensembles}, lookup)
    random = [row["accuracy"] for row in truth.values()]
    kinds = {
        f"{recipe}, {fitness.replace('_', ' ')}": _of_kind(plan, recipe, fitness, chance, lookup)
        for recipe, fitness in _kinds(plan)
    }
    for row in kinds.values():
        searches = [[one["accuracy"] for one in own] for own in row["winners"].values() if own]
        row["against"] = against_chance(searches, random, plan.settings.resamples)
    spread = Mean.of(random)
    sentences = [_words(name, row, spread) for name, row in kinds.items()]
    trained = f"{epochs_of(chance, plan):g} epochs from scratch, {len(chance.seeds)} trainings each"
    tables = [_table(kinds, truth, trained), _table_winners(kinds)]
    pictures = {}
    if len(random) > 1 and any(row["against"] for row in kinds.values()):
        groups = {"random": random}
        groups |= {name: [one["accuracy"] for one in _all(row)] for name, row in kinds.items()}
        title = "Found against random at the same MACs"
        pictures["winners.png"] = functools.partial(accuracies_picture, groups, title)
    return Report({"random": truth, "kinds": kinds}, tables, sentences, pictures)


def _of_kind(
    plan: Plan, recipe: str, fitness: str, chance: TruthSet, lookup: Lookup
) -> dict[str, Any]:
    """`winners` by seed: of each that is trained its ensemble, rank and what `truth_of` says."""
    winners: dict[int, list[dict[str, Any]]] = {}
    for seed in plan.seeds:
        search, own = winners_search(plan, recipe, fitness, seed), []
        for rank in range(plan.settings.winners.best):
            resolved = [
                done
                for unit in _trainings(plan, search, rank, chance)
                if (done := unit.resolve(lookup)) is not None
            ]
            trained = truth_of({str(unit.ensemble): resolved for unit in resolved}, lookup)
            own += [{"ensemble": key, "rank": rank + 1, **row} for key, row in trained.items()]
        winners[seed] = own
    return {"winners": winners}


def against_chance(
    searches: Sequence[Sequence[float]], random: Sequence[float], resamples: int
) -> dict[str, Any]:
    """How accuracies of what searches found lie beside those of random ensembles.

    The p value takes all winners for independent, which those of one search are not; the interval does
    not: it draws searches, the winners in them, and the random ensembles again.

    Args:
      searches: accuracies of the winners of each search, one at least.
      random: of the random ensembles.
      resamples: of the bootstrap.

    Returns:
      `gain`, the difference of the means as `Interval`, `deviations`, the same in standard deviations
      of the random ensembles, `p` of a two-sided Mann-Whitney test, and `better`, the share of the pairs
      of a winner and a random ensemble in which the winner is better (half for ties). {} while one
      side has fewer than two.
    """
    every = [value for own in searches for value in own]
    if len(every) < 2 or len(random) < 2:
        return {}
    test = scipy.stats.mannwhitneyu(every, random, alternative="two-sided")
    deviation = float(np.std(random, ddof=1))

    def gain(found_groups: list[np.ndarray], chance_groups: list[np.ndarray]) -> float:
        return float(np.mean(np.concatenate(found_groups)) - np.mean(chance_groups[0]))

    interval = bootstrap_groups(gain, (searches, [random]), resamples)
    scale = 1 / deviation if deviation else math.nan
    return {
        "gain": interval,
        "deviations": Interval(*(scale * v for v in dataclasses.astuple(interval))),
        "p": float(test.pvalue),
        "better": float(test.statistic) / (len(every) * len(random)),
    }


def _all(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for own in row["winners"].values() for one in own]


def _words(name: str, row: Mapping[str, Any], spread: Mean) -> str:
    against, every = row["against"], _all(row)
    if not against:
        return f"{name}: too little is done to compare it with chance."
    gain, deviations = against["gain"], against["deviations"]
    searches = sum(bool(own) for own in row["winners"].values())
    accuracy = Mean.of([one["accuracy"] for one in every])
    return (
        f"{name}: {len(every)} winners of {searches} searches reach {percent(accuracy)} and {spread.count} random "
        f"ensembles of the same MACs {percent(spread)}: {100 * gain.value:+.2f} points (95 % interval "
        f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}), {deviations.value:+.2f} standard deviations "
        f"of chance ({deviations.low:+.2f} to {deviations.high:+.2f}), p = {against['p']:.2g} (Mann-Whitney)."
    )


def _row(name: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, str]:
    splits = [Architecture.from_key(key).split_point for key in keys]
    return {
        "ensembles": name,
        "trained": str(len(rows)),
        "test accuracy": percent(Mean.of([row["accuracy"] for row in rows])),
        "gain over the best path": percent(Mean.of([row["gain"] for row in rows])),
        "MACs": number(Mean.of([row["macs"] for row in rows]), 3, 1e-6, " M"),
        "split points": ", ".join(
            f"{split} ({splits.count(split)})" for split in sorted(set(splits))
        ),
    }


def _table(kinds: Mapping[str, Any], truth: Mapping[str, Any], trained: str) -> Table:
    compared = {"points above chance": "–", "its deviations": "–", "p": "–", "wins": "–"}
    rows = [_row("random", list(truth.values()), list(truth)) | compared] if truth else []
    for name, row in kinds.items():
        every = _all(row)
        if against := row["against"]:
            gain, deviations = against["gain"], against["deviations"]
            rows.append(
                _row(name, every, [one["ensemble"] for one in every])
                | {
                    "points above chance": _interval(gain, 100),
                    "its deviations": _interval(deviations),
                    "p": f"{against['p']:.2g}",
                    "wins": percent(against["better"], 0),
                }
            )
    return Table.of(f"{trained}; 95 % intervals over searches and ensembles", rows)


def _interval(value: Interval, factor: float = 1.0) -> str:
    low, high = factor * value.low, factor * value.high
    return f"{factor * value.value:+.2f} ({low:+.2f} to {high:+.2f})"


def _table_winners(kinds: Mapping[str, Any]) -> Table:
    rows = [
        {
            "searched with": name,
            "seed": str(seed),
            "place": str(one["rank"]),
            "ensemble": one["ensemble"],
            "MACs": number(one["macs"], 3, 1e-6, " M"),
            "test accuracy": percent(one["accuracy"]),
        }
        for name, row in kinds.items()
        for seed, own in row["winners"].items()
        for one in own
    ]
    return Table.of("Winner by winner", rows)
