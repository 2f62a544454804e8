"""Reads experiments, config files and overrides, and refuses what it does not know."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from official.modeling import hyperparams

from neas_tf.errors import NeasError, check_keys, unknown_name
from neas_tf.yaml_text import MOST_BYTES, load_yaml, load_yaml_file

_MOST_ASSIGNMENTS = 1000
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")


def load_file(path: str) -> dict[str, Any]:
    """The mapping in a YAML file."""
    return load_yaml_file(path, "config_file")


def parse_override(text: str) -> dict[str, Any]:
    """`params_override`: a YAML file, a YAML/JSON mapping, or `a.b=1,c.d=[2,3]`."""
    if not text or not text.strip():
        return {}
    if len(text) > MOST_BYTES:
        raise NeasError(f"params_override: is larger than {MOST_BYTES >> 20} MiB.")
    if text.endswith((".yaml", ".yml", ".json")) and "=" not in text:
        return load_file(text)
    if not _ASSIGNMENT.match(text):
        return load_yaml(text, "params_override")
    result: dict[str, Any] = {}
    parts = _split_commas(text)
    if len(parts) > _MOST_ASSIGNMENTS:  # each is YAML of its own, which takes its time
        raise NeasError(
            f"params_override: received {len(parts):,} settings, allowed are {_MOST_ASSIGNMENTS:,}; "
            "a file takes more."
        )
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise NeasError(f"params_override: received {part!r}, allowed is section.key=value.")
        node, names = result, key.strip().split(".")
        for name in names[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise NeasError(f"params_override: {key.strip()!r} sets a part of a value.")
        loaded = load_yaml(f"value: {value.strip()}", f"params_override {key.strip()!r}")
        if set(loaded) != {"value"}:
            raise NeasError(f"params_override: received {part!r}, allowed is section.key=value.")
        node[names[-1]] = loaded["value"]
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


# Values whose content other code checks: `with_stage_shapes` and `SearchSpace`.
_FREE = ("space.stages", "space.input_size")


def check_known(override: Mapping[str, Any], known: Any, prefix: str = "") -> None:
    """Raises for a key that a config lacks, with the nearest one it has, or a value of a wrong kind.

    Args:
      override: settings, nested as the config is.
      known: a Model Garden config.
      prefix: path of the config within the whole, with a dot behind.
    """
    kinds = known._get_annotations()
    for key, value in override.items():
        path = f"{prefix}{key}"
        if key not in kinds:
            unknown_name(path, key, kinds)
        if path in _FREE:
            continue
        if key == "type" and isinstance(known, hyperparams.OneOfConfig):
            choices = [name for name in kinds if name != "type"]
            if value is not None and value not in choices:
                unknown_name(path, value, choices)
        elif path == "shrink.beta":
            if value != "auto" and not _fits(value, float):
                raise NeasError(f"{path}: received {value!r}, allowed is 'auto' or a number.")
        else:
            _check_value(path, value, kinds[key], getattr(known, key))


def _check_value(path: str, value: Any, kind: Any, current: Any) -> None:
    """Raises unless a value fits the annotation of its field."""
    choices = typing.get_args(kind) if _is_union(kind) else (kind,)
    section = next((c for c in choices if _is_config(c)), None)
    if section is not None and isinstance(value, Mapping):
        check_known(value, current if current is not None else section(), f"{path}.")
    elif not any(_fits(value, choice) for choice in choices):
        words = sorted(map(_describe, choices), key=lambda word: "," in word)  # lists last
        raise NeasError(f"{path}: received {value!r}, allowed is {' or '.join(words)}.")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, hyperparams.Config)


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if typing.get_origin(kind) in (list, tuple, Sequence):
        element = typing.get_args(kind)[0]
        return isinstance(value, (list, tuple)) and all(_fits(v, element) for v in value)
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) < 1e300  # and no NaN
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return isinstance(kind, type) and not _is_config(kind) and isinstance(value, kind)


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def _describe(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) in (list, tuple, Sequence):
        return f"a list, each {_describe(typing.get_args(kind)[0])}"
    if _is_config(kind):
        return "a mapping of settings"
    return "null" if kind is type(None) else _WORDS.get(kind, str(kind))


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
                    "{channels, layers, stride, operators} or [channels, layers, stride]."
                )
            check_keys(f"space.stages[{i}]", stage, (*names, "operators"))
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
    for override in read_overrides(config_files, params_override):
        check_known(override, config)
        apply_override(config, with_stage_shapes(override))
    return config


def read_overrides(config_files: Iterable[str], params_override: str) -> list[dict[str, Any]]:
    """The settings over an experiment, in the order in which they count."""
    return [*(load_file(path) for path in config_files), parse_override(params_override)]


def apply_override(config: Any, override: Mapping[str, Any]) -> None:
    """Puts settings into a Model Garden config; raises `NeasError` where it refuses them."""
    try:
        config.override(override, is_strict=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NeasError(f"config: {' '.join(str(error).split())}") from None
