"""Does shrinking by diversity make the supernet rank ensembles better? (paper Table 2)"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.space.architecture import Architecture
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, kendall, ranking_words
from neas_tf.study.tables.correlations import (
    LEAST,
    among,
    correlations,
    difference,
    mean_truth,
    scores_of,
    truth_of,
)
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth.fitness import ranking_by_fitness, table_by_fitness
from neas_tf.study.truth.sets import epochs_of, judging_sets
from neas_tf.study.units import Lookup, Result, Search, Supernet, Unit, found

TITLE = "Ranking: supernet accuracy against training from scratch, by shrink metric"
PAPER = "Table 2"
_EXPECTED = ("diversity", "none", "accuracy")  # by the paper's τ, 0.65 > 0.45 > 0.42


def _supernet(plan: Plan, metric: str, seed: int) -> Supernet:
    return plan.supernet(seed, shrink={"metric": metric})


def _longer(plan: Plan, metric: str, factor: float, seed: int) -> Supernet:
    return plan.longer_supernet(seed, factor, shrink={"metric": metric})


def _longer_kinds(plan: Plan) -> list[tuple[str, float]]:
    """Metric and multiple of the epochs."""
    return [(metric, factor) for factor in plan.settings.longer for metric in plan.settings.metrics]


def _kind_name(metric: str, factor: float) -> str:
    return metric if factor == 1.0 else f"{metric}, {factor:g} × the epochs"


def _of_kind(plan: Plan, metric: str, factor: float, seed: int) -> Supernet:
    return _supernet(plan, metric, seed) if factor == 1.0 else _longer(plan, metric, factor, seed)


def _by_fitness(plan: Plan, lookup: Lookup) -> dict[str, Any]:
    """`ranking_by_fitness` by truth and kind of supernets, with a tenth of the resamples."""
    result: dict[str, Any] = {}
    for chosen in judging_sets(plan):
        trainings = {key: chosen.trainings(plan, key) for key in chosen.ensembles}
        truth = truth_of(trainings, lookup)
        for kind in [*((metric, 1.0) for metric in plan.settings.metrics), *_longer_kinds(plan)]:
            units = [
                plan.scores(_of_kind(plan, *kind, seed), chosen.ensembles) for seed in plan.seeds
            ]
            scored = [(u, value) for u in units if (value := found(u, lookup)) is not None]
            name = f"{chosen.name}, {epochs_of(chosen, plan):g} epochs: {_kind_name(*kind)}"
            resamples = max(1, plan.settings.resamples // 10)
            if values := ranking_by_fitness(scored, truth, resamples):
                result[name] = values
    return result


def _search(plan: Plan, metric: str, seed: int) -> Search:
    return plan.search(_supernet(plan, metric, seed))


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    result: list[list[Unit]] = []
    keys = plan.random_ensembles()
    truths = [[plan.training(seed, key) for key in keys] for seed in plan.settings.training_seeds]
    for number_, seed in enumerate(plan.seeds):
        metrics = plan.settings.metrics
        scores: list[Unit] = [plan.scores(_supernet(plan, metric, seed)) for metric in metrics]
        own: list[Unit] = [plan.retrained(_search(plan, metric, seed)) for metric in metrics]
        own += [plan.scores(_longer(plan, *kind, seed)) for kind in _longer_kinds(plan)]
        own += [
            plan.scores(_of_kind(plan, *kind, seed), chosen.ensembles)
            for chosen in judging_sets(plan)
            for kind in [*((metric, 1.0) for metric in metrics), *_longer_kinds(plan)]
        ]
        result.append([*scores, *(truths[number_] if number_ < len(truths) else ()), *own])
    for truth in truths[len(result) :]:
        result.append(list(truth))
    return result


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and the picture, of what is done."""
    truth = mean_truth(plan, lookup)
    by_metric = {
        metric: _of_metric(plan, metric, truth, lookup) for metric in plan.settings.metrics
    }
    values: dict[str, Any] = {"ensembles": truth, "metrics": by_metric}
    accuracies = [row["accuracy"] for row in truth.values()]
    spread = Mean.of(accuracies)
    values["spread"] = spread
    sentences = [_spread_words(plan, truth, spread)]
    if len(truth) >= LEAST:
        sentences += _truth_words(plan, truth, values)
    repeated = [row["by_seed"] for row in truth.values()]
    if repeated and all(len(row) > 1 for row in repeated) and len(repeated) >= LEAST:
        first, second = ([row[i] for row in repeated] for i in (0, 1))
        values["between_trainings"] = kendall(first, second)
        sentences.append(
            f"Two trainings of the same ensembles with different seeds agree with "
            f"τ = {values['between_trainings']:.2f}: no supernet can be expected to do better "
            "against one of them."
        )
    orders = []
    for name, what in (
        ("kendall", "Kendall τ"),
        ("retrained", "accuracy of the found and retrained ensemble"),
        ("last_generation", "mean supernet accuracy of the last generation"),
    ):
        means = {metric: row[name] for metric, row in by_metric.items()}
        expected = [metric for metric in _EXPECTED if metric in means]
        orders.append(ranking_words(means, expected, what))
    if len(truth) >= LEAST:
        macs = kendall([row["macs"] for row in truth.values()], accuracies)
        values["kendall_of_macs"] = macs
        sentences.append(
            f"Sorting the same ensembles by MACs, without any supernet, gives τ = {macs:.2f}."
        )
    values["longer"] = longer = {}
    compared = {(metric, 1.0): row["scores"] for metric, row in by_metric.items()}
    for metric, factor in _longer_kinds(plan):
        name = _kind_name(metric, factor)
        supernets = {seed: _longer(plan, metric, factor, seed) for seed in plan.seeds}
        compared[metric, factor] = scores = scores_of(supernets, plan, lookup)
        row = {"scores": scores, **correlations(scores, truth, plan.settings.resamples)}
        longer[name] = row
        if scores:
            plain = number(by_metric[metric]["kendall"], 2)
            sentences.append(
                f"Kendall τ of {name}: {number(row['kendall'], 2)}, and {plain} without."
            )
    values["differences"] = differences = _differences(plan, truth, compared)
    for name, interval in differences.items():
        sentences.append(
            f"Kendall τ of {name}: {interval['value']:+.2f}, 95 % interval {interval['low']:+.2f} to "
            f"{interval['high']:+.2f} over the ensembles."
        )
    pictures = {}
    if any(row["scores"] for row in by_metric.values()) and len(accuracies) > 1:
        pictures["ranking.png"] = functools.partial(_picture, truth, by_metric)
    tables = [_table(by_metric, len(truth)), _table_alive(by_metric)]
    tables.append(_table_supernets({**by_metric, **longer}))
    values["by_fitness"] = by_fitness = _by_fitness(plan, lookup)
    tables.append(table_by_fitness(by_fitness))
    tables.append(table_splits(truth, "The random ensembles from scratch, by split point"))
    return Report(values, tables, [*orders, *sentences], pictures)


