"""Label files, and what lies beside an export."""

import codecs

import pytest
from small_ensembles import ENSEMBLES, SPACE

from neas_tf.errors import NeasError
from neas_tf.export_files import labels_text, read_label_file
from neas_tf.model_store import LoadedInfo
from neas_tf.normalisation import Normalisation


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\n",
        b"cat\ndog",
        b"cat\r\ndog\r\n\r\n \n",
        b"cat\r\r\ndog\r\r\n",  # a Windows program's text mode, twice
        b"cat\rdog\r",
        codecs.BOM_UTF8 + b"cat\r\ndog\r\n",
        codecs.BOM_UTF8 + b"cat\n" + codecs.BOM_UTF8 + b"dog\n",  # two files joined
        "cat\r\ndog\r\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "cat\ndog\n".encode("utf-16-be"),
        "cat\ndog\n".encode("utf-16-le"),
        "cat\ndog\n".encode("utf-16-be"),
        "cat\ndog\n".encode("utf-32"),
    ],
)
def test_label_files_of_every_editor(content, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_label_file(tmp_path / "labels.txt") == ["cat", "dog"]


def test_names_survive_being_written_and_read(tmp_path):
    names = ("größe", "a\u2028b", "c\x85d", "e\ff", "crane", " crane", "crane")[: SPACE.num_classes]
    names += tuple(f"猫 {i}" for i in range(SPACE.num_classes - len(names)))
    info = LoadedInfo(ENSEMBLES["two_paths"], SPACE, names, Normalisation())
    (tmp_path / "x").write_text(labels_text(info), encoding="utf-8", newline="")
    assert read_label_file(tmp_path / "x") == list(names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\n\ndog\n", "line 2 is empty; expected a class name"),
        (b"cat\nK\xe4se\n", "line 2 is no UTF-8 text"),
        (b"\xff\xfec\x00a", "UTF-16"),
        (b"\r\n\r\n", "holds no name"),
        (b"", "holds no name"),
        (b"a\0bc\n", "zero byte"),
    ],
)
def test_what_is_no_label_file_is_told(content, message, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(NeasError, match=message) as caught:
        read_label_file(tmp_path / "labels.txt", "--labels")
    assert str(caught.value).startswith("--labels: ")
    assert len(str(caught.value)) < 400


def test_a_missing_label_file(tmp_path):
    with pytest.raises(NeasError, match="--labels: no file at"):
        read_label_file(tmp_path / "none", "--labels")
