"""Reads PyTorch checkpoints with `torch.load(weights_only=True)`, which runs nothing of a file."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import warnings
import zipfile
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError, check

# Before, `weights_only` could be made to run code (CVE-2025-32434).
_OLDEST = (2, 6)
# PyTorch's message about a refused file, without its advice to load the file unsafely.
_REASON = re.compile(r"WeightsUnpickler error: *([^\n]*)")


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Reads a checkpoint into memory.

    Args:
      path: a file of `torch.save`, in its zip form or the older one.

    Returns:
      What the file holds: dicts, lists, numbers and strings, with a NumPy array in the place of
      each tensor that lies in dicts; kinds of numbers that NumPy lacks, such as bfloat16, become
      float32.

    Raises:
      NeasError: where PyTorch is missing, and for a file that is missing, damaged, or holds more
        than plain data.
    """
    path = os.fspath(path)
    check(os.path.isfile(path), "torch_checkpoint", path, "an existing file")
    torch = _import_torch()
    try:
        _check_stored(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_metadata()):
            warnings.simplefilter("ignore")  # of pickles' versions
            return _arrays(torch.load(path, map_location="cpu", weights_only=True), torch)
    except Exception as error:  # PyTorch's readers raise errors of many kinds
        text = str(error)
        found = _REASON.search(text)
        reason = " ".join((found[1] if found else text).split())[:160] or type(error).__name__
        raise NeasError(
            f"torch_checkpoint: {path!r} is no sound PyTorch checkpoint of plain weights "
            f"({reason}); nothing of it was run."
        ) from None


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise NeasError(
            "torch_checkpoint: reading it needs PyTorch, which is not installed; "
            "run pip install 'neas-tf[torch]' (or pip install torch)."
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST:
        raise NeasError(
            f"torch_checkpoint: PyTorch {torch.__version__} does not load files safely; expected "
            "2.6 or later."
        )
    return torch


def _metadata() -> list[Any]:
    """What training programs leave beside the weights: arguments, and accuracies of NumPy."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [
        argparse.Namespace,
        pathlib.PosixPath,
        np.dtype,
        *kinds,
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


def _check_stored(path: str) -> None:
    """torch.save compresses nothing; what does could unfold to many times the file."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("a zip file with compressed entries")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("a zip file whose entries overlap")


def _arrays(value: Any, torch: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, (str, int, float, bytes)) for key in value):
            raise ValueError("a key that is no name")  # it could nest without end
        return {key: _arrays(item, torch) for key, item in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    # A stride of 0 could unfold to any size.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("a tensor larger than its numbers")
    known = (torch.float16, torch.float32, torch.float64)
    if value.is_floating_point() and value.dtype not in known:
        value = value.float()
    return value.detach().numpy()
