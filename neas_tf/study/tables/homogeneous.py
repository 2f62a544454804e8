"""Are two different paths better than two equal ones? (paper Table 3 and Fig. 4)"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean, ranking_words
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Comparison, Embedding, Found, Lookup, Training, Unit, found

TITLE = "Homogeneous: an ensemble of different paths against mirrors of each of its paths"
PAPER = "Table 3, Fig. 4"
_HETERO = "hetero"


def _variants(plan: Plan, seed: int) -> dict[str, Training]:
    search = plan.search(plan.supernet(seed))
    split = plan.max_split
    result = {
        f"homo (path {path + 1})": plan.training(seed, Found(search, split, mirror=path))
        for path in range(plan.base["num_paths"])
    }
    return {**result, _HETERO: plan.training(seed, Found(search, split))}


def _embedding(plan: Plan, training: Training) -> Embedding:
    return Embedding(training.seed, "{}", training, plan.settings.images)


def _comparison(training: Training) -> Comparison:
    return Comparison(training.seed, "{}", training)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed; the t-SNE is made of the first seed's."""
    result: list[list[Unit]] = []
    for seed in plan.seeds:
        trainings = list(_variants(plan, seed).values())
        embedded = trainings if seed == plan.seeds[0] else []
        result.append([*trainings, *map(_comparison, trainings)])
        result[-1] += [_embedding(plan, training) for training in embedded]
    return result


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and pictures, of what is done."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    complete = []
    for seed in plan.seeds:
        results = {
            name: (found(unit, lookup), found(_comparison(unit), lookup))
            for name, unit in _variants(plan, seed).items()
        }
        if all(None not in pair for pair in results.values()):  # compare like with like
            complete.append(seed)
            for name, (trained, compared) in results.items():
                by_name.setdefault(name, []).append({**(trained or {}), **(compared or {})})
    summary = {name: _summary(results) for name, results in by_name.items()}
    sentences = [f"All variants are done for {len(complete)} of {len(plan.seeds)} seeds."]
    if complete:
        sentences = [*_findings(by_name, summary), *sentences]
    values = {"seeds": complete, "variants": summary, "results": by_name}
    pictures = {}
    embeddings = {
        name: found(_embedding(plan, unit), lookup)
        for name, unit in _variants(plan, plan.seeds[0]).items()
    }
    if all(value is not None for value in embeddings.values()):
        pictures["tsne.png"] = functools.partial(_picture, embeddings)
    return Report(values, [_table(summary)], sentences, pictures)


def _summary(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    paths = np.array([result["path_accuracies"] for result in results])
    ensemble = [result["ensemble_accuracy"] for result in results]
    names = ("macs", "disagreement", "similarity", "distance", "cka")
    return {
        "paths": [Mean.of(column) for column in paths.T],
        "mean_path": Mean.of(paths.mean(1)),
        "ensemble": Mean.of(ensemble),
        "gain": Mean.of(np.array(ensemble) - paths.mean(1)),
        **{name: Mean.of([result[name] for result in results]) for name in names},
    }


def _findings(by_name: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    homo = [name for name in summary if name != _HETERO]
    ensemble = {name: row["ensemble"] for name, row in summary.items()}
    best = max(homo, key=lambda name: ensemble[name].mean)
    pair = {_HETERO: ensemble[_HETERO], best: ensemble[best]}
    what = "accuracy of the ensemble, against the better mirror"
    texts = [ranking_words(pair, (_HETERO, best), what)]
    for field, expected, what in (
        ("gain", (_HETERO, "homo"), "gain of the ensemble over the mean of its paths"),
        ("mean_path", ("homo", _HETERO), "accuracy of a path alone"),
        ("disagreement", (_HETERO, "homo"), "share of images the paths disagree on"),
    ):
        means = {"homo": _pooled(by_name, homo, field), _HETERO: summary[_HETERO][field]}
        texts.append(ranking_words(means, expected, what))
    return texts


def _pooled(by_name: Mapping[str, Any], names: list[str], field: str) -> Mean:
    """Over seeds, of the mean over the mirrors."""

    def value(result: Mapping[str, Any]) -> float:
        path = float(np.mean(result["path_accuracies"]))
        known = {"mean_path": path, "gain": result["ensemble_accuracy"] - path}
        return known[field] if field in known else result[field]

    seeds = zip(*(by_name[name] for name in names), strict=True)
    return Mean.of([float(np.mean([value(result) for result in mirrors])) for mirrors in seeds])


def _table(summary: Mapping[str, Any]) -> Table:
    rows = [
        {
            "model": name,
            **{f"path {k}": percent(path) for k, path in enumerate(row["paths"], 1)},
            "ensemble": percent(row["ensemble"]),
            "gain": percent(row["gain"]),
            "MACs": number(row["macs"], 2, 1e-6, " M"),
            "disagreement": percent(row["disagreement"], 1),
            "S (Eq. 5)": number(row["similarity"], 4),
            "CKA": number(row["cka"], 3),
        }
        for name, row in summary.items()
    ]
    return Table.of("Trained from scratch alike; mean ± standard deviation over seeds", rows)


def _picture(embeddings: Mapping[str, Any]) -> bytes:
    panels = []
    for name, value in embeddings.items():
        names = sorted({str(label) for label in value["labels"]})
        for column, points in enumerate(value["points"]):
            rows = [
                {"x": float(x), "y": float(y), "s": str(label)}
                for (x, y), label in zip(points, value["labels"], strict=True)
            ]
            title = f"{name}, path {column + 1}"
            look: dict[str, Any] = {"title": title, "palette": style.MANY}
            panels.append(style.series(rows, names, (None, None), (220, 200), **look))
    columns = max(len(value["points"]) for value in embeddings.values())
    chart = style.together(panels, columns, shared=True)
    return style.to_png(chart, "t-SNE of the final hidden features")
