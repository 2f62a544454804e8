"""Worker processes: agreement, a lost one, three that search as one (processes on this machine)."""

from __future__ import annotations

import gc
import multiprocessing.pool
import shutil
import socket
import types
import weakref

import numpy as np
import pytest
import tensorflow as tf
from cluster_runs import Cluster, said

from neas_tf.common.errors import NeasError, WorkerLost
from neas_tf.run import cluster
from neas_tf.run.parts import ports


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NeasError, match=f"address '{host}' cannot be listened at"):
            ports.listening(host)
    with ports.listening(host):
        assert ports.answers(host)
    assert not ports.answers(host)
    with pytest.raises(NeasError, match="expected HOST:PORT"):
        ports.listening("node-a")


def test_one_process_meets_itself():
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    assert cluster.exchange(strategy, [3, 1 << 31]).tolist() == [[3, 1 << 31]]
    assert cluster.worker_of(strategy) == (1, 0)
    with pytest.raises(KeyError), cluster.together(strategy):
        raise KeyError("as it is")


@pytest.mark.parametrize("shape", [(2, 3, 50), (1, 1, 1), (4, 8, 1), (0, 2, 3)])
def test_any_worker(monkeypatch, shape):
    rng = np.random.default_rng(0)
    brought = rng.random((3, *shape)) < 0.3
    one = cluster.Cluster(tf.distribute.OneDeviceStrategy("CPU:0"))
    np.testing.assert_array_equal(one.any_worker(brought[0]), brought[0])
    packed: list = []
    monkeypatch.setattr(cluster, "exchange", lambda _, own: packed.append(own) or np.array([own]))
    for values in brought:
        one.any_worker(values)
    monkeypatch.setattr(cluster, "exchange", lambda _, own: np.array(packed, np.int64))
    found = one.any_worker(brought[1])
    assert found.dtype == bool
    np.testing.assert_array_equal(found, brought.any(0))
    assert all(0 <= number < 1 << 32 for number in packed[0])


def test_disagreement_names_the_worker_and_what(monkeypatch):
    others = {"seed": b"1", "space": b"same"}
    monkeypatch.setattr(
        cluster,
        "exchange",
        lambda _, own: np.array([own, own, [cluster.checksum(x) for x in others.values()]]),
    )
    cluster.agree(None, others, "x")
    with pytest.raises(NeasError) as caught:
        cluster.agree(None, {"seed": b"0", "space": b"same"}, "one command")
    assert str(caught.value) == (
        "workers: worker 2 has another seed than worker 0; expected one command."
    )


def test_replicas_with_different_draws_are_refused():
    rows = [tf.constant([[1, 2]]), tf.constant([[1, 2]]), tf.constant([[2, 1]])]
    strategy = types.SimpleNamespace(experimental_local_results=lambda values: values)
    cluster.agree_on_draws(strategy, rows[:2], 5)
    with pytest.raises(NeasError, match="different tables from step 5 on"):
        cluster.agree_on_draws(strategy, rows, 5)


def test_a_lost_connection_is_found_behind_other_errors():
    gone = tf.errors.UnavailableError(None, None, "Socket closed")
    try:
        try:
            raise gone
        except tf.errors.OpError:
            raise NeasError("checkpoint: cannot be read.") from None
    except NeasError as error:
        assert cluster._lost(error) is gone
    aborted = tf.errors.InternalError(None, None, "Collective ops is aborted by: x")
    assert cluster._lost(aborted) is aborted
    assert cluster._lost(tf.errors.InternalError(None, None, "a bug")) is None
    assert cluster._lost(NeasError("data: none.")) is None


