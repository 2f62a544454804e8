"""What a run found, in numbers: as JSON, as plain text and as Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import milliseconds
from neas_tf.report.parts.quality import NAMES
from neas_tf.report.reading import RunFiles, read_run
from neas_tf.report.run_files import find_key, number
from neas_tf.search.fitness import ACCURACY, FITNESSES
from neas_tf.search.history import objectives
from neas_tf.search.pareto import unbeaten
from neas_tf.search.variation import PARETO_COSTS
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

FORMAT = "neas-summary/1"
_LABEL = 27  # characters of the first column in plain text


def summarise(
    model_dir: str | os.PathLike[str] | RunFiles, space: SearchSpace | None = None
) -> dict[str, Any]:
    """Numbers of a run's folder, or of what `read_run` returned; what is missing is None or empty.

    Returns:
      A JSON object `neas-summary/1` with keys `name`, `space`, `architecture`, `accuracy`, `cost`,
      `budget`, `search`, `shrinking`, `exports`, `wall_time`, `missing`, `problems`. Accuracies
      are fractions, times seconds, costs plain counts.

    Raises:
      NeasError: when `model_dir` is no folder.
    """
    run = model_dir if isinstance(model_dir, RunFiles) else read_run(model_dir, space)
    constraints = run.constraints()
    return {
        "format": FORMAT,
        "name": Path(os.path.abspath(run.model_dir)).name,
        "space": _space(run),
        "architecture": _architecture(run),
        "accuracy": _accuracy(run),
        "cost": run.cost(),
        "budget": budget(run.params),
        **({"constraints": constraints} if constraints else {}),
        "search": _search(run),
        "shrinking": _shrinking(run),
        "exports": [_export(export) for export in run.exports],
        "wall_time": {"stages": dict(run.timing), "total": sum(run.timing.values())}
        if run.timing
        else None,
        "missing": list(run.missing),
        "problems": list(run.problems),
    }


def budget(params: Mapping[str, Any]) -> dict[str, float]:
    """`min_macs`, `max_macs`, `max_params`, `max_latency_ms` of the config, those that are set."""
    search = find_key(params, "search") or {}
    names = ("min_macs", "max_macs", "max_params", "max_latency_ms")
    found = {name: number(search.get(name)) for name in names}
    return {
        name: value if name == "max_latency_ms" else int(value)
        for name, value in found.items()
        if value
    }


def second_objective(params: Mapping[str, Any]) -> str | None:
    """The cost that the search weighed against accuracy, as candidates name it; None without one."""
    search = find_key(params, "search") or {}
    if search.get("objective") != "pareto":
        return None
    return PARETO_COSTS.get(str(search.get("pareto_cost")))


def _space(run: RunFiles) -> dict[str, Any] | None:
    if run.space is None:
        return None
    space = run.space
    value = {"name": space.name, "fingerprint": space.fingerprint(), "num_layers": space.num_layers}
    return value | {"input_size": list(space.input_size), "num_classes": space.num_classes}


def _architecture(run: RunFiles) -> dict[str, Any] | None:
    if run.architecture is None:
        return None
    names = ("name", "key", "split_point", "num_paths", "num_layers")
    return {name: getattr(run.architecture, name) for name in names}


def _accuracy(run: RunFiles) -> dict[str, Any] | None:
    if run.results is None:
        return None
    given = run.results.get("path_accuracies")
    stated = map(number, given if isinstance(given, list) else [])
    paths = [value for value in stated if value is not None]
    ensemble = number(run.results.get("ensemble_accuracy"))
    best = max(paths, default=None)
    top5 = run.results.get("top5")
    if isinstance(top5, Mapping):
        top5 = top5.get("ensemble_accuracy", top5.get("ensemble"))
    return {
        "paths": paths,
        "ensemble": ensemble,
        "best_path": best,
        "gain": None if ensemble is None or best is None else ensemble - best,
        "top5": number(top5),
        "test_examples": number(run.results.get("test_examples")),
    }


def _search(run: RunFiles) -> dict[str, Any] | None:
    if not run.candidates:
        return None
    best = max(run.candidates, key=lambda c: (c.finished, c.accuracy))
    stopped = sum(not c.finished for c in run.candidates)
    accuracy = run.winner_accuracy
    if accuracy is None:
        found = [c.accuracy for c in run.candidates if c.architecture.key == run.winner_key]
        accuracy = found[0] if found else None
    size, fitness = _front_size(run), search_fitness(run.params)
    winners = [c.numbers for c in run.candidates if c.architecture.key == run.winner_key]
    winner = dict(winners[0]) if winners else {}
    return {
        "candidates": len(run.candidates),
        "generations": max(c.generation for c in run.candidates) + 1,
        "best_accuracy": best.accuracy,
        "winner_accuracy": accuracy,
        "min_macs": min(c.macs for c in run.candidates),
        "max_macs": max(c.macs for c in run.candidates),
        **({} if size is None else {"pareto_front": size}),
        **({} if fitness == ACCURACY else {"fitness": fitness}),
        **({} if not winner else {"winner_numbers": winner}),
        **({"stopped": stopped} if stopped else {}),
    }


def _front_size(run: RunFiles) -> int | None:
    """Candidates on the front of a search with two objectives; None for one objective."""
    metric = second_objective(run.params)
    if metric is None:
        return None
    if any(metric not in c.costs for c in run.candidates):
        return None
    fitness = search_fitness(run.params)
    return int(unbeaten(*objectives(run.candidates, metric, fitness)).sum())


def search_fitness(params: Mapping[str, Any]) -> str:
    """What counted as better in the search; accuracy where the settings do not say."""
    found = (find_key(params, "search") or {}).get("fitness", ACCURACY)
    return found if found in FITNESSES else ACCURACY


def _shrinking(run: RunFiles) -> dict[str, Any] | None:
    if run.alive is None:
        return None
    alive = run.alive
    whole = ShrunkSpace.full(alive.space, alive.num_paths, alive.heterogeneous)
    return {
        "shrinks": len(run.shrinks),
        "metric": run.shrinks[-1].metric if run.shrinks else None,
        "combinations_before": whole.num_combinations,
        "combinations_after": alive.num_combinations,
        "operators_before": sum(map(len, whole.alive_operators)),
        "operators_after": sum(map(len, alive.alive_operators)),
    }


def _export(export: Mapping[str, Any]) -> dict[str, Any]:
    parity = export.get("parity")
    parity = parity if isinstance(parity, Mapping) else {}
    stated = number(export.get("bytes"))
    return {
        "file": export["file"],
        "bytes": export["on_disk"] if export["on_disk"] is not None else stated,
        "exists": export["on_disk"] is not None,
        "sha256": export.get("sha256") if isinstance(export.get("sha256"), str) else None,
        "parity": {
            name: number(parity.get(name)) for name in ("max_abs_diff", "agreement", "examples")
        },
    }


def percent(value: float) -> str:
    """0.9312 → '93.12 %'."""
    return f"{100 * value:.2f} %"


def count(value: float) -> str:
    """301500768 → '301.50 M (301,500,768)'."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit} ({value:,.0f})"
    return f"{value:,.0f}"


