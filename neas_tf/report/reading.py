"""Reads what a model_dir holds; what is absent or damaged is named, never an exception."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.files import read_json
from neas_tf.common.yaml_text import load_yaml_file
from neas_tf.cost.cost_table import Cost, CostTable
from neas_tf.cost.latency_table import LatencyTable, load_table
from neas_tf.ensemble.confusion import CONFUSION_FILE, PICTURES_FILE, read_confusion, read_pictures
from neas_tf.ensemble.store import RUN_MODEL, WEIGHTS_FILE, weights_digest
from neas_tf.report.run_files import (
    LATENCY_FILE,
    Shrink,
    export_reports,
    find,
    find_key,
    is_published,
    number,
)
from neas_tf.search.candidate import Candidate
from neas_tf.search.fitness import NUMBERS
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.uncertainty.measures import UNCERTAINTY_FILE, read_uncertainty

METRICS = ("macs", "params", "paper_flops", "latency_ns")  # costs of a candidate


@dataclasses.dataclass
class RunFiles:
    """What was read from a model_dir. Parts that are absent are None or empty.

    Attributes:
      model_dir: the folder.
      params: content of `params.yaml`.
      space: search space, given by the caller or found in `params`.
      candidates: scored candidates, by number.
      architecture: the ensemble that was retrained, or else the winner of the search.
      winner_key: canonical string of the winner of the search.
      winner_accuracy: its accuracy in the search.
      latency: the table that the search predicted latencies with.
      shrinks: by index.
      alive: final shrunk space.
      results: content of `retrain/results.json`.
      confusion: content of `retrain/confusion.json`.
      pictures: content of `retrain/pictures.json`.
      uncertainty: content of `retrain/uncertainty.json`.
      exports: content of every `export/*.json`, with `on_disk` (bytes, None when the file is gone).
      timing: seconds by stage.
      metrics: log lines by stage (`supernet`, `retrain`).
      missing: files that are not there, relative to model_dir.
      problems: one sentence for each file (or line) that could not be used.
    """

    model_dir: Path
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    space: SearchSpace | None = None
    candidates: tuple[Candidate, ...] = ()
    architecture: Architecture | None = None
    winner_key: str | None = None
    winner_accuracy: float | None = None
    latency: LatencyTable | None = None
    shrinks: tuple[Shrink, ...] = ()
    alive: ShrunkSpace | None = None
    results: Mapping[str, Any] | None = None
    confusion: Mapping[str, Any] | None = None
    pictures: Mapping[str, Any] | None = None
    uncertainty: Mapping[str, Any] | None = None
    exports: tuple[Mapping[str, Any], ...] = ()
    timing: Mapping[str, float] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, tuple[Mapping[str, Any], ...]] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def cost(self) -> dict[str, int]:
        """`macs`, `paper_flops`, `params`, with a table `latency_ns`, from files or worked out."""
        result: dict[str, int] = {}
        table = self.cost_from_space()
        key = self.architecture.key if self.architecture else None
        found = (c.costs for c in self.candidates if c.architecture.key == key)
        match: Mapping[str, float] = next(found, {})
        for name in ("macs", "paper_flops", "params", "latency_ns"):
            stated = [(self.results or {}).get(name), match.get(name)]
            stated += [export.get(name) for export in self.exports] + [getattr(table, name, None)]
            for value in map(number, stated):
                if value is not None and name not in result:
                    result[name] = int(value)
        return result

    def constraints(self) -> list[dict[str, Any]]:
        """The lines of `search.constraints`, each with what the ensemble has, None where not known."""
        lines = (find_key(self.params, "search") or {}).get("constraints")
        found = (self.results or {}).get("constraints")
        values = found if isinstance(found, Mapping) else {}
        result = []
        for line in lines if isinstance(lines, list) else []:
            name = re.split("[<>]", str(line))[0].rpartition(":")[2].strip()
            result.append({"bound": str(line), "value": number(values.get(name))})
        return result

    def cost_from_space(self) -> Cost | None:
        """The architecture's cost in the space; None when one is missing or they do not fit."""
        if self.architecture is None or self.space is None:
            return None
        try:
            paths = self.architecture.num_paths
            latency = self.latency if self.latency and self.latency.num_paths == paths else None
            return CostTable(self.space, latency).cost(self.architecture)
        except NeasError:
            return None


