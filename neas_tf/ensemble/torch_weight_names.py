"""Names and shapes of the weights in the authors' PyTorch model, and how they become ours."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from neas_tf.common.errors import NeasError, check
from neas_tf.operators import PAPER_OPERATORS, SKIP, Operator, bottleneck_width, squeeze_width
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

# (part, layer, path, role), as in `ensemble.Slot`.
Place = tuple[str, int, int, str]
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNTER = "num_batches_tracked"
# What PyTorch's wrappers put into names, at any place; and what models call one that they hold.
_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_HOLDERS = frozenset({"model", "backbone", "net", "network", "encoder", "student"})
_FIRST = 2  # names that a message lists of many


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of the PyTorch model: its name in the state dict and its shape there."""

    name: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """All weights of the PyTorch model of an architecture.

    Attributes:
      weights: by the place of ours that each of them fills.
      unused: weights that a file may hold and the forward pass never uses: each MBConv's
        `conv_dwl` and `bn4`, and the counters of the batch normalisations.
    """

    weights: Mapping[Place, Weight]
    unused: frozenset[str]


def torch_layout(architecture: Architecture, space: SearchSpace) -> Layout:
    """Names and shapes in the authors' model of an architecture.

    Shared layers are `sharing_blocks.0.{i}`, those of a path `blocks.{path}.0.{i}`; i counts
    layers that are not skipped. Number 0 of the shared ones is the separable block, the last of a
    path its 1×1 convolution in front of the pooling.

    Raises:
      NeasError: when the architecture is not in the space, or has operators that the authors'
        model lacks.
    """
    architecture.check_in(space)
    weights: dict[Place, Weight] = {}
    unused: set[str] = set()

    def conv(place, role, name, *shape, bias=False):
        weights[(*place, f"{role}/kernel")] = Weight(f"{name}.weight", shape)
        if bias:
            weights[(*place, f"{role}/bias")] = Weight(f"{name}.bias", shape[:1])

    def batch_norm(place, role, name, channels):
        for ours, theirs in _BATCH_NORM.items():
            weights[(*place, f"{role}/{ours}")] = Weight(f"{name}.{theirs}", (channels,))
        unused.add(f"{name}.{_COUNTER}")

    def squeeze_excite(place, name, channels):
        inner = squeeze_width(channels)
        conv(place, "se_reduce", f"{name}.se.conv_reduce", inner, channels, 1, 1, bias=True)
        conv(place, "se_expand", f"{name}.se.conv_expand", channels, inner, 1, 1, bias=True)

    def mbconv(place, name, layer, operator):
        middle, k = bottleneck_width(layer.c_in, operator.expansion), operator.kernel
        conv(place, "expand", f"{name}.conv_pw", middle, layer.c_in, 1, 1)
        batch_norm(place, "expand_bn", f"{name}.bn1", middle)
        conv(place, "dw", f"{name}.conv_dw", middle, 1, k, k)
        batch_norm(place, "dw_bn", f"{name}.bn2", middle)
        squeeze_excite(place, name, middle)
        conv(place, "project", f"{name}.conv_pwl", layer.c_out, middle, 1, 1)
        batch_norm(place, "project_bn", f"{name}.bn3", layer.c_out)
        unused.update(f"{name}.bn4.{end}" for end in (*_BATCH_NORM.values(), _COUNTER))
        unused.add(f"{name}.conv_dwl.weight")

    def layers(part, row, path, first, number):
        """The layers of a row; returns the number after the last."""
        for layer, text in zip(space.layers[first : first + len(row)], row, strict=True):
            if text == SKIP:
                continue
            check(text in PAPER_OPERATORS, "architecture", text, "an operator of the paper")
            place = ("layer", layer.number, path)
            mbconv(place, f"{part}.0.{number}", layer, Operator.parse(text))
            number += 1
        return number

    c, k, stem, block = space.input_channels, space.stem_kernel, ("stem", 0, 0), ("block", 0, 0)
    conv(stem, "conv", "conv_stem", space.stem_channels, c, k, k)
    batch_norm(stem, "bn", "bn1", space.stem_channels)
    if space.block_channels:
        name, inside = "sharing_blocks.0.0", space.stem_channels
        conv(block, "dw", f"{name}.conv_dw", inside, 1, 3, 3)
        batch_norm(block, "dw_bn", f"{name}.bn1", inside)
        squeeze_excite(block, name, inside)
        conv(block, "pw", f"{name}.conv_pw", space.block_channels, inside, 1, 1)
        batch_norm(block, "pw_bn", f"{name}.bn2", space.block_channels)
    split = architecture.split_point
    layers("sharing_blocks", architecture.shared, 0, 0, 1 if space.block_channels else 0)
    for path, row in enumerate(architecture.paths):
        head = ("head", 0, path)
        last = layers(f"blocks.{path}", row[split:], path, split, 0)
        name = f"blocks.{path}.0.{last}"
        conv(head, "head_conv", f"{name}.conv", space.head_channels, space.out_channels, 1, 1)
        batch_norm(head, "head_bn", f"{name}.bn1", space.head_channels)
        sizes = (space.feature_channels, space.head_channels, 1, 1)
        conv(head, "feature", f"conv_heads.{path}", *sizes, bias=True)
        dense = (space.num_classes, space.feature_channels)
        conv(head, "classifier", f"classifiers.{path}", *dense, bias=True)
    return Layout(weights, frozenset(unused))


