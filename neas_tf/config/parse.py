"""Reads experiments, config files and overrides, and refuses what it does not know."""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from official.modeling import hyperparams

from neas_tf.common.errors import NeasError, shown, unknown_name
from neas_tf.common.files import check_plain
from neas_tf.common.moved import with_former, without_removed
from neas_tf.common.yaml_text import (
    MOST_BYTES,
    check_no_comment,
    load_scalar,
    load_yaml,
    load_yaml_file,
)
from neas_tf.cost.quantities import with_quantities
from neas_tf.space.search_space import stage_fields

_MOST_ASSIGNMENTS = 1000
_MOST_LEVELS = 30
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_][\w.]*\s*=")
_FILE = re.compile(r"(?!.*:\s).*\.(?:yaml|yml|json)")  # one line that is no mapping
_OPENING = ("[", "{", ",", ":")  # after these a value begins, inside brackets


def load_file(path: str) -> dict[str, Any]:
    """The settings in a YAML file; those of a run (`params.yaml`) mean what they meant then."""
    settings = _nested(load_yaml_file(path, "config_file"), "config_file")
    return with_former(settings) if os.path.basename(path) == "params.yaml" else settings


def parse_override(text: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """`params_override`, nested: a mapping, a YAML file, a YAML/JSON text, or `a.b=1,c.d=[2,3]`.

    A value without quotes or brackets ends at the next comma and means all of itself, be there
    hashes, apostrophes or colons in it.

    Raises:
      NeasError: for anything else, a setting that is given twice, or a comment.
    """
    what = "params_override"
    if isinstance(text, Mapping):
        return _nested(text, what)
    if text is not None and not isinstance(text, str):
        raise NeasError(f"{what}: received {shown(text)}, expected a string or a mapping.")
    if not text or not text.strip():
        return {}
    if len(text) > MOST_BYTES:
        raise NeasError(f"{what}: is larger than {MOST_BYTES >> 20} MiB.")
    if _FILE.fullmatch(text) and not _ASSIGNMENT.match(text):
        return load_file(text)
    if not _ASSIGNMENT.match(text):
        loaded = load_yaml(text, what)
        if "\n" not in text.strip():  # several lines are a file's content, with its comments
            check_no_comment(text, what)
        return _nested(loaded, what)
    parts = list(_split_commas(text))
    if len(parts) > _MOST_ASSIGNMENTS:  # each is YAML of its own, which takes its time
        raise NeasError(
            f"{what}: received {len(parts):,} settings, expected {_MOST_ASSIGNMENTS:,}; "
            "a file takes more."
        )
    result: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise NeasError(
                f"{what}: received {part!r}, expected section.key=value; a value with commas "
                "stands in quotes."
            )
        _put(result, key.strip(), _value(value.strip(), f"{what} {key.strip()!r}"), what)
    return result


def _value(text: str, what: str) -> Any:
    """The value of one assignment."""
    quoted = text[:1] in ("'", '"')
    if not quoted and text[:1] not in ("[", "{"):
        return load_scalar(text, what)
    if quoted and "\n" in text:  # YAML would fold it into a blank
        raise NeasError(f"{what}: received {text!r}, expected is one line.")
    loaded = load_yaml(f"value: {text}", what)
    check_no_comment(text, what)
    if set(loaded) != {"value"}:
        raise NeasError(f"{what}: received {text!r}, expected one value.")
    return loaded["value"]


def _nested(settings: Mapping[Any, Any], what: str) -> dict[Any, Any]:
    """The same settings in mappings of their own, where keys were `a.b`."""
    try:
        check_plain(settings, _MOST_LEVELS)
    except ValueError as error:
        raise NeasError(f"{what}: {error}.") from None
    result: dict[Any, Any] = {}
    for key, value in settings.items():
        _put(result, key, value, what)
    return result


# Mappings whose keys are names that somebody chose, which may have dots.
_BY_NAME = ("data.class_weights", "study.shrinks", "study.recipes")


def _put(node: dict[Any, Any], key: Any, value: Any, what: str, path: str = "") -> None:
    """Puts a value into nested mappings; raises where it would replace another one."""
    if isinstance(key, str) and key.count(".") > _MOST_LEVELS:
        raise NeasError(f"{what}: received {shown(key)}, expected the name of a setting.")
    name, dot, rest = key.partition(".") if isinstance(key, str) else (key, "", "")
    inner = {rest: value} if dot else value
    path = f"{path}.{name}" if path else str(name)
    if not isinstance(inner, Mapping) or path in _BY_NAME:
        if name in node:
            raise NeasError(f"{what}: received {path!r} twice, expected each setting once.")
        node[name] = inner
        return
    below = node.setdefault(name, {})
    if not isinstance(below, dict):
        raise NeasError(
            f"{what}: received {path!r} as a value and again as a mapping, which sets a "
            "part of a value."
        )
    for key_below, value_below in inner.items():
        _put(below, key_below, value_below, what, path)


def _split_commas(text: str) -> Iterator[str]:
    """The assignments of a string, which commas separate; those in quotes and brackets do not."""
    start = 0
    while start < len(text):
        equals = text.find("=", start)
        comma = text.find(",", start)
        if equals < 0 or 0 <= comma < equals:  # no assignment, or what a comma leaves
            end = comma if comma >= 0 else len(text)
        else:
            end = _end_of_value(text, equals + 1)
        if text[start:end].strip():
            yield text[start:end]
        start = end + 1


def _end_of_value(text: str, start: int) -> int:
    """Where the comma after a value is, or the text ends."""
    depth, quote, before, i = 0, "", "", start
    while i < len(text):
        char = text[i]
        begins = before in _OPENING if depth else not before  # no quote opens in o'brien
        if quote:
            if (quote == char == "'" and text[i + 1 : i + 2] == "'") or (
                quote == '"' and char == "\\"
            ):
                i += 1  # the next character is a part of the text
            elif char == quote:
                quote = ""
        elif begins and char in "'\"":
            quote = char
        elif char in "[{" and (begins or depth):
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        elif char == "," and not depth:
            break
        before = before if char.isspace() else char
        i += 1
    return i


# Values whose content other code checks: `with_stage_shapes` and `SearchSpace`.
_FREE = ("space.stages", "space.input_size")


def check_known(override: Mapping[str, Any], known: Any, prefix: str = "") -> None:
    """Raises for a key that a config lacks, with the nearest one it has, or a value of a wrong kind.

    Args:
      override: settings, nested as the config is.
      known: a Model Garden config.
      prefix: path of the config within the whole, with a dot at its end.
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
                raise NeasError(f"{path}: received {value!r}, expected 'auto' or a number.")
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
        raise NeasError(f"{path}: received {value!r}, expected {' or '.join(words)}.")


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


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def _describe(kind: Any) -> str:
    """A type in words."""
    if typing.get_origin(kind) in (list, tuple, Sequence):
        return f"a list, each {_describe(typing.get_args(kind)[0])}"
    if _is_config(kind):
        return "a mapping of settings"
    return "null" if kind is type(None) else _WORDS.get(kind, str(kind))


def with_stage_shapes(override: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings with `space.stages` as mappings, where they were [24, 4, 2]."""
    space = override.get("space")
    if not isinstance(space, Mapping) or not isinstance(space.get("stages"), (list, tuple)):
        return dict(override)
    stages = [stage_fields(i, stage) for i, stage in enumerate(space["stages"])]
    return {**override, "space": {**space, "stages": stages}}


def load_config(
    experiment: str,
    config_files: Sequence[str] = (),
    params_override: str | Mapping[str, Any] = "",
) -> Any:
    """The configuration of a run: the experiment, then files, then overrides.

    `experiment` is a registered name or the path of a recipe of one's own, a YAML file.
    `params_override` is what `parse_override` reads, also a mapping such as `{"data.name": "x"}`.

    Raises:
      NeasError: for an unknown experiment or key (with the nearest known one) or a value of the
        wrong kind.
    """
    from neas_tf.config import experiments

    config = experiments.find(experiment)
    for override in read_overrides(config_files, params_override):
        put_settings(config, override)
    return config


def put_settings(config: Any, settings: Mapping[str, Any]) -> None:
    """Puts nested settings into a run's config.

    Raises:
      NeasError: for an unknown key (with the nearest known one) or a value of the wrong kind.
    """
    settings = with_quantities(without_removed(settings))
    check_known(settings, config)
    apply_override(config, with_stage_shapes(settings))


def read_overrides(
    config_files: Iterable[str], params_override: str | Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The settings over an experiment, in the order in which they count."""
    files = [config_files] if isinstance(config_files, (str, os.PathLike)) else config_files
    return [*(load_file(path) for path in files), parse_override(params_override)]


def apply_override(config: Any, override: Mapping[str, Any]) -> None:
    """Puts settings into a Model Garden config; raises `NeasError` where it refuses them."""
    try:
        config.override(override, is_strict=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NeasError(f"config: {' '.join(str(error).split())}") from None