def read_run(model_dir: str | os.PathLike[str], space: SearchSpace | None = None) -> RunFiles:
    """Reads all files of a run that are there; `space` is by default that of `params.yaml`.

    Raises:
      NeasError: when `model_dir` is no folder.
    """
    model_dir = Path(model_dir)
    check(model_dir.is_dir(), "model_dir", str(model_dir), "an existing folder")
    run = RunFiles(model_dir, space=space)
    run.params = _part(run, "params.yaml", lambda p: load_yaml_file(p, "params.yaml")) or {}
    if run.space is None:
        found = find_key(run.params, "space")
        if found is not None:
            run.space = _guard(run, "params.yaml", lambda: SearchSpace.from_dict(found))
    run.candidates = _part(run, "search/history.jsonl", lambda p: _read_history(run, p)) or ()
    if find(model_dir, LATENCY_FILE).exists():
        run.latency = _part(run, LATENCY_FILE, load_table)
    run.shrinks = tuple(_read_shrinks(run))
    run.alive = _part(run, "shrink/alive.json", lambda p: _shrunk(read_json(p), run.space))
    if run.alive is None and run.shrinks:
        run.alive = run.shrinks[-1].alive
    run.results = _part(run, "retrain/results.json", _read_mapping)
    # Runs from before these files existed are whole without them, so their absence is no lack.
    # Without the results they are an earlier test's, or half of one.
    tested = find(model_dir, "retrain/results.json").exists()
    readers: tuple[tuple[str, str, Callable[[Path], Any]], ...] = (
        ("confusion", CONFUSION_FILE, read_confusion),
        ("pictures", PICTURES_FILE, read_pictures),
        ("uncertainty", UNCERTAINTY_FILE, read_uncertainty),
    )
    for field, name, reader in readers:
        if tested and find(model_dir, name).exists():
            setattr(run, field, _part(run, name, reader))
    _read_winner(run)
    run.exports = tuple(_read_exports(run))
    timing = _part(run, "timing.json", _read_timing) or {}
    run.timing = {str(k): v for k, v in timing.items() if number(v) is not None}
    run.metrics = {
        stage: _part(run, f"{stage}/metrics.jsonl", lambda p: _read_metrics(run, p)) or ()
        for stage in ("supernet", "retrain")
    }
    return run


def _guard(run: RunFiles, name: str, action: Callable[[], Any]) -> Any:
    """Result of `action`; None, and the problem noted under the file's name, when it fails."""
    try:
        return action()
    except NeasError as error:
        text = str(error).replace(f"{run.model_dir}{os.sep}", "")
        run.problems.append(text if name in text else f"{name}: {text}")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        run.problems.append(f"{name}: not as expected ({type(error).__name__}: {error}).")
    return None


def _part(run: RunFiles, name: str, reader: Callable[[Path], Any]) -> Any:
    path = find(run.model_dir, name)
    if not path.exists():
        run.missing.append(name)
        return None
    return _guard(run, name, lambda: reader(path))


def _read_mapping(path: Path) -> Mapping[str, Any]:
    value = read_json(path, path.name, nan=True)
    check(isinstance(value, Mapping), path.name, type(value).__name__, "a JSON object")
    return value


def _read_timing(path: Path) -> Mapping[str, Any]:
    """Seconds by stage; a published folder has them in its summary."""
    value = _read_mapping(path)
    if path.name != "summary.json":
        return value
    times = value.get("wall_time")
    stages = times.get("stages") if isinstance(times, Mapping) else None
    return stages if isinstance(stages, Mapping) else {}


