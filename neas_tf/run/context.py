"""What all stages of one run share, and the identity that its folder records."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.files import difference, listed, read_json, write_json_atomic, write_text_atomic
from neas_tf.common.folder_lock import LOCK_FILE, is_leftover, lock_folder, sweep
from neas_tf.common.paths import check_literal
from neas_tf.common.yaml_text import dump_yaml, load_yaml
from neas_tf.config.resolve import resolve_space
from neas_tf.config.settings import NeasConfig
from neas_tf.cost.budget import Budget
from neas_tf.cost.cost_table import CostTable
from neas_tf.run import cluster
from neas_tf.run.preflight import check_settings, search_budget, search_latency
from neas_tf.run.record import digest_of, note_sitting
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

# What stages leave, which must not be there without its identity.
_RESULTS = {
    "supernet": ("supernet/ckpt-*.index", "shrink/*.json"),
    "retrain": ("retrain/ckpt-*.index", "retrain/model", "retrain/results.json"),
}
_STAGE_SECTIONS = {
    "supernet": ("seed", "num_paths", "heterogeneous", "space", "data", "supernet", "shrink"),
    "retrain": ("seed", "space", "data", "retrain"),
}
# Settings that change how a run goes, but not what comes out.
_HARMLESS = {"data_dir", "download", "max_to_keep", "checkpoint_interval", "steps_per_loop"}
_HARMLESS |= {"summary_interval", "evaluation_batch", "cache", "on_bad_record"}
# What these do is in rollbacks.json, and a run that diverged must be able to choose otherwise.
_HARMLESS |= {"on_divergence", "rollback_rate_factor", "max_rollbacks", "max_loss"}
# Seconds until a file of one machine must be seen on all; network file systems remember a folder.
_VISIBLE = 60.0


@dataclasses.dataclass
class Run:
    """One run: its settings, folder, data, space and budget.

    Attributes:
      config: resolved.
      model_dir: absolute.
      strategy: of distribution.
      info: the data.
      space: the whole space.
      full: the space for K paths before any shrinking.
      table: costs.
      budget: the search's bounds.
    """

    config: NeasConfig
    model_dir: Path
    strategy: tf.distribute.Strategy
    info: data.DatasetInfo
    space: SearchSpace
    full: ShrunkSpace
    table: CostTable
    budget: Budget

    def folder(self, *names: str) -> Path:
        """A path inside the model_dir."""
        return self.model_dir.joinpath(*names)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return bool(self.strategy.extended.should_checkpoint)

    def barrier(self) -> None:
        """Waits until all worker processes are here, so that what the chief wrote is on disk."""
        cluster.barrier(self.strategy)

    @property
    def worker(self) -> tuple[int, int]:
        """(number of worker processes, 0-based index of this one)."""
        return cluster.worker_of(self.strategy)

    def any_worker(self, values: np.ndarray) -> np.ndarray:
        """Where a bool array is true in at least one worker; all of them must call this."""
        brought = cluster.exchange(self.strategy, values.ravel().tolist())
        return brought.any(0).reshape(values.shape)

    def check_agreement(self, stages: Sequence[str]) -> None:
        """Checks that all workers do the same, in the same folder, before hours are spent on it.

        Raises:
          NeasError: on all workers.
        """
        own = ("worker_hosts", "task_index")  # of this process
        sections = {name: self._section(name) for name in self.config.as_dict()}
        sections["data"] = _essential(sections["data"])  # a data_dir may differ
        sections["runtime"] = {k: v for k, v in sections["runtime"].items() if k not in own}
        parts = {
            f"setting in {name!r}": json.dumps(section, sort_keys=True).encode()
            for name, section in sections.items()
        }
        cluster.barrier(self.strategy)  # the chief has now written its process number there
        lock = self.folder(LOCK_FILE)
        chief = cluster.exchange(self.strategy, [cluster.checksum(_content(lock))])[0, 0]
        end = time.monotonic() + _VISIBLE
        while cluster.checksum(_content(lock)) != chief and time.monotonic() < end:
            time.sleep(0.5)
        parts["model_dir"] = _content(lock)
        parts["stage"] = " ".join(stages).encode()
        parts["images"] = json.dumps(self.info.describe(), sort_keys=True).encode()
        remedy = "the same command on all workers, with a model_dir and data that they share"
        cluster.agree(self.strategy, parts, remedy)

    @property
    def local_devices(self) -> tuple[str | None, ...]:
        """This process' devices, for work that needs no strategy; None is TensorFlow's choice."""
        mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
        if not isinstance(self.strategy, mirrored):  # the cores of a TPU run whole programs
            return (None,)
        names = tuple(self.strategy.extended.worker_devices)
        return names if len(names) > 1 else (None,)

    def keeps_budget(self, shrunk: ShrunkSpace) -> bool:
        """Whether an ensemble of the space fits the budget (method section 8.8)."""
        return self.budget.attainable(shrunk, self.table)

    def check_identity(self, stage: str, extra: Mapping[str, Any] | None = None) -> None:
        """Refuses a folder whose stage holds the results of other settings; writes nothing.

        Args:
          stage: supernet or retrain.
          extra: what the results depend on besides the config's sections; None where that is not
            known yet.
        """
        path = self.folder(stage, "identity.json")
        if not path.exists():
            self._refuse_leftovers(stage)
            self._check_data()
            return
        found, identity = read_json(path, "identity"), self._identity(stage, extra or {})
        if not isinstance(found, Mapping):
            raise NeasError(f"identity: {str(path)!r} holds no JSON object.")
        if extra is None:
            found = {key: value for key, value in found.items() if key in identity}
        changes = difference(found, _recorded(found, identity))
        if changes:
            raise NeasError(
                f"model_dir: {str(self.folder(stage))!r} holds another run "
                f"({listed(changes)}); allowed is the same run again, with its --experiment, "
                "--config_file and --params_override, or another folder."
            )
        self._check_data()

    def _check_data(self) -> None:
        """Refuses data that are not those of the stages before; the settings are compared first."""
        path = self.folder("data.json")
        begun = any(self.folder(stage, "identity.json").exists() for stage in _STAGE_SECTIONS)
        if begun and (changed := data.changed_since(path, self.info.describe())):
            raise NeasError(
                f"data: {self.info.name!r} is not what {str(self.model_dir)!r} was begun with "
                f"({changed}); expected are the same images and classes, or another model_dir."
            )

    def record_identity(self, stage: str, extra: Mapping[str, Any] | None = None) -> None:
        """Writes what a stage's results depend on, or refuses a folder with something else."""
        self.check_identity(stage, extra or {})
        path = self.folder(stage, "identity.json")
        if self.is_chief and not path.exists():
            write_json_atomic(path, self._identity(stage, extra or {}))

    def _identity(self, stage: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        content = {name: _essential(self._section(name)) for name in _STAGE_SECTIONS[stage]}
        return {"format": "neas-identity/1", **content, "images": self.info.sizes, **extra}

    def _refuse_leftovers(self, stage: str) -> None:
        """Results without the record of what made them must not be taken for this run's."""
        for pattern in _RESULTS[stage]:
            found = sorted(self.model_dir.glob(pattern))
            if found:
                raise NeasError(
                    f"model_dir: {str(found[0])!r} is there without {stage}/identity.json that says "
                    "what made it; move it away or choose another folder."
                )

    def _section(self, name: str) -> Any:
        value = getattr(self.config, name)
        return _plain(value.as_dict() if hasattr(value, "as_dict") else value)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time of a block to timing.json, over all sittings."""
        begin = time.monotonic()
        try:
            yield
        except BaseException:
            # A disk that is full for the stage is full for this as well.
            with contextlib.suppress(OSError):
                self._add_time(stage, time.monotonic() - begin)
            raise
        self._add_time(stage, time.monotonic() - begin)

    def _add_time(self, stage: str, seconds: float) -> None:
        if self.is_chief:
            path = self.folder("timing.json")
            times: dict[str, float] = {}
            with contextlib.suppress(NeasError):  # lost times are no reason to stop
                times = read_json(path, "timing")
            times[stage] = round(times.get(stage, 0.0) + seconds, 1)
            write_json_atomic(path, times)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the folder this process's own for a block, and writes the settings into it.

        Raises:
          NeasError: when the folder cannot be written, or another process works in it.
        """
        if not self.is_chief:
            yield
            return
        try:
            self.model_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.model_dir, error) from None
        with lock_folder(self.model_dir):
            sweep(self.model_dir)
            text = dump_yaml(_plain(self.config.as_dict()))
            try:
                write_text_atomic(self.folder("params.yaml"), text)
                write_json_atomic(self.folder("data.json"), self.info.describe())
                changes = note_sitting(self.model_dir, self._facts(), _plain(self.config.as_dict()))
            except OSError as error:
                raise _unwritable(self.model_dir, error) from None
            if changes:
                logging.warning(
                    "%s was begun with other software (%s); results may differ from those of one "
                    "sitting.",
                    self.model_dir,
                    "; ".join(changes),
                )
            yield

    @property
    def bounds(self) -> dict[str, Any]:
        """The search's budget, with the table that it reads latencies from, as JSON."""
        names = ("max_macs", "min_macs", "max_params", "max_latency_ms")
        bounds = {name: getattr(self.config.search, name) for name in names}
        latency = self.table.latency
        return bounds if latency is None else {**bounds, "latency_table": latency.identity()}

    def _facts(self) -> dict[str, Any]:
        """What the run is, for its record."""
        return {
            "seed": self.config.seed,
            "num_paths": self.config.num_paths,
            "space": self.space.name,
            "space_digest": digest_of(self.space.to_dict()),
            "data": self.info.name,
            "images": dict(self.info.sizes),
            "budget": self.bounds,
        }


