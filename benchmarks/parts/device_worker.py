"""Steps of the supernet and a generation of the search on a device: a worker of `device_check`.

python -m benchmarks.parts.device_worker CASE
"""

from __future__ import annotations

import dataclasses
import glob
import os
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.parts.supernet_cases import CASES, batch
from benchmarks.parts.supernet_worker import make_step
from benchmarks.parts.workers import peak_memory_gb, serve

_CALIBRATION, _VALIDATION = 64, 128  # images of the search


def main(name: str) -> None:
    """Serves the steps of a case."""
    case, state = CASES[name], dict[str, Any]()
    dumps = tempfile.mkdtemp(prefix="neas_device_check_")

    def setup(codes: list[list[int]], batch_size: int, kind: str, xla: bool) -> dict[str, Any]:
        """Makes the supernet; `kind` is cpu or device, the best that there is."""
        nonlocal case
        case = dataclasses.replace(case, batch_size=batch_size)
        flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_dump_to={dumps}"]
        if xla:  # a file for each compilation, which is how they are counted
            os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_dump_hlo_as_text"]).strip()
        import tensorflow as tf

        from neas_tf.supernet.switches import safe_switches

        strategy = _strategy(tf, kind)
        safe_switches().__enter__()  # for as long as the process lives, as in the stage
        state["codes"] = np.array(codes, np.int32)
        with strategy.scope():
            state.update(make_step(case, state["codes"], strategy, xla))
        state["data"] = tuple(map(tf.constant, batch(case)))
        return {
            "device": strategy.extended.worker_devices[0],
            "devices": [_described(tf, d) for d in tf.config.list_physical_devices()],
            "tensorflow": tf.__version__,
            "cuda": dict(tf.sysconfig.get_build_info()).get("cuda_version"),
        }

    def step(index: int) -> dict[str, float]:
        begin = time.perf_counter()
        loss = state["step"](index, *state["data"])  # a number: the device has finished
        return {"loss": loss, "seconds": time.perf_counter() - begin}

    def compilations() -> dict[str, int]:
        """Traces of the step's function, and modules that XLA has compiled for it."""
        modules = glob.glob(f"{dumps}/*XlaMustCompile*before_optimizations.txt")
        return {"traces": state["traced"].experimental_get_tracing_count(), "xla": len(modules)}

    def generation(candidates: int) -> dict[str, Any]:
        """Scores fresh candidates twice (the first time traces); logits of one of them."""
        from neas_tf.search.evaluation import CandidateEvaluator
        from neas_tf.space.architecture import Architecture

        rng = np.random.default_rng(1)
        shape = (*case.space.input_size, case.space.input_channels)
        calibration = rng.standard_normal((_CALIBRATION, *shape), np.float32)
        images = rng.standard_normal((_VALIDATION, *shape), np.float32)
        labels = rng.integers(0, case.space.num_classes, _VALIDATION)
        evaluator = CandidateEvaluator(state["model"], calibration, images, labels, 32, 64)
        drawn = case.draws(candidates, seed=1)
        ensembles = [Architecture.from_array(code, case.space, case.num_paths) for code in drawn]
        seconds = []
        for _ in range(2):
            begin, cpu = time.perf_counter(), time.process_time()
            evaluator.evaluate_all(ensembles)
            seconds.append(time.perf_counter() - begin)
            cpu = time.process_time() - cpu
        logits = evaluator.logits(ensembles[0])[:, :16].tolist()
        return {"first_s": seconds[0], "s": seconds[1], "cpu_s": cpu, "logits": logits}

    handlers = {"setup": setup, "step": step, "compilations": compilations}
    serve(handlers | {"generation": generation, "memory": peak_memory_gb})


def _strategy(tf: Any, kind: str) -> Any:
    """The first TPU, GPU or CPU; 'cpu' hides the others."""
    if kind == "cpu":
        for other in ("GPU", "TPU"):
            tf.config.set_visible_devices([], other)
        return tf.distribute.OneDeviceStrategy("CPU:0")
    if tf.config.list_physical_devices("TPU"):
        from official.common import distribute_utils

        return distribute_utils.get_distribution_strategy("tpu", tpu_address="local")
    gpu = tf.config.list_physical_devices("GPU")
    return tf.distribute.OneDeviceStrategy("GPU:0" if gpu else "CPU:0")


def _described(tf: Any, device: Any) -> str:
    details = tf.config.experimental.get_device_details(device) if device else {}
    return f"{device.device_type} {details.get('device_name', '')}".strip()


if __name__ == "__main__":
    main(*sys.argv[1:])
