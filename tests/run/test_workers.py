"""Two worker processes on this machine (`multi_worker_mirrored`) through all stages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import warm
from cluster_runs import free_hosts

from neas_tf.common.paths import project_file

SETTINGS = """
runtime: {distribution_strategy: multi_worker_mirrored}
space: {stem_channels: 8, stages: [[8, 1, 1], [16, 2, 2]], operators: [k3e2, k5e2, skip],
        min_split: 1, max_split: 3, head_channels: 16, feature_channels: 16}
supernet: {batch_size: 32, warmup_epochs: 0.0, trainer: {train_steps: 4, steps_per_loop: 1,
           checkpoint_interval: 2}}
shrink: {every_epochs: 0.05, remove: 1, num_samples: 6, images: 32, batch_size: 32,
         min_pair_count: 1}
search: {population: 4, parents: 2, generations: 2, crossover: 1, mutation: 1, max_macs: 0,
         calibration_images: 32, calibration_batch: 32, validation_images: 64, batch_size: 32}
retrain: {batch_size: 32, warmup_epochs: 0.0, trainer: {train_steps: 1}}
export: {formats: []}
"""


def run_workers(folder, stage, count=2):
    """Runs the command in as many processes, one of which is the chief."""
    hosts = free_hosts(count)
    settings = folder.parent / "settings.yaml"
    settings.write_text(SETTINGS)
    command = [warm.python(), "-m", "neas_tf.train", f"--model_dir={folder}", f"--stage={stage}"]
    command.append(f"--config_file={settings}")
    processes = []
    for index in range(count):
        cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {
            "TF_CONFIG": json.dumps(cluster),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join([project_file(), *filter(None, sys.path)]),
        }
        with (folder.parent / f"worker{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, cwd=folder.parent
                )
            )
    try:
        codes = [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [(folder.parent / f"worker{i}.log").read_text()[-3000:] for i in range(count)]
    assert codes == [0] * count, "\n".join(logs)


def weights(folder, step):
    path = str(folder / "supernet" / f"ckpt-{step}")
    names = [name for name, _ in tf.train.list_variables(path)]
    return {n: tf.train.load_variable(path, n) for n in names if n.startswith(("model", "optim"))}


def test_two_workers_train_search_and_resume(tmp_path):
    """The chief writes the files; a resumed run repeats the uninterrupted one."""
    folder = tmp_path / "run"
    run_workers(folder, "all")
    results = json.loads((folder / "retrain" / "results.json").read_text())
    assert len(results["path_accuracies"]) == 2
    history = (folder / "search" / "history.jsonl").read_bytes()
    assert history.count(b"\n") == 8
    assert not list(folder.rglob("*.tmp"))
    metrics, straight = folder / "supernet" / "metrics.jsonl", weights(folder, 4)
    lines = metrics.read_text()
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [1, 2, 3, 4]
    alive = (folder / "shrink" / "alive.json").read_text()

    # One process finds by itself what the two found together.
    single = tmp_path / "single"
    shutil.copytree(folder, single, ignore=shutil.ignore_patterns("search", "retrain", "export"))
    run_workers(single, "search", count=1)
    assert (single / "search" / "history.jsonl").read_bytes() == history

    # As if both had been killed behind the checkpoint of step 2.
    for path in [*(folder / "supernet").glob("ckpt-4*"), folder / "shrink" / "alive.json"]:
        path.unlink()
    (folder / "shrink" / "shrink_02.json").unlink()
    state = folder / "supernet" / "checkpoint"
    state.write_text('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n')
    fewer = tmp_path / "fewer"
    shutil.copytree(folder, fewer)
    run_workers(folder, "supernet")
    assert metrics.read_text() == lines
    assert (folder / "shrink" / "alive.json").read_text() == alive
    found = weights(folder, 4)
    assert found.keys() == straight.keys()
    for name, value in straight.items():
        if "moving" in name:  # Per worker; a checkpoint holds the mean, which rounds.
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7)
        elif np.asarray(value).dtype != object:
            np.testing.assert_array_equal(found[name], value, err_msg=name)

    # As if one of them were gone for good: the other trains the same batches alone, and normalises
    # all of a batch together, where each of two has the moments of its half.
    run_workers(fewer, "supernet", count=1)
    alone = [json.loads(line) for line in (fewer / metrics.relative_to(folder)).open()]
    together = [json.loads(line) for line in lines.splitlines()]
    assert [line["step"] for line in alone] == [1, 2, 3, 4] and alone[:2] == together[:2]
    for one, both in zip(alone[2:], together[2:], strict=True):
        assert one["loss"] == pytest.approx(both["loss"], rel=0.01)
    assert (fewer / "shrink" / "alive.json").is_file()


def test_a_batch_that_the_replicas_cannot_share_is_refused():
    from neas_tf.common.errors import NeasError
    from neas_tf.data.pipeline import Slicing

    with pytest.raises(NeasError, match="multiple of the 2 replicas"):
        Slicing.of(7, tf.distribute.InputContext(2, 0, 2))
