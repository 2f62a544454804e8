"""What a line of `search.constraints` says: a function of ensembles, and a bound on it.

A line is `function<=bound` or `function>=bound`; the function is one of `SHIPPED` or
`module:function`, and is called as `function(architecture, space)`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from neas_tf.common.errors import NeasError, check, fail, is_number, shown
from neas_tf.cost.budget import CONSTRAINTS
from neas_tf.cost.quantities import AMOUNT, quantity
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

FIELD = CONSTRAINTS
Function = Callable[[Architecture, SearchSpace], float]
Marked = TypeVar("Marked", bound=Function)

_COSTS = "neas_tf.ensemble.deployed_costs"
SHIPPED = {
    name: f"{_COSTS}:{name}"
    for name in (
        *("peak_activation_bytes", "peak_activation_bytes_int8"),
        *("file_size", "file_size_float16", "file_size_dynamic", "file_size_int8"),
    )
}
_FORM = "'function<=bound' or 'function>=bound', such as 'peak_activation_bytes<=500kB'"
_WRITTEN = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=)\s*(-?)\s*([^<>=]+?)\s*")
_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
# What lines of the history hold already.
_TAKEN = ["candidate", "generation", "origin", "architecture", "key", "accuracy", "path_accuracies", "images", "disagreement", "looks", "log_likelihood", "log_likelihood_calibrated", "log_likelihood_mixture", "temperature", "fitness", "macs", "paper_flops", "params", "latency_ns", "shared_macs", "path_macs", "format", "name", "split_point", "paths"]  # fmt: skip
_registered: dict[str, Function] = {}


def additive(function: Marked) -> Marked:
    """Marks a function as a sum over layers of whole numbers: a decorator.

    Then f = fixed + Σ over layers 1..s + Σ over paths Σ over layers s+1..d, where what a layer adds
    depends on its place and its operator alone. That is checked on random ensembles.
    """
    function.additive = True  # type: ignore[attr-defined]
    return function


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A function with its bounds, for Python: `neas.search(constraints=[Constraint(f, max=9)])`.

    Attributes:
      function: called as function(architecture, space); gives a number.
      max, min: bounds, inclusive; a number or an amount such as "500kB". One is needed.
    """

    function: Function
    max: float | str | None = None
    min: float | str | None = None

    def __post_init__(self):
        check(callable(self.function), FIELD, self.function, "a function(architecture, space)")
        if self.max is None and self.min is None:
            fail(f"{FIELD}: bound of {name_of(self.function)}", None, "max=… or min=…")

    def settings(self) -> list[str]:
        """The constraint as the setting holds it; from now on the name means this function."""
        name = name_of(self.function)
        if SHIPPED.get(name.partition(":")[2]) == name:
            name = name.partition(":")[2]
        else:
            _registered[name] = self.function
        bounds = (("<=", self.max), (">=", self.min))
        return [f"{name}{sign}{bound}" for sign, bound in bounds if bound is not None]


def settings_of(constraints: Sequence[Constraint | str]) -> list[str]:
    """What `search.constraints` holds for constraints that are given in Python.

    Raises:
      NeasError: for something else than constraints and strings.
    """
    if isinstance(constraints, str | Constraint):
        constraints = [constraints]
    result: list[str] = []
    named: dict[str, Function] = {}
    for item in constraints:
        if isinstance(item, Constraint):
            name = name_of(item.function)
            if named.setdefault(name, item.function) is not item.function:
                fail(FIELD, name, "functions with names of their own, here are two of this name")
            result += item.settings()
        elif isinstance(item, str):
            result.append(item)
        else:
            expected = f"Constraint(function, max=…) or {_FORM}"
            fail(FIELD, item, expected)
    return result


def name_of(function: Function) -> str:
    """`module:name` of a function, in letters that the setting can hold."""
    name = getattr(function, "__qualname__", type(function).__name__)
    name = re.sub(r"[^\w.]+", "_", name.replace("<locals>.", "").replace("<lambda>", "function"))
    return f"{getattr(function, '__module__', None) or 'own'}:{name}"


