"""How supernets learn best in the same CPU time: recipes beside the base's (not in the paper)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.search.fitness import ACCURACY, LOG_LIKELIHOOD
from neas_tf.study.learning.layer_widths import table_of_widths, width_correlations
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.settings import BASE_RECIPE
from neas_tf.study.statistics import Interval, Mean, bootstrap, kendall, partial_kendall
from neas_tf.study.tables.correlations import LEAST, scores_of, truth_of
from neas_tf.study.tables.plan import Plan
from neas_tf.study.truth.fitness import ranking_by_fitness, table_by_fitness, values_of
from neas_tf.study.truth.sets import TruthSet, epochs_of, sharpest_set
from neas_tf.study.units import Lookup, PacedSupernet, Result, Scores, Supernet, Unit, found

TITLE = "Recipes: what supernets learn in the same CPU time"
PAPER = "not in the paper: settings of supernet training, each for as much CPU time as the base's"
BASE = BASE_RECIPE
# What is said of a kind of supernets with an interval over the ensembles, in the order of the tables.
_MEASURES = ("score", "kendall", "partial")


def _supernets(plan: Plan) -> dict[str, dict[int, Supernet]]:
    """Of each recipe and seed; the base's first."""
    return {
        name: {seed: plan.recipe_supernet(seed, name) for seed in plan.seeds}
        for name in (BASE, *plan.settings.recipes)
    }


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed; the trainings that judge are units of `truth` or `ranking`."""
    keys, every = sharpest_set(plan).ensembles, _supernets(plan)
    return [
        [plan.scores(supernets[seed], keys) for supernets in every.values()] for seed in plan.seeds
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables and sentences of what is done."""
    chosen = sharpest_set(plan)
    truth = truth_of({key: chosen.trainings(plan, key) for key in chosen.ensembles}, lookup)
    every = _supernets(plan)
    values, by_fitness = {}, {}
    resamples = max(1, plan.settings.resamples // 10)
    everyone: list[tuple[Scores, Result]] = []
    said: dict[str, dict[str, float]] = {}  # what each supernet says of each ensemble
    for name, supernets in every.items():
        values[name] = _of_recipe(plan, chosen, supernets, truth, lookup)
        units = [plan.scores(supernet, chosen.ensembles) for supernet in supernets.values()]
        scored = [(unit, value) for unit in units if (value := found(unit, lookup)) is not None]
        for unit, value in scored:
            own = values_of(unit, value, LOG_LIKELIHOOD) or values_of(unit, value, ACCURACY)
            said[f"{name}, seed {unit.seed}"] = own or {}
        if rows := ranking_by_fitness(scored, truth, resamples):
            by_fitness[name] = rows
        everyone += scored
    if len(by_fitness) > 1:
        by_fitness["all of them"] = ranking_by_fitness(everyone, truth, resamples)
    for name in plan.settings.recipes:
        seeds = [seed for seed in values[name]["scores"] if seed in values[BASE]["scores"]]
        values[name]["compared_seeds"] = seeds
        values[name]["less_base"] = _less_base(plan, seeds, values[name], values[BASE], truth)
    sentences = [_words(name, values[name]) for name in plan.settings.recipes]
    judged = f"{len(truth)} ensembles, {chosen.name}, {epochs_of(chosen, plan):g} epochs"
    tables = [_table(values, judged), table_by_fitness(by_fitness, "recipe")]
    widths = width_correlations(truth, said) if said else {}
    tables += [_table_differences(values), _table_seeds(values), table_of_widths(widths)]
    pictures = {}
    if any("partial" in own for row in values.values() for own in row["by_seed"].values()):
        pictures["recipes.png"] = functools.partial(_picture, values)
    found_values = {"recipes": values, "by_fitness": by_fitness, "layer_widths": widths}
    return Report(found_values, tables, sentences, pictures)


def _of_recipe(
    plan: Plan,
    chosen: TruthSet,
    supernets: Mapping[int, Supernet],
    truth: Mapping[str, Any],
    lookup: Lookup,
) -> dict[str, Any]:
    scores = scores_of(dict(supernets), plan, lookup, chosen.ensembles)
    pace = next((s.pace for s in supernets.values() if isinstance(s, PacedSupernet)), None)
    measured = found(pace, lookup) if pace else None
    by_seed = {seed: _measures([row], truth) for seed, row in scores.items()}
    row: dict[str, Any] = {
        "scores": scores,
        "pace": dict(measured) if measured else None,
        "epochs": _epochs(plan, supernets, lookup),
        "by_seed": by_seed,
    }
    for name in _MEASURES:
        row[name] = Mean.of([own[name] for own in by_seed.values() if name in own])
    row["intervals"] = _intervals(plan, list(scores.values()), truth)
    return row


def _epochs(plan: Plan, supernets: Mapping[int, Supernet], lookup: Lookup) -> float | None:
    """That the recipe trains; None before its pace is known."""
    supernet = next(iter(supernets.values()))
    if not isinstance(supernet, PacedSupernet):
        return plan.settings.recipe_factor * plan.base["supernet"]["epochs"]
    measured = found(supernet.pace, lookup)
    return None if measured is None else supernet.epochs_at(measured["ratio"])


def _measures(rows: list[Mapping[str, float]], truth: Mapping[str, Any]) -> dict[str, float]:
    """Means over supernets: accuracy of the ensembles, τ, and τ when MACs are taken off both sides."""
    x, y, macs = _arrays(rows, truth)
    own = {"score": float(np.mean([list(row.values()) for row in rows]))}
    return own if len(y) < LEAST else own | {n: _MEASURE[n](x, y, macs) for n in _MEASURES[1:]}


def _arrays(
    rows: list[Mapping[str, float]], truth: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the ensembles with a truth: scores (supernets, n), accuracies and MACs (n,)."""
    keys = [key for key in truth if all(key in row for row in rows)]
    x = np.array([[row[key] for key in keys] for row in rows])
    return (
        x.reshape(len(rows), len(keys)),
        np.array([truth[key]["accuracy"] for key in keys]),
        np.array([truth[key]["macs"] for key in keys], float),
    )


_MEASURE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "score": lambda x, y, macs: float(np.mean(x)),
    "kendall": lambda x, y, macs: float(np.mean([kendall(row, y) for row in x])),
    "partial": lambda x, y, macs: float(np.mean([partial_kendall(row, y, macs) for row in x])),
}


def _intervals(
    plan: Plan,
    ours: list[Mapping[str, float]],
    truth: Mapping[str, Any],
    theirs: list[Mapping[str, float]] | None = None,
) -> dict[str, dict[str, float]]:
    """Bootstrap over the ensembles of each measure's mean over supernets; of ours less theirs with those."""
    sides = [side for side in (ours, theirs) if side]
    if not ours or (theirs is not None and not theirs):
        return {}
    x, y, macs = _arrays([row for side in sides for row in side], truth)
    if len(y) < LEAST:
        return {}
    a, b = x[: len(ours)], x[len(ours) :]

    def measure(name: str) -> Interval:
        value = _MEASURE[name]

        def statistic(rows: np.ndarray) -> float:
            own = value(a[:, rows], y[rows], macs[rows])
            return own - value(b[:, rows], y[rows], macs[rows]) if theirs else own

        return bootstrap(statistic, len(y), plan.settings.resamples)

    return {name: dataclasses.asdict(measure(name)) for name in _MEASURES}


def _less_base(
    plan: Plan,
    seeds: Sequence[int],
    row: Mapping[str, Any],
    base: Mapping[str, Any],
    truth: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
    """Intervals of the difference over the seeds that both have; {} while there are none."""
    ours, theirs = ([side["scores"][seed] for seed in seeds] for side in (row, base))
    return _intervals(plan, ours, truth, theirs)


def _words(name: str, row: Mapping[str, Any]) -> str:
    less, count = row["less_base"], len(row["compared_seeds"])
    if not less:
        return f"{name}: too little is done to compare it with the base."
    text = []
    for key, what, factor in (
        ("score", "points of mean accuracy", 100),
        ("partial", "partial τ", 1),
    ):
        own = less[key]
        shown = [f"{factor * own[part]:+.2f}" for part in ("value", "low", "high")]
        text.append(
            "{} {} (95 % interval over the ensembles {} to {})".format(shown[0], what, *shown[1:])
        )
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return f"{name} against the base in the same CPU time: {text[0]}, {text[1]}; {seeds}."


def _interval(value: Mapping[str, float] | None, factor: float = 1.0, digits: int = 2) -> str:
    if not value:
        return "–"
    return f"{factor * value['low']:.{digits}f} to {factor * value['high']:.{digits}f}"


def _table(values: Mapping[str, Any], judged: str) -> Table:
    rows = [
        {
            "recipe": name,
            "supernets": str(len(row["scores"])),
            "epochs": "–" if row["epochs"] is None else f"{row['epochs']:g}",
            "CPU s an epoch, to the base's": "1" if name == BASE else _ratio(row["pace"]),
            "mean accuracy": percent(row["score"]),
            "Kendall τ": number(row["kendall"], 2),
            "partial τ": number(row["partial"], 2),
            "its 95 % interval (ensembles)": _interval(row["intervals"].get("partial")),
        }
        for name, row in values.items()
    ]
    return Table.of(f"Mean ± standard deviation over seeds; {judged}", rows)


def _ratio(pace: Mapping[str, Any] | None) -> str:
    return f"{pace['ratio']:.2f}" if pace else "–"


def _table_differences(values: Mapping[str, Any]) -> Table:
    rows = []
    for name, row in values.items():
        if less := row.get("less_base"):
            points = less["score"]
            rows.append(
                {
                    "recipe": name,
                    "mean accuracy, points": f"{100 * points['value']:+.2f}",
                    "95 % interval": _interval(points, 100),
                    "Kendall τ": f"{less['kendall']['value']:+.2f}",
                    "its interval": _interval(less["kendall"]),
                    "partial τ": f"{less['partial']['value']:+.2f}",
                    "interval of that": _interval(less["partial"]),
                }
            )
    return Table.of(
        "Less the base, over the seeds that both have; intervals over the ensembles", rows
    )


def _table_seeds(values: Mapping[str, Any]) -> Table:
    rows = [
        {
            "recipe": name,
            "seed": str(seed),
            "mean accuracy": percent(own["score"]),
            "Kendall τ": number(own.get("kendall", float("nan")), 2),
            "partial τ": number(own.get("partial", float("nan")), 2),
        }
        for name, row in values.items()
        for seed, own in row["by_seed"].items()
    ]
    return Table.of("Supernet by supernet", rows)


def _picture(values: Mapping[str, Any]) -> bytes:
    points = [
        {"x": own["score"], "y": own["partial"], "s": name}
        for name, row in values.items()
        for own in row["by_seed"].values()
        if "partial" in own
    ]
    titles = ("mean accuracy of the ensembles", "partial τ against training from scratch")
    chart = style.series(points, list(values), titles, (380, 280), percent="x")
    return style.to_png(chart, "What supernets learn in the same CPU time")
