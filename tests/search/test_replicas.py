"""Shrinks and the search on the replicas of a strategy, as on a TPU; here logical CPUs."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import replica_runs
import tensorflow as tf
import warm
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata

from neas_tf.common.normalisation import Normalisation
from neas_tf.run.cluster import Cluster
from neas_tf.search.replicas import EnsembleFunctions
from neas_tf.space.sampling import uniform
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches

CASES = {"2, XLA": 2, "4": 4}


@pytest.fixture(scope="module")
def found():
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # What is computed counts, not how fast.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        [warm.python(), replica_runs.__file__],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_scores_do_not_depend_on_the_replicas(found, case):
    for own, here in zip(found[case]["scores"], found["here"]["scores"], strict=True):
        right, likelihoods, disagreements = own
        assert right == here[0]
        np.testing.assert_allclose(likelihoods, here[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(disagreements, here[2], rtol=1e-5, atol=1e-5)
    candidates = [tuple(right) for own in found[case]["scores"] for right in own[0]]
    assert len(set(candidates)) > 3  # they differ


def test_four_replicas_find_what_one_device_does_with_whole_ensembles(found):
    for own, here in zip(found["4"]["scores"], found["here"]["whole"], strict=True):
        assert own[0] == here[0]
        np.testing.assert_allclose(own[1], here[1], rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_measurements_of_a_shrink_do_not_depend_on_them(found, case):
    for own, here in zip(found[case]["measured"], found["here"]["measured"], strict=True):
        np.testing.assert_allclose(own[0], here[0], rtol=1e-5, atol=1e-5)
        assert own[1] == here[1]
    batch, recalculated = found[case]["measured"]
    assert not np.allclose(batch[0], recalculated[0])


@pytest.mark.parametrize(("case", "count"), CASES.items())
def test_every_replica_does_the_same_share_on_its_own_device(found, case, count):
    ran_on = found[case]["ran_on"]
    assert set(ran_on) == {f"CPU:{i}" for i in range(count)}
    assert len(set(ran_on.values())) == 1 and min(ran_on.values()) > 3


@pytest.mark.parametrize("case", CASES)
def test_the_second_generation_traces_nothing(found, case):
    assert found[case]["new_traces"] == 0


class TwoHosts:
    """Tells what a TPU of two hosts with two cores each tells of itself."""

    def get_tpu_system_metadata(self):
        kinds = [("TPU", 0), ("TPU", 1), ("CPU", 0)]
        names = [
            f"/job:worker/replica:0/task:{host}/device:{kind}:{i}"
            for host in (0, 1)
            for kind, i in kinds
        ]
        devices = [types.SimpleNamespace(name=name) for name in names]
        return TPUSystemMetadata(4, 2, 2, None, devices)


def test_a_tpu_of_two_hosts_is_given_one_program_for_all_its_cores():
    """Only the graph is made: the operations of a TPU have no kernels elsewhere."""
    with tf.Graph().as_default() as graph, safe_switches():
        cluster = Cluster(tf.distribute.TPUStrategy(TwoHosts()))
        assert cluster.worker == (1, 0) and cluster.is_chief and cluster.replicas.count == 4
        with cluster.placing():
            model = Supernet(replica_runs.SPACE, 2, name="supernet")
        hosts = [tf.DeviceSpec.from_string(v.device) for v in model.searchable[0].rows.values]
        assert [(host.task, host.device_type) for host in hosts] == [
            *[(0, "TPU")] * 2,
            *[(1, "TPU")] * 2,
        ]
        given = []
        cluster.replicas._brought = lambda found, used: given.append((found, used)) or [found]
        functions = EnsembleFunctions(model, cluster.replicas, normalisation=Normalisation())
        dealt = cluster.replicas.deal([(np.zeros((6, 8, 8, 3), np.uint8),)] * 6)
        code = tf.constant(
            uniform(replica_runs.FULL, np.random.default_rng(0)).to_array(replica_runs.SPACE)
        )
        functions.moments(dealt, code)
    assert [used for _, used in given] == [4, 2]
    assert all(len(found.values) == 4 for found, _ in given)
    kinds = [node.op for own in graph.as_graph_def().library.function for node in own.node_def]
    assert kinds.count("TPUReplicateMetadata") == 1
    # The layers' switches are those of XLA, and nothing goes back to Python or the host on the way.
    assert "StatelessCase" in kinds and "Case" not in kinds
    assert not [kind for kind in kinds if "PyFunc" in kind or "Host" in kind]
