"""Exact rewrites of a network for phones and small CPUs, as plain arithmetic on shapes and kernels.

The depthwise kernels of XNNPACK end at 25 taps; larger ones run many times slower for each tap. A
k×k depthwise convolution is the sum of convolutions with runs of its rows, each run within 25 taps
and over an input that begins further down. The crop and the pad cost little, as a row is
contiguous in memory and XNNPACK makes the pad a part of the convolution. XNNPACK has kernels of 25,
9 and 4 taps and fills the rest of one with zeros: three, three and one row of a 7×7 kernel (25, 25
and 9 taps) cost less than any partition into more even groups. In ms of CPU time, float32 (int8):
28²×160 whole 1.76 (2.29), as 3 + 2 + 2 rows 0.24 (0.26), as 3 + 3 + 1 rows 0.24 (0.21); 14²×480
1.39 (1.85), 0.39 (0.18), 0.32 (0.15).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from neas_tf.common.errors import NeasError

MAX_TAPS = 25
_PART_NAME = re.compile(r"(.+_dw)_rows((?:_\d+)+)", re.ASCII)
_CLASSIFIER = re.compile(r"path(\d+)_classifier", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Rewrites:
    """Which rewrites a deployed network gets; all are exact up to rounding.

    Attributes:
      depthwise: depthwise kernels of more than 25 taps become a sum of smaller ones.
      gates: the constants of squeeze-excite, relu6(x + 3) / 6, go into the neighbouring
        convolutions: + 3 into the bias before it, / 6 into the kernel after it.
      normalisation: the scale of the input normalisation goes into the stem's kernel. Its offset
        cannot, because the stem pads with zeros; it is repeated to a row of the image, for
        XNNPACK adds three numbers at a time otherwise: 0.63 of NEAS-S's 3.31 ms in int8, 0.01 as a
        row, and 3 kB more.
    """

    depthwise: bool = False
    gates: bool = False
    normalisation: bool = False

    def to_dict(self) -> dict[str, bool]:
        """JSON form."""
        return dataclasses.asdict(self)


NO_REWRITES = Rewrites()
MOBILE_REWRITES = Rewrites(depthwise=True, gates=True, normalisation=True)


@dataclasses.dataclass(frozen=True)
class Part:
    """One convolution of a depthwise convolution that was taken apart.

    Attributes:
      rows: of the kernel; the other rows belong to other parts. The part with the middle row
        carries the bias.
      crop: rows of the input to leave out at the top and at the bottom.
      pad: ((top, bottom), (left, right)) zeros to add after the crop.
    """

    rows: tuple[int, ...]
    crop: tuple[int, int]
    pad: tuple[tuple[int, int], tuple[int, int]]


def depthwise_parts(kernel: int, stride: int, size: tuple[int, int]) -> tuple[Part, ...]:
    """Takes a depthwise convolution with padding k//2 on all sides apart.

    Args:
      kernel: odd kernel size k.
      stride: of both axes.
      size: (height, width) of the input.

    Returns:
      Parts whose sum is the convolution; empty where it stays whole, because it has at most 25
      taps, more than 12 rows, or a stride above 2. Rows that meet no pixel are in no part.
    """
    count = MAX_TAPS // kernel
    if kernel * kernel <= MAX_TAPS or count < 2 or stride not in (1, 2):
        return ()
    middle, (height, width) = kernel // 2, size
    spans = [((side - 1) // stride) * stride for side in size]  # first to last window's start
    right = spans[1] + kernel - middle - width
    parts = []
    for first in range(0, kernel, count):
        rows = tuple(range(first, min(first + count, kernel)))
        begin = first - middle  # first input row of the first window; negative above the image
        end = begin + spans[0] + len(rows)  # after the last input row of the last window
        if begin >= height or end <= 0:
            continue
        crop = (max(begin, 0), max(height - end, 0))
        pad = ((max(-begin, 0), max(end - height, 0)), (middle, max(right, 0)))
        parts.append(Part(rows, crop, pad))
    return tuple(parts)


def input_constants(
    scale: Sequence[float], offset: Sequence[float], width: int, rewrites: Rewrites
) -> tuple[list[float] | float, list]:
    """Factor and summand of the input normalisation that a deployed network has in front.

    Args:
      scale, offset: per channel, so that normalised = image · scale + offset.
      width: of the image.
      rewrites: of the network.

    Returns:
      As given, (channels,) each; with `rewrites.normalisation` 1.0 and what is left to add in
      front of a stem that holds the scale, (width, channels).
    """
    if not rewrites.normalisation:
        return list(scale), list(offset)
    return 1.0, [[o / s for o, s in zip(offset, scale, strict=True)]] * width


def part_name(name: str, part: Part) -> str:
    """Name of a part's layer, from that of the depthwise layer."""
    return f"{name}_rows_{'_'.join(map(str, part.rows))}"


