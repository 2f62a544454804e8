"""Another fine-tuning in the folder of one: refused, or moved out of the way."""

import json

import pytest

from neas_tf.common.errors import NeasError
from neas_tf.export.fine_tuning_folder import IDENTITY_FILE, check_identity


@pytest.fixture
def folder(tmp_path):
    """One with the fine-tuning of weights 'a'."""
    folder = tmp_path / "pruned"
    folder.mkdir()
    (folder / IDENTITY_FILE).write_text(json.dumps({"weights": "a"}))
    (folder / "ckpt-1.index").write_text("a")
    return folder


@pytest.mark.parametrize("set_aside", [True, False])
def test_the_same_one_goes_on(folder, set_aside):
    check_identity(folder, {"weights": "a"}, set_aside)
    check_identity(folder.parent / "none", {"weights": "a"}, set_aside)
    assert [path.name for path in folder.parent.iterdir()] == ["pruned"]


def test_another_one_is_refused(folder):
    with pytest.raises(NeasError, match=r'another fine-tuning \(weights: was "a", is "b"\)'):
        check_identity(folder, {"weights": "b"}, False)
    assert (folder / "ckpt-1.index").exists()


def test_another_one_is_set_aside(folder, capsys):
    for name in ("pruned.earlier1", "pruned.earlier2"):
        check_identity(folder, {"weights": "b"}, True)
        assert not folder.exists() and f"is in {name!r} now" in capsys.readouterr().err
        assert (folder.with_name(name) / "ckpt-1.index").read_text() == "a"
        folder.mkdir()
        (folder / IDENTITY_FILE).write_text(json.dumps({"weights": "a"}))
        (folder / "ckpt-1.index").write_text("a")


def test_checkpoints_of_nobody_knows_what_are_refused(folder):
    (folder / IDENTITY_FILE).unlink()
    with pytest.raises(NeasError, match="holds checkpoints without"):
        check_identity(folder, {"weights": "a"}, True)
    assert (folder / "ckpt-1.index").exists()