def file_size(value: float | None) -> str:
    """3514321 → '3.51 MB' (decimal units)."""
    if value is None:
        return "?"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} bytes"


def duration(seconds: float) -> str:
    """4983 → '1 h 23 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def sections(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The summary as titled lists of (label, text), in reading order; empty ones are left out."""
    parts = [
        ("Test accuracy", _accuracy_rows(summary["accuracy"])),
        ("Ensemble", _ensemble_rows(summary)),
        ("Search", _search_rows(summary)),
        ("Exports", _export_rows(summary["exports"])),
        ("Wall time", _time_rows(summary["wall_time"])),
    ]
    return [(title, rows) for title, rows in parts if rows]


def _accuracy_rows(accuracy: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if not accuracy:
        return []
    rows = [(f"path {i + 1}", percent(value)) for i, value in enumerate(accuracy["paths"])]
    if accuracy["ensemble"] is not None:
        text = percent(accuracy["ensemble"])
        if accuracy["gain"] is not None:
            text += f"  ({100 * accuracy['gain']:+.2f} points over the best path)"
        rows.append(("ensemble", text))
    if accuracy["top5"] is not None:
        rows.append(("ensemble, top 5", percent(accuracy["top5"])))
    if accuracy["test_examples"] is not None:
        rows.append(("test images", f"{accuracy['test_examples']:,}"))
    return rows


def _ensemble_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, found, cost = [], summary["architecture"], summary["cost"]
    if found:
        layers = found["num_layers"]
        rows.append(("paths", str(found["num_paths"])))
        rows.append(("split point", f"after layer {found['split_point']} of {layers}"))
    for name, label in (
        ("macs", "MACs"),
        ("paper_flops", "FLOPs as the paper counts"),
        ("params", "parameters"),
    ):
        if name in cost:
            rows.append((label, count(cost[name])))
    if LATENCY in cost:
        rows.append(("predicted latency", milliseconds(cost[LATENCY])))
    limits = summary["budget"]
    words = {
        "min_macs": ("≥", "MACs"),
        "max_macs": ("≤", "MACs"),
        "max_params": ("≤", "parameters"),
    }
    texts = [
        f"≤ {v:g} ms" if n == "max_latency_ms"
        else f"{words[n][0]} {count(v).split(' (')[0]} {words[n][1]}"
        for n, v in limits.items()
    ]  # fmt: skip
    if texts:
        rows.append(("budget", ", ".join(texts)))
    for constraint in summary.get("constraints", ()):
        value = constraint["value"]
        rows.append((constraint["bound"], "not known yet" if value is None else f"{value:,g}"))
    if found:
        rows.append(("architecture", found["key"]))
    return rows


def _search_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, search, shrinking = [], summary["search"], summary["shrinking"]
    if shrinking:
        times = f"{shrinking['shrinks']} shrink{'' if shrinking['shrinks'] == 1 else 's'}"
        metric = f" by {shrinking['metric']}" if shrinking["metric"] else ""
        for name in ("combinations", "operators"):
            before, after = shrinking[f"{name}_before"], shrinking[f"{name}_after"]
            share = f"{100 * after / before:.1f} %" if before else "none"
            tail = f", {times}{metric}" if name == "combinations" else ""
            rows.append((f"{name} alive", f"{after:,} of {before:,} ({share}){tail}"))
    if search:
        text = f"{search['candidates']:,} in {search['generations']} generations"
        if "stopped" in search:
            text += f", {search['stopped']:,} of them stopped by the race"
        rows.append(("candidates scored", text))
        rows.append(("best supernet accuracy", percent(search["best_accuracy"])))
        if search.get("pareto_front"):
            rows.append(("on the Pareto front", f"{search['pareto_front']:,} (search/pareto.json)"))
        winner = search["winner_accuracy"]
        if winner is not None and winner != search["best_accuracy"]:
            rows.append(("winner's supernet accuracy", percent(winner)))
        if "fitness" in search:
            rows.append(("fitness of the search", NAMES[search["fitness"]]))
        for name, value in search.get("winner_numbers", {}).items():
            rows.append((f"winner's {name.replace('_', ' ')}", f"{value:.4f}"))
    return rows


def _export_rows(exports: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    rows = []
    for export in exports:
        parts = [file_size(export["bytes"])]
        if not export["exists"]:
            parts.append("file is not here")
        parity = export["parity"]
        if parity["max_abs_diff"] is not None:
            parts.append(f"max. difference {parity['max_abs_diff']:.1e}")
        if parity["agreement"] is not None:
            parts.append(f"same class {100 * parity['agreement']:.2f} %")
        if parity["examples"] is not None:
            parts.append(f"{parity['examples']:,} images")
        rows.append((export["file"], ", ".join(parts)))
    return rows


def _time_rows(wall_time: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if not wall_time:
        return []
    rows = [(str(stage), duration(seconds)) for stage, seconds in wall_time["stages"].items()]
    return [*rows, ("total", duration(wall_time["total"]))] if len(rows) > 1 else rows


def format_summary(summary: Mapping[str, Any]) -> str:
    """The summary as plain text for a terminal, ending with a newline."""
    title = f"NEAS: {summary['name']}"
    lines = [title, "═" * max(len(title), 60)]
    label = max([_LABEL, *(len(k) + 2 for _, rows in sections(summary) for k, _ in rows)])
    for heading, rows in sections(summary):
        lines += ["", heading, "─" * 60]
        for key, text in rows:
            lines += _wrapped(f"  {key:<{label}}", text)
    for heading, items in _remarks(summary):
        lines += ["", heading, "─" * 60, *(f"  {item}" for item in items)]
    if len(lines) == 2:
        lines += ["", "Nothing was found in this folder."]
    return "\n".join(lines) + "\n"


def _wrapped(head: str, text: str, width: int = 100) -> list[str]:
    """Breaks an overlong canonical string after its bars (and dots, when need be)."""
    lines = []
    room = max(width - len(head), 30)
    while len(text) > room and ":" in text and " " not in text:
        cut = text.rfind("|", 1, room)
        cut = cut if cut > 0 else text.rfind(".", 1, room)
        if cut <= 0:
            break
        lines.append(head + text[: cut + 1])
        head, text = " " * len(head), text[cut + 1 :]
    return [*lines, head + text]


def _remarks(summary: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    parts = (("Not there (yet)", summary["missing"]), ("Problems", summary["problems"]))
    return [(title, list(items)) for title, items in parts if items]


def format_markdown(summary: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The summary as Markdown tables, with the pictures (file names beside it) below."""
    lines = [f"# NEAS: {summary['name']}", ""]
    for heading, rows in sections(summary):
        lines += [f"## {heading}", "", "| | |", "|---|---|"]
        for key, text in rows:
            cell = text.replace("|", "\\|")
            lines.append(f"| {key} | {f'`{cell}`' if key == 'architecture' else cell} |")
        lines.append("")
    for name in pictures:
        words = name.removesuffix(".png").replace("_", " ")
        lines += [f"![{words}]({name})", ""]
    for heading, items in _remarks(summary):
        lines += [f"## {heading}", "", *(f"- {item}" for item in items), ""]
    return "\n".join(lines).rstrip() + "\n"
