"""What an operator is: a name, and one short program that builds it from three kinds of layers.

The program runs with different makers. With `Recorder` it gives shapes, costs and the names of the
weights; with the supernet's maker it runs on weights stacked over operators; with the stand-alone
maker it adds Keras layers. So an operator is written once, and all of them agree.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from neas_tf.common.errors import NeasError, check, fail

if TYPE_CHECKING:
    from neas_tf.space.search_space import LayerSpec

SKIP = "skip"
ACTIVATIONS = ("swish", "relu")
# Python files with operators of one's own, separated as in PATH; loaded when names are first read.
OWN_OPERATORS = "NEAS_OPERATORS"
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_FAMILIES: list[type[Operator]] = []


class Maker(Protocol):
    """What an operator's program may use; x is a map (batch, height, width, channels)."""

    def conv(
        self,
        x: Any,
        role: str,
        filters: int,
        kernel: int = 1,
        stride: int = 1,
        activation: str | None = None,
    ) -> Any:
        """kernel×kernel convolution, batch normalisation, then 'swish', 'relu' or None."""

    def depthwise(
        self, x: Any, role: str, kernel: int, stride: int = 1, activation: str | None = None
    ) -> Any:
        """kernel×kernel depthwise convolution, batch normalisation, activation."""

    def squeeze_excite(self, x: Any) -> Any:
        """Squeeze-excite with a quarter of x's channels inside; conv 'project' must be next."""


@dataclasses.dataclass(frozen=True)
class Operator:
    """One choice of a searchable layer; families are subclasses, see `register`.

    The residual connection, where a layer keeps its shape, is added around the program.

    Attributes:
      name: what architectures and configurations call it.
      kernel: largest kernel size, 0 where there is none; the pictures show it.
      expansion: inner width over the input channels, 0 where there is none.
    """

    name: str
    kernel: int = 0
    expansion: int = 0

    # The names of a family, matched as a whole, and one of them for messages.
    PATTERN: ClassVar[re.Pattern[str]]
    EXAMPLE: ClassVar[str]

    @classmethod
    def from_match(cls, match: re.Match[str]) -> Operator | None:
        """The operator that a match of `PATTERN` names; None refuses it."""
        return cls(match[0])

    def build(self, make: Maker, x: Any, layer: LayerSpec) -> Any:
        """Runs the program: a map of the layer's input shape to one of its output shape."""
        raise NotImplementedError

    def fits(self, c_in: int, c_out: int, stride: int) -> bool:
        """Whether the operator can stand in a layer of these shapes."""
        return True

    @property
    def is_skip(self) -> bool:
        """Whether the operator is the identity."""
        return self.name == SKIP

    @property
    def stack(self) -> str:
        """Operators of one stack share stacked variables in the supernet.

        Their programs must have the same steps, apart from the kernel sizes. That makes the
        traced graph smaller; on its own an operator is always right.
        """
        return self.name

    @property
    def variant(self) -> str:
        """Tells the operators of one stack apart."""
        return self.name

    @property
    def label(self) -> str:
        """A few characters for pictures, on up to two lines."""
        size = f"{self.kernel}×{self.kernel}" if self.kernel else self.name[:5]
        return f"{size}\ne{self.expansion}" if self.expansion else size

    @staticmethod
    def parse(name: object, field: str = "operator") -> Operator:
        """Reads an operator's name; raises `NeasError` for anything else."""
        found = _find(name) if isinstance(name, str) else None
        if found is None:
            examples = ", ".join(repr(family.EXAMPLE) for family in _FAMILIES)
            fail(field, name, f"the name of a registered operator, such as {examples}")
        return found


Family = TypeVar("Family", bound=type[Operator])


def register(family: Family) -> Family:
    """Class decorator: adds a family, whose names can then be used in every space.

    Raises:
      NeasError: when its example is no name of its own or belongs to another family.
    """
    example = family.EXAMPLE
    match = family.PATTERN.fullmatch(example)
    own = match and _NAME.fullmatch(example) and family.from_match(match)
    check(bool(own), f"{family.__name__}.EXAMPLE", example, "a lower-case name that PATTERN takes")
    taken = next((f.__name__ for f in _FAMILIES if f.PATTERN.fullmatch(example)), None)
    check(
        taken is None, f"{family.__name__}.EXAMPLE", example, f"a name that {taken} does not take"
    )
    _FAMILIES.append(family)
    _find.cache_clear()
    return family


@functools.lru_cache(maxsize=4096)
def _find(name: str) -> Operator | None:
    _load_own(os.environ.get(OWN_OPERATORS, ""))
    for family in _FAMILIES:
        match = family.PATTERN.fullmatch(name)
        if match and _NAME.fullmatch(name) and (found := family.from_match(match)):
            return found
    return None


@functools.cache
def _load_own(paths: str) -> None:
    """Runs the user's own files: the environment is theirs, unlike a configuration file."""
    for number, path in enumerate(filter(None, paths.split(os.pathsep))):
        spec = importlib.util.spec_from_file_location(f"neas_own_operators_{number}", path)
        if spec is None or spec.loader is None:
            raise NeasError(f"{OWN_OPERATORS}: received {path!r}, expected a file named *.py.")
        try:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        except NeasError:
            raise
        except Exception as error:
            raise NeasError(
                f"{OWN_OPERATORS}: {path!r} cannot be loaded ({type(error).__name__}: {error})."
            ) from error


