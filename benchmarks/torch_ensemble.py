"""NEAS-S and other stand-alone ensembles in PyTorch, with the paper's recipe of retraining.

    python -m benchmarks.torch_ensemble ARCHITECTURE SIZE BATCH (default | channels_last)

is a worker of `benchmarks.retraining_step`: RMSProp, moving averages of weights and statistics,
dropout, label smoothing, the gradient into the trunk divided by K.
"""

from __future__ import annotations

import dataclasses
import sys

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.supernet_cases import random_batch
from benchmarks.torch_supernet import Head, make_stem, operator
from benchmarks.workers import peak_memory_gb, serve
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

# As `RetrainConfig` has them, which a test compares.
RATE, RHO, MOMENTUM, EPSILON = 0.064, 0.9, 0.9, 1e-3
WEIGHT_DECAY, DROPOUT, SMOOTHING, AVERAGE = 1e-5, 0.2, 0.1, 0.9999


class Ensemble(nn.Module):
    """The trunk, and K paths behind the split point."""

    def __init__(self, architecture: Architecture, space: SearchSpace, dropout: float = DROPOUT):
        super().__init__()
        split, shapes = architecture.split_point, space.layers

        def layers(row, first):
            return [
                operator(name, shape.c_in, shape.c_out, shape.stride)
                for name, shape in zip(row, shapes[first : first + len(row)], strict=True)
                if name != "skip"
            ]

        self.trunk = nn.Sequential(*make_stem(space), *layers(architecture.shared, 0))
        self.paths = nn.ModuleList(
            nn.Sequential(*layers(row[split:], split), Head(space, dropout))
            for row in architecture.paths
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images (B, C, H, W) → the paths' logits."""
        x = self.trunk(x)
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient / len(self.paths))
        return [path(x) for path in self.paths]


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """RMSProp; weight decay for kernels only."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": others}]
    return torch.optim.RMSprop(groups, RATE, alpha=RHO, eps=EPSILON, momentum=MOMENTUM)


def make_average(model: nn.Module) -> AveragedModel:
    """The moving average of weights and statistics."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)


def train_step(model, average, optimizer, images, labels) -> torch.Tensor:
    """One step; returns the mean of the paths' losses."""
    optimizer.zero_grad(set_to_none=True)
    losses = [
        functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
        for logits in model(images)
    ]
    sum(losses).backward()
    optimizer.step()
    average.update_parameters(model)
    return sum(losses).detach() / len(losses)


def main(name: str, size: str, batch_size: str, layout: str) -> None:
    """Serves the steps of an ensemble."""
    torch.manual_seed(0)
    format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    state = {}

    def setup(threads: int) -> str:
        torch.set_num_threads(threads)
        space = dataclasses.replace(SearchSpace(), input_size=(int(size), int(size)))
        model = Ensemble(load_architecture(name, space), space).train().to(memory_format=format)
        images, labels = random_batch(space, int(batch_size))
        images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=format)
        state["all"] = (model, make_average(model), make_optimizer(model), images)
        state["labels"] = torch.from_numpy(labels)
        return torch.__version__

    def step() -> float:
        return float(train_step(*state["all"], state["labels"]))

    serve({"setup": setup, "step": step, "memory": peak_memory_gb})


if __name__ == "__main__":
    main(*sys.argv[1:])
