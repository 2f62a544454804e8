"""Whose a folder is: what the results of its stages depend on, and whether that is still so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neas_tf import data
from neas_tf.common.errors import NeasError
from neas_tf.common.files import check_same, read_json, write_json_atomic
from neas_tf.config.distillation import PATHS, DistillationConfig, SupernetDistillationConfig
from neas_tf.config.settings import NeasConfig
from neas_tf.cost.constraint_functions import parse
from neas_tf.cost.cost_table import CostTable
from neas_tf.training.initial_weights import AUTO, SCRATCH, is_path

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
_STORED = "stored weights"
_HARMLESS |= {"on_divergence", "rollback_rate_factor", "max_rollbacks", "max_loss"}
# What settings were before they existed: a record that lacks them means these.
_BEFORE: dict[str, dict[str, Any]] = {
    "supernet": {
        "init": "",
        "zero_init_residual": False,
        "draws_per_step": 1,
        "sandwich": False,
        "distillation": SupernetDistillationConfig().as_dict(),
    },
    "retrain": {
        "init": SCRATCH,
        "freeze_epochs": 0.0,
        "trunk_rate_factor": 1.0,
        "calibrate": False,
        "distillation": DistillationConfig().as_dict(),
    },
}


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the results of one stage depend on, and `<stage>/identity.json`, which records it.

    Attributes:
      stage: supernet or retrain.
      config: resolved settings.
      model_dir: folder of the run.
      info: the data.
    """

    stage: str
    config: NeasConfig
    model_dir: Path
    info: data.DatasetInfo

    @property
    def path(self) -> Path:
        """The record."""
        return self.model_dir / self.stage / "identity.json"

    def check(self, extra: Mapping[str, Any] | None = None) -> None:
        """Refuses a folder whose stage holds the results of other settings; writes nothing.

        Args:
          extra: what the results depend on besides the config's sections, as far as it is known.

        Raises:
          NeasError: names what differs.
        """
        if not self.path.exists():
            self._refuse_leftovers()
            self._check_data()
            return
        found, identity = read_json(self.path, "identity"), self._content(extra or {})
        if not isinstance(found, Mapping):
            raise NeasError(f"identity: {str(self.path)!r} holds no JSON object.")
        found = _with_settings_before(found)
        found = {key: value for key, value in found.items() if key in identity}
        check_same(
            f"model_dir: {str(self.path.parent)!r}",
            "run",
            found,
            _recorded(found, identity),
            "the same run again, with its --experiment, --config_file and --params_override, or "
            "another folder",
        )
        self._check_data()

    def record(self, extra: Mapping[str, Any], writes: bool) -> None:
        """Writes what the results depend on, or refuses a folder with something else.

        Args:
          extra: as in `check`.
          writes: whether this process writes the run's files.
        """
        self.check(extra)
        if writes and not self.path.exists():
            write_json_atomic(self.path, self._content(extra))

    def _check_data(self) -> None:
        """Refuses data that are not those of the stages before; the settings are compared first."""
        path = self.model_dir / "data.json"
        begun = any((self.model_dir / s / "identity.json").exists() for s in _STAGE_SECTIONS)
        if begun and (changed := data.changed_since(path, self.info.describe())):
            raise NeasError(
                f"data: {self.info.name!r} is not what {str(self.model_dir)!r} was begun with "
                f"({changed}); expected are the same images and classes, or another model_dir."
            )

    def _content(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        sections = _STAGE_SECTIONS[self.stage]
        content = {name: essential(section(self.config, name)) for name in sections}
        if "retrain" in content:
            content["retrain"]["init"] = _kind_of(self.config.retrain.init)
            lessons = content["retrain"]["distillation"]
            if lessons["teacher"] not in ("", PATHS):
                lessons["teacher"] = _STORED
        if "supernet" in content and self.config.supernet.init:
            content["supernet"]["init"] = _STORED
        return {"format": "neas-identity/1", **content, "images": self.info.sizes, **extra}

    def _refuse_leftovers(self) -> None:
        """Results without the record of what made them must not be taken for this run's."""
        for pattern in _RESULTS[self.stage]:
            found = sorted(self.model_dir.glob(pattern))
            if found:
                raise NeasError(
                    f"model_dir: {str(found[0])!r} is there without {self.stage}/identity.json that "
                    "says what made it; move it away or choose another folder."
                )


def bounds_of(config: NeasConfig, table: CostTable) -> dict[str, Any]:
    """The search's budget, with the table that it reads latencies from, as JSON."""
    names = ("max_macs", "min_macs", "max_params", "max_latency_ms")
    bounds = {name: getattr(config.search, name) for name in names}
    if config.search.constraints:  # else as it was before there were any
        bounds["constraints"] = [bound.identity() for bound in parse(config.search.constraints)]
    return (
        bounds if table.latency is None else {**bounds, "latency_table": table.latency.identity()}
    )


def essential_settings(config: NeasConfig) -> dict[str, Any]:
    """All settings of a config that results depend on, as plain JSON types, the seed left out."""
    names = ("num_paths", "heterogeneous", "space", "data", "supernet", "shrink", "search")
    value = plain(config.as_dict())
    return {name: essential(value[name]) for name in (*names, "retrain")}


def section(config: NeasConfig, name: str) -> Any:
    """One section of the settings, as plain JSON types."""
    value = getattr(config, name)
    return plain(value.as_dict() if hasattr(value, "as_dict") else value)


def plain(value: Any) -> Any:
    """Only what JSON and safe YAML know."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def essential(value: Any) -> Any:
    """A section without the settings that change no result."""
    if isinstance(value, dict):
        return {k: essential(v) for k, v in value.items() if k not in _HARMLESS}
    return value


def _kind_of(init: str) -> str:
    """What a record says of `retrain.init`: a path may change, what lies there is in a digest."""
    if is_path(init):
        return _STORED
    return SCRATCH if init == AUTO else init


def _with_settings_before(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what its settings were before they existed."""
    return {
        name: {**_BEFORE[name], **value} if name in _BEFORE and isinstance(value, dict) else value
        for name, value in found.items()
    }


def _recorded(found: Any, value: Any) -> Any:
    """What of a value an earlier record holds too: settings that are newer cannot be compared."""
    if isinstance(found, Mapping) and isinstance(value, Mapping):
        return {k: _recorded(found[k], v) for k, v in value.items() if k in found}
    return value
