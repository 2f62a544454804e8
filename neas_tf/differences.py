"""Two JSON values side by side: what differs, in words for an error message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def difference(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, one short text each: 'a.b: was 1, is 2'."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        result = []
        for key in [*old, *(k for k in new if k not in old)]:
            path = f"{name}.{key}" if name else str(key)
            result += difference(old.get(key), new.get(key), path)
        return result
    if old == new:
        return []
    if isinstance(old, list) and isinstance(new, list) and max(len(old), len(new)) > 4:
        gone, come = [v for v in old if v not in new], [v for v in new if v not in old]
        return [
            f"{name}: had {len(old)} entries, has {len(new)}, lost {_few(gone)}, "
            f"gained {_few(come)}"
        ]
    return [f"{name}: was {json.dumps(old)}, is {json.dumps(new)}"]


def listed(changes: list[str], most: int = 6) -> str:
    """The first of some differences as one text."""
    more = f"; and {len(changes) - most} more" if len(changes) > most else ""
    return f"{'; '.join(changes[:most])}{more}"


def _few(values: list[Any], count: int = 3) -> str:
    texts = [json.dumps(value) for value in values[:count]]
    return ", ".join(texts + ["…"] * (len(values) > count)) or "nothing"