def without_prefix(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with the names that the authors' model has.

    What training programs put around a model stands in its weights' names: `module.` (several
    GPUs), `_orig_mod.` (torch.compile), the name of a model that holds this one (`model.`,
    `backbone.`), several of them, or any other beginning that all names have.

    Raises:
      NeasError: when two weights have one name then.
    """
    plain = [_plain_name(name) for name in state]
    while len(plain) > 1 and all("." in name for name in plain):
        if len({name.partition(".")[0] for name in plain}) > 1:
            break
        plain = [name.partition(".")[2] for name in plain]
    result = dict(zip(plain, state.values(), strict=True))
    if len(result) < len(state):
        twice = [name for name, count in collections.Counter(plain).items() if count > 1]
        longest = max((n for n, p in zip(state, plain, strict=True) if p == twice[0]), key=len)
        prefix = longest.removesuffix(twice[0])
        raise NeasError(
            f"torch_checkpoint: holds weights with and without {prefix!r}: {_first(twice)}."
        )
    return result


def _plain_name(name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    while len(parts) > 2 and parts[0] in _HOLDERS:
        parts = parts[1:]
    return ".".join(parts)


def differences(layout: Layout, state: Mapping[str, np.ndarray]) -> list[str]:
    """What keeps a state dict from being the layout's: missing, extra, misshapen; none if it is.

    Each kind is counted and its first names are given.
    """
    wanted = {weight.name: weight.shape for weight in layout.weights.values()}
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted and name not in layout.unused]
    misshapen = [
        f"{name} {_shape(state[name].shape)} for {_shape(shape)}"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    kinds = (("missing", missing), ("extra", extra), ("misshapen", misshapen))
    return [f"{kind} ({len(found)}): {_first(found)}" for kind, found in kinds if found]


def _first(names: list[str]) -> str:
    """The first names of a list, in few words."""
    shown = [name if len(name) <= 70 else f"{name[:69]}…" for name in names[:_FIRST]]
    return ", ".join(shown) + ", …" * (len(names) > _FIRST)


def to_keras(place: Place, numbers: np.ndarray) -> np.ndarray:
    """A PyTorch weight in our order of axes.

    Convolutions (out, in, h, w) become (h, w, in, out), depthwise ones (c, 1, h, w) become
    (h, w, c, 1), dense layers (out, in) become (in, out); vectors stay.
    """
    if numbers.ndim == 4:
        depthwise = place[3] == "dw/kernel"
        return numbers.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return numbers.T if numbers.ndim == 2 else numbers


def arrays(layout: Layout, state: Mapping[str, np.ndarray]) -> Iterator[tuple[Place, np.ndarray]]:
    """The weights of a fitting state dict, as float32 in our order of axes.

    Raises:
      NeasError: for numbers that are not real, not finite, or a negative variance.
    """
    for place, weight in layout.weights.items():
        given = state[weight.name]
        real = np.issubdtype(given.dtype, np.floating)
        check(real, f"torch_checkpoint: {weight.name}", given.dtype, "floating-point numbers")
        with np.errstate(over="ignore"):  # of float64; infinity is refused
            numbers = given.astype(np.float32)
        finite = bool(np.isfinite(numbers).all())
        check(finite, f"torch_checkpoint: {weight.name}", "NaN or infinity", "finite numbers")
        if place[3].endswith("moving_variance") and numbers.min() < 0:
            raise NeasError(f"torch_checkpoint: {weight.name} holds a negative variance.")
        yield place, np.ascontiguousarray(to_keras(place, numbers))


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
