"""Does an ensemble know when it is wrong, and what do corruptions do to it? (study `uncertainty`; section 4.4)"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, over_common_seeds, ranking_over_common_seeds
from neas_tf.study.tables.plan import Plan
from neas_tf.study.tables.sharing import APART
from neas_tf.study.truth.winners import chance_set, first_search, nothing_to_compare
from neas_tf.study.truth.worth import single_search
from neas_tf.study.units import Found, Lookup, Robustness, Training, Uncertain, Unit, found
from neas_tf.uncertainty.measures import MEASURES
from neas_tf.uncertainty.robustness import relative

TITLE = "Uncertainty: what ensembles know of their errors, and corrupted pictures"
PAPER = "section 4.4 promises robustness; nothing is measured there"
HETERO, BEST_PATH, SINGLE, SEPARATE = "hetero", "its best path", "single network", "separate"
_POINTS = np.linspace(0.05, 1.0, 20)  # coverages of the picture


def trainings(plan: Plan, seed: int) -> dict[str, Training]:
    """By name, of one seed, all trained as long as the truth; {} without equal MACs.

    The search is the first of `winners`; its best candidate whose paths have layers of their own, its
    mirrors, its paths without a shared layer (they cost more), and what a search of one path finds.
    """
    chance = chance_set(plan)
    if chance is None:
        return {}
    search, split, num_paths = first_search(plan, seed), plan.max_split, plan.base["num_paths"]
    settings = {"retrain": dict(chance.retrain)}
    result = {HETERO: plan.training(seed, Found(search, split), **settings)}
    single = Found(single_search(plan, seed))
    result[SINGLE] = plan.training(seed, single, num_paths=1, **settings)
    for path in range(num_paths):
        mirror = Found(search, split, mirror=path)
        result[f"homo (path {path + 1})"] = plan.training(seed, mirror, **settings)
    separate = Found(search, split, unshared=True)
    result[SEPARATE] = plan.training(seed, separate, space=APART, **settings)
    return result


def _measured(plan: Plan, training: Training) -> tuple[Uncertain, Robustness]:
    chosen = plan.settings
    size = tuple(chosen.corrupted_size)
    return (
        Uncertain(training.seed, "{}", training),
        # The same corruptions for all, whatever their seed.
        Robustness(0, "{}", training, chosen.robust_images, size),
    )


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed."""
    return [
        [unit for training in own.values() for unit in (training, *_measured(plan, training))]
        for seed in plan.seeds
        if (own := trainings(plan, seed))
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and pictures, of what is done."""
    if chance_set(plan) is None:
        return nothing_to_compare()
    sure: dict[str, list[dict[str, Any]]] = {}
    robust: dict[str, list[dict[str, Any]]] = {}
    for seed in plan.seeds:
        for name, training in trainings(plan, seed).items():
            trained = found(training, lookup)
            known, corrupted = (found(unit, lookup) for unit in _measured(plan, training))
            if trained is not None and known is not None:
                for kind, numbers in _rows(name, known).items():
                    own = {**numbers, "macs": trained["macs"], "seed": seed}
                    sure.setdefault(kind, []).append(own)
            if trained is not None and corrupted is not None:
                for kind, row in _errors(name, trained, corrupted).items():
                    robust.setdefault(kind, []).append({**row, "seed": seed})
    summary = {name: _summary(rows) for name, rows in sure.items()}
    errors = {name: _robustness(name, rows, robust) for name, rows in robust.items()}
    sentences = _findings(summary, errors, sure, robust)
    pictures = {}
    if HETERO in sure:
        pictures["risk_coverage.png"] = functools.partial(_curves, sure)
    if errors:
        pictures["corruptions.png"] = functools.partial(_severities, errors)
    values = {"uncertainty": summary, "robustness": errors, "results": sure}
    return Report(values, [_table(summary), _table_robustness(errors)], sentences, pictures)


def _rows(name: str, known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A network's measures; of the hetero ensemble also those of its path that is right most often."""
    about = known["disagreement"] or {}
    rows = {name: {**known["ensemble"], "disagreement_auroc": about.get("auroc")}}
    if name == HETERO:
        rows[BEST_PATH] = dict(max(known["paths"], key=lambda row: row["accuracy"]))
    return rows


def _errors(
    name: str, trained: Mapping[str, Any], corrupted: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    rows = {name: corrupted["ensemble"]}
    if name == HETERO:
        rows[BEST_PATH] = corrupted["paths"][int(np.argmax(trained["path_accuracies"]))]
    return rows


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mean]:
    return {
        name: Mean.of([row[name] for row in rows if row.get(name) is not None])
        for name in (*MEASURES, "disagreement_auroc", "macs")
    }


def _robustness(
    name: str, rows: Sequence[Mapping[str, Any]], every: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Means over seeds; mCE is that against the single network of the same seed."""
    base = {row["seed"]: row for row in every.get(SINGLE, ())}
    against = [relative(row, base[row["seed"]]) for row in rows if row["seed"] in base]
    return {
        "clean": Mean.of([row["clean"] for row in rows]),
        "mean": Mean.of([row["mean"] for row in rows]),
        "mce": Mean.of([value for value in against if value is not None]),
        "by_severity": np.mean([np.mean(row["errors"], 0) for row in rows], 0).tolist(),
        "by_kind": np.mean([np.mean(row["errors"], 1) for row in rows], 0).tolist(),
        "name": name,
    }


def _findings(
    summary: Mapping[str, Any],
    errors: Mapping[str, Any],
    sure: Mapping[str, Sequence[Mapping[str, Any]]],
    robust: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[str]:
    texts = []
    for measure, what in (
        ("aurc", "area under the risk-coverage curve, less is better"),
        ("nll", "negative log-likelihood, less is better"),
        ("ece", "calibration error, less is better"),
    ):

        def less(row: Mapping[str, Any], measure: str = measure) -> float:
            return -row[measure]

        for other in (SINGLE, BEST_PATH):
            if HETERO in sure and other in sure:
                texts.append(ranking_over_common_seeds(sure, (HETERO, other), less, what))
    if HETERO in summary and summary[HETERO]["disagreement_auroc"].count:
        own = summary[HETERO]
        texts.append(
            f"An error has a larger disagreement than a right answer with a chance of "
            f"{percent(own['disagreement_auroc'], 1)}, and a lower confidence with {percent(own['auroc'], 1)}."
        )
    if HETERO in errors and SINGLE in errors:
        means = over_common_seeds(robust, (HETERO, SINGLE), lambda row: row["mean"])
        texts.append(
            f"Mean error on corrupted pictures: {percent(means[HETERO])} of the ensemble, {percent(means[SINGLE])} of "
            f"the single network; mCE against it {number(errors[HETERO]['mce'], 3)}."
        )
    return texts or ["Too little is done to compare ensembles with single networks."]


_TITLES = {"nll": "NLL", "ece": "ECE", "brier": "Brier", "aurc": "AURC", "auroc": "AUROC"}


def _table(summary: Mapping[str, Any]) -> Table:
    rows = [
        {
            "network": name,
            "trainings": str(row["accuracy"].count),
            "accuracy": percent(row["accuracy"]),
            **{title: number(row[key], 4) for key, title in _TITLES.items()},
            "AUROC of disagreement": number(row["disagreement_auroc"], 3),
            "MACs": number(row["macs"], 3, 1e-6, " M"),
        }
        for name, row in summary.items()
    ]
    return Table.of("Test images; mean ± standard deviation over seeds (docs/uncertainty.md)", rows)


def _table_robustness(errors: Mapping[str, Any]) -> Table:
    rows = [
        {
            "network": name,
            "trainings": str(row["mean"].count),
            "error, as they are": percent(row["clean"]),
            "mean corruption error": percent(row["mean"]),
            "mCE against the single network": number(row["mce"], 3),
            **{f"severity {i}": percent(value, 1) for i, value in enumerate(row["by_severity"], 1)},
        }
        for name, row in errors.items()
    ]
    return Table.of("Corrupted test images, 15 kinds", rows)


def _curves(sure: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    names = [name for name in (HETERO, BEST_PATH, SINGLE, SEPARATE) if name in sure]
    points = [
        {"x": float(x), "y": float(y), "s": name}
        for name in names
        for x, y in zip(_POINTS, _mean_risk(sure[name]), strict=True)
    ]
    titles = ("share of images that are answered", "share of errors among them")
    chart = style.series(points, names, titles, (460, 300), lines=True, percent="xy")
    return style.to_png(chart, "Risk and coverage, the surest answers first")


def _mean_risk(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    curves = [np.array(row["risk_coverage"]) for row in rows if row["risk_coverage"]]
    return np.mean([np.interp(_POINTS, *curve.T) for curve in curves], 0)


def _severities(errors: Mapping[str, Any]) -> bytes:
    points = [
        {"x": severity, "y": value, "s": name}
        for name, row in errors.items()
        for severity, value in enumerate([row["clean"].mean, *row["by_severity"]])
    ]
    titles = ("severity", "error, mean over 15 kinds")
    look: dict[str, Any] = {"lines": True, "palette": style.MANY}
    chart = style.series(points, list(errors), titles, (460, 300), **look)
    return style.to_png(chart, "Errors on corrupted pictures")
