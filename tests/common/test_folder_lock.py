"""One process a folder, and what is swept away behind a killed one."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from neas_tf.common import paths
from neas_tf.common.errors import NeasError
from neas_tf.common.files import temporary_folder
from neas_tf.common.folder_lock import LOCK_FILE, is_at_work, is_leftover, lock_folder, sweep

_HOLD = """
import pathlib, sys, time
from neas_tf.common.files import temporary_folder
from neas_tf.common.folder_lock import lock_folder
with lock_folder(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_at_a_time(tmp_path):
    words = rf"in use by another process \(process {os.getpid()}\)"
    with lock_folder(tmp_path), pytest.raises(NeasError, match=words), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_killed_process_leaves_no_lock(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=paths.project_file(),
    )
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(NeasError, match=f"process {process.pid}"), lock_folder(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with lock_folder(tmp_path):
        pass


def test_whether_a_process_is_at_work(tmp_path, monkeypatch):
    assert is_at_work(tmp_path) is None and is_at_work(tmp_path / "missing") is None
    with lock_folder(tmp_path):
        assert is_at_work(tmp_path) is True
    before = (tmp_path / LOCK_FILE).read_bytes()
    assert is_at_work(tmp_path) is False and (tmp_path / LOCK_FILE).read_bytes() == before

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert is_at_work(tmp_path) is None
    with lock_folder(tmp_path), lock_folder(tmp_path):  # nothing is locked there
        pass


def test_who_only_asks_is_not_in_the_way(tmp_path):
    """A start in the microseconds in which somebody asks is not refused."""
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            is_at_work(tmp_path)
            time.sleep(0.002)

    asking = threading.Thread(target=ask)
    with lock_folder(tmp_path):
        asking.start()
    try:
        for _ in range(300):
            with lock_folder(tmp_path):
                pass
    finally:
        stop.set()
        asking.join()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NeasError, match="cannot be written"), lock_folder(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    "name,left",
    [
        (".params.yaml.ab_c12xy.tmp", True),
        (".model.abcdefgh", True),
        (".model.tflite.r2m48s7h", True),
        (".saved_model.rg1oix6k", True),
        (".model_int8_qat.tflite.rg1oix6k", True),
        (".model.keras.rg1oix6k", True),
        ("model_pruned.tflite", False),
        ("ckpt-12_temp", True),
        ("ckpt-12.data-00000-of-00001.tempstate123", True),
        ("ckpt-12.index", False),
        ("params.yaml", False),
        (".lock", False),
        (".git", False),
        ("notes.tmp", False),
    ],
)
def test_is_leftover(name, left):
    assert is_leftover(pathlib.Path("x") / name) is left


def test_sweep(tmp_path):
    (tmp_path / "retrain/.model.abcdefgh/new").mkdir(parents=True)
    (tmp_path / "retrain/model").mkdir()
    (tmp_path / "supernet/ckpt-3_temp").mkdir(parents=True)
    for name in (".params.yaml.ab_c12xy.tmp", "params.yaml", "mine.txt", "supernet/ckpt-3.index"):
        (tmp_path / name).write_text("x")
    sweep(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {
        "retrain",
        "retrain/model",
        "supernet",
        "supernet/ckpt-3.index",
        "params.yaml",
        "mine.txt",
    }


def test_sweep_leaves_what_belongs_to_a_living_process(tmp_path):
    """The commands of export/ write into a run's folder without its lock."""
    export = tmp_path / "export"
    with temporary_folder(export / "model.tflite") as mine:
        sweep(tmp_path)
        assert mine.is_dir()
    tuning = export / "fine_tuning" / "pruned"
    (tuning / "ckpt-3_temp").mkdir(parents=True)
    with lock_folder(tuning):
        sweep(tmp_path)
        assert (tuning / "ckpt-3_temp").is_dir()
    sweep(tmp_path)
    assert not (tuning / "ckpt-3_temp").exists()
