"""A study over Ray: a node is killed in the middle, and the results are the local engine's."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import yaml
from tiny_run import contents

from neas_tf.common import paths

ray = pytest.importorskip("ray", reason="ray, the extra 'ray', is not installed")

SETTINGS = {
    "study": {
        "experiment": "neas_quickstart",
        "seeds": [0],
        "ensembles": 8,
        "metrics": ["diversity"],
        "resamples": 20,
    },
    "space": {
        "stem_channels": 8,
        "stages": [[8, 1, 1], [12, 2, 2]],
        "operators": ["k3e1", "k3e2", "skip"],
        "min_split": 1,
        "max_split": 3,
        "head_channels": 16,
        "feature_channels": 16,
    },
    "supernet": {"batch_size": 32, "epochs": 0.1, "warmup_epochs": 0.0},
    "shrink": {"every_epochs": 0.05, "remove": 1, "num_samples": 6, "images": 32},
    "search": {"population": 4, "parents": 2, "generations": 2, "crossover": 1, "mutation": 1},
    "retrain": {"batch_size": 32, "epochs": 0.2, "warmup_epochs": 0.0},
}
SETTINGS["shrink"] |= {"batch_size": 32, "min_pair_count": 1}
SETTINGS["search"] |= {"max_macs": 0, "calibration_images": 32, "calibration_batch": 32}
SETTINGS["search"] |= {"validation_images": 64, "batch_size": 32}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return str(path)


@pytest.fixture
def new_cluster(monkeypatch):
    """Makes clusters: a head without CPUs, where the command is given, and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    # Of the nodes' processes, which Ray would start with a low priority.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([paths.project_file(), *filter(None, sys.path)])
    )
    monkeypatch.setenv("RAY_worker_niceness", "0")
    memory = {"object_store_memory": 80_000_000}
    made = []

    def make():
        head = {"num_cpus": 0, "include_dashboard": False, **memory}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        made.append(cluster)
        return cluster, [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]

    try:
        yield make
    finally:
        ray.shutdown()
        for cluster in made:
            cluster.shutdown()


def command(folder, config_file, *more):
    flags = [f"--model_dir={folder}", f"--config_file={config_file}", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "neas_tf.study", "--study=ranking", *flags],
        cwd=paths.project_file(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def work_until(process, units, count):
    """Waits until a command has done so many units."""
    while len(list(units.glob("*.json"))) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config_file):
    """The folder of the study as one process does it."""
    folder = tmp_path_factory.mktemp("one")
    process = command(folder, config_file, "--threads=1")
    told = process.communicate(timeout=1500)[0]
    assert process.returncode == 0, told
    return folder


def assert_same(folder, undisturbed):
    units = contents(folder / "units")
    assert len(units) == 12 and units == contents(undisturbed / "units")
    results = "studies/ranking/results.json"
    assert (folder / results).read_bytes() == (undisturbed / results).read_bytes()


def test_a_killed_node_changes_no_byte(tmp_path, config_file, new_cluster, undisturbed):
    cluster, (_, second) = new_cluster()
    process = command(tmp_path, config_file, "--engine=ray", f"--address={cluster.address}")
    try:
        work_until(process, tmp_path / "units", 4)  # both nodes are at work
        cluster.remove_node(second, allow_graceful=False)
        told = process.communicate(timeout=1500)[0]
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert_same(tmp_path, undisturbed)


def test_a_killed_head_ends_the_command_which_goes_on_with_another(
    tmp_path, config_file, new_cluster, undisturbed
):
    cluster, _ = new_cluster()
    process = command(tmp_path, config_file, "--engine=ray", f"--address={cluster.address}")
    try:
        work_until(process, tmp_path / "units", 2)
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
        told = process.communicate(timeout=180)[0]
    finally:
        process.kill()
    assert process.returncode == 3, told
    assert "the head of the Ray cluster" in told and "the same command again" in told
    assert "Traceback" not in told
    left = contents(tmp_path / "units")
    assert 2 <= len(left) < 12
    cluster.shutdown()
    second, _ = new_cluster()
    process = command(tmp_path, config_file, "--engine=ray", f"--address={second.address}")
    try:
        told = process.communicate(timeout=1500)[0]
    finally:
        process.kill()
    assert process.returncode == 0, told
    assert left.items() <= contents(tmp_path / "units").items()
    assert_same(tmp_path, undisturbed)
