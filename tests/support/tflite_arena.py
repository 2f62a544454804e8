"""What LiteRT's reference kernels make of a TFLite file: its operations and its memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def operations(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """(kind, shape of the output without the batch) of every operation, in its order."""
    runner = _runner(path)
    shapes = {d["index"]: d["shape"] for d in runner.get_tensor_details()}
    result = []
    for op in runner._get_ops_details():
        shape = tuple(int(side) for side in shapes[int(op["outputs"][0])])[1:]
        result.append((op["op_name"], (1,) * (3 - len(shape)) + shape))
    return result


def arena_bytes(path: Path) -> int:
    """From the first to the last byte of the memory that the activations share."""
    runner = _runner(path)
    runner.invoke()
    tensors = {d["index"] for d in runner.get_input_details()}
    tensors |= {int(i) for op in runner._get_ops_details() for i in op["outputs"]}
    views = [runner.tensor(i)() for i in tensors]
    begins = [view.__array_interface__["data"][0] for view in views]
    ends = [begin + view.nbytes for begin, view in zip(begins, views, strict=True)]
    return max(ends) - min(begins)


def _runner(path: Path) -> Interpreter:
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = Interpreter(str(path), experimental_op_resolver_type=kernels)
    runner.allocate_tensors()
    for detail in runner.get_input_details():
        runner.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    return runner