def test_what_a_lost_connection_leaves_open_is_let_go(monkeypatch):
    """Else TensorFlow's pool is collected at the very end, with a traceback under the sentence."""
    monkeypatch.setattr(cluster, "several", lambda _: True)
    monkeypatch.setattr(cluster, "_sentence", lambda *_: "gone")
    pools = []

    def reduction():
        pool = multiprocessing.pool.ThreadPool(1)
        pools.append(weakref.ref(pool))
        pool.map(leave, [1])  # and is not closed, as in tf.distribute

    def leave(_):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    def outer():
        try:
            reduction()
        except tf.errors.OpError as error:
            kept = error  # noqa: F841  a cycle with this frame
            raise NeasError("checkpoint: cannot be read.") from None

    gc.disable()
    try:
        with pytest.raises(WorkerLost), cluster.together(None):
            outer()
        assert [pool() for pool in pools] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "text,words",
    [
        ("are unhealthy (stopped sending heartbeats):\n/job:worker/replica:0/task:1\nT", "host1:2"),
        ("Socket closed, from remote target /job:worker/replica:0/task:1 while calling", "host1:2"),
    ],
)
def test_the_sentence_names_who_is_gone(monkeypatch, text, words):
    hosts = ["host0:1", "host1:2", "host2:3"]
    monkeypatch.setattr(cluster, "hosts_of", lambda _: hosts)
    monkeypatch.setattr(cluster, "worker_of", lambda _: (3, 2))
    monkeypatch.setattr(cluster, "_jobs", lambda _: 3)
    monkeypatch.setattr(cluster, "answers", lambda host: True)
    found = cluster._sentence(None, tf.errors.UnavailableError(None, None, text))
    assert words in found and "worker 1" in found and "host0" not in found
    assert "\n" not in found and found.endswith("from its last checkpoint.")
    assert WorkerLost(found).exit_code == 3 and NeasError(found).exit_code == 2


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Forks workers; its folder holds a supernet that one process trained, and its search."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as found:
        few = ["--params_override=supernet.trainer.train_steps=1"]
        for stage in ("supernet", "search"):
            done = found.run(found.work / "one", stage=stage, arguments={0: few})
            assert done["codes"] == [0], done["logs"]
        yield found


def _copy(processes, name):
    folder = processes.work / name
    leave = shutil.ignore_patterns("search")
    shutil.copytree(processes.work / "one", folder, ignore=leave)
    return folder


_FEW = "runtime.distribution_strategy=multi_worker_mirrored,supernet.trainer.train_steps=1"


def test_three_processes_search_as_one_and_survive_a_death(processes):
    """A worker dies in the second generation: the others end with a sentence; then two go on."""
    folder = _copy(processes, "three")
    common = {"workers": 3, "stage": "search"}
    common["arguments"] = {i: [f"--params_override={_FEW}"] for i in range(3)}
    fault = {"stage": "search", "at": 2, "do": "kill"}
    died = processes.run(folder, faults={1: fault}, **common)
    assert died["codes"] == [3, -9, 3], died["logs"]
    for index in (0, 2):
        assert "Traceback" not in died["logs"][index]
        assert "worker 1 (127.0.0.1:" in said(died["logs"][index])
    assert max(died["ends"]) < 120
    assert not (folder / "search" / "best.json").exists()
    again = processes.run(folder, **common | {"workers": 2})  # one fewer
    assert again["codes"] == [0, 0], again["logs"]
    for name in ("history.jsonl", "best.json"):
        own, one = folder / "search" / name, processes.work / "one" / "search" / name
        assert own.read_bytes() == one.read_bytes()


def test_other_settings_and_other_folders_end_all_workers(processes, tmp_path):
    folder = _copy(processes, "two")
    seed = {0: [f"--params_override={_FEW}"], 1: [f"--params_override={_FEW},search.population=7"]}
    done = processes.run(folder, 2, stage="search", arguments=seed)
    assert done["codes"] == [2, 2], done["logs"]
    for log in done["logs"]:
        assert "worker 1 has another setting in 'search' than worker 0" in said(log)
    assert not (folder / "search").exists()


def test_a_worker_that_does_not_come(processes):
    wait = {0: [f"--params_override={_FEW},workers.start_seconds=5"]}
    done = processes.run(processes.work / "alone", 2, absent=[1], arguments=wait)
    assert done["codes"][0] == 3, done["logs"]
    assert "not all 2 came within 5 seconds" in said(done["logs"][0])
    assert "no answer from worker 1 (127.0.0.1:" in said(done["logs"][0])
    assert not (processes.work / "alone").exists()