def _of_metric(plan: Plan, metric: str, truth: Mapping[str, Any], lookup: Lookup) -> dict[str, Any]:
    supernets = {seed: _supernet(plan, metric, seed) for seed in plan.seeds}
    scores = scores_of(supernets, plan, lookup)
    alive: dict[int, list[str]] = {}
    last, retrained, combinations, macs = [], [], [], []
    for seed, supernet in supernets.items():
        shrunk = found(supernet, lookup)
        if shrunk is not None:
            alive[seed] = [key for key in plan.random_ensembles() if _is_alive(key, shrunk)]
            combinations.append(shrunk["combinations"])
        history = found(_search(plan, metric, seed), lookup)
        if history is not None:
            last.append(_last_generation(history))
        trained = found(plan.retrained(_search(plan, metric, seed)), lookup)
        if trained is not None:
            retrained.append(trained["ensemble_accuracy"])
            macs.append(trained["macs"])
    return {
        "scores": scores,
        "last_generation": Mean.of(last),
        "retrained": Mean.of(retrained),
        "retrained_macs": Mean.of(macs),
        "combinations": Mean.of(combinations),
        **correlations(scores, truth, plan.settings.resamples),
        "alive": among(scores, truth, alive),
    }


def _is_alive(key: str, supernet: Result) -> bool:
    """Whether an ensemble lies in a supernet's shrunk space."""
    architecture = Architecture.from_key(key)
    for number_, rows in enumerate(supernet["alive"], 1):
        column = {path[number_ - 1] for path in architecture.paths}
        shared = number_ <= architecture.split_point
        if not any(column <= set(row) if shared else column == set(row) for row in rows):
            return False
    return True


def _last_generation(history: Result) -> float:
    candidates = history["candidates"]
    last = max(generation for *_, generation in candidates)
    return float(np.mean([accuracy for _, accuracy, _, g in candidates if g == last]))


def _differences(
    plan: Plan, truth: Mapping[str, Any], scores: Mapping[tuple[str, float], Any]
) -> dict[str, dict[str, float]]:
    """τ of diversity less that of the others, for each number of epochs."""
    result: dict[str, dict[str, float]] = {}
    for (metric, factor), theirs in scores.items():
        ours = scores.get(("diversity", factor))
        if metric == "diversity" or ours is None:
            continue
        interval = difference(ours, theirs, truth, plan.settings.resamples)
        if interval is not None:
            result[f"diversity less {_kind_name(metric, factor)}"] = dataclasses.asdict(interval)
    return result


