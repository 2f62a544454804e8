"""The authors' network in PyTorch, written from the description of its forward pass.

Needs PyTorch and NumPy, nothing of this project: `test_convert_torch` runs it with the interpreter
that has them.

python torch_reference.py run CHECKPOINT ARCHITECTURE IMAGES.npz OUTPUTS.npz
python torch_reference.py make CHECKPOINT ARCHITECTURE IMAGES.npz OUTPUTS.npz
    (random weights; CHECKPOINT and CHECKPOINT.old, both like those of a training on several GPUs)
ARCHITECTURE is the authors' list.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

STAGES = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
KERNELS = (3, 3, 5, 5, 7, 7)
EXPANSIONS = (4, 6, 4, 6, 4, 6)


def make_divisible(value):
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def conv(c_in, c_out, kernel=1, stride=1, groups=1, bias=False):
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=bias)


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv_reduce = conv(channels, make_divisible(channels / 4), bias=True)
        self.conv_expand = conv(make_divisible(channels / 4), channels, bias=True)

    def forward(self, x):
        gate = x.mean((2, 3), keepdim=True)
        gate = self.conv_expand(functional.relu(self.conv_reduce(gate)))
        return x * functional.relu6(gate + 3) / 6


class Separable(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv_dw, self.bn1 = conv(c_in, c_in, 3, groups=c_in), nn.BatchNorm2d(c_in)
        self.se = SqueezeExcite(c_in)
        self.conv_pw, self.bn2 = conv(c_in, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        y = self.se(functional.silu(self.bn1(self.conv_dw(x))))
        return self.bn2(self.conv_pw(y)) + x


class InvertedResidual(nn.Module):
    def __init__(self, c_in, c_out, stride, kernel, expansion):
        super().__init__()
        inner = make_divisible(c_in * expansion)
        self.residual = stride == 1 and c_in == c_out
        self.conv_pw, self.bn1 = conv(c_in, inner), nn.BatchNorm2d(inner)
        self.conv_dw = conv(inner, inner, kernel, stride, inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = SqueezeExcite(inner)
        self.conv_pwl, self.bn3 = conv(inner, c_out), nn.BatchNorm2d(c_out)
        # In the authors' file, but not in their forward pass.
        self.conv_dwl, self.bn4 = conv(c_out, c_out, kernel, groups=c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        y = functional.silu(self.bn1(self.conv_pw(x)))
        y = self.se(functional.silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.residual else y


class ConvBnAct(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv, self.bn1 = conv(c_in, c_out), nn.BatchNorm2d(c_out)

    def forward(self, x):
        return functional.silu(self.bn1(self.conv(x)))


class Ensemble(nn.Module):
    def __init__(self, architecture, num_classes=1000):
        super().__init__()
        split, paths, first, *rest = architecture
        assert first == 0
        shared, rest = rest[:split], rest[split:]
        each = len(rest) // paths
        rows = [rest[k * each : (k + 1) * each] for k in range(paths)]
        assert len(rest) == paths * each and split + each - 1 == 20
        self.conv_stem, self.bn1 = conv(3, 16, 3, 2), nn.BatchNorm2d(16)
        trunk = [Separable(16, 16), *self.layers(shared, 0)]
        self.sharing_blocks = nn.Sequential(nn.Sequential(*trunk))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Sequential(*self.layers(row[:-1], split), ConvBnAct(160, 960)))
            for row in rows
        )
        self.conv_heads = nn.ModuleList(conv(960, 1280, bias=True) for _ in rows)
        self.classifiers = nn.ModuleList(nn.Linear(1280, num_classes) for _ in rows)

    @staticmethod
    def layers(operators, first):
        result = []
        for number, operator in enumerate(operators, first):
            stage, position = divmod(number, 4)
            c_out, stride = STAGES[stage]
            c_in = c_out if position else ((16, *(c for c, _ in STAGES))[stage])
            if operator != -1:
                shape = (c_in, c_out, 1 if position else stride)
                result.append(InvertedResidual(*shape, KERNELS[operator], EXPANSIONS[operator]))
        return result

    def forward(self, x):
        """Images (n, 3, h, w) to the trunk's output and logits (K, n, classes)."""
        trunk = self.sharing_blocks(functional.silu(self.bn1(self.conv_stem(x))))
        logits = []
        for block, head, classifier in zip(
            self.blocks, self.conv_heads, self.classifiers, strict=True
        ):
            y = block(trunk).mean((2, 3), keepdim=True)
            logits.append(classifier(functional.silu(head(y)).flatten(1)))
        return trunk, torch.stack(logits)


def randomise(model, seed):
    """Weights and statistics that keep activations near 1, so that float32 resolves 1e-5."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1 + 0.2 * torch.tanh(noise(module.weight)))
                module.bias.copy_(0.2 * noise(module.bias))
                module.running_mean.copy_(0.2 * noise(module.running_mean))
                module.running_var.copy_(1 + 0.5 * torch.tanh(noise(module.running_var)))
                module.num_batches_tracked.fill_(7)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.copy_(noise(module.weight) * (1.5 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(0.3 * noise(module.bias))


def outputs(model, images):
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        trunk, logits = model.eval()(x)
    return {
        "trunk": trunk.permute(0, 2, 3, 1).numpy(),
        "head_logits": logits.numpy(),
        "ensemble_logits": logits.mean(0).numpy(),
    }


def main(mode, checkpoint, architecture, images, results):
    torch.set_num_threads(2)
    model = Ensemble([int(v) for v in architecture.split(",")])
    pictures = np.load(images)["normalised"]
    if mode == "run":
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict(state, strict=True)
        np.savez(results, **outputs(model, pictures))
        return
    found, states = {}, {}
    for seed, key in enumerate(("state_dict", "state_dict_ema")):
        randomise(model, seed)
        states[key] = type(model.state_dict())(
            (f"module.{name}", tensor.clone()) for name, tensor in model.state_dict().items()
        )
        found |= {f"{key}/{name}": value for name, value in outputs(model, pictures).items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    content = {
        "epoch": 349,
        "arch": "Childnet_Builder",
        **states,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.064, model="childnet"),
        "version": 2,
        "metric": np.float64(77.9),
    }
    torch.save(content, checkpoint)
    torch.save(content, f"{checkpoint}.old", _use_new_zipfile_serialization=False)
    np.savez(results, **found)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:])
