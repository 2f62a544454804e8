"""Reads YAML of others: safe tags only, every key once, and bounds on size, nesting and aliases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from neas_tf.errors import NeasError, shown
from neas_tf.files import check_plain, read_bytes
from neas_tf.paths import resolve_user_path

MOST_BYTES = 1 << 20
_MOST_LEVELS, _MOST_NODES = 30, 20_000  # with aliases written out; ours have some hundreds
_MOST_DIGITS = 300  # as in JSON
_ENDLESS = "is nested endlessly or too large for settings"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN = (str, int, float, bool, type(None))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in Model Garden's files, and "off" and "no" texts."""

    level = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Stops at what is too deep (scanning it is quadratic) or too much before all is scanned."""
        self.nodes += 1
        if self.level > _MOST_LEVELS or self.nodes > _MOST_NODES:
            raise ValueError(_ENDLESS)
        self.level += 1
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in value if pair[0] != _BOOL]
    for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def load_yaml(text: str, what: str) -> dict[str, Any]:
    """A YAML (or JSON) mapping of plain values; {} for an empty text.

    Args:
      text: of it.
      what: begins the message.

    Raises:
      NeasError: for anything else; and before an alias bomb is unfolded.
    """
    if len(text) > MOST_BYTES:
        raise NeasError(f"{what}: is larger than {MOST_BYTES >> 20} MiB.")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}
            _check_size(node)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
        _check_values(value)
        check_plain(value, _MOST_LEVELS)
    # PyYAML's constructors let many errors through, as for `!!timestamp x` or "\UFFFFFFFF".
    except (
        yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
        RecursionError, MemoryError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason == _ENDLESS:
            raise NeasError(f"{what}: {reason}.") from None
        raise NeasError(f"{what}: no valid YAML ({reason}).") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        received = repr(value) if len(shown(value)) < 80 else f"a {type(value).__name__}"
        raise NeasError(f"{what}: received {received}, allowed is a mapping of settings.")
    return dict(value)


def load_yaml_file(path: str | os.PathLike[str], what: str = "config_file") -> dict[str, Any]:
    """The mapping in a YAML file; raises `NeasError` for a file that is missing or no such one."""
    path = resolve_user_path(path)
    content = read_bytes(path, what, MOST_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NeasError(f"{what}: {path!r} cannot be read ({error}).") from None
    return load_yaml(text, f"{what} {path!r}")


def _check_size(root: yaml.Node) -> None:
    """Refuses what holds itself (aliases can), is endless when written out, or has a key twice.

    Every node is looked at once; what an alias repeats is counted, not walked.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, level: int) -> int:
        known = sizes.get(id(node))
        if known is None:
            sizes[id(node)] = known = _MOST_NODES + 1  # that of a node inside itself
            children: list[yaml.Node] = []
            if level < _MOST_LEVELS and isinstance(node, yaml.SequenceNode):
                children = node.value
            elif level < _MOST_LEVELS and isinstance(node, yaml.MappingNode):
                _check_keys(node)
                children = [part for pair in node.value for part in pair]
            elif level < _MOST_LEVELS and node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
                raise ValueError(f"a number of more than {_MOST_DIGITS} digits")  # slow to read
            if level < _MOST_LEVELS:
                known = 1 + sum(size(child, level + 1) for child in children)
            sizes[id(node)] = known
        return known

    if size(root, 0) > _MOST_NODES:
        raise ValueError(_ENDLESS)


def _check_keys(node: yaml.MappingNode) -> None:
    keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if len(set(keys)) < len(keys):
        twice = next(value for tag, value in keys if keys.count((tag, value)) > 1)
        raise ValueError(f"the key {twice!r} twice")


def _check_values(root: Any) -> None:
    """Refuses sets, bytes, pairs (YAML has them) and whole numbers that no setting needs."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and value.bit_length() > _MOST_DIGITS * 3:
            raise ValueError(f"a whole number of more than {_MOST_DIGITS} digits")
        elif not isinstance(value, _PLAIN):
            raise ValueError(f"a {type(value).__name__}, where texts and numbers belong")
