"""What is measured for a latency table: the entries of a space, and the small models behind them.

An operator by itself says little: its latency is dominated by the call, its input and output are
copied, its buffers are cold. So every entry is the difference of two models that both hold
something in front of it: a chain of copies (with weights of their own) for an operator that keeps
the shape, and [another operator → this one] against [another operator] for the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from neas_tf.operators import Operator
from neas_tf.space.search_space import LayerSpec, SearchSpace

SHORT, LONG = 1, 3  # copies in the two chains of an operator that keeps the shape


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a probe: `stem` (with normalisation and fixed block), `layer`, or `head`."""

    kind: str
    layer: LayerSpec | None = None
    operator: str = ""


@dataclasses.dataclass(frozen=True)
class Difference:
    """An entry as (latency of `longer` - latency of `shorter`) / `copies`; '' counts 0."""

    longer: str
    shorter: str = ""
    copies: int = 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
      probes: the models, by name, each as its pieces.
      entries: the table's entries, by key, as differences of probes.
    """

    probes: Mapping[str, tuple[Piece, ...]]
    entries: Mapping[str, Difference]


def layer_key(layer: LayerSpec, operator: str) -> str:
    """Key of an operator at a layer's shapes: `k5e6 24>40 s2 56x56` (the input's size)."""
    height, width = layer.in_size
    return f"{operator} {layer.c_in}>{layer.c_out} s{layer.stride} {height}x{width}"


def stem_key(space: SearchSpace) -> str:
    """Key of normalisation, stem and fixed block."""
    height, width = space.input_size
    block = f" block{space.block_channels}s{space.block_stride}" if space.block_channels else ""
    return (
        f"stem {space.input_channels}>{space.stem_channels} k{space.stem_kernel} "
        f"s{space.stem_stride} {height}x{width}{block}{_activation(space)}"
    )


def head_key(space: SearchSpace) -> str:
    """Key of one path's head with its part of the classifier."""
    height, width = space.layers[-1].out_size
    widths = (space.out_channels, space.head_channels, space.feature_channels, space.num_classes)
    return f"head {'>'.join(map(str, widths))} {height}x{width}{_activation(space)}"


def _activation(space: SearchSpace) -> str:
    return "" if space.activation == "swish" else f" {space.activation}"


def space_keys(space: SearchSpace) -> tuple[str, ...]:
    """Keys of all entries that a space needs, in the order of its parts, each once."""
    layers = [
        layer_key(layer, name)
        for layer in space.layers
        for name in layer.operators
        if not Operator.parse(name).is_skip
    ]
    return tuple(dict.fromkeys((stem_key(space), *layers, head_key(space))))


def make_plan(space: SearchSpace) -> Plan:
    """The probes and entries of a space."""
    probes: dict[str, tuple[Piece, ...]] = {"stem": (Piece("stem"),)}
    entries = {stem_key(space): Difference("stem")}

    def chain(layer: LayerSpec, name: str, copies: int) -> str:
        probe = f"{copies} x {layer_key(layer, name)}"
        probes[probe] = (_piece(layer, name),) * copies
        return probe

    def behind(layer: LayerSpec, key: str, piece: Piece) -> Difference:
        # An operator that makes a map of the layer's input shape.
        front = dataclasses.replace(layer, c_out=layer.c_in, stride=1, out_size=layer.in_size)
        shorter = chain(front, next(n for n in layer.operators if not _skips(n)), SHORT)
        probe = f"{shorter} + {key}"
        probes[probe] = (*probes[shorter], piece)
        return Difference(probe, shorter)

    for layer in space.layers:
        for name in layer.operators:
            key = layer_key(layer, name)
            if _skips(name) or key in entries:
                continue
            if layer.keeps_shape:
                longer, shorter = chain(layer, name, LONG), chain(layer, name, SHORT)
                entries[key] = Difference(longer, shorter, LONG - SHORT)
            else:
                entries[key] = behind(layer, key, _piece(layer, name))
    last = space.layers[-1]
    end = dataclasses.replace(last, c_in=last.c_out, stride=1, in_size=last.out_size)
    entries[head_key(space)] = behind(end, head_key(space), Piece("head"))
    return Plan(probes, entries)


def _piece(layer: LayerSpec, name: str) -> Piece:
    """An operator at a layer's shapes, wherever the layer is."""
    return Piece("layer", dataclasses.replace(layer, number=1, stage=0, operators=(name,)), name)


def _skips(name: str) -> bool:
    return Operator.parse(name).is_skip
