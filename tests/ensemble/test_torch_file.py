"""Reading checkpoints: the numbers come out, and nothing in a file is ever run."""

import pickle
import zipfile

import numpy as np
import pytest
import torch_checkpoints
from hypothesis import given
from hypothesis import strategies as st
from torch_checkpoints import Raw, call, instructions, name, tensor, write

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.torch_file import open_checkpoint
from neas_tf.ensemble.torch_pickle import Ignored, Tensor

NUMBERS = np.arange(24, dtype="<f4").reshape(2, 3, 4)


def read(path):
    """The content with arrays in the place of tensors."""

    def arrays(value):
        if isinstance(value, dict):
            return {k: arrays(v) for k, v in value.items()}
        return value.array() if isinstance(value, Tensor) else value

    with open_checkpoint(path) as content:
        return arrays(content)


def test_what_a_training_program_saves_is_read(tmp_path):
    namespace = Raw(name("argparse", "Namespace") + b")\x81" + instructions({"lr": 0.1}) + b"b")
    metadata = Raw(instructions({}) + instructions({"_metadata": {"": {"version": 1}}}) + b"b")
    content = {
        "epoch": 349,
        "metric": 77.9,
        "none": None,
        "args": namespace,
        "list": [1, "zwei", True, (2, ())],
        "buffers": metadata,
        "state_dict": {
            "a": NUMBERS,
            "b": NUMBERS.astype("<f8"),
            "c": NUMBERS.astype("<f2"),
            "d": np.array(7, "<i8"),
            "empty": np.zeros((0, 3), "<f4"),
        },
    }
    found = read(write(tmp_path / "c.pth.tar", content))
    state = found.pop("state_dict")
    assert found == {
        "epoch": 349,
        "metric": 77.9,
        "none": None,
        "args": Ignored("argparse.Namespace"),
        "list": [1, "zwei", True, (2, ())],
        "buffers": {},
    }
    for key in "abcd":
        wanted = content["state_dict"][key]
        assert state[key].dtype == wanted.dtype
        np.testing.assert_array_equal(state[key], wanted)
    assert state["empty"].shape == (0, 3)


def test_views_strides_and_bfloat16(tmp_path):
    storages = []
    transposed = tensor(NUMBERS, storages, shape=(4, 3), strides=(1, 4), offset=12)
    bits = (NUMBERS.view(np.uint32) >> 16).astype("<u2")
    half = tensor(bits.view("<f2"), storages, kind="BFloat16")
    path = write(tmp_path / "c", {"t": transposed, "h": half}, storages=storages)
    found = read(path)
    np.testing.assert_array_equal(found["t"], NUMBERS[1].T)
    np.testing.assert_array_equal(found["h"], NUMBERS)  # up to 23, which 8 bits hold
    assert found["h"].dtype == np.float32


