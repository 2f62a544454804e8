"""What all stages of one run share, and the identity that its folder records."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml
from absl import logging

from neas_tf import data
from neas_tf.budget import Budget
from neas_tf.config import NeasConfig
from neas_tf.cost import CostTable
from neas_tf.errors import NeasError
from neas_tf.files import read_json, write_json_atomic, write_text_atomic
from neas_tf.resolving import resolve_space
from neas_tf.search_state import difference
from neas_tf.shrunk_space import ShrunkSpace
from neas_tf.space import SearchSpace

_STAGE_SECTIONS = {
    "supernet": ("seed", "num_paths", "heterogeneous", "space", "data", "supernet", "shrink"),
    "retrain": ("seed", "space", "data", "retrain"),
}
# Settings that change how a run goes, but not what comes out.
_HARMLESS = {"data_dir", "download", "max_to_keep", "checkpoint_interval", "steps_per_loop"}
_HARMLESS |= {"summary_interval", "evaluation_batch", "cache"}


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
        if not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return

        def meet():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.ones([]))

        for value in self.strategy.experimental_local_results(self.strategy.run(meet)):
            value.numpy()

    def keeps_budget(self, shrunk: ShrunkSpace) -> bool:
        """Whether an ensemble of the space fits the budget (method section 8.8)."""
        try:
            self.budget.check_attainable(shrunk, self.table)
        except NeasError:
            return False
        return True

    def record_identity(self, stage: str, extra: dict[str, Any] | None = None) -> None:
        """Writes what a stage's results depend on, or refuses a folder with something else."""
        content = {name: _essential(self._section(name)) for name in _STAGE_SECTIONS[stage]}
        identity = {"format": "neas-identity/1", **content, **(extra or {})}
        path = self.folder(stage, "identity.json")
        if path.exists():
            changes = difference(read_json(path, "identity"), identity)
            if changes:
                raise NeasError(
                    f"model_dir: {str(self.folder(stage))!r} holds another run "
                    f"({'; '.join(changes[:6])}); allowed is the same run again or another folder."
                )
        elif self.is_chief:
            write_json_atomic(path, identity)

    def _section(self, name: str) -> Any:
        value = getattr(self.config, name)
        return _plain(value.as_dict() if hasattr(value, "as_dict") else value)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the wall time of a block to timing.json, over all sittings."""
        begin = time.monotonic()
        try:
            yield
        finally:
            if self.is_chief:
                path = self.folder("timing.json")
                times = read_json(path, "timing") if path.exists() else {}
                times[stage] = round(times.get(stage, 0.0) + time.monotonic() - begin, 1)
                write_json_atomic(path, times)


def open_run(config: NeasConfig, model_dir: str, strategy: tf.distribute.Strategy) -> Run:
    """Opens the data and the folder, and checks everything that can be checked at once.

    Raises:
      NeasError: for missing data, a space or budget that cannot be, a folder that is not writable
        or belongs to something else. Nothing is written then.
    """
    folder = Path(model_dir)
    # The chief may be writing the folder's first files while the other workers look.
    _check_folder(folder, foreign=not strategy.extended.should_checkpoint)
    info = data.load(config.data)
    space = resolve_space(config, info)
    full = ShrunkSpace.full(space, config.num_paths, config.heterogeneous)
    table = CostTable(space)
    budget = Budget(config.search.max_macs, config.search.min_macs, config.search.max_params)
    budget.check_attainable(full, table)
    run = Run(config, folder, strategy, info, space, full, table, budget)
    logging.info("Data %s: %s", info.name, info.sizes)
    if run.is_chief:
        text = yaml.safe_dump(_plain(config.as_dict()), sort_keys=False)
        write_text_atomic(folder / "params.yaml", text)
        write_json_atomic(folder / "data.json", info.describe())
    return run


def _check_folder(folder: Path, foreign: bool = False) -> None:
    """Refuses a folder that cannot be the run's; `foreign` files are another worker's."""
    if folder.exists() and not folder.is_dir():
        raise NeasError(f"model_dir: {str(folder)!r} is a file, allowed is a folder.")
    used = folder.is_dir() and any(folder.iterdir())
    if used and not foreign and not (folder / "params.yaml").exists():
        raise NeasError(
            f"model_dir: {str(folder)!r} holds files of something else (no params.yaml); allowed "
            "is an empty or new folder, or one of an earlier run."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeasError(f"model_dir: {str(folder)!r} cannot be made ({error.strerror}).") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NeasError(f"model_dir: {str(folder)!r} is not writable.")


def _plain(value: Any) -> Any:
    """Only what JSON and safe YAML know."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _essential(value: Any) -> Any:
    """A section without the settings that change no result."""
    if isinstance(value, dict):
        return {k: _essential(v) for k, v in value.items() if k not in _HARMLESS}
    return value
