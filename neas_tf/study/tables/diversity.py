"""What do the settings of the diversity score change? (ours; γ, β and k of paper section 3.2)

γ needs no run: it scales all scores alike, so nothing changes with it (docs/method.md).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from neas_tf.report import style
from neas_tf.report.page import Table
from neas_tf.study.reporting import Report, number, percent
from neas_tf.study.statistics import Mean
from neas_tf.study.tables.correlations import difference, kendalls, mean_truth, scores_of
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Lookup, Search, Supernet, Unit, found

TITLE = "Diversity: what the settings of shrinking remove, and what that costs"
PAPER = "section 3.2 and 4.1 (our question)"
_BASE, _NONE = "base", "no shrinking"


def _supernet(plan: Plan, name: str, seed: int) -> Supernet:
    return plan.supernet(seed, shrink=_settings(plan, name))


def _settings(plan: Plan, name: str) -> dict[str, Any]:
    """What a setting changes of the base's `shrink` section."""
    return {} if name == _BASE else dict(plan.settings.shrinks[name])


def _search(plan: Plan, name: str, seed: int) -> Search:
    return plan.search(_supernet(plan, name, seed))


def _names(plan: Plan) -> tuple[str, ...]:
    return (_BASE, *plan.settings.shrinks)


def rounds(plan: Plan) -> list[list[Unit]]:
    """The units, one list a seed; the ensembles that `ranking` trains are not asked for again."""
    names = _names(plan)
    return [
        [
            *(plan.scores(_supernet(plan, name, seed)) for name in names),
            *(plan.retrained(_search(plan, name, seed)) for name in names),
        ]
        for seed in plan.seeds
    ]


def report(plan: Plan, lookup: Lookup) -> Report:
    """Tables, sentences and the picture, of what is done."""
    rows = {name: _of(plan, name, lookup) for name in _names(plan)}
    _compare(plan, rows, lookup)
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
    sentences = [*_gap_words(rows), *sentences]
    if not sentences:
        sentences = ["Too little is done to compare settings."]
    shown = [
        {
            "setting": name,
            "of shrink": _words(_settings(plan, name)),
            "supernets": str(row["alive"].count),
            "alive": number(row["alive"], 0),
            "drops shared with base": percent(row["overlap"], 0),
            "drops with skip": percent(row["skip"], 0),
            "Kendall τ": number(row["kendall"], 2),
            "τ less base's (95 %)": _gap(row, _BASE),
            "τ less no shrinking's (95 %)": _gap(row, _NONE),
            "best, supernet": percent(row["supernet"]),
            "found, retrained": percent(row["retrained"]),
            "its MACs": number(row["macs"], 2, 1e-6, " M"),
        }
        for name, row in rows.items()
    ]
    table = Table.of("Mean ± standard deviation over seeds", shown)
    pictures = {}
    if any(row["operators"] for row in rows.values()):
        pictures["diversity.png"] = functools.partial(_picture, rows)
    return Report({"settings": rows}, [table], sentences, pictures)


def _of(plan: Plan, name: str, lookup: Lookup) -> dict[str, Any]:
    alive, overlap, skip, supernet, trained = [], [], [], [], []
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
        history = found(_search(plan, name, seed), lookup)
        if history is not None:
            supernet.append(history["candidates"][history["best"]][1])
        training = found(plan.retrained(_search(plan, name, seed)), lookup)
        if training is not None:
            trained.append(training)
    return {
        "alive": Mean.of(alive),
        "overlap": Mean.of(overlap),
        "skip": Mean.of(skip),
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


def _compare(plan: Plan, rows: dict[str, dict[str, Any]], lookup: Lookup) -> None:
    """Adds τ against what the ranking study has trained by now, and its differences with intervals."""
    truth = mean_truth(plan, lookup)
    shrinks = {name: _settings(plan, name) for name in rows}
    # The supernets that drop nothing are those of the ranking study, where it has them.
    scores = {
        name: scores_of({s: plan.supernet(s, shrink=shrink) for s in plan.seeds}, plan, lookup)
        for name, shrink in (shrinks | {_NONE: {"metric": "none"}}).items()
    }
    for name, row in rows.items():
        row["kendall"] = kendalls(scores[name], truth)
        gaps = {
            other: difference(scores[name], scores[other], truth, plan.settings.resamples)
            for other in (_BASE, _NONE)
            if other != name
        }
        row["kendall_less"] = {o: dataclasses.asdict(gap) for o, gap in gaps.items() if gap}


def _gap_words(rows: Mapping[str, dict[str, Any]]) -> list[str]:
    """Which settings rank otherwise than the base by more than chance."""
    gaps = {name: gap for name, row in rows.items() if (gap := row["kendall_less"].get(_BASE))}
    if not gaps:
        return []
    clear = [
        f"that of '{name}' is {gap['value']:+.2f} off {_interval(gap)}"
        for name, gap in gaps.items()
        if gap["low"] > 0 or gap["high"] < 0
    ]
    found_ = "; ".join(clear) or "none is clearly off"
    return [
        f"Kendall τ of {len(gaps)} settings against the base's, with 95 % intervals: {found_}. "
        "Of so many intervals one may exclude 0 by chance."
    ]


def _gap(row: Mapping[str, Any], other: str) -> str:
    gap = row["kendall_less"].get(other)
    return f"{gap['value']:+.2f} {_interval(gap)}" if gap else "–"


def _interval(gap: Mapping[str, float]) -> str:
    return f"({gap['low']:+.2f} to {gap['high']:+.2f})"


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "as in the base"


def _picture(rows: Mapping[str, Any]) -> bytes:
    import altair as alt

    shares = [
        {"x": operator, "y": name, "v": mean.mean}
        for name, row in rows.items()
        for operator, mean in row["operators"].items()
    ]
    most = max((share["v"] for share in shares), default=0.01)
    data = style.Rows()
    base = alt.Chart(data.add(shares)).encode(
        x=alt.X("x:N", title=None), y=alt.Y("y:N", title=None, sort=None)
    )
    scale = alt.Scale(domain=[0, most], range=style.FADE)
    dark = f"datum.v > {most / 2}"
    chart = alt.layer(
        base.mark_rect(stroke="white").encode(color=alt.Color("v:Q", scale=scale, legend=None)),
        base.mark_text().encode(
            text=alt.Text("v:Q", format=".0%"),
            color=alt.condition(dark, alt.value("@onhigh"), alt.value("@ink")),
        ),
    )
    spec = data.spec(chart.properties(width=alt.Step(60), height=alt.Step(30)))
    return style.to_png(spec, "Share of the dropped combinations that hold an operator")
