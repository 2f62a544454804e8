"""Architectures by name, file or text: one reader for every place that asks for one."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json
from neas_tf.common.paths import config_file, resolve_user_path
from neas_tf.common.yaml_text import load_yaml_file
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

_KEY_START = re.compile(r"s\d+:", re.ASCII)
_LIST_START = re.compile(r"\[?\s*-?\d+\s*,", re.ASCII)


def load_space(path: str) -> SearchSpace:
    """A space from a YAML or JSON file: its settings, or a config with them under `space`.

    Missing settings take the paper's values.

    Raises:
      NeasError: for a missing or malformed file or an unknown setting.
    """
    value = load_yaml_file(path, "space")
    check(bool(value), "space", path, "a file with a mapping of settings")
    return SearchSpace.from_dict(value.get("space", value))


def zoo_names() -> tuple[str, ...]:
    """Names of the architectures that come with the project (`configs/architectures`)."""
    return tuple(sorted(p.stem for p in config_file("architectures").glob("*.json")))


def load_architecture(
    source: str | os.PathLike[str] | Sequence[int] | Mapping | Architecture,
    space: SearchSpace | None = None,
) -> Architecture:
    """Reads an architecture in any of its forms.

    Args:
      source: a zoo name (`neas_s`; case and hyphens do not matter), the path of a JSON file, the
        authors' list as text (`20,2,0,…`) or as integers, the canonical key
        (`s1:k3e4|k3e6|k5e6`), the JSON form itself, or an `Architecture`.
      space: when given, the architecture must lie in it.

    Raises:
      NeasError: for anything else, with the nearest zoo name, or an architecture that is not in
        the space.
    """
    architecture = _read(source)
    return architecture.check_in(space) if space is not None else architecture


def _read(source: object) -> Architecture:
    if isinstance(source, Architecture):
        return source
    if isinstance(source, Mapping):
        return Architecture.from_dict(source)
    if isinstance(source, (list, tuple)):
        return Architecture.from_official(source)
    if not isinstance(source, (str, os.PathLike)):
        raise NeasError(f"architecture: received {source!r}, expected {_forms()}.")
    text = os.fspath(source).strip()
    name = text.lower().replace("-", "_")
    if name in zoo_names():
        return _file(os.fspath(config_file("architectures", f"{name}.json")), name)
    if _KEY_START.match(text):
        return Architecture.from_key(text)
    if _LIST_START.match(text):
        return Architecture.from_official(text.removeprefix("[").removesuffix("]"))
    path = resolve_user_path(text)
    if text.lower().endswith(".json") or os.path.isfile(path):
        return _file(path, Path(path).stem)
    near = difflib.get_close_matches(name, zoo_names(), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise NeasError(f"architecture: received {text!r}, expected {_forms()}.{hint}")


def _file(path: str, name: str) -> Architecture:
    try:
        architecture = Architecture.from_dict(read_json(path, "architecture"))
    except NeasError as error:
        if path in str(error):
            raise
        raise NeasError(f"{path}: {error}") from None
    return architecture if architecture.name else dataclasses.replace(architecture, name=name)


def _forms() -> str:
    return (
        f"a zoo name ({', '.join(zoo_names())}), the path of a JSON file, an official list such "
        f"as '1,2,0,0,1,0,2,0', or a canonical key such as 's1:k3e4|k3e6|k5e6'"
    )
