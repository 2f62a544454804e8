"""Reads untrusted YAML: safe tags only, every key once, and a bound on what aliases unfold to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from neas_tf.common.errors import NeasError, shown
from neas_tf.common.files import check_plain, read_bytes
from neas_tf.common.paths import resolve_config_path

MOST_BYTES = 1 << 20
_MOST_LEVELS, _MOST_NODES = 30, 20_000  # with aliases written out; ours have some hundreds
_MOST_BITS = 1000  # of a whole number; Python itself bounds the digits of decimals
_ENDLESS = "is nested endlessly or too large for settings"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN = (str, int, float, bool, type(None))


class _Loader(yaml.SafeLoader):
    """Safe YAML with plain readings: 1e-3 and 010 are decimals, dates, "off" and "no" strings."""

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


_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_IMPLICIT = (
    (_BOOL, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_NUMBERS[0], rf"[-+]?(?:{_DIGITS}|0x[0-9a-fA-F]+|0b[01]+)", "-+0123456789"),
    (
        _NUMBERS[1],
        rf"[-+]?(?:{_DIGITS}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?{_DIGITS}[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)
# Of YAML's own readings only null and merges remain: its 010 is 8, 1:30 is 90, and dates are dates.
_KEPT = (_NULL, "tag:yaml.org,2002:merge")
_Loader.yaml_implicit_resolvers = {
    key: [pair for pair in value if pair[0] in _KEPT]
    for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in _IMPLICIT:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    """010 is ten, as people write it; 0x10 and 0b10 say that they are no decimals."""
    text = loader.construct_scalar(node)
    return int(text, 0 if re.match("[-+]?0[xb]", text) else 10)


_Loader.add_constructor(_NUMBERS[0], _whole_number)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this module's reader, or another one, would take for something else."""


for _tag, _pattern, _first in _IMPLICIT:
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def dump_yaml(value: Any) -> str:
    """YAML of plain values, which `load_yaml` reads as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def load_scalar(text: str, what: str) -> Any:
    """What a string without quotes or brackets means: a number, true, false, null, or itself.

    Args:
      text: all of it counts; nothing in it is a comment, a key or an alias.
      what: begins the message.

    Raises:
      NeasError: for line breaks, characters that YAML does not take, or endless numbers.
    """
    try:
        if len(text.splitlines()) > 1:
            raise ValueError("a line break; expected is one line")
        loader = _Loader(text)
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        plain = tag not in (*_NUMBERS, _BOOL, _NULL)
        value = text if plain else loader.construct_object(yaml.ScalarNode(tag, text))
        _check_values(value)
        check_plain(value, 1)
    except (yaml.YAMLError, ValueError) as error:
        raise NeasError(f"{what}: no valid YAML ({' '.join(str(error).split())}).") from None
    return value


def check_no_comment(text: str, what: str) -> None:
    """Raises where valid YAML holds a comment: what is after a hash would be lost in silence."""
    rest = text
    for token in yaml.scan(text, _Loader) if "#" in text else ():
        if isinstance(token, (yaml.ScalarToken, yaml.TagToken, yaml.AnchorToken, yaml.AliasToken)):
            start, end = token.start_mark.index, token.end_mark.index
            rest = rest[:start] + " " * (end - start) + rest[end:]
    if "#" in rest:
        lost = shown(text[rest.index("#") :])
        raise NeasError(f"{what}: {lost} would be a comment; expected are quotes around a hash.")


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
            _check_nodes(node)
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
        raise NeasError(f"{what}: received {received}, expected a mapping of settings.")
    return dict(value)


def load_yaml_file(path: str | os.PathLike[str], what: str = "config_file") -> dict[str, Any]:
    """The mapping in a YAML file; raises `NeasError` for a file that is missing or no such one."""
    path = resolve_config_path(path)
    content = read_bytes(path, what, MOST_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NeasError(f"{what}: {path!r} cannot be read ({error}).") from None
    return load_yaml(text, f"{what} {path!r}")


def _check_nodes(root: yaml.Node) -> None:
    """Refuses a key given twice, and what is endless when its aliases are written out.

    Every node is looked at once; what an alias repeats is counted, not walked.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_NODES + 1  # that of a node inside itself
            children = node.value if isinstance(node, yaml.SequenceNode) else []
            if isinstance(node, yaml.MappingNode):
                _check_keys(node)
                children = [part for pair in node.value for part in pair]
            sizes[id(node)] = 1 + sum(map(size, children))
        return sizes[id(node)]

    if size(root) > _MOST_NODES:
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
        elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ValueError("a whole number that no setting needs")
        elif not isinstance(value, _PLAIN):
            raise ValueError(f"a {type(value).__name__}, where strings and numbers belong")
