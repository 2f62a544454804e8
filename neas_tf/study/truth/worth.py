"""Does a search earn its cost? What else the same time and the same MACs can buy (study `worth`; ours)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, accuracies_picture, number, percent
from neas_tf.study.rivals import fitted, space_settings
from neas_tf.study.statistics import Mean, ranking_over_common_seeds
from neas_tf.study.tables.paths import removed_at_a_time
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth.sets import TruthSet, epochs_of, macs_bounds
from neas_tf.study.truth.winners import chance_set, first_search, nothing_to_compare
from neas_tf.study.units import (
    Costs,
    Found,
    Lookup,
    Search,
    TimedTraining,
    Training,
    Unit,
    found,
)

TITLE = "Worth: what else the time of a search and a training can buy, at the same MACs"
PAPER = "nothing; the paper compares accuracies, not the time that they took"
FOUND, SINGLE = "found", "found, K = 1"
CHANCE, LONG_CHANCE = "random", "random, trained as long"


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is trained, and what it takes.

    Attributes:
      training: of one seed.
      costs: of it; None for one that takes as long as it takes.
    """

    training: Training
    costs: Costs | None


def contenders(plan: Plan, seed: int) -> dict[str, Contender]:
    """By name, of one seed; all but `random` take the time of `found`. {} without equal MACs.

    The search is the first of `winners`. That of K = 1 has a supernet of the same epochs, and drops
    the same share of combinations; a random ensemble is the set's with the number of the seed.
    """
    chance = chance_set(plan)
    if chance is None:
        return {}
    settings = {"retrain": dict(chance.retrain)}
    winner = Found(first_search(plan, seed))
    training = plan.training(seed, winner, **settings)
    total = _costs(training)
    random = chance.ensembles[seed % len(chance.ensembles)]
    others: dict[str, tuple[str | Found, dict[str, Any]]] = {LONG_CHANCE: (random, {})}
    if plan.base["num_paths"] > 1:
        others[SINGLE] = (Found(single_search(plan, seed)), {"num_paths": 1})
    for rival in plan.settings.rivals:
        form = fitted(rival, plan.space, macs_bounds(plan)[1], plan.settings.rival_depth)
        if form is not None:
            space = dict(space_settings(form[0]))
            others[rival] = (form[1], {"num_paths": 1, "space": space})
    result = {FOUND: Contender(training, total)}
    result[CHANCE] = Contender(plan.training(seed, random, **settings), None)
    for name, (ensemble, own) in others.items():
        plain = plan.training(seed, ensemble, **{**settings, **own})
        costs = _costs(plain)
        timed = TimedTraining(seed, plain.settings, ensemble, costs, total, epochs_of(chance, plan))
        result[name] = Contender(timed, costs)
    return result


def _costs(training: Training) -> Costs:
    return Costs(training.seed, training.settings, training.ensemble)


def single_search(plan: Plan, seed: int) -> Search:
    """The search of a single path, with a supernet as long as the recipe's."""
    chosen = plan.settings.winners
    recipe, fitness = chosen.recipes[0], chosen.fitness[0]
    own = plan.settings.recipes.get(recipe, {})
    shrink = {"remove": removed_at_a_time(plan, 1), **own.get("shrink", {})}
    supernet = plan.longer_supernet(
        seed,
        plan.settings.recipe_factor,
        num_paths=1,
        supernet=own.get("supernet", {}),
        shrink=shrink,
    )
    low, high = macs_bounds(plan)
    return plan.search(supernet, max_macs=high, min_macs=low, fitness=fitness)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed: what is found, then what it is compared with."""
    return [
        [contender.training for contender in own.values()]
        for seed in plan.seeds
        if (own := contenders(plan, seed))
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table, sentences and the picture, of what is done."""
    chance = chance_set(plan)
    if chance is None:
        return nothing_to_compare()
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in plan.seeds:
        for name, contender in contenders(plan, seed).items():
            rows.setdefault(name, [])
            if (row := _row(contender, plan, chance, lookup)) is not None:
                rows[name].append({**row, "seed": seed})
    summary = {
        name: {
            field: Mean.of([row[field] for row in own if row[field] is not None])
            for field in ("accuracy", "macs", "params", "epochs", "found_seconds", "seconds")
        }
        for name, own in rows.items()
    }
    accuracies = {name: row["accuracy"] for name, row in summary.items()}
    rivals = [n for n in plan.settings.rivals if n in summary and accuracies[n].count]
    best = max(rivals, key=lambda name: accuracies[name].mean, default="")
    sentences = [
        ranking_over_common_seeds(
            rows, (FOUND, other), lambda row: row["accuracy"], f"test accuracy {what}"
        )
        for other, what in (
            (best, "in equal time"),
            (SINGLE, "in equal time, of two paths and of one"),
            (LONG_CHANCE, "in equal time"),
            (CHANCE, "after equally many epochs"),
        )
        if other in summary
    ]
    pictures = {}
    if any(rows.values()):
        groups = {name: [row["accuracy"] for row in own] for name, own in rows.items()}
        title = "What the same time buys at the same MACs"
        pictures["worth.png"] = functools.partial(accuracies_picture, groups, title)
    values = {"contenders": summary, "results": rows}
    return Report(values, [_table(summary)], sentences, pictures)


def _row(
    contender: Contender, plan: Plan, chance: TruthSet, lookup: Lookup
) -> dict[str, Any] | None:
    training = contender.training.resolve(lookup)
    result = lookup(training) if training is not None else None
    if training is None or result is None:
        return None
    epochs = epochs_of(chance, plan)
    costs = found(contender.costs, lookup) if contender.costs else None
    if isinstance(contender.training, TimedTraining) and costs is not None:
        total = found(contender.training.total, lookup)
        assert total is not None  # else the training would not be known
        epochs = contender.training.epochs_at(costs, total)
    looked = costs["supernet"] + costs["search"] if costs else None
    return {
        "accuracy": result["ensemble_accuracy"],
        "macs": result["macs"],
        "params": result["params"],
        "epochs": epochs,
        "found_seconds": looked,
        "seconds": looked + epochs * costs["epoch"] if costs and looked is not None else None,
    }


def _table(summary: Mapping[str, Any]) -> Table:
    rows = [
        {
            "contender": name,
            "trainings": str(row["accuracy"].count),
            "test accuracy": percent(row["accuracy"]),
            "MACs": number(row["macs"], 3, 1e-6, " M"),
            "parameters": number(row["params"], 1, 1e-3, " k"),
            "epochs": number(row["epochs"], 0),
            "looking for it, CPU s": number(row["found_seconds"], 0),
            "in all, CPU s": number(row["seconds"], 0),
        }
        for name, row in summary.items()
        if row["accuracy"].count
    ]
    return Table.of("Mean ± standard deviation over seeds; CPU seconds as measured once", rows)
