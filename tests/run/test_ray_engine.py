"""What is refused before a Ray cluster is asked, and what a node answers; without Ray itself."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import types

import pytest

from neas_tf.common import paths
from neas_tf.common.errors import NeasError, WorkerLost
from neas_tf.run import ray_engine
from neas_tf.run.ray_engine import Ray, RayTasks, parse_resources, run_task
from neas_tf.run.record import code_digest


def test_resources():
    assert parse_resources("") == {"num_cpus": 1.0}
    assert parse_resources("num_cpus=4, num_gpus=.5,memory=16GB,tpu=4") == {
        "num_cpus": 4.0,
        "num_gpus": 0.5,
        "memory": 16_000_000_000,
        "tpu": 4.0,
    }


@pytest.mark.parametrize(
    "text", ["4", "num_cpus", "num_cpus=", "num_cpus=-1", "num_cpus=nan", "=1", "memory=much"]
)
def test_resources_that_are_none(text):
    with pytest.raises(NeasError, match=r"^resources.*received"):
        parse_resources(text)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:PORT", "ray://127.0.0.1:PORT", "127.0.0.1", "a:b"])
def test_an_address_that_does_not_answer(address, free_port, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    address = address.replace("PORT", str(free_port))
    with pytest.raises(NeasError, match=f"^address: received '{address}', expected HOST:PORT"):
        Ray(address, {"num_cpus": 1.0}).connect("a:b")


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NeasError, match=r"not installed; expected the extra: pip install 'neas-tf"):
        Ray("auto", {"num_cpus": 1.0}).connect("a:b")


def test_train_refuses_an_address_before_any_work(tmp_path, free_port):
    pytest.importorskip("ray", reason="ray, the extra 'ray', is not installed")
    command = [sys.executable, "-m", "neas_tf.train", f"--model_dir={tmp_path / 'run'}"]
    command += ["--engine=ray", f"--address=127.0.0.1:{free_port}"]
    done = subprocess.run(command, cwd=paths.project_file(), capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("neas_tf.train: address: received '127.0.0.1:")
    assert not (tmp_path / "run").exists()


def _on_node(task, *arguments, code=None, folder=None):
    return run_task(code or code_digest(), folder or os.getcwd(), 1, task, arguments)


def test_a_task_on_a_node(monkeypatch):
    monkeypatch.setattr(ray_engine, "_prepare", lambda threads: None)
    assert _on_node("operator:add", 1, 2) == (3, "done", "")
    for result, words in (
        (_on_node("operator:add", 1, 2, code="0" * 16), "has other code"),
        (_on_node("operator:add", 1, 2, folder="/not/there"), "No such file or directory"),
        (_on_node("operator:truediv", 1, 0), "ZeroDivisionError"),
        (_on_node("neas_tf.common.errors:fail", "seed", -1, "a seed"), "seed: received -1"),
    ):
        assert result[:2] == (None, "refused")
        assert words in result[2] and socket.gethostname() in result[2]


class RayError(Exception):
    """Ray's own, in a made-up module."""


class RayTaskError(RayError):
    """Of a task that raised."""


def tasks(**behaviour) -> RayTasks:
    """The object on a made-up ray: a node of 4 CPUs, and a dead one of 100."""
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"CPU": 99}}]
    remote = types.SimpleNamespace(remote=lambda *call: call[-1])
    fake = types.SimpleNamespace(
        remote=lambda function: types.SimpleNamespace(options=lambda **_: remote),
        get_runtime_context=lambda: types.SimpleNamespace(gcs_address="nowhere:0"),
        nodes=lambda: nodes,
        exceptions=types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
    )
    vars(fake).update(behaviour)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(sys.modules, "ray", fake)
        return RayTasks(Ray("auto", {"num_cpus": 2.0}, 1), "a:b")


def test_room_is_what_living_nodes_have():
    found = tasks()
    assert [found.has_room(n) for n in (0, 1, 2)] == [True, True, False]


def raising(error):
    def get(found):
        raise error

    return get


@pytest.mark.parametrize(
    "get,kind,words",
    [
        (lambda found: ("x", "done", ""), str, "x"),
        (lambda found: (None, "refused", "data: none."), NeasError, "data: none."),
        (raising(RayTaskError("a\nNo module named 'neas_tf'")), NeasError, "No module named"),
        (raising(RayError("worker died")), WorkerLost, "lost for good.*died 2 times"),
    ],
)
def test_results_and_losses(get, kind, words):
    found = tasks(wait=lambda refs, **_: (refs[:1], refs[1:]), get=get)
    found.start("key", 1)
    ((key, result),) = found.finished()
    assert key == "key" and type(result) is kind
    assert re.search(words, str(result))


def test_a_head_that_is_gone():
    found = tasks(wait=lambda refs, **_: ([], refs))
    found.start("key", 1)
    with pytest.raises(WorkerLost, match=r"head of the Ray cluster \(nowhere:0\) does not answer"):
        found.finished()


def test_a_head_that_is_gone_when_asked_for_its_nodes(monkeypatch):
    """Ray would wait for a minute there and then end the process."""
    monkeypatch.setattr("neas_tf.run.ray_engine._LOOK", 0.01)
    found = tasks(nodes=threading.Event().wait)
    with pytest.raises(WorkerLost, match=r"does not answer any more\. Start the cluster"):
        found.has_room(0)