def divisible(value: float, divisor: int = 8) -> int:
    """Rounds to the nearest multiple, at least one, never below 90 % of the value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def bottleneck_width(c_in: int, expansion: int) -> int:
    """Channels inside an inverted bottleneck."""
    return divisible(c_in * expansion)


def squeeze_width(channels: int) -> int:
    """Channels inside squeeze-excite: a quarter of the expanded width."""
    return divisible(channels / 4)


def reduced(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Size of a map after a convolution with symmetric padding k//2."""
    return tuple(-(-side // stride) for side in size)  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Step:
    """One layer of an operator's program, with its shapes.

    Attributes:
      kind: conv, depthwise or squeeze_excite.
      role: name within the operator; `se` for squeeze-excite.
      c_in, c_out: channels.
      kernel, stride: of a convolution; 1 for squeeze-excite.
      in_size, out_size: (height, width).
      activation: after the batch normalisation, or None.
    """

    kind: str
    role: str
    c_in: int
    c_out: int
    kernel: int
    stride: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    activation: str | None = None

    @property
    def has_batch_norm(self) -> bool:
        """Whether a batch normalisation `<role>_bn` follows."""
        return self.kind != "squeeze_excite"

    @property
    def spatial(self) -> bool:
        """Whether the kernel's shape may differ between operators of one stack."""
        return self.kind == "depthwise" or self.kernel > 1

    @property
    def structure(self) -> tuple[Any, ...]:
        """All but the kernel's size."""
        kind = self.kind, self.spatial
        return *kind, self.role, self.c_in, self.c_out, self.stride, self.activation

    @property
    def sublayers(self) -> tuple[str, ...]:
        """Names of the layers with weights."""
        if self.kind == "squeeze_excite":
            return "se_reduce", "se_expand"
        return self.role, f"{self.role}_bn"


class _Map(NamedTuple):
    channels: int
    size: tuple[int, int]


class Recorder:
    """The maker that writes the steps of a program down; a map is its channels and size."""

    def __init__(self, operator: Operator):
        self.steps: list[Step] = []
        self._operator = operator

    def _add(self, x: _Map, kind, role, filters, kernel, stride, activation) -> _Map:
        field = f"operator {self._operator.name!r}"
        taken = {step.role for step in self.steps}
        right = isinstance(role, str) and _NAME.fullmatch(role) and role not in taken
        check(bool(right), f"{field}: role", role, "a new lower-case name for every step")
        check(kernel % 2 == 1 and kernel > 0, f"{field}: kernel of {role!r}", kernel, "odd sizes")
        check(stride in (1, 2), f"{field}: stride of {role!r}", stride, "1 or 2")
        known = (None, *ACTIVATIONS)
        check(
            activation in known, f"{field}: activation of {role!r}", activation, f"one of {known}"
        )
        if self.steps and self.steps[-1].kind == "squeeze_excite":
            allowed = "conv 'project' after squeeze_excite, which takes up the gate's scale"
            check((kind, role) == ("conv", "project"), f"{field}: step", f"{kind} {role}", allowed)
        size = reduced(x.size, stride)
        self.steps.append(
            Step(kind, role, x.channels, filters, kernel, stride, x.size, size, activation)
        )
        return _Map(filters, size)

    def conv(self, x, role, filters, kernel=1, stride=1, activation=None):
        """See `Maker.conv`."""
        return self._add(x, "conv", role, filters, kernel, stride, activation)

    def depthwise(self, x, role, kernel, stride=1, activation=None):
        """See `Maker.depthwise`."""
        return self._add(x, "depthwise", role, x.channels, kernel, stride, activation)

    def squeeze_excite(self, x):
        """See `Maker.squeeze_excite`."""
        return self._add(x, "squeeze_excite", "se", x.channels, 1, 1, None)


@functools.lru_cache(maxsize=1 << 14)
def operator_steps(operator: Operator, layer: LayerSpec) -> tuple[Step, ...]:
    """The steps of an operator in a layer; none for skip.

    Raises:
      NeasError: when its program breaks a rule of the makers or ends with another shape.
    """
    if operator.is_skip:
        return ()
    recorder = Recorder(operator)
    end = operator.build(recorder, _Map(layer.c_in, layer.in_size), layer)
    wanted = _Map(layer.c_out, layer.out_size)
    check(end == wanted, f"operator {operator.name!r}: its output", end, f"{wanted} here")
    last = recorder.steps[-1].kind if recorder.steps else None
    check(
        last in ("conv", "depthwise"),
        f"operator {operator.name!r}: last step",
        last,
        "conv or depthwise",
    )
    return tuple(recorder.steps)


def batch_norms(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Names of the batch normalisations, in the order of the steps."""
    return tuple(f"{step.role}_bn" for step in steps if step.has_batch_norm)


@register
@dataclasses.dataclass(frozen=True)
class Skip(Operator):
    """The identity: the layer is left out (paper section 4.1)."""

    PATTERN = re.compile(SKIP)
    EXAMPLE = SKIP

    def fits(self, c_in: int, c_out: int, stride: int) -> bool:
        """Only where the shape stays."""
        return stride == 1 and c_in == c_out

    def build(self, make: Maker, x: Any, layer: LayerSpec) -> Any:
        """Returns x."""
        return x
