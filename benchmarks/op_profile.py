"""Where a TFLite file spends its time: XNNPACK's own operations, by kind or one by one.

    python -m benchmarks.op_profile model.tflite [--ops] [--runs=50]

XNNPACK fuses and replaces operations of the file, so that only its own profile tells what is slow.
LiteRT's Python interface does not give it; here it is read through the C interface of LiteRT's
library. Times are on the clock, in whole microseconds an operation; of the runs' times the lower
half is averaged, which a busy machine disturbs least. Inputs are zeros.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common.console import native_noise_off
from neas_tf.common.errors import NeasError, check_int

_CPU = 1  # kLiteRtHwAcceleratorCpu
_HOST_MEMORY = 1  # kLiteRtTensorBufferTypeHostMemory
# Kinds of events that are an operation, of LiteRT's or of a delegate's.
_OPERATIONS = {2, 4, 8}
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.uint8): 3, np.dtype(np.int8): 9}
_MAX_RANK = 8


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint),
        ("dimensions", ctypes.c_int32 * _MAX_RANK),
        ("strides", ctypes.c_uint32 * _MAX_RANK),
    )


class _TensorType(ctypes.Structure):
    _fields_ = (("element_type", ctypes.c_int), ("layout", _Layout))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_uint64 * 6),
        ("number", ctypes.c_uint64),
        ("number2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


def profile(path: Path, runs: int = 50) -> list[tuple[str, float]]:
    """XNNPACK's operations in their order: name and milliseconds.

    Raises:
      NeasError: when the file cannot be run, or this LiteRT has no such profile.
    """
    with native_noise_off():  # which lets everything out when the block fails
        try:
            return _profile(path, runs)
        except (OSError, AttributeError, ValueError) as error:
            reason = error
    raise NeasError(f"{path}: cannot be profiled with this LiteRT ({reason}).")


def _profile(path: Path, runs: int) -> list[tuple[str, float]]:
    import ai_edge_litert

    library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(library, name)(*arguments):
            raise OSError(f"{name}: status {status}")

    def make(name: str, *arguments: Any) -> ctypes.c_void_p:
        result = ctypes.c_void_p()
        call(name, *arguments, ctypes.byref(result))
        return result

    alive: list[Any] = []  # what the options point to, until they are destroyed
    with contextlib.ExitStack() as stack:

        def owned(kind: str, name: str, *arguments: Any) -> ctypes.c_void_p:
            result = make(name, *arguments)
            stack.callback(getattr(library, f"LiteRtDestroy{kind}"), result)
            return result

        environment = owned("Environment", "LiteRtCreateEnvironment", 0, None)
        model = owned("Model", "LiteRtCreateModelFromFile", environment, str(path).encode())
        options = owned("Options", "LiteRtCreateOptions")
        call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        _add_options(make, call, options, alive)
        compiled = owned("CompiledModel", "LiteRtCreateCompiledModel", environment, model, options)
        buffers = []
        for ends in _ends(path):
            handles = [
                owned(
                    "TensorBuffer",
                    "LiteRtCreateManagedTensorBuffer",
                    environment,
                    _HOST_MEMORY,
                    ctypes.byref(_tensor_type(end)),
                    ctypes.c_size_t(_bytes(end)),
                )
                for end in ends
            ]
            buffers += [ctypes.c_size_t(len(handles)), (ctypes.c_void_p * len(handles))(*handles)]
        for i in (1, 3):
            for handle in buffers[i]:
                call("LiteRtClearTensorBuffer", ctypes.c_void_p(handle))
        profiler = make("LiteRtCompiledModelGetProfiler", compiled)
        times: dict[int, list[int]] = collections.defaultdict(list)
        names: dict[int, str] = {}
        for number in range(runs + 3):
            call("LiteRtResetProfiler", profiler)
            call("LiteRtStartProfiler", profiler)
            call("LiteRtRunCompiledModel", compiled, ctypes.c_size_t(0), *buffers)
            call("LiteRtStopProfiler", profiler)
            for place, event in enumerate(_events(call, profiler)):
                names[place] = event.tag.decode()
                if number >= 3:  # the first ones warm up
                    times[place].append(event.elapsed_us)
    return [(names[place], _lower_half(times[place]) / 1e3) for place in sorted(times)]


def _add_options(make: Any, call: Any, options: ctypes.c_void_p, alive: list[Any]) -> None:
    """One thread, and a profiler. Puts into `alive` what must live as long as the options."""
    nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda pointer: None)
    alive.append(nothing)
    for name, text in (
        (b"runtime_options_string", b"enable_profiling = true\n"),
        (b"cpu_options_string", b"num_threads = 1\n"),
    ):
        payload = ctypes.create_string_buffer(text)
        alive.append(payload)
        opaque = make(
            "LiteRtCreateOpaqueOptions", name, ctypes.cast(payload, ctypes.c_void_p), nothing
        )
        call("LiteRtAddOpaqueOptions", options, opaque)


def _ends(path: Path) -> tuple[list[dict], list[dict]]:
    """Inputs and outputs of the signature, in its order."""
    from neas_tf.export.tflite.inspection import interpreter

    plain = interpreter(path, delegate=False)
    signature = next(iter(plain.get_signature_list().values()))
    name = next(iter(plain.get_signature_list()))
    runner = plain.get_signature_runner(name)
    return (
        [runner.get_input_details()[end] for end in signature["inputs"]],
        [runner.get_output_details()[end] for end in signature["outputs"]],
    )


def _tensor_type(end: dict[str, Any]) -> _TensorType:
    layout = _Layout(rank=len(end["shape"]))
    layout.dimensions[: len(end["shape"])] = [int(side) for side in end["shape"]]
    return _TensorType(_TYPES[np.dtype(end["dtype"])], layout)


def _bytes(end: dict[str, Any]) -> int:
    """Size of a buffer, whole lines of the cache."""
    size = int(np.prod(end["shape"])) * np.dtype(end["dtype"]).itemsize
    return -(-size // 64) * 64


def _events(call: Any, profiler: ctypes.c_void_p) -> Iterator[_Event]:
    count = ctypes.c_int()
    call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    events = (_Event * count.value)()
    call("LiteRtGetProfilerEvents", profiler, count, events)
    return (event for event in events if event.kind in _OPERATIONS)


def _lower_half(values: Sequence[int]) -> float:
    return float(np.mean(sorted(values)[: max(1, len(values) // 2)]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code, 2 after bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--ops", action="store_true", help="each operation, in its order")
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args(arguments)
    try:
        check_int("--runs", args.runs, 1)
        if not args.file.is_file():
            raise NeasError(f"{args.file}: no such file.")
        operations = profile(args.file, args.runs)
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.ops:
        for number, (name, ms) in enumerate(operations):
            print(f"{ms:9.4f} ms  {number:4}  {name}")
        return 0
    total: collections.Counter[str] = collections.Counter()
    for name, ms in operations:
        total[name] += ms
    count = collections.Counter(name for name, _ in operations)
    whole = sum(total.values())
    print(f"{whole:9.4f} ms  100 %  {len(operations):4}  all")
    for name, ms in total.most_common():
        print(f"{ms:9.4f} ms  {ms / max(whole, 1e-9):4.0%}  {count[name]:4}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
