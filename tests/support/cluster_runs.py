"""Runs of the command in several processes or on several logical CPUs, with faults on order.

`Cluster` starts a process that loads the libraries once and forks a group of workers for every
order, which saves most of the time of a small run. A worker is `neas_tf.train` itself. Orders are
lines of JSON on stdin: {"workers": [{"argv", "env", "log", "fault"}], "limit": seconds, "copies":
n}; the answer is {"codes": […], "ends": [seconds after the first end]}; -99 is a worker that had to
be killed because the limit was up.

A fault is {"stage", "at", "do"}: behind the `at`-th logging interval of a training, before the
`at`-th generation of the search, the `at`-th export, or the `at`-th meeting, the worker dies ("kill"), stands still ("stop") or fails ("fail").

With "copies" a global batch is so many copies of a small one, so that every replica sees the same
mixture of images and batch normalisation the same moments, whatever the number of replicas (see
test_devices.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KILLED = -99
# A batch of 4 images, 12 times: 1, 2, 3, 4 and 6 replicas get whole copies.
COPIES = 12
SETTINGS = """
space: {name: cluster, stem_channels: 8, stages: [[8, 1, 1], [12, 2, 2]],
        operators: [k3e1, k3e2, skip], min_split: 1, max_split: 2, head_channels: 16,
        feature_channels: 16}
supernet: {batch_size: 48, warmup_epochs: 0.0, trainer: {train_steps: 8, steps_per_loop: 1,
           checkpoint_interval: 2}}
shrink: {every_epochs: 0.12, remove: 1, num_samples: 12, images: 48, batch_size: 48,
         min_pair_count: 1}
search: {population: 6, parents: 3, generations: 3, crossover: 2, mutation: 2, max_macs: 0,
         calibration_images: 64, calibration_batch: 32, validation_images: 144, batch_size: 48}
retrain: {batch_size: 48, warmup_epochs: 0.0, dropout: 0.0,
          trainer: {train_steps: 4, steps_per_loop: 1, checkpoint_interval: 2}}
export: {formats: [tflite], parity_examples: 8}
workers: {start_seconds: 120}
"""


class Cluster:
    """The process that forks workers; a context manager.

    Args:
      work: folder for settings and logs.
    """

    def __init__(self, work: Path):
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        (work / "settings.yaml").write_text(SETTINGS)
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def run(
        self,
        folder: Path,
        workers: int = 1,
        devices: int = 1,
        stage: str = "all",
        faults: Mapping[int, Mapping[str, Any]] | None = None,
        arguments: Mapping[int, Sequence[str]] | None = None,
        absent: Sequence[int] = (),
        copies: int = 0,
        limit: float = 300.0,
    ) -> dict[str, Any]:
        """Runs the command and waits for its end.

        Args:
          folder: model_dir.
          workers: processes (`multi_worker_mirrored`); one is a run without TF_CONFIG.
          devices: logical CPUs of one process (`mirrored`).
          stage: of the pipeline.
          faults: by worker.
          arguments: further ones, by worker.
          absent: workers that are not started.
          copies: see the module.
          limit: seconds, after which all are killed.

        Returns:
          {"codes", "ends", "logs"}, a value a worker.
        """
        hosts = free_hosts(workers)
        name = "one_device" if devices == 1 else "mirrored"
        name = "multi_worker_mirrored" if workers > 1 else name
        orders = []
        for index in range(workers):
            log = self.work / f"{folder.name}_{index}.log"
            argv = [
                f"--model_dir={folder}",
                f"--stage={stage}",
                f"--config_file={self.work / 'settings.yaml'}",
                f"--params_override=runtime.distribution_strategy={name}",
                f"--logical_cpus={devices}",
                *(arguments or {}).get(index, ()),
            ]
            order = {"argv": argv, "log": str(log), "fault": (faults or {}).get(index)}
            order["absent"] = index in absent
            if workers > 1:
                task = {"type": "worker", "index": index}
                cluster = {"cluster": {"worker": hosts}, "task": task}
                order["env"] = {"TF_CONFIG": json.dumps(cluster)}
            orders.append(order)
        self._process.stdin.write(
            json.dumps({"workers": orders, "limit": limit, "copies": copies}) + "\n"
        )
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        answer["logs"] = [Path(o["log"]).read_text() if not o["absent"] else "" for o in orders]
        return answer


def free_hosts(count: int) -> list[str]:
    """Addresses of this machine with ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return hosts


