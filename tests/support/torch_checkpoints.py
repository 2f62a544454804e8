"""The weights of our models as the authors' checkpoints hold them."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import warm

from neas_tf.common.paths import project_file
from neas_tf.ensemble.torch_weight_names import torch_layout
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace


def state_dict(
    model, architecture: Architecture, space: SearchSpace, extras: bool = True
) -> dict[str, np.ndarray]:
    """A Keras model's weights as the authors' state dict has them, with what it never uses."""
    from neas_tf.ensemble.model import model_slots  # imports TensorFlow

    layout = torch_layout(architecture, space)
    result = {}
    for slot, value in zip(model_slots(model), model.get_weights(), strict=True):
        weight = layout.weights[(slot.part, slot.layer, slot.path, slot.role)]
        if value.ndim == 4:
            depthwise = slot.role == "dw/kernel"
            value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        elif value.ndim == 2:
            value = value.T
        result[weight.name] = np.ascontiguousarray(value)
    if extras:
        for unused in layout.unused:
            counter = unused.endswith("num_batches_tracked")
            result[unused] = np.array(7, "<i8") if counter else np.full((3,), np.nan, "<f4")
    return result


def write(path, content: dict):
    """Writes nested dicts of arrays as `torch.save` does, with PyTorch; returns the path."""
    import torch

    def tensors(value):
        if isinstance(value, dict):
            return {key: tensors(inner) for key, inner in value.items()}
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    torch.save(tensors(content), path)
    return path


def call(module: str, *arguments) -> subprocess.CompletedProcess:
    """Runs a command of ours, such as `convert_torch`, in a process of its own."""
    return subprocess.run(
        [warm.python(), "-m", f"neas_tf.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": project_file()},
        check=False,
        timeout=300,
    )