def open_run(
    config: NeasConfig,
    model_dir: str,
    strategy: tf.distribute.Strategy,
    info: data.DatasetInfo | None = None,
) -> Run:
    """Opens the data and looks at the folder; checks everything that can be checked at once.

    Nothing is written before `Run.writing`.

    Args:
      config: from `parse.load_config`.
      model_dir: folder of the run.
      strategy: of distribution.
      info: the data where they are open already, with the same `config.data`.

    Raises:
      NeasError: for missing data, a space or budget that cannot be, settings that a later stage
        would refuse, a folder that is not writable or belongs to something else.
    """
    # The chief may be writing the folder's first files while the other workers look.
    folder = _check_folder(model_dir, foreign=not strategy.extended.should_checkpoint)
    # The sections are filled in and checked; the caller's config stays as it is.
    config = copy.deepcopy(config)
    info = info or data.load(config.data)
    space = resolve_space(config, info)
    full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
    check_settings(config, info, space, strategy.num_replicas_in_sync)
    table = CostTable(space, search_latency(config, space))
    budget = search_budget(config)
    budget.check_attainable(full, table)
    return Run(config, folder, strategy, info, space, full, table, budget)


def essential_settings(config: NeasConfig) -> dict[str, Any]:
    """All settings of a config that results depend on, as plain JSON types, the seed left out."""
    names = ("num_paths", "heterogeneous", "space", "data", "supernet", "shrink", "search")
    value = _plain(config.as_dict())
    return {name: _essential(value[name]) for name in (*names, "retrain")}