def said(log: str) -> str:
    """The last sentence of a command's log."""
    lines = [line for line in log.splitlines() if line.startswith("neas_tf.train: ")]
    return lines[-1] if lines else ""


# ── the forking process and its children ──────────────────────────────────────────────────────


def _serve() -> None:
    from soak import nursery

    nursery.load()
    for line in sys.stdin:
        order = json.loads(line)
        children: dict[int, int] = {}
        for index, worker in enumerate(order["workers"]):
            if worker["absent"]:
                continue
            pid = os.fork()
            if not pid:
                _work(worker, order["copies"])
            children[pid] = index
        codes, ends = _wait(children, len(order["workers"]), order["limit"])
        print(json.dumps({"codes": codes, "ends": ends}), flush=True)


def _wait(
    children: dict[int, int], count: int, limit: float
) -> tuple[list[int | None], list[float | None]]:
    codes: list[int | None] = [None] * count
    ends: list[float | None] = [None] * count
    begin, first, left = time.monotonic(), None, dict(children)
    late = False
    while left:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        now = time.monotonic()
        if pid and os.WIFSTOPPED(status):
            first = first or now  # a worker that stands still is as good as dead
        elif pid:
            first = first or now
            index = left.pop(pid)
            codes[index] = KILLED if late else os.waitstatus_to_exitcode(status)
            ends[index] = round(now - first, 1)
            stopped = [p for p in left if _stopped(p)]
            if len(stopped) == len(left):  # the others are done: away with who stands still
                for p in stopped:
                    os.kill(p, signal.SIGKILL)
        elif now - begin > limit and not late:
            late = True
            for p in left:
                os.kill(p, signal.SIGKILL)
        else:
            time.sleep(0.05)
    return codes, ends


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _work(worker: dict[str, Any], copies: int) -> None:
    """The child: one run of the command. Does not return."""
    from soak import nursery

    Path(worker["log"]).write_bytes(b"")
    nursery.speak_into(worker["log"])
    os.environ.update(worker.get("env", {}))
    import tensorflow as tf

    from neas_tf.run import pipeline

    pipeline.report = lambda run: {}  # pictures take longer than a stage
    # Tracing is most of the time here.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if copies:
        _repeat_batches(copies)
    if worker["fault"]:
        _install(worker["fault"])
    nursery.command(worker["argv"])
    os._exit(1)


def _repeat_batches(copies: int) -> None:
    import tensorflow as tf

    from neas_tf import data

    make = data.make_dataset

    def repeated(info, part, batch_size, training, input_context=None, **keywords):
        if not training:
            return make(info, part, batch_size, training, input_context=input_context, **keywords)
        dataset = make(info, part, batch_size // copies, training, **keywords)
        replicas = input_context.num_replicas_in_sync if input_context else 1
        inputs = input_context.num_input_pipelines if input_context else 1

        def tile(images, labels):
            times = copies // replicas
            batch = tf.tile(images, [times, 1, 1, 1]), tf.tile(labels, [times])
            return tf.data.Dataset.from_tensors(batch).repeat(replicas // inputs)

        return dataset.flat_map(tile)

    data.make_dataset = repeated


def _install(fault: Mapping[str, Any]) -> None:
    """Makes this process fail at a point of the run."""
    from neas_tf.common import errors
    from neas_tf.run import cluster, export_stage, search_stage
    from neas_tf.training import training_loop

    left = [int(fault["at"])]

    def strike() -> None:
        left[0] -= 1
        if left[0]:
            return
        if fault["do"] == "fail":
            raise errors.NeasError("disk: received a hammer, expected none.")
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault["do"]])

    def before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            strike()
            return original(*arguments, **keywords)

        setattr(owner, name, wrapped)

    stage = fault["stage"]
    if stage in ("supernet", "retrain"):
        before(training_loop.TrainingLoop, "_progress")
    elif stage == "search":
        before(search_stage._LazyEvaluator, "__call__")
    elif stage == "export":
        before(export_stage, "_export")
    elif stage == "meeting":  # of a worker that waits for the chief
        before(cluster.Cluster, "barrier")
    else:
        raise ValueError(stage)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "support")]
    _serve()
