"""Runs and inspects TFLite files with LiteRT, as the devices do. No TensorFlow here."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from neas_tf.common.errors import NeasError
from neas_tf.export.artifacts import SIGNATURE

# Operations with scales that XNNPACK multiplies, and what the factor has to stay below.
_SCALED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
_FACTOR = 256.0
_FLOATS = (np.float32, np.float16, np.float64)


def interpreter(path: str | os.PathLike[str], *, delegate: bool = True, threads: int = 1) -> Any:
    """A LiteRT interpreter, with XNNPACK or without any delegate."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(str(path), num_threads=threads, experimental_op_resolver_type=kind)


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, in alphabetical order."""
    return dict(sorted(collections.Counter(names).items()))


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a TFLite file is made of and how XNNPACK takes it.

    Raises:
      NeasError: for an integer file that no device with XNNPACK can run (see `_check_scales`).

    Returns:
      A dict with
        `ops`: how often each operation occurs;
        `tensor_types`: how many tensors there are of each type;
        `float_islands`: operations that take or give a float map, and their number. Conversions
          at the inputs and outputs of the graph are none, and neither are weights kept in float;
        `xnnpack_partitions`: how many parts of the graph XNNPACK runs;
        `not_delegated`: the operations that it does not run, and their number.
    """
    plain = interpreter(path, delegate=False)
    tensors = {t["index"]: t for t in plain.get_tensor_details()}
    ends = {d["index"] for d in (*plain.get_input_details(), *plain.get_output_details())}
    ops = plain._get_ops_details()
    _check_scales(ops, tensors)
    made = {int(i) for op in ops for i in op["outputs"]} | ends
    used = made | {int(i) for op in ops for i in op["inputs"] if i >= 0}
    islands = [
        op["op_name"]
        for op in ops
        if any(
            i in made and i not in ends and tensors[i]["dtype"] in _FLOATS
            for i in map(int, (*op["inputs"], *op["outputs"]))
        )
    ]
    partitions, rest = _partitions(path)
    return {
        "ops": counted(op["op_name"] for op in ops),
        "tensor_types": counted(np.dtype(tensors[i]["dtype"]).name for i in used if i in tensors),
        "float_islands": counted(islands),
        "xnnpack_partitions": partitions,
        "not_delegated": rest,
    }


def _check_scales(ops: list[dict[str, Any]], tensors: dict[int, dict[str, Any]]) -> None:
    """Refuses a layer whose output spans too little: XNNPACK fails on it, or ends the process.

    Its kernels multiply sums by scale of the input · scale of the weights / scale of the output,
    and take factors below 256 only.
    """
    for op in ops:
        if op["op_name"] not in _SCALED:
            continue
        scales = [
            tensors[int(i)]["quantization_parameters"]["scales"]
            for i in (op["inputs"][0], op["inputs"][1], op["outputs"][0])
        ]
        if any(len(scale) == 0 for scale in scales):
            continue  # a float layer
        factor = float(np.max(scales[0] * scales[1] / scales[2]))
        if factor >= _FACTOR:
            name = tensors[int(op["outputs"][0])]["name"].partition(";")[0]
            raise NeasError(
                f"quantize: the output of {name!r} spans too "
                f"little of what goes in: a factor of {factor:.0f}, expected less than "
                f"{_FACTOR:.0f} (XNNPACK). Such a layer has no effect any more, as squeeze-excites "
                "may have after pruning. Try float16 or dynamic, or less sparsity."
            )


def _partitions(path: str | os.PathLike[str]) -> tuple[int, dict[str, int]]:
    """Number of XNNPACK's partitions, and the operations outside of them, counted."""
    delegated = interpreter(path)
    delegated.allocate_tensors()
    ops = delegated._get_ops_details()
    parts = [op for op in ops if op["op_name"] == "DELEGATE"]
    others = [op for op in ops if op["op_name"] != "DELEGATE"]
    maker = {int(i): number for number, op in enumerate(others) for i in op["outputs"]}
    inside: set[int] = set()
    for part in parts:  # from its outputs back to its inputs
        begin = {int(i) for i in part["inputs"]}
        waiting = [int(i) for i in part["outputs"]]
        while waiting:
            number = maker.get(tensor := waiting.pop())
            if number is None or number in inside or tensor in begin:
                continue
            inside.add(number)
            waiting += [int(i) for i in others[number]["inputs"] if int(i) not in begin]
    outside = [op["op_name"] for number, op in enumerate(others) if number not in inside]
    return len(parts), counted(outside)


def end_details(path: str | os.PathLike[str]) -> tuple[list[dict], list[dict]]:
    """Inputs and outputs of the signature: name, shape, dtype and, for integers, quantization.

    An integer q stands for (q - zero_point) · scale.
    """
    runner = interpreter(path, delegate=False).get_signature_runner(SIGNATURE)

    def describe(details: dict[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for name, detail in sorted(details.items()):
            row = {
                "name": name,
                "shape": [int(side) for side in detail["shape"]],
                "dtype": np.dtype(detail["dtype"]).name,
            }
            scale, zero_point = detail["quantization"]
            if scale:
                row |= {"scale": float(scale), "zero_point": int(zero_point)}
            rows.append(row)
        return rows

    return describe(runner.get_input_details()), describe(runner.get_output_details())


def runner(path: str | os.PathLike[str]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from float pixels in 0..255 to real outputs, whatever the file's types are."""
    signature = interpreter(path).get_signature_runner(SIGNATURE)
    image_detail = signature.get_input_details()["image"]
    details = signature.get_output_details()

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = signature(image=_to_integers(image, image_detail))
        return {name: _to_reals(value, details[name]) for name, value in outputs.items()}

    return run


def _to_integers(value: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    kind, (scale, zero_point) = np.dtype(detail["dtype"]), detail["quantization"]
    if kind == np.float32:
        return np.asarray(value, np.float32)
    limits = np.iinfo(kind)
    return np.clip(np.round(value / scale) + zero_point, limits.min, limits.max).astype(kind)


def _to_reals(value: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    if np.dtype(detail["dtype"]) == np.float32:
        return np.array(value)
    return (np.asarray(value, np.float32) - np.float32(zero_point)) * np.float32(scale)
