"""The search space as data (paper section 4.1, Table 7 with the strides corrected)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from neas_tf.common.errors import check, check_int, check_keys, fail
from neas_tf.operators import ACTIVATIONS, PAPER_OPERATORS, SKIP, Operator
from neas_tf.operators.base import reduced

_MOST_LAYERS = 1024  # far above what can be trained; tables and loops over layers stay small


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of layers of one width; the first one may reduce the resolution.

    Attributes:
      channels: of the layers' outputs.
      layers: how many.
      stride: of the first layer.
      operators: those of the space that its layers may use; empty means all.
    """

    channels: int
    layers: int
    stride: int
    operators: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without `operators` where it is empty."""
        result = dataclasses.asdict(self)
        names = result.pop("operators")
        return result | ({"operators": list(names)} if names else {})


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """One searchable layer, with its shapes at the space's input size.

    Attributes:
      number: 1-based position among the searchable layers, as in the paper.
      stage: 0-based stage.
      c_in, c_out: channels.
      stride: of the depthwise convolution.
      in_size, out_size: (height, width) of the feature maps.
      operators: names that this layer may use, in the order of the space.
    """

    number: int
    stage: int
    c_in: int
    c_out: int
    stride: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    operators: tuple[str, ...]

    @property
    def keeps_shape(self) -> bool:
        """Whether the layer has a residual connection (and may be skipped)."""
        return self.stride == 1 and self.c_in == self.c_out


_SHAPE = ("channels", "layers", "stride")
PAPER_STAGES = (
    Stage(24, 4, 2),
    Stage(40, 4, 2),
    Stage(80, 4, 2),
    Stage(112, 4, 1),
    Stage(160, 4, 2),
)


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Stages, operators, split range, stem and head: everything an architecture is chosen from.

    The defaults are the paper's space. Immutable and hashable; derive others with
    `dataclasses.replace` or `from_dict`.

    Attributes:
      input_size: (height, width) of the image.
      input_channels: 3 for RGB.
      num_classes: outputs of each path's classifier.
      stem_channels, stem_kernel, stem_stride: the first convolution.
      block_channels, block_stride: the fixed depthwise-separable layer after the stem;
        0 channels leave it out.
      stages: the searchable layers.
      operators: names of the N operators.
      min_split, max_split: allowed split points (inclusive); layers 1..s are shared.
      activation: of the stem, the fixed layer and the heads: swish or relu.
      head_channels: 1×1 convolution of each path.
      feature_channels: hidden features of each path's classifier.
    """

    name: str = "paper"
    input_size: tuple[int, int] = (224, 224)
    input_channels: int = 3
    num_classes: int = 1000
    stem_channels: int = 16
    stem_kernel: int = 3
    stem_stride: int = 2
    block_channels: int = 16
    block_stride: int = 1
    stages: tuple[Stage, ...] = PAPER_STAGES
    operators: tuple[str, ...] = PAPER_OPERATORS
    min_split: int = 9
    max_split: int = 20
    head_channels: int = 960
    feature_channels: int = 1280
    activation: str = "swish"

    def __post_init__(self):
        for field in ("input_channels", "stem_channels", "head_channels", "feature_channels"):
            check_int(f"space.{field}", getattr(self, field), 1, 1 << 16)
        check_int("space.num_classes", self.num_classes, 2, 1 << 20)
        check_int("space.block_channels", self.block_channels, 0, 1 << 16)
        for field in ("stem_stride", "block_stride"):
            check_int(f"space.{field}", getattr(self, field), 1, 2)
        check_int("space.stem_kernel", self.stem_kernel, 1, 7)
        check(self.stem_kernel % 2 == 1, "space.stem_kernel", self.stem_kernel, "1, 3, 5 or 7")
        pair = isinstance(self.input_size, tuple) and len(self.input_size) == 2
        check(pair, "space.input_size", self.input_size, "(height, width)")
        for side in self.input_size:
            check_int("space.input_size", side, 1, 1 << 14)
        check(bool(self.stages), "space.stages", self.stages, "at least one stage")
        for i, stage in enumerate(self.stages):
            check_int(f"space.stages[{i}].channels", stage.channels, 1, 1 << 16)
            check_int(f"space.stages[{i}].layers", stage.layers, 1, 256)
            check_int(f"space.stages[{i}].stride", stage.stride, 1, 2)
        check_int("space.stages: layers in all", self.num_layers, 1, _MOST_LAYERS)
        check(bool(self.operators), "space.operators", self.operators, "at least one operator")
        check(self.activation in ACTIVATIONS, "space.activation", self.activation, f"{ACTIVATIONS}")
        for name in self.operators:
            Operator.parse(name, "space.operators")
        _check_once("space.operators", self.operators)
        for i, stage in enumerate(self.stages):
            field = f"space.stages[{i}].operators"
            for name in stage.operators:
                known = ", ".join(self.operators)
                check(name in self.operators, field, name, f"of space.operators: {known}")
            _check_once(field, stage.operators)
        for layer in self.layers:
            stage = self.stages[layer.stage]
            field = (
                f"space.stages[{layer.stage}].operators" if stage.operators else "space.operators"
            )
            names = stage.operators or self.operators
            shapes = f"{layer.c_in} to {layer.c_out} channels with stride {layer.stride}"
            wanted = f"an operator besides skip that fits layer {layer.number} ({shapes})"
            check(any(name != SKIP for name in layer.operators), field, names, wanted)
        check_int("space.min_split", self.min_split, 0, self.num_layers)
        check_int("space.max_split", self.max_split, self.min_split, self.num_layers)

    @property
    def num_layers(self) -> int:
        """d, the number of searchable layers."""
        return sum(stage.layers for stage in self.stages)

    @property
    def out_channels(self) -> int:
        """Channels after the last searchable layer."""
        return self.stages[-1].channels

    @property
    def split_points(self) -> range:
        """All split points that the space allows."""
        return range(self.min_split, self.max_split + 1)

    @property
    def stem_size(self) -> tuple[int, int]:
        """(height, width) after the stem."""
        return reduced(self.input_size, self.stem_stride)

    @property
    def block_size(self) -> tuple[int, int]:
        """(height, width) after the depthwise-separable layer."""
        return reduced(self.stem_size, self.block_stride) if self.block_channels else self.stem_size

    @functools.cached_property
    def layers(self) -> tuple[LayerSpec, ...]:
        """The searchable layers with their shapes."""
        result: list[LayerSpec] = []
        c_in, size = self.block_channels or self.stem_channels, self.block_size
        for index, stage in enumerate(self.stages):
            for i in range(stage.layers):
                stride = stage.stride if i == 0 else 1
                names = tuple(
                    name
                    for name in self.operators
                    if (not stage.operators or name in stage.operators)
                    and Operator.parse(name).fits(c_in, stage.channels, stride)
                )
                out = reduced(size, stride)
                result.append(
                    LayerSpec(
                        len(result) + 1, index, c_in, stage.channels, stride, size, out, names
                    )
                )
                c_in, size = stage.channels, out
        return tuple(result)

    def operator_index(self, name: str) -> int:
        """Position of an operator in `operators`."""
        return self.operators.index(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` reads it."""
        result = dataclasses.asdict(self)
        result["input_size"] = list(self.input_size)
        result["operators"] = list(self.operators)
        result["stages"] = [stage.to_dict() for stage in self.stages]
        if self.activation == "swish":  # spaces from before there was a choice keep their form
            del result["activation"]
        return result

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> SearchSpace:
        """Builds a space from a mapping; missing keys take the paper's values.

        `input_size` may be one number; a stage is a mapping or [channels, layers, stride].

        Raises:
          NeasError: for an unknown key or a value out of range.
        """
        check(isinstance(config, Mapping), "space", config, "a mapping")
        values = dict(config)
        scale = values.pop("scale", "")  # of a run's settings; "fitted" says who chose the rest
        check(scale in ("", "fitted"), "space.scale", scale, "nothing where no budget is known")
        check_keys("space", values, [f.name for f in dataclasses.fields(cls)])
        if "input_size" in values:
            size = values["input_size"]
            sizes = (size, size) if isinstance(size, int) else size
            check(isinstance(sizes, (list, tuple)), "space.input_size", size, "one or two integers")
            values["input_size"] = tuple(sizes)
        if "operators" in values:
            names = values["operators"]
            check(isinstance(names, (list, tuple)), "space.operators", names, "a list of names")
            values["operators"] = tuple(names)
        if "stages" in values:
            stages = values["stages"]
            check(isinstance(stages, (list, tuple)), "space.stages", stages, "a list of stages")
            values["stages"] = tuple(_stage(i, stage) for i, stage in enumerate(stages))
        check(isinstance(values.get("name", ""), str), "space.name", values.get("name"), "a string")
        return cls(**values)

    def fingerprint(self) -> str:
        """Hash of everything but the name: two spaces with one fingerprint are the same."""
        content = {k: v for k, v in self.to_dict().items() if k != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_once(field: str, names: tuple[str, ...]) -> None:
    check(len(set(names)) == len(names), field, names, "every operator once")


def stage_fields(index: int, value: Any) -> dict[str, Any]:
    """The fields of a space's stage, given as a mapping or as [channels, layers, stride].

    Raises:
      NeasError: for anything else, and for unknown fields; what the fields hold is not looked at.
    """
    field = f"space.stages[{index}]"
    if isinstance(value, Mapping):
        check_keys(field, value, (*_SHAPE, "operators"))
        return dict(value)
    forms = f"{{{', '.join(_SHAPE)}, operators}} or [{', '.join(_SHAPE)}]"
    check(isinstance(value, (list, tuple)) and len(value) == 3, field, value, forms)
    return dict(zip(_SHAPE, value, strict=True))


def _stage(index: int, value: Any) -> Stage:
    if isinstance(value, Stage):
        return value
    field, values = f"space.stages[{index}]", stage_fields(index, value)
    if missing := [name for name in _SHAPE if name not in values]:
        fail(field, values, f"a mapping with {', '.join(missing)} too")
    operators = values.get("operators") or ()
    right = isinstance(operators, (list, tuple))
    check(right, f"{field}.operators", operators, "a list of names")
    return Stage(**values | {"operators": tuple(operators)})
