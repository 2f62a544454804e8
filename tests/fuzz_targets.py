"""Every reader of outside data as a target of the fuzzers: what it reads, and valid inputs.

A target raises `NeasError` or returns; what else happens to it is a fault. Files are written into
a folder of memory where there is one, before the parser is watched.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_engine import Target
from latency_tables import made_up_table
from spaces_for_tests import TOY, some_shrunk
from torch_checkpoints import Raw, call, instructions, name, tensor

from neas_tf import torch_pickle
from neas_tf.architecture import Architecture
from neas_tf.errors import NeasError
from neas_tf.files import parse_json
from neas_tf.latency_table import LatencyTable
from neas_tf.latency_work import read_manifest
from neas_tf.model_store import ARCHITECTURE_FILE, MODEL_FILE, read_info
from neas_tf.normalisation import Normalisation
from neas_tf.paths import project_file
from neas_tf.report.reading import read_run
from neas_tf.search_state import History, parse_history
from neas_tf.shrunk_space import ShrunkSpace
from neas_tf.space import SearchSpace
from neas_tf.torch_file import open_checkpoint
from neas_tf.torch_pickle import Tensor
from neas_tf.yaml_text import load_yaml, load_yaml_file
from neas_tf.zoo import load_architecture

KEY = "s2:k3e2.k5e3|k3e4.skip|k5e3.k3e2"
ARCHITECTURE = Architecture.from_key(KEY, "example")
OFFICIAL = "2,2,0,0,1,2,-1,0,3,4,0"
NUMBERS = np.arange(6, dtype="<f4").reshape(2, 3)
_NAMES = [
    b"format",
    b"name",
    b"split_point",
    b"paths",
    b"skip",
    b"k3e4",
    b"fused_k3e4_se",
    b"uib_s3e2",
]
_CONFIGS = ("cifar10_cpu.yaml", "cifar10_mobile_cpu.yaml", "spaces/mobile.yaml")


@functools.cache
def _folder() -> Path:
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.TemporaryDirectory(prefix="neas_fuzz_", dir=base)
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


class OnFile:
    """Reads an input as the content of a file; writing it is not the parser's doing."""

    def __init__(self, file: str, read: Callable[[Path], object]):
        self.file, self._read = file, read

    def prepare(self, data: bytes) -> Path:
        """Puts the input where it is read."""
        path = _folder() / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def __call__(self, data: bytes) -> object:
        return self._read(_folder() / self.file)


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _text(data: bytes) -> str:
    """Any text that a command line can hold: bytes that are no UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise NeasError("no UTF-8") from None


def read_yaml(data: bytes) -> object:
    return SearchSpace.from_dict(load_yaml(_utf8(data), "space"))


def read_yaml_file(path: Path) -> object:
    return load_yaml_file(path)


def read_report_folder(path: Path) -> object:
    """The report's reader notes what it cannot read, and goes on."""
    found = read_run(path.parents[1], TOY)
    return [p.encode() for p in found.problems], found.candidates


def read_architecture_text(data: bytes) -> object:
    return load_architecture(_text(data))


def read_official_list(data: bytes) -> object:
    value = parse_json(data, "list")
    if not isinstance(value, list):
        raise NeasError("list: no list.")
    return Architecture.from_official(value).to_official()


def read_architecture_json(data: bytes) -> object:
    found = Architecture.from_dict(parse_json(data, "architecture"))
    assert Architecture.from_dict(found.to_dict()) == found
    return _dumps(found.to_dict()), found.key.encode(), found.heterogeneous


def read_space(data: bytes) -> object:
    space = SearchSpace.from_dict(parse_json(data, "space"))
    return space.fingerprint(), space.layers


def read_shrunk(data: bytes) -> object:
    return ShrunkSpace.from_dict(parse_json(data, "shrunk space"), TOY).draw_tables


def read_table(data: bytes) -> object:
    value = parse_json(data, "latency table")
    try:
        table = LatencyTable.from_dict(value)
    except NeasError as error:
        if "latency table: fingerprint" not in str(error):
            raise
        fields = ("num_paths", "quantize", "entries", "scale", "constant", "made_for", "device")
        right = LatencyTable(**{key: value[key] for key in fields if key in value}).fingerprint()
        table = LatencyTable.from_dict({**value, "fingerprint": right})
    table.check_fits(TOY, 2)
    _dumps(table.to_dict())
    return table.layer_ns(TOY), table.predict_ns(ARCHITECTURE, TOY)


def read_history_file(data: bytes) -> object:
    candidates, content, tail = parse_history(data, Path("history.jsonl"))
    assert content + tail in (data, data + b"\n")
    return _dumps([c.to_dict() for c in candidates])


