"""What teachers give a retraining: a larger ensemble, or the paths each other (study `distillation`; ours)."""

from __future__ import annotations

import functools
from typing import Any

from neas_tf.cost.cost_table import CostTable
from neas_tf.operators import SKIP
from neas_tf.report.page import Table
from neas_tf.space.architecture import Architecture
from neas_tf.study.reporting import Report, accuracies_picture, number, percent
from neas_tf.study.statistics import Mean, ranking_over_common_seeds
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth.winners import chance_set, first_search, nothing_to_compare
from neas_tf.study.units import Found, Lookup, Taught, Training, Unit, found

TITLE = "Distillation: what a teacher gives a retraining"
PAPER = "not in the paper"
_PATHS = (
    "paths"  # the teacher of `retrain.distillation` that the paths are; its module loads TensorFlow
)
PLAIN, EACH_OTHER, LARGER = "no teacher", "the paths teach each other", "a larger ensemble teaches"


def largest_ensemble(plan: Plan) -> str:
    """Key of the ensemble of most MACs: in every layer the dearest operator, split as early as possible."""
    table, paths = CostTable(plan.space), plan.base["num_paths"]
    split = plan.space.min_split if paths > 1 else plan.space.num_layers
    names = [name for name in plan.space.operators if name != SKIP]

    def dearest(number_: int) -> str:
        def macs(name: str) -> int:
            path = [names[0]] * plan.space.num_layers
            path[number_] = name
            return table.cost(Architecture(plan.space.num_layers, (tuple(path),))).macs

        allowed = [n for n in names if n in plan.space.layers[number_].operators]
        return max(allowed, key=macs)

    path = tuple(dearest(i) for i in range(plan.space.num_layers))
    return Architecture(split, (path,) * paths).key


def teacher(plan: Plan) -> Training:
    """The larger ensemble, trained as long as the truth, once."""
    chance = chance_set(plan)
    retrain = dict(chance.retrain) if chance else {}
    return plan.training(plan.seeds[0], largest_ensemble(plan), retrain=retrain)


def trainings(plan: Plan, seed: int) -> dict[str, Training]:
    """By name, of one seed: what the first search of `winners` finds; {} without equal MACs."""
    chance = chance_set(plan)
    if chance is None:
        return {}
    ensemble = Found(first_search(plan, seed))
    plain = plan.training(seed, ensemble, retrain=dict(chance.retrain))
    how = dict(plan.settings.distillation)
    each = {**chance.retrain, "distillation": {**how, "teacher": _PATHS}}
    result = {PLAIN: plain}
    if plan.base["num_paths"] > 1:
        result[EACH_OTHER] = plan.training(seed, ensemble, retrain=each)
    taught = plan.training(seed, ensemble, retrain={**chance.retrain, "distillation": how})
    result[LARGER] = Taught(seed, taught.settings, ensemble, teacher(plan))
    return result


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [list(own.values()) for seed in plan.seeds if (own := trainings(plan, seed))]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Table and sentences, of what is done."""
    if chance_set(plan) is None:
        return nothing_to_compare()
    results: dict[str, list[Any]] = {}
    for seed in plan.seeds:
        for name, training in trainings(plan, seed).items():
            results.setdefault(name, [])
            if (value := found(training, lookup)) is not None:
                results[name].append({**value, "seed": seed})
    summary = {
        name: {
            "accuracy": Mean.of([row["ensemble_accuracy"] for row in rows]),
            "paths": Mean.of([sum(r["path_accuracies"]) / len(r["path_accuracies"]) for r in rows]),
            "gain": Mean.of([r["ensemble_accuracy"] - max(r["path_accuracies"]) for r in rows]),
            "macs": Mean.of([row["macs"] for row in rows]),
        }
        for name, rows in results.items()
    }
    sentences = [
        ranking_over_common_seeds(
            results, (name, PLAIN), lambda row: row["ensemble_accuracy"], "test accuracy"
        )
        for name in (EACH_OTHER, LARGER)
        if name in results
    ]
    teaches = lookup(teacher(plan))
    if teaches is not None:
        sentences.append(
            f"The larger ensemble is right in {percent(teaches['ensemble_accuracy'])}, "
            f"with {number(teaches['macs'], 2, 1e-6, ' M')} MACs."
        )
    how = plan.settings.distillation
    title = f"Weight {how['weight']:g}, temperature {how['temperature']:g}; mean ± standard deviation over seeds"
    rows = [
        {
            "training": name,
            "trainings": str(row["accuracy"].count),
            "test accuracy": percent(row["accuracy"]),
            "a path alone": percent(row["paths"]),
            "gain over the best path": percent(row["gain"]),
            "MACs": number(row["macs"], 3, 1e-6, " M"),
        }
        for name, row in summary.items()
        if row["accuracy"].count
    ]
    pictures = {}
    if any(results.values()):
        groups = {
            name: [row["ensemble_accuracy"] for row in rows] for name, rows in results.items()
        }
        pictures["distillation.png"] = functools.partial(
            accuracies_picture, groups, "Retrainings with and without a teacher"
        )
    return Report({"trainings": summary}, [Table.of(title, rows)], sentences, pictures)