@dataclasses.dataclass(frozen=True)
class Bound:
    """One line of the setting, understood.

    Attributes:
      function: what is called.
      name: column of the history: the function's name without its module.
      sign: 1 for an upper bound, -1 for a lower one.
      value: the bound, inclusive.
      text: the line.
    """

    function: Function = dataclasses.field(hash=False)
    name: str
    sign: int
    value: float
    text: str

    @property
    def additive(self) -> bool:
        """Whether the function says that it is a sum over layers."""
        return bool(getattr(self.function, "additive", False))

    def admits(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return self.sign * value <= self.sign * self.value

    def identity(self) -> dict[str, Any]:
        """What tells it from others: the line, and a digest of the function's source."""
        return {"constraint": self.text, "source": source_digest(self.function)}


def parse(lines: Sequence[str]) -> tuple[Bound, ...]:
    """Reads `search.constraints`, and imports what it names.

    Raises:
      NeasError: for another form, a function that cannot be had, a bound that is none, two bounds
        of one kind or two functions of one name.
    """
    result: list[Bound] = []
    for line in lines:
        match = _WRITTEN.fullmatch(line) if isinstance(line, str) else None
        if match is None:
            fail(FIELD, line, _FORM)
        name, sign, minus, amount = match.groups()
        value = quantity(amount, f"{FIELD}: bound of {name}", AMOUNT) * (-1 if minus else 1)
        bound = Bound(_find(name), name.rpartition(":")[2], 1 if sign == "<=" else -1, value, "")
        text = f"{name}{sign}{value:g}" if abs(value) < 1e6 else f"{name}{sign}{value:.0f}"
        bound = dataclasses.replace(bound, text=text)
        if bound.name in _TAKEN:
            fail(FIELD, name, f"a function of another name, as {bound.name!r} is a cost already")
        for other in result:
            if other.name == bound.name and other.function is not bound.function:
                fail(FIELD, name, f"a function of another name than {other.text!r} has")
            if other.name == bound.name and other.sign == bound.sign:
                fail(FIELD, line, f"one bound of this kind, beside {other.text!r}")
            if other.name == bound.name and bound.sign * (bound.value - other.value) < 0:
                fail(FIELD, line, f"bounds that go together with {other.text!r}")
        result.append(bound)
    return tuple(result)


def _find(name: str) -> Function:
    """The function of a name."""
    if name in _registered:
        return _registered[name]
    full = SHIPPED.get(name, name)
    match = _NAME.fullmatch(full)
    if match is None:
        fail(FIELD, name, f"module:function, or one of {', '.join(SHIPPED)}")
    try:
        module = importlib.import_module(match[1])
    except (Exception, SystemExit) as error:
        raise NeasError(
            f"{FIELD}: {name!r} cannot be had, importing {match[1]} raises {_said(error)}; "
            "expected a module that Python finds (PYTHONPATH, or an installed package)."
        ) from None
    try:
        found: Any = functools.reduce(getattr, match[2].split("."), module)
    except AttributeError:
        hint = ""
        if match[1] == "__main__":
            hint = "; a function of a session of Python is known there only: call neas.search again"
        raise NeasError(f"{FIELD}: module {match[1]!r} has no {match[2]!r}{hint}.") from None
    check(callable(found), f"{FIELD}: {name}", found, "a function(architecture, space)")
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def source_digest(function: Any) -> str:
    """A hash of a function's source, or of its code where there is none."""
    parts: list[str] = []
    while isinstance(function, functools.partial):
        parts.append(repr((function.args, sorted(function.keywords.items()))))
        function = function.func
    function = inspect.unwrap(function)
    target = (
        function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    )
    try:
        parts.append(inspect.cleandoc(inspect.getsource(target)))
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        parts.append(repr((code.co_code, code.co_names)) if code else name_of(function))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def evaluate(
    function: Function, name: str, architecture: Architecture, space: SearchSpace
) -> int | float:
    """What a function says of an ensemble, as an int or a float.

    Raises:
      NeasError: when it raises, or gives something else than a finite number.
    """
    try:
        value: Any = function(architecture, space)
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
    except Exception as error:
        raise NeasError(
            f"{FIELD}: {name} raises {_said(error)} for the ensemble {architecture.key}; expected a "
            "number."
        ) from None
    if not is_number(value):
        raise NeasError(
            f"{FIELD}: {name} gives {shown(value)} for the ensemble {architecture.key}; expected a "
            "finite number."
        )
    return value
