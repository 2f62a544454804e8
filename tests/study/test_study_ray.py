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
def nodes(monkeypatch):
    """A head without CPUs, where the command is given, and two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    # Of the nodes' processes, which Ray would start with a low priority.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([paths.project_file(), *filter(None, sys.path)])
    )
    monkeypatch.setenv("RAY_worker_niceness", "0")
    memory = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": False, **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster, [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]
    finally:
        ray.shutdown()
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


def test_a_killed_node_changes_no_byte(tmp_path, config_file, nodes):
    cluster, (_, second) = nodes
    process = command(tmp_path / "ray", config_file, "--engine=ray", f"--address={cluster.address}")
    try:
        units = tmp_path / "ray" / "units"
        while len(list(units.glob("*.json"))) < 4:  # both nodes are at work
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        told = process.communicate(timeout=1500)[0]
    finally:
        process.kill()
    assert process.returncode == 0, told
    one = command(tmp_path / "one", config_file, "--threads=1")
    told = one.communicate(timeout=1500)[0]
    assert one.returncode == 0, told
    assert len(list(units.glob("*.json"))) == 12
    assert contents(units) == contents(tmp_path / "one" / "units")
    results = "studies/ranking/results.json"
    assert (tmp_path / "ray" / results).read_bytes() == (tmp_path / "one" / results).read_bytes()
