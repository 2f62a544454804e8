"""The K-path supernet in PyTorch, as one writes it there: a module per (layer, operator).

What the supernet's step is compared with. The forward pass picks the drawn modules, parameters
without a gradient are skipped by the optimizer (`zero_grad(set_to_none=True)`), and a hook divides
the gradient that enters the shared trunk by K.

    python -m benchmarks.parts.torch_supernet CASE (default | channels_last)

is a worker of `benchmarks.supernet_step`.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.parts.supernet_cases import CASES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, batch
from benchmarks.parts.workers import peak_memory_gb, serve
from neas_tf.space.search_space import SearchSpace


def divisible(value: float) -> int:
    """The nearest multiple of 8, at least 8, not below 90 % of the value."""
    result = max(8, int(value + 4) // 8 * 8)
    return result + 8 if result < 0.9 * value else result


def convolution(
    c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution with symmetric padding."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=bias)


class ConvBatchNorm(nn.Sequential):
    """Convolution, batch normalisation and, if wanted, swish."""

    def __init__(self, *shape: int, groups: int = 1, swish: bool = True):
        conv = convolution(*shape, groups=groups)
        super().__init__(conv, nn.BatchNorm2d(shape[1]), *([nn.SiLU()] if swish else []))


class SqueezeExcite(nn.Module):
    """Squeeze-excite with a hard sigmoid."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = convolution(channels, divisible(channels / 4), bias=True)
        self.expand = convolution(divisible(channels / 4), channels, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W)."""
        gate = self.expand(functional.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * functional.hardsigmoid(gate)


class InvertedBottleneck(nn.Module):
    """MBConv: expansion, depthwise convolution, squeeze-excite, projection."""

    def __init__(self, c_in: int, c_out: int, stride: int, kernel: int, expansion: int):
        super().__init__()
        inner = divisible(c_in * expansion)
        self.residual = stride == 1 and c_in == c_out
        self.body = nn.Sequential(
            ConvBatchNorm(c_in, inner),
            ConvBatchNorm(inner, inner, kernel, stride, groups=inner),
            SqueezeExcite(inner),
            ConvBatchNorm(inner, c_out, swish=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W)."""
        return x + self.body(x) if self.residual else self.body(x)


class Separable(nn.Module):
    """The fixed depthwise-separable layer behind the stem."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.residual = c_in == c_out
        self.body = nn.Sequential(
            ConvBatchNorm(c_in, c_in, 3, groups=c_in),
            SqueezeExcite(c_in),
            ConvBatchNorm(c_in, c_out, swish=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W)."""
        return x + self.body(x) if self.residual else self.body(x)


class Head(nn.Module):
    """1×1 convolution, pooling and classifier of one path."""

    def __init__(self, space: SearchSpace):
        super().__init__()
        self.conv = ConvBatchNorm(space.out_channels, space.head_channels)
        self.features = nn.Linear(space.head_channels, space.feature_channels)
        self.classifier = nn.Linear(space.feature_channels, space.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, C, H, W) → (B, classes)."""
        x = self.conv(x).mean((2, 3))
        return self.classifier(functional.silu(self.features(x)))


def make_stem(space: SearchSpace) -> list[nn.Module]:
    """The first convolution, and the fixed layer where the space has one."""
    stem = space.stem_channels
    first = ConvBatchNorm(space.input_channels, stem, space.stem_kernel, space.stem_stride)
    return [first, *([Separable(stem, space.block_channels)] if space.block_channels else [])]


def operator(name: str, c_in: int, c_out: int, stride: int) -> nn.Module:
    """The module of an operator's name, such as k3e4."""
    if name == "skip":
        return nn.Identity()
    kernel, expansion = map(int, re.fullmatch(r"k(\d+)e(\d+)", name).groups())
    return InvertedBottleneck(c_in, c_out, stride, kernel, expansion)


class Supernet(nn.Module):
    """All operators of all layers, and K heads."""

    def __init__(self, space: SearchSpace, num_paths: int):
        super().__init__()
        self.num_paths, self.stem = num_paths, nn.Sequential(*make_stem(space))
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: operator(name, spec.c_in, spec.c_out, spec.stride)
                    for name in spec.operators
                }
            )
            for spec in space.layers
        )
        self.heads = nn.ModuleList(Head(space) for _ in range(num_paths))
        self.operators = space.operators

    def forward(self, x: torch.Tensor, code: np.ndarray) -> list[torch.Tensor]:
        """Images (B, C, H, W) and `Architecture.to_array` → the paths' logits."""
        split, rows = int(code[0]), np.reshape(code[1:], (self.num_paths, -1))
        x = self.stem(x)
        for layer, choice in zip(self.layers[:split], rows[0], strict=False):
            x = layer[self.operators[choice]](x)
        if x.requires_grad and self.num_paths > 1:
            x.register_hook(lambda gradient: gradient / self.num_paths)
        logits = []
        for head, row in zip(self.heads, rows, strict=True):
            y = x
            for layer, choice in zip(self.layers[split:], row[split:], strict=True):
                y = layer[self.operators[choice]](y)
            logits.append(head(y))
        return logits


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum; weight decay for kernels, not for biases and batch normalisation."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    return torch.optim.SGD(groups, LEARNING_RATE, momentum=MOMENTUM)


def train_step(
    model: Supernet, optimizer: torch.optim.Optimizer, images, labels, code: np.ndarray
) -> torch.Tensor:
    """One step on the sum of the paths' losses; returns their mean."""
    optimizer.zero_grad(set_to_none=True)
    loss = sum(functional.cross_entropy(logits, labels) for logits in model(images, code))
    loss.backward()
    optimizer.step()
    return loss.detach() / model.num_paths


def main(name: str, layout: str) -> None:
    """Serves the steps of a case."""
    torch.manual_seed(0)
    case, state = CASES[name], {}
    format = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def setup(codes: list[list[int]], threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        model = Supernet(case.space, case.num_paths).train().to(memory_format=format)
        images, labels = batch(case)
        images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=format)
        state.update(model=model, optimizer=make_optimizer(model), codes=np.array(codes))
        state.update(images=images, labels=torch.from_numpy(labels))
        return {"torch": torch.__version__, "params": sum(p.numel() for p in model.parameters())}

    def step(index: int) -> float:
        keys = ("model", "optimizer", "images", "labels")
        return float(train_step(*(state[key] for key in keys), state["codes"][index]))

    serve({"setup": setup, "step": step, "memory": peak_memory_gb})


if __name__ == "__main__":
    main(*sys.argv[1:])
