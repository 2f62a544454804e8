"""The newest whole checkpoint is found, whatever became of the others."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from neas_tf.common.paths import literal_path
from neas_tf.training import checkpoints
from neas_tf.training.checkpoints import damage, latest_step, reason_of, settle

DATA = "ckpt-9.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 3, 6 and 9."""
    value = tf.Variable(np.arange(5000, dtype=np.float32))
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(value=value), str(tmp_path), 3)
    for step in (3, 6, 9):
        value.assign_add(tf.ones_like(value))
        manager.save(checkpoint_number=step)
    return tmp_path


def value_at(folder) -> float:
    """The first number of the checkpoint that TensorFlow takes for the newest."""
    path = tf.train.latest_checkpoint(str(folder))
    return float(tf.train.load_variable(path, "value/.ATTRIBUTES/VARIABLE_VALUE")[0])


def copy(folder, step, to):
    for path in list(folder.glob(f"ckpt-{step}.*")):
        (folder / path.name.replace(f"-{step}.", f"-{to}.")).write_bytes(path.read_bytes())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_nothing_is_done_where_nothing_is_wrong(folder, tmp_path_factory, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert settle(folder) == latest_step(folder) == 9
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    empty = tmp_path_factory.mktemp("empty")
    assert settle(empty) == settle(empty / "missing") == latest_step(empty) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "harm",
    [
        lambda f: os.truncate(f / DATA, 9000),
        lambda f: os.truncate(f / DATA, 0),
        lambda f: flip(f / DATA),
        lambda f: (f / DATA).unlink(),
        lambda f: os.truncate(f / "ckpt-9.index", 60),
        lambda f: os.truncate(f / "ckpt-9.index", 0),
        lambda f: flip(f / "ckpt-9.index"),
    ],
    ids=["cut", "empty", "changed", "missing", "index cut", "index empty", "index changed"],
)
def test_a_damaged_newest_one(folder, harm, capsys):
    harm(folder)
    assert damage(folder, 9) and not damage(folder, 6)
    assert settle(folder) == latest_step(folder) == 6 and value_at(folder) == 2.0
    said = capsys.readouterr().err
    assert "ckpt-9' is damaged (" in said and "continues from step 6." in said
    assert not list(folder.glob("ckpt-9*")) and settle(folder) == 6
    # A manager takes up the others as its own.
    checkpoint = tf.train.Checkpoint(value=tf.Variable(np.zeros(5000, np.float32)))
    manager = tf.train.CheckpointManager(checkpoint, str(folder), 1)
    manager.save(checkpoint_number=8)
    assert sorted(p.name for p in folder.glob("ckpt-*.index")) == ["ckpt-8.index"]


def test_several_damaged_ones(folder, capsys):
    for step in (6, 9):
        os.truncate(folder / f"ckpt-{step}.data-00000-of-00001", 100)
    assert settle(folder) == 3 and value_at(folder) == 1.0
    assert capsys.readouterr().err.count("is damaged") == 2


def test_all_damaged(folder, capsys):
    for step in (3, 6, 9):
        (folder / f"ckpt-{step}.index").write_bytes(b"")
    assert settle(folder) == latest_step(folder) == 0
    assert "begins again at step 0" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_a_whole_one_is_never_removed(folder, capsys):
    """Not even one that is not named, where all that are named are damaged."""
    copy(folder, 9, 12)
    for step in (3, 6, 9):
        (folder / f"ckpt-{step}.index").write_bytes(b"")
    assert settle(folder) == latest_step(folder) == 12 and value_at(folder) == 3.0
    assert capsys.readouterr().err.count("continues from step 12.") == 3
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint",
        "ckpt-12.index",
        "ckpt-12.data-00000-of-00001",
    }


@pytest.mark.parametrize("name", ["rate[0.1]", "a*b", "what?", "{x}", "back\\slash"])
def test_a_folder_that_looks_like_a_pattern(tmp_path, name, capsys):
    folder = tmp_path / name
    value = tf.Variable(np.arange(5, dtype=np.float32))
    folder.mkdir()
    where = literal_path(folder)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(value=value), where, 2)
    for step in (3, 6, 9):
        value.assign_add(tf.ones_like(value))
        manager.save(checkpoint_number=step)
    assert sorted(p.name for p in folder.iterdir() if p.suffix == ".index") == [
        "ckpt-6.index",
        "ckpt-9.index",
    ]
    assert settle(folder) == latest_step(folder) == 9 and not damage(folder, 6)
    assert value_at(where) == 3.0 and not capsys.readouterr().err
    flip(folder / DATA)
    assert settle(folder) == 6 and value_at(where) == 2.0
    assert not (folder / DATA).exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 80, b"\xff\xfe", b"nonsense {", None])
def test_a_lost_list_of_checkpoints(folder, content, capsys):
    if content is None:
        (folder / "checkpoint").unlink()
    else:
        (folder / "checkpoint").write_bytes(content)
    assert latest_step(folder) == settle(folder) == 9 and value_at(folder) == 3.0
    assert "was lost; the newest checkpoint is step 9." in capsys.readouterr().err


def test_one_that_was_never_named_is_not_taken(folder):
    """Killed between the files of a checkpoint and the list: the list is right."""
    copy(folder, 9, 12)
    assert settle(folder) == latest_step(folder) == 9


def test_what_may_not_be_read_is_not_damaged(folder, monkeypatch):
    def refuse(path):
        raise tf.errors.PermissionDeniedError(None, None, "no")

    monkeypatch.setattr(checkpoints.tf.train, "load_checkpoint", refuse)
    with pytest.raises(checkpoints.NeasError, match=r"ckpt-9'.*cannot be read"):
        settle(folder)
    assert (folder / DATA).exists()


@pytest.mark.parametrize("file", [DATA, "ckpt-9.index", "checkpoint"])
def test_a_file_that_the_system_does_not_give_is_not_damaged(folder, file, monkeypatch):
    """TensorFlow itself calls an index that it may not open damaged."""
    before = sorted(p.name for p in folder.iterdir())
    (folder / file).rename(folder / "elsewhere")
    (folder / file).symlink_to("not mounted")
    if file == "checkpoint":
        refuse_to_read(monkeypatch, folder / file)
    with pytest.raises(checkpoints.NeasError, match="cannot be read"):
        settle(folder)
    (folder / file).unlink()
    (folder / "elsewhere").rename(folder / file)
    assert sorted(p.name for p in folder.iterdir()) == before


def refuse_to_read(monkeypatch, path):
    read = Path.read_bytes

    def refuse(self):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)


def test_reasons_are_short():
    text = (
        "{{function_node __wrapped__SaveV2_device_/job:localhost/CPU:0}} /run/ckpt-15_temp/part-0"
        ".tempstate13; No space left on device [Op:SaveV2]"
    )
    assert (
        reason_of(tf.errors.ResourceExhaustedError(None, None, text)) == "No space left on device"
    )
    assert reason_of(OSError(28, "No space left on device", "x")) == "No space left on device"
    assert reason_of(ValueError()) == "ValueError"
