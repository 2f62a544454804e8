"""Runs one unit with the stages of an ordinary run, in a folder of its own."""

from __future__ import annotations

import copy
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import read_json, write_bytes_atomic, write_json_atomic
from neas_tf.common.paths import project_file
from neas_tf.config.parse import apply_override, put_settings
from neas_tf.config.settings import NeasConfig
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import load_table
from neas_tf.data.loading import make_decoder
from neas_tf.ensemble import store as model_store
from neas_tf.ensemble.graph_memory import release_graphs
from neas_tf.latency.models import ensemble_model
from neas_tf.latency.timing import TimingSettings, describe_machine, time_files, typical
from neas_tf.run.context import Run, open_run
from neas_tf.run.identity import essential_settings, plain
from neas_tf.run.parts.step_times import (
    candidate_seconds,
    epoch_seconds,
    retrain_epoch_seconds,
)
from neas_tf.run.pipeline import make_strategy
from neas_tf.run.record import digest_of
from neas_tf.run.retrain_stage import retrain
from neas_tf.run.search_stage import make_evaluator, search
from neas_tf.run.supernet_stage import fresh_supernet, load_supernet, train_supernet
from neas_tf.search.fitness import ACCURACY, NUMBERS, fitness_values
from neas_tf.search.history import read_history
from neas_tf.shrinking.measurements import PAPER_BETA
from neas_tf.space.architecture import Architecture
from neas_tf.study import units
from neas_tf.study.path_differences import compare_paths, embed
from neas_tf.study.store import Store
from neas_tf.study.units import Result, Unit
from neas_tf.uncertainty.corruptions import check_size
from neas_tf.uncertainty.measures import UNCERTAINTY_FILE, read_uncertainty
from neas_tf.uncertainty.robustness import measure, names_of

_NODE: dict[str, Runner] = {}  # the runner of this process, by what it was made of
# A run's folders that grow, and that nothing needs after its end.
_BULK = ("retrain/train", "supernet/train", "retrain/ckpt-*", "retrain/checkpoint")
# Other than these, every run of a study is without a budget (supernets serve all budgets).
_NO_BUDGET = {"max_macs": 0, "min_macs": 0, "max_params": 0, "max_latency_ms": 0.0}


