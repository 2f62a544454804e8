"""Where an operator's weights lie in its row: a layer keeps all operators in one variable.

A row holds the kernels first, which weight decay reaches, then biases, gamma and beta. Operators of
one stack (same program but for the kernel sizes) have one layout; a kernel's place is as large as
the stack's largest, and a smaller kernel fills its beginning. Places begin at multiples of `ALIGNMENT`
numbers, with zeros between, for TensorFlow then takes them out of a row without a copy.
"""

from __future__ import annotations

import dataclasses
import math

from neas_tf.common.errors import check
from neas_tf.operators import Operator, Step, batch_norms, operator_steps, squeeze_width
from neas_tf.space.search_space import LayerSpec

ALIGNMENT = 16  # float32 numbers in the 64 bytes that TensorFlow's buffers are aligned to


@dataclasses.dataclass(frozen=True)
class Place:
    """A weight in a row.

    Attributes:
      role: such as `expand/kernel` or `dw_bn/gamma`.
      offset: of its first number.
      size: numbers that it may take.
      kind: conv, zeros or ones: how it begins.
    """

    role: str
    offset: int
    size: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Stack:
    """Operators of one stack in one layer.

    Attributes:
      name: of the stack.
      indices: of the operators in the space.
      operators: the operators.
      steps: of each operator; they differ in kernel sizes only.
      places: of the weights, by role.
      decayed: numbers at the beginning of a row that weight decay reaches.
      width: numbers of a row, a multiple of `ALIGNMENT`.
    """

    name: str
    indices: tuple[int, ...]
    operators: tuple[Operator, ...]
    steps: tuple[tuple[Step, ...], ...]
    places: dict[str, Place] = dataclasses.field(hash=False)
    decayed: int
    width: int

    @classmethod
    def of(cls, name: str, members: dict[int, Operator], layer: LayerSpec) -> Stack:
        """The stack of some operators (by index) in a layer."""
        steps = tuple(operator_steps(operator, layer) for operator in members.values())
        for operator, own in zip(members.values(), steps, strict=True):
            same = [s.structure for s in own] == [s.structure for s in steps[0]]
            names = ", ".join(op.name for op in members.values())
            wanted = f"operators that differ in kernel sizes only, not {names}"
            check(same, f"operator {operator.name!r}: stack", name, wanted)
        kernels, others = _weights(steps)
        places, offset = {}, 0
        for role, size, kind in kernels + others:
            places[role] = Place(role, offset, size, kind)
            offset = aligned(offset + size)
        decayed = places[others[0][0]].offset
        return cls(name, tuple(members), tuple(members.values()), steps, places, decayed, offset)

    @property
    def batch_norms(self) -> tuple[str, ...]:
        """Names of the batch normalisations, in the order of the moments."""
        return batch_norms(self.steps[0])

    @property
    def last_gamma(self) -> str:
        """Role of the last batch normalisation's gamma."""
        return f"{self.batch_norms[-1]}/gamma"

    @property
    def norm_widths(self) -> tuple[int, ...]:
        """Channels of each batch normalisation."""
        return tuple(step.c_out for step in self.steps[0] if step.has_batch_norm)

    def shape(self, member: int, role: str) -> tuple[int, ...]:
        """Shape of a weight of the stack's operator number `member`."""
        name, kind = role.split("/")
        steps = {name: step for step in self.steps[member] for name in step.sublayers}
        step = steps[name]
        if step.kind == "squeeze_excite":
            inside = squeeze_width(step.c_out)
            ends = (step.c_out, inside) if name == "se_reduce" else (inside, step.c_out)
            return (1, 1, *ends) if kind == "kernel" else ends[1:]
        return kernel_shape(step) if kind == "kernel" else (step.c_out,)

    def stacked_role(self, member: int, role: str) -> tuple[str, int]:
        """Name that a weight's initial value is drawn by, and the number of weights drawn together.

        Kernels whose size may differ are drawn operator by operator, other weights for the stack.
        """
        name, kind = role.split("/")
        spatial = {step.role for step in self.steps[0] if step.spatial}
        if kind == "kernel" and name in spatial:
            return f"{self.name}/{self.operators[member].variant}/{role}", 1
        return f"{self.name}/{role}", len(self.indices)


def aligned(offset: int) -> int:
    """The next place at which a weight may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def kernel_shape(step: Step) -> tuple[int, int, int, int]:
    """Shape of a convolution's kernel."""
    if step.kind == "depthwise":
        return step.kernel, step.kernel, step.c_in, 1
    return step.kernel, step.kernel, step.c_in, step.c_out


def _weights(steps: tuple[tuple[Step, ...], ...]):
    """(role, size, kind) of a row's kernels, and of its other weights."""
    kernels, others = [], []
    for number, step in enumerate(steps[0]):
        if step.kind == "squeeze_excite":
            inside = squeeze_width(step.c_out)
            for name, width in (("se_reduce", inside), ("se_expand", step.c_out)):
                kernels.append((f"{name}/kernel", step.c_out * inside, "conv"))
                others.append((f"{name}/bias", width, "zeros"))
            continue
        size = max(math.prod(kernel_shape(own[number])) for own in steps)
        kernels.append((f"{step.role}/kernel", size, "conv"))
        others.append((f"{step.role}_bn/gamma", step.c_out, "ones"))
        others.append((f"{step.role}_bn/beta", step.c_out, "zeros"))
    return kernels, others
