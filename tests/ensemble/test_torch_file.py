"""Reading checkpoints: the numbers come out, and nothing in a file is ever run."""

import argparse
import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.ensemble.torch_file import load_checkpoint

NUMBERS = np.arange(24, dtype="<f4").reshape(2, 3, 4)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def refused(path, match=r"is no sound PyTorch checkpoint .*; nothing of it was run\.$"):
    with pytest.raises(NeasError, match=match) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith("torch_checkpoint: ") and len(str(caught.value)) < 1000


def saved(torch, content, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def with_program(torch, program: bytes) -> bytes:
    """A file of torch.save with another pickle in it."""
    stream = io.BytesIO()
    sound = zipfile.ZipFile(io.BytesIO(saved(torch, {"t": torch.zeros(3)})))
    with zipfile.ZipFile(stream, "w") as archive:
        for entry in sound.infolist():
            pickled = entry.filename.endswith("/data.pkl")
            archive.writestr(entry.filename, program if pickled else sound.read(entry))
    return stream.getvalue()


@pytest.mark.parametrize(("version", "match"), [
    (None, r"needs PyTorch, .* run pip install 'neas-tf\[torch\]' \(or pip install torch\)\.$"),
    ("2.5.1+cpu", r"PyTorch 2\.5\.1\+cpu .*; expected 2\.6 or later"),
])  # fmt: skip
def test_no_pytorch_or_an_unsafe_one(version, match, tmp_path, monkeypatch):
    (tmp_path / "c").touch()
    module = version and types.SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "torch", module)
    refused(tmp_path / "c", match)
    refused(tmp_path, "expected an existing file|an existing file")


@pytest.mark.parametrize("new", [True, False])
def test_what_a_training_program_saves_is_read(new, torch, tmp_path):
    tensors = {
        "a": torch.from_numpy(NUMBERS),
        "b": torch.from_numpy(NUMBERS.astype("<f8")),
        "c": torch.from_numpy(NUMBERS).to(torch.bfloat16),
        "d": torch.nn.Parameter(torch.from_numpy(NUMBERS).half().permute(2, 0, 1)),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(7),
    }
    other = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "metric": np.float64(77.9), "l": [1]}
    options = {"_use_new_zipfile_serialization": new}
    (tmp_path / "c.pth.tar").write_bytes(saved(torch, {**other, "state": tensors}, **options))
    found = load_checkpoint(tmp_path / "c.pth.tar")
    state = found.pop("state")
    assert found == other
    np.testing.assert_array_equal(state["a"], NUMBERS)
    np.testing.assert_array_equal(state["c"], NUMBERS)  # up to 23, which 8 bits hold
    np.testing.assert_array_equal(state["d"], NUMBERS.transpose(2, 0, 1))
    kinds = {name: str(value.dtype) for name, value in state.items()}
    assert kinds == {"a": "float32", "b": "float64", "c": "float32", "d": "float16",
                     "empty": "float32", "count": "int64"}  # fmt: skip
    assert state["empty"].shape == (0, 3) and state["count"].shape == ()


class Touch:
    """Pickles as a call that makes a file, as an attacker's class would."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_of_a_file_is_run(protocol, torch, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth.tar"
    program = pickle.dumps({"state_dict": Touch(trace)}, protocol)
    pickle.loads(program)["state_dict"].close()
    assert trace.exists()  # Python's own reader does run it
    trace.unlink()
    for content in (program, with_program(torch, program)):
        path.write_bytes(content)
        refused(path)
    assert not trace.exists()


GLOBALS = {
    "system": b"cos\nsystem\n(X\x05\x00\x00\x00touchtR",
    "eval": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR",
    "load": b"ctorch\nload\n(X\x01\x00\x00\x00xtR",
    "attribute": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n(tR",
    "INST": b"(X\x05\x00\x00\x00touchios\nsystem\n",
    "OBJ": b"(cos\nsystem\nX\x05\x00\x00\x00toucho",
    "EXT1": b"\x82\x01",
    "PERSID": b"Pevil\n",
    "deep key": b"}" + b"(" * 2000 + b"t" * 2000 + b"K\x01s",
    "no mark": b"t",
    "holds itself": b"}q\x00X\x01\x00\x00\x00ah\x00s",
}


@pytest.mark.parametrize("program", GLOBALS.values(), ids=GLOBALS)
def test_programs_are_refused(program, torch, tmp_path):
    (tmp_path / "c").write_bytes(with_program(torch, b"\x80\x02" + program + b"."))
    refused(tmp_path / "c")


def test_files_that_torch_did_not_write(torch, tmp_path):
    path = tmp_path / "c"
    sound = saved(torch, {"t": torch.from_numpy(NUMBERS)})
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    endless = saved(torch, {"t": torch.zeros(1).expand(1 << 20, 1 << 20)})
    old = saved(torch, {"t": torch.zeros(9)}, _use_new_zipfile_serialization=False)
    for content in (b"", b"PK", b"no checkpoint", sound[:-30], sound[: len(sound) // 2],
                    old[:-3], packed.getvalue(), endless, pickle.dumps(torch.nn.Linear(2, 2))):  # fmt: skip
        path.write_bytes(content)
        refused(path)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damaged_files_end_with_a_sentence(data, torch, tmp_path_factory):
    content = {"a": torch.from_numpy(NUMBERS), "l": [1, 2], "t": (1, 2, 3), "x": 0.5}
    whole = bytearray(
        saved(torch, content, _use_new_zipfile_serialization=data.draw(st.booleans()))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        load_checkpoint(path)
    except NeasError as error:
        assert str(error).startswith("torch_checkpoint: ")