def read_state(path: Path) -> object:
    history = History(path.parent, lambda architecture: {"macs": 1})
    state = history.check({"a": 1})
    rng = np.random.default_rng(0)
    history.restore(rng, state["rng"])
    return rng.random()


def read_pickle(data: bytes) -> object:
    """The stack machine alone, with the damages that `open_checkpoint` turns into sentences."""
    from neas_tf.torch_file import DAMAGES

    try:
        return torch_pickle.run(io.BytesIO(data), lambda storage: bytes(24))
    except DAMAGES as error:
        raise NeasError(f"torch_checkpoint: {type(error).__name__}") from None


def read_checkpoint(path: Path) -> object:
    def numbers(value: Any, depth: int = 0) -> None:
        if isinstance(value, dict) and depth < 3:
            for child in value.values():
                numbers(child, depth + 1)
        elif isinstance(value, Tensor):
            assert value.array().shape == value.shape

    with open_checkpoint(path) as content:
        numbers(content)
    return None


def read_model_json(path: Path) -> object:
    return read_info(path.parent)


def read_normalisation(data: bytes) -> object:
    found = Normalisation.of(parse_json(data, "normalisation"))
    return found.check_channels(3).apply(np.zeros((1, 3)))


@functools.cache
def _experiment() -> Any:
    from neas_tf.parse_config import load_config

    return load_config("neas_quickstart")


def _apply(settings: dict[str, Any]) -> object:
    from neas_tf.config import search_space
    from neas_tf.parse_config import apply_override, check_known, with_stage_shapes

    check_known(settings, _experiment())
    config = copy.deepcopy(_experiment())
    apply_override(config, with_stage_shapes(settings))
    config.data.check()
    if "space" in settings:
        space = config.space
        space.input_size = space.input_size or [8, 8]
        space.input_channels, space.num_classes = space.input_channels or 1, space.num_classes or 10
        return search_space(space)
    return None


def read_config(data: bytes) -> object:
    from neas_tf.yaml_text import load_yaml

    return _apply(load_yaml(_utf8(data), "config_file 'a.yaml'"))


def read_overrides(data: bytes) -> object:
    from neas_tf.parse_config import parse_override

    return _apply(parse_override(_text(data)))


def read_records(path: Path) -> object:
    from neas_tf.data.sources import count_records

    return count_records(str(path))


def read_image(data: bytes) -> object:
    """The decoder: TensorFlow's error about an image is what the readers count as damaged."""
    import tensorflow as tf

    try:
        return _decoder()(tf.constant(data)).shape
    except tf.errors.InvalidArgumentError:
        raise NeasError("damaged") from None


@functools.cache
def _decoder() -> Any:
    import tensorflow as tf

    from neas_tf.data.decoding import Decoder

    function = tf.function(Decoder(8, 8, 3).fixed, [tf.TensorSpec([], tf.string)])
    function.get_concrete_function()  # tracing writes a file of its own
    return function


def _images() -> list[bytes]:
    import bad_images

    return [*bad_images.decodable().values(), bad_images.rotated()]


def _checkpoint(**entries: bytes) -> bytes:
    storages: list[np.ndarray] = []
    content = {"epoch": 3, "state_dict": {"a": NUMBERS, "b": np.array(7, "<i8")}, "l": [1, (2,)]}
    program = b"\x80\x02" + instructions(content, storages) + b"."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for number, array in enumerate(storages):
            archive.writestr(f"archive/data/{number}", array.tobytes())
        for key, value in entries.items():
            archive.writestr(key, value)
    return stream.getvalue()


def _old_checkpoint() -> bytes:
    storages: list[np.ndarray] = []
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": NUMBERS}, ["0"])
    programs = []
    for part in parts:
        if part == parts[0]:
            code = b"\x8a\x0a" + part.to_bytes(10, "little")
        else:
            code = instructions(part, storages)
        programs.append(b"\x80\x02" + code + b".")
    return b"".join(programs) + struct.pack("<q", NUMBERS.size) + NUMBERS.tobytes()


def _pickles() -> list[bytes]:
    storages: list[np.ndarray] = []
    values = (
        {"state_dict": {"a": NUMBERS}, "n": [1, 2.5, "x", None, True, (1, (2,))]},
        {"t": tensor(NUMBERS, storages, shape=(3, 2), strides=(1, 3))},
        {"o": call(name("collections", "OrderedDict"))},
        {"ns": Raw(name("argparse", "Namespace") + b")\x81" + instructions({"lr": 0.1}) + b"b")},
    )
    import pickle

    own = [b"\x80\x02" + instructions(value, storages) + b"." for value in values]
    plain = {"a": [1, 2, 3], "b": (1, "x"), "c": {"d": 1.5}, "e": b"bytes", "f": 1 << 70}
    return own + [pickle.dumps(plain, protocol) for protocol in (2, 3, 4, 5)]


