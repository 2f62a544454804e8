"""Units of work: one trained network, one supernet, one search. Frozen, with a canonical key.

A unit says what it depends on (`needs`). What it depends on may only be known when another unit is
done, such as the ensemble that a search finds; `resolve` puts it in. The key of a resolved unit
is a digest of everything that its result depends on besides the base settings, so that two studies
that ask for the same training share it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

Result = Mapping[str, Any]
# The result of a unit that is done, None of one that is not.
Lookup = Callable[["Unit"], Result | None]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings over the base as canonical JSON: equal settings, equal text."""
    return json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One piece of work.

    Attributes:
      seed: of the run; data, draws and first weights follow from it.
      settings: over the base settings, as `settings_text` writes them.
    """

    kind: ClassVar[str] = ""
    seed: int = 0
    settings: str = "{}"

    def _own(self) -> dict[str, Any]:
        """What a kind of units has besides; what is not set is left out."""
        names = [field.name for field in dataclasses.fields(self)[2:]]
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def needs(self) -> tuple[Unit, ...]:
        """Units whose results or files this one uses."""
        return tuple(value for value in self._own().values() if isinstance(value, Unit))

    def resolve(self, lookup: Lookup) -> Self | None:
        """This unit with everything known in it; None while a unit that it needs is not done."""
        known: dict[str, Any] = {}
        for name, need in self._own().items():
            if isinstance(need, Unit):
                resolved = need.resolve(lookup)
                if resolved is None or lookup(resolved) is None:
                    return None
                if resolved is not need:
                    known[name] = resolved
        return dataclasses.replace(self, **known) if known else self

    def to_dict(self) -> dict[str, Any]:
        """Everything that the result depends on besides the base, as JSON; only when resolved."""
        own = {
            name: value.to_dict() if isinstance(value, Unit) else value
            for name, value in self._own().items()
        }
        return {"kind": self.kind, "seed": self.seed, "settings": json.loads(self.settings), **own}

    @functools.cached_property
    def key(self) -> str:
        """Name of the unit's file: the kind and a digest of `to_dict`."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def title(self) -> str:
        """For people: what is done, with which seed."""
        own = "" if self.settings == "{}" else f" {_words(json.loads(self.settings))}"
        return f"{self.kind}{own}, seed {self.seed}"


def _words(settings: Mapping[str, Any], prefix: str = "") -> str:
    """Settings in one line: shrink.metric=none."""
    parts = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            parts.append(_words(value, f"{prefix}{key}."))
        elif not isinstance(value, list):
            parts.append(f"{prefix}{key}={value}")
    return " ".join(part for part in parts if part)


def found(unit: Unit, lookup: Lookup) -> Result | None:
    """The result of a unit that need not be resolved yet; None when it is not done."""
    resolved = unit.resolve(lookup)
    return None if resolved is None else lookup(resolved)


def in_order(units: Sequence[Unit]) -> list[Unit]:
    """The units and all that they need, each once, what is needed first."""
    result: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        if unit not in result:
            for need in unit.needs:
                add(need)
            result[unit] = None

    for unit in units:
        add(unit)
    return list(result)