def _read_lines(run: RunFiles, path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of every whole line; a damaged one is named and left out."""
    name = path.relative_to(run.model_dir).as_posix()
    result = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for index, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)  # NaN is read too: the loss of a training that diverged
            check(isinstance(value, Mapping), "line", type(value).__name__, "a JSON object")
        except (ValueError, RecursionError) as error:
            run.problems.append(f"{name}: line {index} is left out, it is no JSON object ({error})")
            continue
        result.append((index, value))
    return result


def _read_history(run: RunFiles, path: Path) -> tuple[Candidate, ...]:
    by_number: dict[int, Candidate] = {}
    for line, value in _read_lines(run, path):
        name = f"search/history.jsonl: line {line}"
        candidate = _guard(run, name, functools.partial(_candidate, value, len(by_number)))
        if candidate is not None:
            by_number[candidate.number] = candidate
    return tuple(by_number[n] for n in sorted(by_number))


def _candidate(value: Mapping[str, Any], default: int) -> Candidate:
    """Lines of older searches lack a thing or two."""
    for name in ("accuracy", "macs"):
        check(number(value.get(name)) is not None, name, value.get(name), "a finite number")
    key = value.get("key")
    paths = value.get("path_accuracies")
    costs = {name: number(value.get(name)) for name in METRICS}
    images = number(value.get("images"))
    return Candidate(
        number=int(value.get("candidate", default)),
        generation=int(value.get("generation", 0)),
        origin=str(value.get("origin", "random")),
        architecture=_architecture(key if isinstance(key, str) else value.get("architecture")),
        accuracy=float(value["accuracy"]),
        path_accuracies=tuple(
            float(v) for v in (paths if isinstance(paths, list) else ()) if number(v) is not None
        ),
        costs={name: int(cost) for name, cost in costs.items() if cost is not None},
        images=None if value.get("images") is None else int(images or 0),
        disagreement=number(value.get("disagreement")),
        numbers={name: found for name in NUMBERS if (found := number(value.get(name))) is not None},
        looks=None if value.get("looks") is None else int(number(value["looks"]) or 1),
    )


def _architecture(value: object) -> Architecture:
    """An architecture from its canonical string, or JSON that may state more (its accuracy)."""
    if isinstance(value, str):
        return Architecture.from_key(value)
    if not isinstance(value, Mapping):
        fail("architecture", value, "a JSON object")
    known = ("format", "name", "split_point", "paths")
    return Architecture.from_dict({k: v for k, v in value.items() if k in known})


def _shrunk(value: object, space: SearchSpace | None) -> ShrunkSpace | None:
    return ShrunkSpace.from_dict(value, space) if space is not None else None


def _read_shrinks(run: RunFiles) -> list[Shrink]:
    paths = sorted((run.model_dir / "shrink").glob("shrink_*.json"))
    if not paths:
        run.missing.append("shrink/shrink_*.json")
    shrinks = [
        _guard(run, f"shrink/{path.name}", functools.partial(_shrink, path, run.space))
        for path in paths
    ]
    return sorted((s for s in shrinks if s is not None), key=lambda shrink: shrink.index)


def _shrink(path: Path, space: SearchSpace | None) -> Shrink:
    value = _read_mapping(path)
    layers = []
    check(isinstance(value.get("layers"), list), "layers", value.get("layers"), "a list")
    for layer in value["layers"]:
        layer = dict(layer)
        size = len(layer["operators"])
        for name, shape in (("similarity", (size, size)), ("quality", (size,))):
            if layer.get(name) is None:
                layer[name] = None
                continue
            layer[name] = np.array(layer[name], float)
            if layer[name].shape != shape:
                fail(f"layer {layer.get('layer')}: {name}", layer[name].shape, f"shape {shape}")
        int(layer["layer"])
        layers.append(layer)
    return Shrink(
        index=int(value["index"]),
        step=int(value.get("step", 0)),
        epoch=number(value.get("epoch")),
        metric=str(value.get("metric", "diversity")),
        layers=tuple(layers),
        alive=_shrunk(value.get("alive"), space),
    )


def _read_winner(run: RunFiles) -> None:
    """Sets the winner of the search and the architecture that the rest is about."""
    best = _part(run, "search/best.json", _read_mapping)
    if best is not None:
        winner = _guard(run, "search/best.json", lambda: _architecture(best))
        run.architecture = winner
        run.winner_key = winner.key if winner else None
        run.winner_accuracy = number(best.get("x_accuracy", best.get("accuracy")))
    retrained = (run.results or {}).get("architecture")
    if retrained is None:
        return
    found = _guard(run, "retrain/results.json", lambda: _architecture(retrained))
    if found is not None and found == run.architecture:
        return  # The same one; the winner's file knows its name.
    if found is not None and run.winner_key is not None:
        run.problems.append(
            "retrain/results.json: the retrained ensemble is not the one in search/best.json; "
            "the report shows the retrained one."
        )
    run.architecture = found or run.architecture


def _read_exports(run: RunFiles) -> list[Mapping[str, Any]]:
    paths = export_reports(run.model_dir)
    if not paths:
        run.missing.append("export/*.json")
    result: list[Mapping[str, Any]] = []
    model = run.model_dir / RUN_MODEL / WEIGHTS_FILE
    own = functools.cache(lambda: weights_digest(model))  # reads all weights: once for all reports
    for path in paths:
        name = f"export/{path.name}"
        value = _guard(run, name, functools.partial(_read_mapping, path))
        if value is None:
            continue
        if why := _guard(run, name, functools.partial(_foreign, run, path, value, own)):
            run.problems.append(f"{name}: is left out, {why}.")
            continue
        file = value.get("file")
        file = file if isinstance(file, str) and file else path.name.removesuffix(".json")
        result.append({**value, "file": Path(file).name, "on_disk": _size(path.parent, file)})
    return result


def _foreign(run: RunFiles, path: Path, report: Mapping[str, Any], own: Callable[[], str]) -> str:
    """Why an export is not of the run's model, '' where it is, or where nobody can tell."""
    retrain, model = run.model_dir / "retrain", run.model_dir / RUN_MODEL / WEIGHTS_FILE
    if is_published(run.model_dir) or not retrain.is_dir():
        return ""
    if not model.is_file():
        return "" if run.results else "it is of an earlier training"
    weights = report.get("weights")
    if weights is not None:
        return "" if weights == own() else "it was made of other weights"
    # From before reports said so.
    late = path.stat().st_mtime < model.stat().st_mtime
    return "it is older than retrain/model and does not say what it was made of" if late else ""


def _size(folder: Path, file: str) -> int | None:
    """Bytes of the exported file, or of all files below an exported folder."""
    for path in (folder / Path(file).name, folder / file):
        if path.is_file():
            return path.stat().st_size
        if path.is_dir():
            return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return None


def _read_metrics(run: RunFiles, path: Path) -> tuple[Mapping[str, Any], ...]:
    """Log lines by step; of a step that was repeated after a resume the last line counts."""
    name = path.relative_to(run.model_dir).as_posix()
    by_step: dict[float, dict[str, Any]] = {}
    for line, value in _read_lines(run, path):
        step = number(value.get("step"))
        if step is None:
            run.problems.append(f"{name}: line {line} is left out, it has no step.")
            continue
        by_step.setdefault(step, {}).update(value)
    return tuple(by_step[step] for step in sorted(by_step))