def _content(path: Path) -> bytes:
    """What a file holds; of a missing one something that no file holds."""
    try:
        return path.read_bytes()
    except OSError:
        return b"missing"


def _check_folder(model_dir: str, foreign: bool = False) -> Path:
    """The folder, absolute; it may be missing, empty, or a run's. `foreign` files are another
    worker's.
    """
    if "://" in model_dir or not model_dir.strip() or "\0" in model_dir:
        raise NeasError(f"model_dir: received {model_dir!r}, allowed is a folder of this machine.")
    folder = Path(model_dir).absolute()
    check_literal("model_dir", folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise NeasError(f"model_dir: {str(folder)!r} is a file, allowed is a folder.")
        used = folder.is_dir() and not foreign and not _is_unused(folder)
        if used and not settings_file(folder):
            raise NeasError(
                f"model_dir: {str(folder)!r} holds files of something else (no params.yaml of a "
                "run); allowed is an empty or new folder, or one of an earlier run."
            )
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:
        raise _unwritable(folder, error) from None
    if not nearest.is_dir():
        raise NeasError(f"model_dir: {str(folder)!r} cannot be made, {str(nearest)!r} is a file.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NeasError(f"model_dir: {str(folder)!r} is not writable ({str(nearest)!r}).")
    return folder


def _is_unused(folder: Path) -> bool:
    """Whether a folder holds nothing but what a run that was killed at its start leaves."""
    return all(path.name == LOCK_FILE or is_leftover(path) for path in folder.iterdir())


def settings_file(folder: Path) -> Path | None:
    """The params.yaml of a run's folder, or None; Model Garden's own runs have one as well."""
    path = folder / "params.yaml"
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"), "params.yaml")
    except (NeasError, OSError, ValueError):  # a ValueError is of no UTF-8, or a \0 in the path
        return None
    return path if {"num_paths", "space", "supernet"} <= set(settings) else None


def _unwritable(folder: Path, error: OSError) -> NeasError:
    return NeasError(f"model_dir: {str(folder)!r} cannot be written ({error.strerror or error}).")


def _plain(value: Any) -> Any:
    """Only what JSON and safe YAML know."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _recorded(found: Any, value: Any) -> Any:
    """What of a value an earlier record holds too: settings that are newer cannot be compared."""
    if isinstance(found, Mapping) and isinstance(value, Mapping):
        return {k: _recorded(found[k], v) for k, v in value.items() if k in found}
    return value


def _essential(value: Any) -> Any:
    """A section without the settings that change no result."""
    if isinstance(value, dict):
        return {k: _essential(v) for k, v in value.items() if k not in _HARMLESS}
    return value