_OPCODES = (
    *(bytes([c]) for c in b"().0122NQRXabcdegqrstu}]\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x90"
      b"\x92\x93\x94\x95"),
    b"q\x00", b"h\x00", b"h\x01", b"K\x05", b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8,
    b"\x8a\xff" + b"\xff" * 255, b"cos\nsystem\n", b"ctorch\nFloatStorage\n", b"}q\x00(K\x01h\x00u",
    b"]q\x00h\x00a", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cargparse\nNamespace\n", b"\x85" * 3000,
)  # fmt: skip
_ZIP = (
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"archive/data/0", b"archive/data.pkl",
    b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x08\x00", b"\x01\x00\x1c\x00", b"../",
)  # fmt: skip
_YAML = (
    b"space:", b"data:", b"search:", b"{", b"}", b"[", b"]", b": ", b"- ", b"\n  ", b"stages", b"max_macs",
    b"num_paths", b"input_size", b"supernet", b"trainer", b"optimizer_config", b"type", b"runtime", b"&x ",
    b"*x", b"<<: *x", b"null", b"learning_rate", b"operators", b"train_steps", b"mean", b"crop_area",
)  # fmt: skip


def _history_lines() -> bytes:
    keys = (KEY, "s1:k3e2|k5e3.k3e4.skip|k3e4.k3e4.k3e2", "s4:k3e2.k3e2.k3e4.k5e3|.|.")
    lines = []
    for number, key in enumerate(keys):
        architecture = Architecture.from_key(key)
        line = {"candidate": number, "generation": number // 2, "origin": "random",
                "architecture": architecture.to_dict(), "key": key, "accuracy": 0.5,
                "path_accuracies": [0.4, 0.45], "macs": 1000 + number, "params": 12}  # fmt: skip
        lines.append(_dumps(line | ({"images": 50} if number == 2 else {})))
    return b"\n".join([*lines, b""])


def _state() -> bytes:
    rng = np.random.default_rng(1).bit_generator.state
    return _dumps({"format": "neas-search-state/1", "search": {"a": 1}, "generation": 1,
                   "candidates": 0, "population": [0], "parents": [], "best": 0, "rng": rng,
                   "finished": False, "reason": ""})  # fmt: skip


def _model() -> bytes:
    classes = [str(i) for i in range(10)]
    return _dumps({"format": "neas-model/1", "space": TOY.to_dict(), "class_names": classes,
                   "normalisation": {"mean": [0.5], "std": [0.2]}, "versions": {}})  # fmt: skip


def _manifest() -> bytes:
    models = [{"file": "probe_000.tflite", "kind": "probe", "name": "stem"}]
    return _dumps({"format": "neas-latency-models/1", "space": TOY.to_dict(), "num_paths": 2,
                   "quantize": "none", "seed": 0, "models": models})  # fmt: skip


def _records() -> bytes:
    def record(content: bytes) -> bytes:
        return struct.pack("<Q", len(content)) + bytes(4) + content + bytes(4)

    return record(b"abc") + record(b"") + record(b"x" * 40)


def _file(*parts: str) -> bytes:
    return Path(project_file(*parts)).read_bytes()


