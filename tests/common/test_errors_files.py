import errno
import fcntl
import json
import os
import stat

import pytest

from neas_tf.common import files
from neas_tf.common.errors import NeasError, check, check_int, check_keys, fail, unknown_name


def test_messages_name_field_received_and_allowed():
    with pytest.raises(NeasError, match=r"^search\.beta: received -1, expected a positive"):
        fail("search.beta", -1, "a positive number")
    with pytest.raises(ValueError, match="arch"):
        check(False, "arch", "x", "y")
    check(True, "arch", "x", "y")


def test_unknown_names_come_with_the_nearest_known_one():
    with pytest.raises(NeasError, match="Did you mean 'max_macs'"):
        unknown_name("search", "max_mac", ["max_macs", "seed"])
    with pytest.raises(NeasError) as error:
        unknown_name("search", "zzzzzz", ["max_macs", "seed"])
    assert "Did you mean" not in str(error.value)
    with pytest.raises(NeasError, match=r"search\.sed: .*'seed'"):
        check_keys("search", {"sed": 1}, ["seed"])


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 6])
def test_check_int_refuses(value):
    with pytest.raises(NeasError, match="an integer from 1 to 5"):
        check_int("n", value, 1, 5)


def test_check_int_accepts():
    assert check_int("n", 5, 1, 5) == 5
    with pytest.raises(NeasError, match="an integer ≥ 0"):
        check_int("n", -1, 0)


def test_written_files_are_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "a.json"
    files.write_json_atomic(path, {"a": [1, 2]})
    assert files.read_json(path) == {"a": [1, 2]}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    files.write_text_atomic(path, "ä")
    assert path.read_bytes() == "ä".encode()
    assert os.listdir(path.parent) == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json_atomic(path, float("nan"))

    def broken(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk"):
        files.write_json_atomic(path, 2)
    assert json.loads(path.read_text()) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_killed_process_left_is_removed_but_not_what_is_being_written(tmp_path):
    """A living process holds the lock of its temporary file."""
    left, living = tmp_path / ".a.json.ab_c12xy.tmp", tmp_path / ".a.json.zz_c12xy.tmp"
    other = tmp_path / ".b.json.ab_c12xy.tmp"
    for path in (left, living, other):
        path.write_text("half")
    with living.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        files.write_json_atomic(tmp_path / "a.json", 1)
    assert set(tmp_path.iterdir()) == {living, other, tmp_path / "a.json"}
    files.write_json_atomic(tmp_path / "a.json", 2)
    assert set(tmp_path.iterdir()) == {other, tmp_path / "a.json"}


def test_a_temporary_folder(tmp_path):
    target = tmp_path / "deep" / "model"
    with files.temporary_folder(target) as mine:
        (mine / "new").mkdir()
        with files.temporary_folder(target) as second:  # of another thread or process
            assert mine.is_dir() and second != mine
        assert (mine / "new").is_dir()
    assert list(target.parent.iterdir()) == []


def test_what_was_moved_out_of_the_way_comes_back(tmp_path):
    """Killed between two renames, a process leaves the old folder in its temporary one."""
    left = tmp_path / ".model.ab_c12xy"
    (left / files.OLD).mkdir(parents=True)
    (left / files.OLD / "weights").write_text("good")
    with files.temporary_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model" / "weights").read_text() == "good" and not left.exists()


def test_what_the_system_says_is_told_and_the_rest_is_not(tmp_path):
    with (
        pytest.raises(NeasError, match=r"^x: cannot be written \(.*No space left"),
        files.told("x"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(KeyError), files.told("x"):
        raise KeyError("No space left on device")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_reading_says_what_is_wrong(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(NeasError, match="no valid JSON"):
        files.read_json(path)


def test_reading_a_missing_file_or_a_folder(tmp_path):
    with pytest.raises(NeasError, match="plan: no file at"):
        files.read_json(tmp_path / "none.json", "plan")
    with pytest.raises(NeasError, match="cannot be read"):
        files.read_json(tmp_path)
