"""A run as the pipeline sees it: opened once, checked before any work, its folder written."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_json_atomic, write_text_atomic
from neas_tf.common.folder_lock import LOCK_FILE, is_leftover, lock_folder, sweep
from neas_tf.common.paths import check_literal, check_local_path
from neas_tf.common.yaml_text import dump_yaml, load_yaml
from neas_tf.config.resolve import resolve_space
from neas_tf.config.settings import NeasConfig
from neas_tf.cost.budget import Budget
from neas_tf.cost.cost_table import CostTable
from neas_tf.run import cluster
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import bounds_of, essential, plain, section
from neas_tf.run.preflight import check_settings, search_costs
from neas_tf.run.record import digest_of, note_sitting
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

# Seconds until a file of one machine must be seen on all; network file systems remember a folder.
_VISIBLE = 60.0


@dataclasses.dataclass
class Run:
    """One run, for the pipeline: what its stages take, and its folder's files.

    Attributes:
      config: resolved settings.
      model_dir: folder, absolute.
      info: the data.
      space: the whole space.
      cluster: processes and devices.
      full: the space for K paths before any shrinking.
      table: costs.
      budget: the search's bounds.
    """

    config: NeasConfig
    model_dir: Path
    info: data.DatasetInfo
    space: SearchSpace
    cluster: Cluster
    full: ShrunkSpace
    table: CostTable
    budget: Budget

    @property
    def inputs(self) -> tuple[NeasConfig, Path, data.DatasetInfo, SearchSpace, Cluster]:
        """What every stage takes: settings, folder, data, space, cluster."""
        return self.config, self.model_dir, self.info, self.space, self.cluster

    def folder(self, *names: str) -> Path:
        """A path inside the model_dir."""
        return self.model_dir.joinpath(*names)

    def check_agreement(self, stages: Sequence[str]) -> None:
        """Checks that all workers do the same, in the same folder, before hours are spent on it.

        Raises:
          NeasError: on all workers.
        """
        own = ("worker_hosts", "task_index")  # of this process
        sections = {name: section(self.config, name) for name in self.config.as_dict()}
        sections["data"] = essential(sections["data"])  # a data_dir may differ
        sections["runtime"] = {k: v for k, v in sections["runtime"].items() if k not in own}
        parts = {
            f"setting in {name!r}": json.dumps(value, sort_keys=True).encode()
            for name, value in sections.items()
        }
        self.cluster.barrier()  # the chief has now written its process number there
        lock = self.folder(LOCK_FILE)
        chief = cluster.exchange(self.cluster.strategy, [cluster.checksum(_content(lock))])[0, 0]
        end = time.monotonic() + _VISIBLE
        while cluster.checksum(_content(lock)) != chief and time.monotonic() < end:
            time.sleep(0.5)
        parts["model_dir"] = _content(lock)
        parts["stage"] = " ".join(stages).encode()
        parts["images"] = json.dumps(self.info.describe(), sort_keys=True).encode()
        remedy = "the same command on all workers, with a model_dir and data that they share"
        cluster.agree(self.cluster.strategy, parts, remedy)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the folder this process's own for a block, and writes the settings into it.

        Raises:
          NeasError: when the folder cannot be written, or another process works in it.
        """
        if not self.cluster.is_chief:
            yield
            return
        try:
            self.model_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.model_dir, error) from None
        with lock_folder(self.model_dir):
            sweep(self.model_dir)
            text = dump_yaml(plain(self.config.as_dict()))
            try:
                write_text_atomic(self.folder("params.yaml"), text)
                write_json_atomic(self.folder("data.json"), self.info.describe())
                changes = note_sitting(self.model_dir, self._facts(), plain(self.config.as_dict()))
            except OSError as error:
                raise _unwritable(self.model_dir, error) from None
            if changes:
                logging.warning(
                    "%s was begun with other software (%s); results may differ from those of one "
                    "session.",
                    self.model_dir,
                    "; ".join(changes),
                )
            yield

    def _facts(self) -> dict[str, Any]:
        """What the run is, for its record."""
        return {
            "seed": self.config.seed,
            "num_paths": self.config.num_paths,
            "space": self.space.name,
            "space_digest": digest_of(self.space.to_dict()),
            "data": self.info.name,
            "images": dict(self.info.sizes),
            "budget": bounds_of(self.config, self.table),
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
    folder = check_folder(model_dir, foreign=not strategy.extended.should_checkpoint)
    # The sections are filled in and checked; the caller's config stays as it is.
    config = copy.deepcopy(config)
    info = info or data.load(config.data, counted=data.recorded_counts(folder / "data.json"))
    space = resolve_space(config, info)
    full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
    check_settings(config, info, space, strategy.num_replicas_in_sync)
    table, budget = search_costs(config, space)
    budget.check_attainable(full, table)
    return Run(config, folder, info, space, Cluster(strategy), full, table, budget)


def _content(path: Path) -> bytes:
    """What a file holds; of a missing one something that no file holds."""
    try:
        return path.read_bytes()
    except OSError:
        return b"missing"


def check_folder(model_dir: str, foreign: bool = False) -> Path:
    """The folder, absolute; it may be missing, empty, or a run's. `foreign` files are another
    worker's.
    """
    check_local_path("model_dir", model_dir)
    if not model_dir.strip() or "\0" in model_dir:
        raise NeasError(f"model_dir: received {model_dir!r}, expected a folder of this machine.")
    folder = Path(model_dir).absolute()
    check_literal("model_dir", folder)
    try:
        if folder.exists() and not folder.is_dir():
            raise NeasError(f"model_dir: {str(folder)!r} is a file, expected a folder.")
        used = folder.is_dir() and not foreign and not _is_unused(folder)
        if used and not settings_file(folder):
            raise NeasError(
                f"model_dir: {str(folder)!r} holds files of something else (no params.yaml of a "
                "run); expected an empty or new folder, or one of an earlier run."
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
    own = (LOCK_FILE, "data", "plan.json")  # what `neas.search` leaves before the run begins
    return all(path.name in own or is_leftover(path) for path in folder.iterdir())


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
