"""What do the settings of the diversity score change? (ours; γ, β and k of paper section 3.2)

γ needs no run: it scales all scores alike, so nothing changes with it (docs/method.md).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.report import style
from neas_tf.study.plan import Plan
from neas_tf.study.reporting import Report, Table, number, percent
from neas_tf.study.statistics import Mean, kendall
from neas_tf.study.units import Found, Lookup, Search, Supernet, Training, Unit, found

TITLE = "Diversity: what the settings of shrinking remove, and what that costs"
PAPER = "section 3.2 and 4.1 (our question)"
_BASE = "base"
_LEAST = 5  # ensembles that a correlation needs


def _supernet(plan: Plan, name: str, seed: int) -> Supernet:
    shrink = {} if name == _BASE else plan.settings.shrinks[name]
    return plan.supernet(seed, shrink=dict(shrink))


def _search(plan: Plan, name: str, seed: int) -> Search:
    return plan.search(_supernet(plan, name, seed))


def _training(plan: Plan, name: str, seed: int) -> Training:
    return plan.training(seed, Found(_search(plan, name, seed)))


def _names(plan: Plan) -> tuple[str, ...]:
    return (_BASE, *plan.settings.shrinks)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed; the ensembles that `ranking` trains are not asked for again."""
    result: list[list[Unit]] = []
    for seed in plan.seeds:
        scores: list[Unit] = [plan.scores(_supernet(plan, name, seed)) for name in _names(plan)]
        result.append([*scores, *(_training(plan, name, seed) for name in _names(plan))])
    return result


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and the picture, of what is done."""
    rows = {name: _of(plan, name, lookup) for name in _names(plan)}
    sentences = []
    base = rows[_BASE]
    for name, row in rows.items():
        if name == _BASE or not row["retrained"].count or not base["retrained"].count:
            continue
        change = row["retrained"].mean - base["retrained"].mean
        spread = max(row["retrained"].std, base["retrained"].std)
        verdict = "with one repetition nothing can be said about chance"
        if not math.isnan(spread):
            verdict = f"{'more' if abs(change) > spread else 'no more'} than one standard deviation"
        sentences.append(
            f"Setting '{name}' shares {percent(row['overlap'], 0)} of what it drops with the base; the "
            f"ensemble found differs from the base's by {100 * change:+.2f} points, {verdict}."
        )
    if not sentences:
        sentences = ["Too little is done to compare settings."]
    shown = tuple(
        (
            name,
            _words({} if name == _BASE else plan.settings.shrinks[name]),
            str(row["alive"].count),
            number(row["alive"], 0),
            percent(row["overlap"], 0),
            percent(row["skip"], 0),
            number(row["kendall"], 2),
            percent(row["supernet"]),
            percent(row["retrained"]),
            number(row["macs"], 2, 1e-6, " M"),
        )
        for name, row in rows.items()
    )
    header = ("setting", "of shrink", "supernets", "alive", "drops shared with base")
    header += ("drops with skip", "Kendall τ", "best, supernet", "found, retrained", "its MACs")
    table = Table("Mean ± standard deviation over seeds", header, shown)
    pictures = {}
    if any(row["operators"] for row in rows.values()):
        pictures["diversity.png"] = functools.partial(_picture, rows)
    return Report({"settings": rows}, [table], sentences, pictures)


def _of(plan: Plan, name: str, lookup: Lookup) -> dict[str, Any]:
    alive, overlap, skip, taus, supernet, trained = [], [], [], [], [], []
    operators: dict[str, list[float]] = {}
    for seed in plan.seeds:
        result = found(_supernet(plan, name, seed), lookup)
        if result is None:
            continue
        alive.append(result["combinations"])
        drops = _drops(result)
        if drops:
            skip.append(sum("skip" in names for _, names in drops) / len(drops))
            for operator in sorted({op for _, names in drops for op in names}):
                share = sum(operator in names for _, names in drops) / len(drops)
                operators.setdefault(operator, []).append(share)
        base = found(_supernet(plan, _BASE, seed), lookup)
        if base is not None and drops and _drops(base):
            fewest = min(len(drops), len(_drops(base)))
            overlap.append(len(drops & _drops(base)) / fewest)
        taus += _kendall(plan, name, seed, lookup)
        history = found(_search(plan, name, seed), lookup)
        if history is not None:
            supernet.append(history["candidates"][history["best"]][1])
        training = found(_training(plan, name, seed), lookup)
        if training is not None:
            trained.append(training)
    return {
        "alive": Mean.of(alive),
        "overlap": Mean.of(overlap),
        "skip": Mean.of(skip),
        "kendall": Mean.of(taus),
        "supernet": Mean.of(supernet),
        "retrained": Mean.of([result["ensemble_accuracy"] for result in trained]),
        "macs": Mean.of([result["macs"] for result in trained]),
        "operators": {operator: Mean.of(shares) for operator, shares in operators.items()},
    }


def _drops(supernet: Mapping[str, Any]) -> frozenset[tuple[int, tuple[str, ...]]]:
    """(layer, operators) of everything that was dropped."""
    return frozenset(
        (drop["layer"], tuple(drop["operators"]))
        for shrink in supernet["shrinks"]
        for drop in shrink["dropped"]
    )


def _kendall(plan: Plan, name: str, seed: int, lookup: Lookup) -> list[float]:
    """τ against what the ranking study has trained by now."""
    unit = plan.scores(_supernet(plan, name, seed))
    scores = found(unit, lookup)
    if scores is None:
        return []
    x, y = [], []
    for key, accuracy in zip(unit.ensembles, scores["accuracies"], strict=True):
        truth = found(plan.training(plan.settings.training_seeds[0], key), lookup)
        if truth is not None:
            x.append(accuracy)
            y.append(truth["ensemble_accuracy"])
    return [kendall(x, y)] if len(x) >= _LEAST else []


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "as in the base"


@style.styled
def _picture(rows: Mapping[str, Any]) -> bytes:
    shown = {name: row["operators"] for name, row in rows.items() if row["operators"]}
    names = sorted({operator for shares in shown.values() for operator in shares})
    values = np.array(
        [[shares[o].mean if o in shares else 0.0 for o in names] for shares in shown.values()]
    )
    figure = style.new_figure(max(5.6, 0.8 * len(names) + 2.2), 0.4 * len(shown) + 1.6)
    style.heading(figure, "Share of the dropped combinations that hold an operator")
    axes = figure.add_subplot()
    axes.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(shown)), list(shown))
    for row, column in np.ndindex(values.shape):
        colour = "black" if values[row, column] > 0.6 else "white"
        text = f"{values[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    return style.to_png(figure)
