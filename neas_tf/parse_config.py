"""Reads experiments, config files and overrides, and refuses what it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from neas_tf.errors import NeasError, check_keys, unknown_name
from neas_tf.paths import resolve_user_path

_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in Model Garden's files."""


_Loader.yaml_implicit_resolvers = {
    key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def load_yaml(text: str, what: str) -> dict[str, Any]:
    """A YAML (or JSON) mapping; raises `NeasError` for anything else."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise NeasError(f"{what}: no valid YAML ({reason}).") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise NeasError(f"{what}: received {value!r}, allowed is a mapping of settings.")
    return dict(value)


def load_file(path: str) -> dict[str, Any]:
    """The mapping in a YAML file."""
    path = resolve_user_path(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NeasError(f"config_file: no file at {path!r}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NeasError(f"config_file: {path!r} cannot be read ({error}).") from None
    return load_yaml(text, f"config_file {path!r}")


def parse_override(text: str) -> dict[str, Any]:
    """`params_override`: a YAML file, a YAML/JSON mapping, or `a.b=1,c.d=[2,3]`."""
    if not text or not text.strip():
        return {}
    if text.endswith((".yaml", ".yml", ".json")) and "=" not in text:
        return load_file(text)
    if not _ASSIGNMENT.match(text):
        return load_yaml(text, "params_override")
    result: dict[str, Any] = {}
    for part in _split_commas(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise NeasError(f"params_override: received {part!r}, allowed is section.key=value.")
        node, names = result, key.strip().split(".")
        for name in names[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise NeasError(f"params_override: {key.strip()!r} sets a part of a value.")
        loaded = load_yaml(f"value: {value.strip()}", f"params_override {key.strip()!r}")
        node[names[-1]] = loaded.get("value")
    return result


def _split_commas(text: str) -> list[str]:
    """Splits at the commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth <= 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


# Sections whose content is free: lists and mappings that other code checks.
_FREE = ("space.stages", "space.input_size", "space.operators")


def check_known(override: Mapping[str, Any], known: Any, prefix: str = "") -> None:
    """Raises for a key that the config lacks, with the nearest one it has."""
    names = known.as_dict() if hasattr(known, "as_dict") else known
    for key, value in override.items():
        path = f"{prefix}{key}"
        if not isinstance(names, Mapping) or key not in names:
            unknown_name(path, key, names if isinstance(names, Mapping) else ())
        child = getattr(known, str(key), None)
        if path in _FREE or child is None:
            continue
        if hasattr(child, "as_dict"):
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise NeasError(f"{path}: received {value!r}, allowed is a mapping of settings.")
            check_known(value, child, f"{path}.")
        else:
            _check_type(path, value, child)


def _check_type(path: str, value: Any, current: Any) -> None:
    """A value must be of the kind of its default; `Any` fields (β, say) take text as well."""
    if path in ("shrink.beta",) or value is None or isinstance(value, Mapping):
        return
    if isinstance(current, bool):
        ok, kind = isinstance(value, bool), "true or false"
    elif isinstance(current, int):
        ok, kind = isinstance(value, int) and not isinstance(value, bool), "an integer"
    elif isinstance(current, float):
        ok, kind = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    elif isinstance(current, str):
        ok, kind = isinstance(value, str), "a text"
    elif isinstance(current, (list, tuple)):
        ok, kind = isinstance(value, (list, tuple)), "a list"
    else:
        return
    if not ok:
        raise NeasError(f"{path}: received {value!r}, allowed is {kind}.")


def with_stage_shapes(override: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with `space.stages` as mappings, where they were [24, 4, 2]."""
    result = dict(override)
    space = result.get("space")
    if isinstance(space, Mapping) and isinstance(space.get("stages"), (list, tuple)):
        names = ("channels", "layers", "stride")
        stages = []
        for i, stage in enumerate(space["stages"]):
            if isinstance(stage, (list, tuple)):
                if len(stage) != 3:
                    raise NeasError(
                        f"space.stages[{i}]: received {stage!r}, allowed is "
                        "[channels, layers, stride]."
                    )
                stage = dict(zip(names, stage, strict=True))
            if not isinstance(stage, Mapping):
                raise NeasError(
                    f"space.stages[{i}]: received {stage!r}, allowed is "
                    "{channels, layers, stride} or [channels, layers, stride]."
                )
            check_keys(f"space.stages[{i}]", stage, names)
            stages.append(dict(stage))
        result["space"] = {**space, "stages": stages}
    return result


def load_config(
    experiment: str, config_files: Sequence[str] = (), params_override: str = ""
) -> Any:
    """The configuration of a run: the registered experiment, then files, then overrides.

    Raises:
      NeasError: for an unknown experiment or key (with the nearest known one) or a value of the
        wrong kind.
    """
    from official.core import exp_factory

    from neas_tf import experiments

    if experiment not in experiments.NAMES:
        unknown_name("experiment", experiment, experiments.NAMES)
    config = exp_factory.get_exp_config(experiment)
    overrides = [load_file(path) for path in config_files]
    overrides.append(parse_override(params_override))
    for override in overrides:
        check_known(override, config)
        try:
            config.override(with_stage_shapes(override), is_strict=True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NeasError(f"config: {' '.join(str(error).split())}") from None
    return config
