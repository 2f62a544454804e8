"""How sharp is what supernets are judged by? Ensembles trained long, twice each (study `truth`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.space.architecture import Architecture
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Interval, Mean, kendall
from neas_tf.study.tables.correlations import LEAST, truth_of
from neas_tf.study.tables.plan import Plan
from neas_tf.study.tables.ranking import table_splits
from neas_tf.study.truth.reliability import WANTED, known, reliability
from neas_tf.study.truth.sets import EQUAL_MACS, RANDOM, TruthSet, epochs_of, long_sets, short_set
from neas_tf.study.units import Lookup, Unit

TITLE = "Truth: how far two trainings of the same ensembles agree"
PAPER = "nothing; Table 2 is measured against such a truth"


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a set: that of equal MACs first, an ensemble's trainings side by side.

    The random ensembles' short trainings are units of `ranking`; the report reads them where they are.
    """
    return [
        [unit for key in chosen.ensembles for unit in chosen.trainings(plan, key)]
        for chosen in long_sets(plan)
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and the picture, of what is done."""
    sets = {
        f"{s.name}, {epochs_of(s, plan):g} epochs": s for s in [*long_sets(plan), short_set(plan)]
    }
    truths = {
        name: truth_of({key: chosen.trainings(plan, key) for key in chosen.ensembles}, lookup)
        for name, chosen in sets.items()
    }
    summaries = {name: _summary(plan, chosen, truths[name]) for name, chosen in sets.items()}
    values: dict[str, Any] = {
        name: {**summary, "truth": truths[name]} for name, summary in summaries.items()
    }
    sentences = [_words(name, row) for name, row in summaries.items()]
    sentences += _lengths_words(sets, truths, values)
    tables = [_table(summaries), _table_sharpness(summaries)]
    tables += [
        table_splits(truths[name], f"{name}: by split point")
        for name, chosen in sets.items()
        if chosen.name == EQUAL_MACS
    ]
    shown = {name: truth for name, truth in truths.items() if len(_complete(sets[name], truth)) > 1}
    pictures = {}
    if shown:
        pictures["truth.png"] = functools.partial(_picture, shown)
    return Report(values, tables, sentences, pictures)


def _complete(chosen: TruthSet, truth: Mapping[str, Any]) -> list[str]:
    """Ensembles that all seeds have trained, where there are two seeds or more."""
    by_seed = {key: row["by_seed"] for key, row in truth.items()}
    return known(by_seed, len(chosen.seeds)) if len(chosen.seeds) > 1 else []


def _summary(plan: Plan, chosen: TruthSet, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Counts and means of a set; with enough of it, what `reliability` says as well."""
    keys = _complete(chosen, truth)
    result = {
        "ensembles": len(chosen.ensembles),
        "trained": len(truth),
        "complete": len(keys),
        "trainings": len(chosen.seeds),
        "accuracy": Mean.of([row["accuracy"] for row in truth.values()]),
        "macs": Mean.of([row["macs"] for row in truth.values()]),
    }
    if len(keys) >= LEAST:
        trainings = list(zip(*(truth[key]["by_seed"] for key in keys), strict=True))
        macs = [truth[key]["macs"] for key in keys]
        result |= reliability(trainings, macs, plan.settings.resamples)
    return result


def _words(name: str, row: Mapping[str, Any]) -> str:
    done = f"{row['complete']} of {row['ensembles']} ensembles"
    if "kendall" not in row:
        return f"{name}: {done} are trained {row['trainings']} times, too few to compare trainings."
    most = max(row["ceilings"])
    return (
        f"{name}: two trainings of the same ensembles agree with τ = {_interval(row['kendall'])} and "
        f"ρ = {_interval(row['spearman'])} ({done}); against the mean of {most} a perfect predictor "
        f"would reach τ = {_interval(row['ceilings'][most])}; means of two halves agree with "
        f"τ ≥ {WANTED:g} from {_needed(row)} a half on."
    )


def _needed(row: Mapping[str, Any]) -> str:
    value, most, least = (_count(count) for count in row["needed"])
    return f"{value} (95 % interval {least} to {most}) trainings"


def _count(trainings: int | None) -> str:
    return "no number of" if trainings is None else str(trainings)


def _lengths_words(
    sets: Mapping[str, TruthSet], truths: Mapping[str, Any], values: dict[str, Any]
) -> list[str]:
    """What short trainings of the random ensembles say of long ones."""
    names = [name for name, chosen in sets.items() if chosen.name == RANDOM]
    long, short = names[0], names[-1]
    keys = [key for key in truths[long] if key in truths[short]]
    if len(keys) < LEAST or long == short:  # trained as long as in `ranking`
        return []
    sides = [[truths[name][key]["accuracy"] for key in keys] for name in (short, long)]
    values["short_with_long"] = tau = kendall(*sides)
    return [f"Of {len(keys)} ensembles, {short} and {long} agree with τ = {tau:.2f}."]


def _interval(value: Interval) -> str:
    return f"{value.value:.2f} (95 % interval {value.low:.2f} to {value.high:.2f})"


def _table(summaries: Mapping[str, Any]) -> Table:
    rows = [
        {
            "ensembles": name,
            "trained": f"{row['trained']} of {row['ensembles']}",
            "by all seeds": f"{row['complete']} ({row['trainings']} seeds)",
            "test accuracy": percent(row["accuracy"]),
            "MACs": number(row["macs"], 3, 1e-6, " M"),
            "deviation of one training": percent(row.get("noise", math.nan)),
            "τ of MACs": number(row.get("of_macs", math.nan), 2),
            "variance explained by MACs": percent(row.get("explained_by_macs", math.nan), 0),
        }
        for name, row in summaries.items()
        if row["trained"]
    ]
    return Table.of("What is trained; mean ± standard deviation over ensembles", rows)


def _table_sharpness(summaries: Mapping[str, Any]) -> Table:
    rows = [
        {
            "ensembles": name,
            "τ between trainings": _interval(row["kendall"]),
            "ρ between trainings": _interval(row["spearman"]),
            "τ, MACs taken off": _interval(row["partial"]),
            "ceiling of τ, one training": _interval(row["ceilings"][1]),
            "ceiling of τ, mean of all": _interval(row["ceilings"][row["trainings"]]),
            f"trainings a half for τ ≥ {WANTED:g}": _needed(row),
        }
        for name, row in summaries.items()
        if "kendall" in row
    ]
    return Table.of("How sharp the truth is; 95 % intervals over ensembles", rows)


def _picture(truths: Mapping[str, Any]) -> bytes:
    panels = []
    for name, truth in truths.items():
        groups = {key: f"split {Architecture.from_key(key).split_point}" for key in truth}
        points = [
            {"x": row["by_seed"][0], "y": row["by_seed"][1], "s": groups[key]}
            for key, row in truth.items()
            if len(row["by_seed"]) > 1
        ]
        names = sorted(set(groups.values()))
        look: dict[str, Any] = {"title": name, "percent": "xy", "palette": style.MANY}
        titles = ("first training", "second training")
        panels.append(style.series(points, names, titles, (250, 220), **look))
    chart = style.together(panels, len(panels), shared=True)
    return style.to_png(chart, "Two trainings of the same ensembles, test images")