def _spread_words(plan: Plan, truth: Mapping[str, Any], spread: Mean) -> str:
    if spread.count < 2:
        return f"{spread.count} of {plan.settings.ensembles} random ensembles are trained so far."
    values = [row["accuracy"] for row in truth.values()]
    trainings = sorted({len(row["by_seed"]) for row in truth.values()})
    often = "once" if trainings == [1] else f"{' or '.join(map(str, trainings))} times"
    return (
        f"{spread.count} random ensembles trained from scratch ({often} each) reach "
        f"{min(values):.2%} to {max(values):.2%} on the test images, mean {spread.mean:.2%}, "
        f"standard deviation {100 * spread.std:.2f} points."
    )


def _interval(row: Mapping[str, Any]) -> str:
    return "{:.2f} to {:.2f}".format(*row["interval"]) if "interval" in row else "–"


def _truth_words(plan: Plan, truth: Mapping[str, Any], values: dict[str, Any]) -> list[str]:
    """What the random ensembles alone say: of ensembles against paths, and as a bar for the found."""
    texts = []
    if plan.base["num_paths"] > 1:
        gains = [row["gain"] for row in truth.values()]
        values["gain_over_best_path"] = gain = Mean.of(gains)
        values["better_than_best_path"] = better = sum(g > 0 for g in gains)
        texts.append(
            f"The ensemble beats its best path in {better} of {len(gains)}, by "
            f"{100 * gain.mean:.2f} points in the mean."
        )
    inside = [row["accuracy"] for row in truth.values() if 0 < row["macs"] <= plan.budget]
    values["inside_budget"] = Mean.of(inside)
    if inside:
        texts.append(
            f"{len(inside)} of them lie within the budget of the searches and reach "
            f"{percent(values['inside_budget'])}: what a search finds should be better than these."
        )
    return texts


def _table(by_metric: Mapping[str, Any], ensembles: int) -> Table:
    rows = [
        {
            "shrink metric": metric,
            "supernets": str(len(row["scores"])),
            "Kendall τ": number(row["kendall"], 2),
            "95 % interval (ensembles)": _interval(row),
            "Spearman ρ": number(row["spearman"], 2),
            "found, retrained": percent(row["retrained"]),
            "its MACs": number(row["retrained_macs"], 2, 1e-6, " M"),
            "last generation, supernet": percent(row["last_generation"]),
        }
        for metric, row in by_metric.items()
    ]
    return Table.of(f"Mean ± standard deviation over seeds; {ensembles} ensembles", rows)


def _table_alive(by_metric: Mapping[str, Any]) -> Table:
    rows = [
        {
            "shrink metric": metric,
            "combinations alive": number(row["combinations"], 0),
            "random ensembles alive": number(row["alive"]["ensembles"], 1),
            "their Kendall τ": number(row["alive"]["kendall"], 2),
        }
        for metric, row in by_metric.items()
    ]
    return Table.of("Of the ensembles that lie in the shrunk space", rows)


def table_splits(truth: Mapping[str, Any], title: str) -> Table:
    """What sharing costs: the fewer layers the paths have of their own, the less they differ."""
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for key, row in truth.items():
        groups.setdefault(Architecture.from_key(key).split_point, []).append(row)
    rows = [
        {
            "split point": str(split),
            "ensembles": str(len(group)),
            "test accuracy": percent(Mean.of([row["accuracy"] for row in group])),
            "gain over the best path": percent(Mean.of([row["gain"] for row in group])),
            "better than it": str(sum(row["gain"] > 0 for row in group)),
            "MACs": number(Mean.of([row["macs"] for row in group]), 2, 1e-6, " M"),
        }
        for split, group in sorted(groups.items())
    ]
    return Table.of(title, rows)


def _table_supernets(by_name: Mapping[str, Any]) -> Table:
    rows = [
        {
            "supernets": name,
            "how many": str(len(row["scores"])),
            "mean accuracy of the random ensembles": percent(row["score"]),
            "standard deviation over them": percent(row["score_spread"]),
            "τ between two supernets": number(row["between_supernets"], 2),
            "Kendall τ against training": number(row["kendall"], 2),
            "95 % interval (ensembles)": _interval(row),
        }
        for name, row in by_name.items()
        if row["scores"]
    ]
    return Table.of("How well a supernet tells ensembles apart", rows)


def _picture(truth: Mapping[str, Any], by_metric: Mapping[str, Any]) -> bytes:
    shown = {metric: row for metric, row in by_metric.items() if row["scores"]}
    seeds = sorted({seed for row in shown.values() for seed in row["scores"]})
    titles = ("supernet, held-out training images", "from scratch, test images")
    panels = []
    for metric, row in shown.items():
        points = [
            {"x": scores[key], "y": truth[key]["accuracy"], "s": f"seed {seed}"}
            for seed, scores in row["scores"].items()
            for key in truth
            if key in scores
        ]
        names = [f"seed {seed}" for seed in seeds]
        title = f"{metric}: τ = {number(row['kendall'], 2)}"
        panels.append(style.series(points, names, titles, (250, 220), title, percent="xy"))
    chart = style.together(panels, len(panels), shared=True)
    return style.to_png(chart, "Supernet accuracy against training from scratch")