class Runner:
    """Does units, each by the method of its kind; an object of it is what `schedule.work` calls.

    The units' settings override `base`; their runs live in the folder of the `store`.
    """

    def __init__(self, base: NeasConfig, store: Store, strategy: tf.distribute.Strategy):
        self._base, self._store, self._strategy = base, store, strategy
        self._data: dict[str, data.DatasetInfo] = {}

    def __call__(self, unit: Unit) -> Result:
        """Does a resolved unit, or resumes it where its folder holds a part.

        Raises:
          NeasError: for settings that a stage refuses.
        """
        result = getattr(self, f"_{unit.kind}")(unit)
        for pattern in _BULK:
            for path in self._store.work(unit).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        release_graphs()  # a study trains hundreds of networks
        return result

    def base_run(self) -> Run:
        """The base settings with data and space; nothing is written.

        Raises:
          NeasError: for settings that a stage refuses, and data that are missing.
        """
        return self._open(self._base, self._store.folder / "work" / "none")

    @property
    def settings(self) -> dict[str, Any]:
        """The base settings as JSON."""
        return plain(self._base.as_dict())

    def data_digest(self) -> str:
        """Of what the base settings read: files, classes, what is held out."""
        return digest_of(self.base_run().info.describe())

    def _open(self, config: NeasConfig, folder: Path) -> Run:
        key = json.dumps(config.data.as_dict(), sort_keys=True, default=str)
        run = open_run(config, str(folder), self._strategy, self._data.get(key))
        self._data[key] = run.info
        return run

    def _run(self, unit: Unit, override: dict[str, Any] | None = None, budget: bool = False) -> Run:
        config = copy.deepcopy(self._base)
        config.seed = unit.seed
        if not budget:
            apply_override(config, {"search": _NO_BUDGET})
        for settings in (json.loads(unit.settings), override or {}):
            put_settings(config, settings)
        return self._open(config, self._store.work(unit))

    def _supernet(self, unit: units.Supernet) -> dict[str, Any]:
        run = self._run(unit)
        with run.writing():
            shrunk = train_supernet(*run.inputs)
        lines = run.folder("supernet", "metrics.jsonl").read_text("utf-8").splitlines()
        reports = sorted(run.folder("shrink").glob("shrink_*.json"))
        shrinks = [read_json(path, "shrink report") for path in reports]
        names = ("step", "beta", "distance_quantiles", "dropped")
        return {
            "alive": [[list(row) for row in rows] for rows in shrunk.alive],
            "combinations": shrunk.num_combinations,
            "all_combinations": run.full.num_combinations,
            "shrinks": [{name: report[name] for name in names} for report in shrinks],
            "training": json.loads(lines[-1]) if lines else {},
        }

    def _pace(self, unit: units.Pace) -> dict[str, Any]:
        base = units.Pace(unit.seed)
        blocks = epoch_seconds([self._run(one).inputs for one in (base, unit)])
        seconds = [statistics.median(side) for side in zip(*blocks, strict=True)]
        ratio = statistics.median(own / other for other, own in blocks)
        return {"ratio": ratio, "epoch_seconds": seconds, "machine": describe_machine()}

    def _costs(self, unit: units.Costs) -> dict[str, Any]:
        run = self._run(unit, {"retrain": {"architecture": unit.ensemble}})
        costs: dict[str, Any] = {"supernet": 0.0, "search": 0.0}
        costs["epoch"] = statistics.median(retrain_epoch_seconds(run.inputs))
        costs["machine"] = describe_machine()
        if unit.search is None:
            return costs
        supernet, searched = self._store.get(unit.search.supernet), self._store.get(unit.search)
        assert supernet is not None and searched is not None  # the search is one of `needs`
        run = self._run(unit.search.supernet)
        seconds = statistics.median(own for (own,) in epoch_seconds([run.inputs]))
        run = self._run(unit.search, json.loads(unit.search.supernet.settings), budget=True)
        with run.cluster.placing():
            fresh = fresh_supernet(run.config, run.space)
        candidate = candidate_seconds(run.inputs, fresh)
        config = run.config
        scored = config.search.validation_images or run.info.sizes["search"]
        seen = config.search.calibration_images + scored
        shrinks = len(supernet["shrinks"]) * config.shrink.num_samples * config.shrink.images / seen
        costs["supernet"] = config.supernet.epochs * seconds + shrinks * candidate
        costs["search"] = len(searched["candidates"]) * candidate
        return costs

    def _with_supernet(
        self, unit: units.Scores | units.Search, search: Mapping[str, Any], budget: bool
    ) -> Run:
        """A run whose supernet is the one of another unit, by links that move with the folder."""
        own = json.loads(unit.supernet.settings)
        own |= {"seed": unit.supernet.seed, "search": {**own.get("search", {}), **search}}
        run = self._run(unit, own, budget)
        with run.writing():  # first what says whose the folder is
            for name in ("supernet", "shrink"):
                if not run.folder(name).exists():
                    target = self._store.work(unit.supernet) / name
                    os.symlink(os.path.relpath(target, run.model_dir), run.folder(name))
        return run

    def _scores(self, unit: units.Scores) -> dict[str, Any]:
        run = self._with_supernet(unit, {}, budget=False)
        ensembles = [Architecture.from_key(key).check_in(run.space) for key in unit.ensembles]
        with run.cluster.placing():
            supernet = load_supernet(run.config, run.model_dir, run.space)
        evaluator = make_evaluator(run.config, run.info, supernet, run.cluster)
        with console.bar("scores", 100, "%", leave=False) as bar:

            def progress(share: float) -> None:
                bar.update(100 * share - bar.n)

            found = evaluator.evaluate_all(ensembles, progress)
        return {
            "accuracies": [f.accuracy for f in found],
            "path_accuracies": [list(f.path_accuracies) for f in found],
            "numbers": {name: [f.numbers.get(name) for f in found] for name in NUMBERS},
        }

    def _search(self, unit: units.Search) -> dict[str, Any]:
        bound = self._latency_bound(unit) if unit.table else {}
        run = self._with_supernet(unit, {"seed": unit.seed, **bound}, budget=not bound)
        with run.writing():
            result = search(*run.inputs)
        lines = read_history(run.folder("search", "history.jsonl"))
        found = {
            "candidates": [[c.architecture.key, c.accuracy, c.macs, c.generation] for c in lines],
            "numbers": {name: [c.numbers.get(name) for c in lines] for name in NUMBERS},
            "best": result.best.number,
            "reason": result.reason,
        }
        if (fitness := run.config.search.fitness) != ACCURACY:
            found["fitness"] = fitness_values(lines, fitness).tolist()
        return {**found, "max_latency_ms": bound["max_latency_ms"]} if bound else found

    def _latency_bound(self, unit: units.Search) -> dict[str, Any]:
        """The bound in the settings of `search`, with the table as a file of the supernet's."""
        run = self._run(unit.supernet)
        assert unit.table is not None
        path = self._store.work(unit.table) / "table.json"
        if not path.exists():
            measured = self._store.get(unit.table)
            assert measured is not None  # one of the units that the search needs
            write_json_atomic(path, measured["table"])
        costs = CostTable(run.space, load_table(path))
        low, high = costs.attainable_range(run.full, LATENCY)
        milliseconds = round((low + unit.latency_share * (high - low)) / 1e6, 6)
        return {"latency_table": str(path), "max_latency_ms": milliseconds}

    def _table(self, unit: units.LatencyTable) -> dict[str, Any]:
        path = self._store.work(unit) / "table.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A process of its own: the command, which resumes by itself where it was interrupted.
        command = [sys.executable, "-m", "neas_tf.measure_latency", f"--output={path}"]
        command += [f"--model_dir={self._store.work(unit.supernet)}", "--overwrite"]
        done = subprocess.run(command, cwd=project_file(), check=False)
        if done.returncode:
            raise NeasError(f"{unit.title}: measuring ended with exit code {done.returncode}.")
        return {"table": read_json(path, "latency table")}

    def _training(self, unit: units.Training) -> dict[str, Any]:
        run = self._run(unit, {"retrain": {"architecture": unit.ensemble}})
        with run.writing():
            return retrain(*run.inputs)

    def _taught(self, unit: units.Taught) -> dict[str, Any]:
        teacher = {"teacher": str(self._store.work(unit.teacher) / model_store.RUN_MODEL)}
        own = {"retrain": {"architecture": unit.ensemble, "distillation": teacher}}
        run = self._run(unit, own)
        with run.writing():
            return retrain(*run.inputs)

    def _trained(self, unit: units.OfTraining) -> tuple[Run, Any]:
        run = self._run(unit.training)
        return run, model_store.load_model(run.folder("retrain", "model"))[0]

    def _embedding(self, unit: units.Embedding) -> dict[str, Any]:
        run, model = self._trained(unit)
        return embed(model, run.info, unit.images, unit.seed)

    def _comparison(self, unit: units.Comparison) -> dict[str, Any]:
        run, model = self._trained(unit)
        beta = run.config.shrink.beta
        beta = PAPER_BETA if beta == "auto" else float(beta)
        return compare_paths(model, run.info, run.config.retrain.evaluation_batch, beta)

    def _uncertain(self, unit: units.Uncertain) -> dict[str, Any]:
        return dict(read_uncertainty(self._run(unit.training).folder(UNCERTAINTY_FILE)))

    def _robustness(self, unit: units.Robustness) -> dict[str, Any]:
        run, model = self._trained(unit)
        settings = copy.deepcopy(run.config.data)
        settings.input_size = list(unit.corrupted_size or run.space.input_size)
        whole = data.load(settings, test_only=True)
        check_size(*whole.input_shape)
        decoder = make_decoder(run.config.data, run.info.input_shape)

        @tf.function(reduce_retracing=True)
        def fit(pictures: tf.Tensor) -> tf.Tensor:
            return tf.map_fn(decoder.fit, pictures)

        named = names_of(model, run.info.normalisation)
        paths = model.output_shape[1]
        batch = run.config.retrain.evaluation_batch
        members = {"tested": (named, paths)}
        found = measure(
            members, whole, unit.images, batch, unit.seed, read=lambda x: fit(x).numpy()
        )
        return found.pop("networks")["tested"] | found

    def _latency(self, unit: units.Latency) -> dict[str, Any]:
        run = self._run(unit.training)
        path = self._store.work(unit) / "model.tflite"
        assert isinstance(unit.training.ensemble, str)  # resolved
        architecture = Architecture.from_key(unit.training.ensemble).check_in(run.space)
        with console.native_noise_off():
            write_bytes_atomic(path, ensemble_model(architecture, run.space, "none"))
            samples = time_files({"model": path}, TimingSettings(seed=unit.seed), {})["model"]
        return {"milliseconds": typical(samples) / 1e6, "machine": describe_machine()}


def run_on_node(
    folder: str, base: Mapping[str, Any], data_digest: str, unit: Unit
) -> tuple[Result, float]:
    """A unit as a task on a node of a cluster, and the seconds that it took.

    Args:
      folder: of the study, which all nodes see.
      base: the base settings, as JSON.
      data_digest: of the images where the command was given.
      unit: resolved.

    Raises:
      NeasError: when this node sees another folder or other images, or a stage refuses settings.
    """
    name = digest_of([folder, base, data_digest])
    if name not in _NODE:
        if not os.path.exists(os.path.join(folder, "study.json")):
            raise NeasError(
                f"model_dir: {folder!r} is not there; expected a file system that all nodes see."
            )
        config = NeasConfig()
        put_settings(config, base)
        store = Store(folder, essential_settings(config), essential_settings(NeasConfig()))
        runner = Runner(config, store, make_strategy(config))
        if (found := runner.data_digest()) != data_digest:
            raise NeasError(
                f"data: other images (digest {found}) than those of the command ({data_digest}); "
                "expected the same on all nodes."
            )
        _NODE[name] = runner
    began = time.monotonic()
    return _NODE[name](unit), time.monotonic() - began