def source_of_part(name: str) -> tuple[str, list[int]] | None:
    """The depthwise layer and the rows that a part's layer is made of; None for other layers."""
    match = _PART_NAME.fullmatch(name)
    return match and (match[1], [int(row) for row in match[2][1:].split("_")])


def folded_depthwise(
    kernel: np.ndarray, batch_norm: Sequence[np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """A depthwise kernel (k, k, c, 1) and the batch normalisation after it as kernel and bias.

    Args:
      kernel: of the convolution, which has no bias.
      batch_norm: gamma, beta, moving mean, moving variance, (c,) each.
      epsilon: of the batch normalisation.
    """
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in batch_norm)
    factor = gamma / np.sqrt(variance + epsilon)
    bias = beta - mean * factor
    return (kernel * factor[:, None]).astype(np.float32), bias.astype(np.float32)


def deployed_weights(
    names: Sequence[str],
    sources: Mapping[str, Sequence[np.ndarray]],
    rewrites: Rewrites,
    epsilon: float,
    input_scale: Sequence[float] | None = None,
) -> dict[str, list[np.ndarray]]:
    """The weights of a deployed network's layers, from those of the trained network.

    Args:
      names: layers with weights of the deployed network.
      sources: weights of the trained network's layers, by name.
      rewrites: of the deployed network.
      epsilon: of batch normalisation.
      input_scale: factor per input channel for the stem's kernel.

    Returns:
      The weights by layer, float32.

    Raises:
      NeasError: when the layers of the two networks do not correspond.
    """
    numbers = {name: int(m[1]) for name in sources if (m := _CLASSIFIER.fullmatch(name))}
    classifiers = sorted(numbers, key=numbers.__getitem__)
    origins = {name: _origins(name, classifiers) for name in names}
    different = {origin for found in origins.values() for origin in found} ^ set(sources)
    if different or not classifiers:
        raise NeasError(
            "model: its layers are not those of the architecture; differing are "
            f"{', '.join(sorted(different)[:4]) or 'the classifiers'}."
        )
    result = {}
    for name, found in origins.items():
        weights = [[np.asarray(w, np.float32) for w in sources[origin]] for origin in found]
        if name == "classifier":
            kernels, biases = zip(*weights, strict=True)
            kernel = np.concatenate(kernels) / np.float32(len(kernels))
            result[name] = [kernel, np.mean(biases, axis=0, dtype=np.float32)]
        elif part := source_of_part(name):
            kernel, bias = folded_depthwise(weights[0][0], weights[1], epsilon)
            has_bias = len(kernel) // 2 in part[1]
            result[name] = [kernel[part[1]], bias] if has_bias else [kernel[part[1]]]
        else:
            result[name] = _with_constants(name, weights[0], sources, rewrites, input_scale)
    return result


def _origins(name: str, classifiers: Sequence[str]) -> list[str]:
    if name == "classifier":
        return list(classifiers)
    if part := source_of_part(name):
        return [part[0], f"{part[0]}_bn"]
    return [name]


def _with_constants(
    name: str,
    weights: list[np.ndarray],
    sources: Mapping[str, Sequence[np.ndarray]],
    rewrites: Rewrites,
    input_scale: Sequence[float] | None,
) -> list[np.ndarray]:
    kernel, *rest = weights
    if rewrites.gates and name.endswith("_se_expand"):
        return [kernel, rest[0] + np.float32(3.0)]
    block = name.removesuffix("_project").removesuffix("_pw")
    if rewrites.gates and block != name and f"{block}_se_expand" in sources:
        return [kernel / np.float32(6.0), *rest]
    if rewrites.normalisation and name == "stem_conv" and input_scale is not None:
        return [kernel * np.asarray(input_scale, np.float32)[:, None], *rest]
    return weights
