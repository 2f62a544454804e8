"""Label files, and what lies beside an export."""

import codecs

import pytest
from small_ensembles import ENSEMBLES, SPACE

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.store import LoadedInfo
from neas_tf.export.artifacts import check_ending, labels_text, read_label_file


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


@pytest.mark.parametrize(
    ("name", "kind", "right"),
    [
        ("x.tflite", "tflite", True),
        ("x", "tflite", True),
        ("x.keras", "tflite", False),
        ("x.H5", "tflite", False),
        ("x.weights.h5", "keras", True),
        ("x.h5", "keras", False),
        ("v1.keras/x.tflite", "tflite", True),
        ("v1.2", "saved_model", True),
        ("v1.keras/", "saved_model", False),
        ("x.TFLITE", "saved_model", False),
    ],
)
def test_a_name_that_promises_another_kind_is_refused(name, kind, right):
    if right:
        check_ending(name, kind)
    else:
        with pytest.raises(NeasError, match=r"^output: received"):
            check_ending(name, kind)