EVIL = {
    "os.system": lambda p: call(name("os", "system"), f"touch {p}"),
    "posix": lambda p: call(name("posix", "system"), f"touch {p}"),
    "open": lambda p: call(name("builtins", "open"), p, "w"),
    "eval": lambda p: call(name("__builtin__", "eval"), f"open({p!r}, 'w')"),
    "getattr": lambda p: call(name("builtins", "getattr"), name("os", "system"), "x"),
    "attribute": lambda p: call(name("torch._utils", "_rebuild_tensor_v2.__globals__"), 1),
    "torch.load": lambda p: call(name("torch", "load"), p),
    "numpy.load": lambda p: call(name("numpy", "load"), p),
    "storage": lambda p: call(name("torch.evil", "FloatStorage"), p),
    "INST": lambda p: Raw(b"(" + instructions(f"touch {p}") + b"ios\nsystem\n"),
    "OBJ": lambda p: Raw(b"(" + name("os", "system") + instructions(f"touch {p}") + b"o"),
    "STACK_GLOBAL": lambda p: call(
        Raw(instructions("os") + instructions("system") + b"\x93"), f"touch {p}"
    ),
    "EXT1": lambda p: Raw(b"\x82\x01"),
    "NEWOBJ_EX": lambda p: Raw(name("os", "system") + b")}\x92"),
    "PERSID": lambda p: Raw(b"Pevil\n"),
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("form", ["zip", "old"])
def test_nothing_of_a_file_is_run(evil, form, tmp_path):
    trace = tmp_path / "trace"
    program, path = evil(str(trace)), tmp_path / "evil.pth.tar"
    if form == "zip":
        write(path, {"state_dict": {"a": NUMBERS}, "more": program})
    else:
        path.write_bytes(b"\x80\x02" + program + b".")
    with pytest.raises(NeasError, match="torch_checkpoint"), open_checkpoint(path):
        pass
    assert not trace.exists()


class Touch:
    """Pickles as a call that makes a file, as an attacker's class would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_do_run_elsewhere(protocol, tmp_path):
    trace = tmp_path / "trace"
    program = pickle.dumps({"state_dict": Touch(trace)}, protocol)
    pickle.loads(program)["state_dict"].close()
    assert trace.exists()
    trace.unlink()
    path = tmp_path / "evil.pth.tar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(NeasError, match="torch_checkpoint: received a file"), open_checkpoint(path):
        pass
    path.write_bytes(program)
    with pytest.raises(NeasError), open_checkpoint(path):
        pass
    assert not trace.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (5, 5), "strides": (5, 1)},
        {"shape": (1 << 20, 1 << 20), "strides": (0, 0)},
        {"shape": (2, 3), "strides": (30, 1)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (-12, 4, 1)},
        {"shape": (24, -1), "strides": (1, 1)},
        {"shape": (24,), "strides": (1, 1)},
        {"size": -24},
        {"size": 48, "shape": (48,), "strides": (1,)},
        {"key": "../../data.pkl"},
        {"key": "7"},
        {"kind": "Evil"},
    ],
    ids=str,
)
def test_tensors_beyond_their_numbers_are_refused(changes, tmp_path):
    storages = []
    evil = tensor(NUMBERS, storages, **changes)
    path = write(tmp_path / "c", {"t": evil}, storages=storages)
    with pytest.raises(NeasError, match="torch_checkpoint"):
        read(path)


def test_zip_files_that_torch_did_not_write(tmp_path):
    def refused(path, match):
        with pytest.raises(NeasError, match=match):
            read(path)

    bomb = {"t": np.zeros(1 << 16, "<f4")}
    refused(write(tmp_path / "a", bomb, compression=zipfile.ZIP_DEFLATED), "compressed")
    refused(write(tmp_path / "b", {}, byteorder="big"), "little-endian")
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("notes.txt", "no model")
    refused(tmp_path / "c", "no sound PyTorch checkpoint")
    whole = write(tmp_path / "d", {"t": NUMBERS}).read_bytes()
    (tmp_path / "e").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "e", "no sound PyTorch checkpoint")
    at = whole.index(NUMBERS.tobytes())
    (tmp_path / "f").write_bytes(whole[: at + 4] + b"\xff" + whole[at + 5 :])
    refused(tmp_path / "f", "Bad CRC")
    (tmp_path / "g").write_bytes(b"\x1f\x8b whatever")
    refused(tmp_path / "g", "no file of torch.save")
    (tmp_path / "h").write_bytes(b"")
    refused(tmp_path / "h", "no file of torch.save")
    refused(tmp_path / "none", "an existing file")
    refused(tmp_path, "an existing file")


@given(data=st.data())
def test_damaged_pickles_end_with_a_sentence(data, tmp_path_factory):
    storages = []
    content = {"a": NUMBERS, "l": [1, 2], "t": (1, 2, 3), "x": 0.5}
    program = bytearray(b"\x80\x02" + instructions(content, storages) + b".")
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(2, len(program) - 1))
        program[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(program))
        archive.writestr("archive/data/0", storages[0].tobytes())
    try:
        read(path)
    except NeasError as error:
        assert str(error).startswith("torch_checkpoint")


def test_the_torch_reader_needs_torch(tmp_path, monkeypatch):
    import sys

    path = write(tmp_path / "c", {"a": NUMBERS})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NeasError, match="PyTorch is not installed"), open_checkpoint(path, "torch"):
        pass
    with pytest.raises(NeasError, match="unknown name 'other'"), open_checkpoint(path, "other"):
        pass
    assert set(torch_checkpoints.KINDS.values()) == {"Float", "Double", "Half", "Long"}


def test_an_old_torch_is_not_trusted(tmp_path, monkeypatch):
    import sys
    import types

    path = write(tmp_path / "c", {"a": NUMBERS})
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(__version__="2.5.1+cpu"))
    with pytest.raises(NeasError, match=r"2\.6 or later"), open_checkpoint(path, "torch"):
        pass