def pure_targets() -> list[Target]:
    """The parsers that need no TensorFlow."""
    state = OnFile("search/state.json", read_state)
    (_folder() / "model").mkdir(exist_ok=True)
    (_folder() / "model" / ARCHITECTURE_FILE).write_bytes(_dumps(ARCHITECTURE.to_dict()))
    zoo = [_file("configs", "architectures", f"neas_{size}.json") for size in "sml"]
    official = [OFFICIAL.encode(), b"20,2,0," + b"1," * 20 + b"0,0", b"[0,1,0,5,0]"]
    spaces = [
        _dumps(TOY.to_dict()),
        _dumps({"stages": [[8, 2, 1]], "min_split": 0, "max_split": 1}),
    ]
    return [
        Target("architecture text", read_architecture_text,
               [KEY.encode(), *official, b"neas_s", b"a.json", b"s0:.|k3e4|k5e4"],
               [b"s1:", b"|", b".", b"k3e4", b",", b"0", b"-1", b"skip", b"neas_l", b"[", b"]"]),
        Target("architecture JSON", read_architecture_json,
               [_dumps(ARCHITECTURE.to_dict()), *zoo], _NAMES),
        Target("official list", read_official_list,
               [b"[" + OFFICIAL.encode() + b"]", _dumps(ARCHITECTURE_OFFICIAL)], [b",", b"0", b"-1"]),
        Target("space", read_space, spaces, [*_NAMES, b"stages", b"operators", b"channels"], 0.6),
        Target("shrunk space", read_shrunk, [_dumps(some_shrunk().to_dict())], _NAMES, 0.6),
        Target("latency table", read_table, [_dumps(made_up_table(TOY).to_dict())],
               [b"entries", b"scale", b"constant", b"quantize", b"fingerprint"], 0.6),
        Target("search history", read_history_file, [_history_lines(), _history_lines()[:-20]],
               [b"\n", b"macs", b"accuracy", b"images", b"random"], 0.6),
        Target("search state", state, [_state()], [b"rng", b"search", b"PCG64"], 0.6),
        Target("latency manifest", OnFile("manifest.json", read_manifest), [_manifest()],
               [b"file", b"kind", b"../../x.tflite", b"/etc/x"], 0.4),
        Target("model folder", OnFile(f"model/{MODEL_FILE}", read_model_json), [_model()],
               [b"class_names", b"mean", b"std"], 0.4),
        Target("normalisation", read_normalisation,
               [_dumps({"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]})], [b"mean", b"std"]),
        Target("YAML text", read_yaml, [_SMALL_SPACE, b"{a: &x [1, 2], b: *x, c: {<<: {d: 1}}}"],
               _YAML, 0.4),
        Target("YAML file", OnFile("a.yaml", read_yaml_file), [_SMALL], _YAML, 0.2),
        Target("report: history", OnFile("run/search/history.jsonl", read_report_folder),
               [_history_lines()], [b"\n", b"macs", b"accuracy", b"NaN"], 0.2),
        Target("report: metrics", OnFile("run/supernet/metrics.jsonl", read_report_folder),
               [b'{"step": 10, "loss": 1.5, "accuracy": 0.5}\n{"step": 20, "loss": NaN}\n'],
               [b"\n", b"step", b"loss", b"NaN"], 0.2),
        Target("checkpoint pickle", read_pickle, _pickles(), _OPCODES),
        Target("checkpoint file", OnFile("c.pth", read_checkpoint),
               [_checkpoint(), _old_checkpoint(), _checkpoint(**{"archive/data/9": b"x"})],
               [*_ZIP, *_OPCODES], 0.4),
    ]  # fmt: skip


_SMALL_SPACE = (
    b"stages: [[8, 2, 1], {channels: 8, layers: 1, stride: 2}]\nmin_split: 0\nmax_split: 3\n"
)
_SMALL = b"num_paths: 2\nspace: {stages: [[8, 2, 2]], operators: [k3e2, skip], min_split: 0, max_split: 2}\n"
ARCHITECTURE_OFFICIAL = [1, 3, 0, 2, 1, -1, 0, 5, 4, 0, 0, 0, 0]


# Name and share of those below, for whom does not import TensorFlow.
TENSORFLOW_TARGETS = {
    "TFRecord lengths": 0.4,
    "image": 0.4,
    "overrides": 0.1,
    "config YAML": 0.05,
}


def tensorflow_targets() -> list[Target]:
    """The parsers that import TensorFlow."""
    configs = [_file("configs", path) for path in _CONFIGS]
    from absl import logging

    logging.set_verbosity(logging.ERROR)  # Model Garden warns of every list
    _experiment()
    _decoder()
    overrides = [
        b"num_paths=2,search.max_macs=300000,space.operators=[k3e4,skip],data.mean=[0.5]",
        b"supernet.trainer.optimizer_config.learning_rate.type=cosine,shrink.beta=auto",
        b"{num_paths: 3, data: {source: tfds, name: cifar10}}",
        b"space.stages=[[8,2,1],{channels: 8, layers: 2, stride: 2}],space.input_size=[8,8]",
    ]
    found = [
        Target("TFRecord lengths", OnFile("a.tfrecord", read_records), [_records()],
               [b"\xff" * 8, bytes(8), struct.pack("<Q", 1 << 63)]),
        Target("image", read_image, _images(),
               [b"\xff\xd8\xff", b"\xff\xc0", b"\xff\xda", b"IHDR", b"IDAT", b"\x89PNG", b"GIF8",
                b"BM", b"RIFF", b"WEBP", b"acTL", b"\xff\xff"]),
        Target("overrides", read_overrides, overrides, [*_YAML, b"=", b",", b"."]),
        Target("config YAML", read_config, [_SMALL, *configs], _YAML),
    ]  # fmt: skip
    return [dataclasses.replace(t, share=TENSORFLOW_TARGETS[t.name]) for t in found]
