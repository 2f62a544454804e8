"""Every reader of outside data as a target of the fuzzers: what it reads, and valid inputs.

A target raises `NeasError` or returns; what else happens to it is a fault. Files are written into
a folder of memory where there is one, before the parser is watched.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_engine import Target
from fuzz_seeds import (
    ARCHITECTURE,
    ARCHITECTURE_OFFICIAL,
    KEY,
    NAMES,
    OFFICIAL,
    SMALL_CONFIG,
    SMALL_SPACE,
    YAML,
    dumps,
    history_lines,
    image_files_of_all_kinds,
    manifest_json,
    model_json,
    project_bytes,
    records,
    state_json,
)
from latency_tables import made_up_table
from spaces_for_tests import TOY, some_shrunk

from neas_tf.common.errors import NeasError
from neas_tf.common.files import parse_json
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.yaml_text import load_yaml, load_yaml_file
from neas_tf.cost.latency_table import LatencyTable
from neas_tf.ensemble.confusion import Confusion, Pictures, read_confusion, read_pictures
from neas_tf.ensemble.store import ARCHITECTURE_FILE, MODEL_FILE, read_info
from neas_tf.latency.measurement import read_manifest
from neas_tf.report.reading import read_run
from neas_tf.search.history import History, parse_history
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.space.zoo import load_architecture
from neas_tf.uncertainty.measures import Uncertainty, read_uncertainty

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
    return dumps(found.to_dict()), found.key.encode(), found.heterogeneous


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
    dumps(table.to_dict())
    return table.layer_ns(TOY), table.predict_ns(ARCHITECTURE, TOY)


def read_history_file(data: bytes) -> object:
    candidates, content, tail = parse_history(data, Path("history.jsonl"))
    assert content + tail in (data, data + b"\n")
    return dumps([c.to_dict() for c in candidates])


def read_state(path: Path) -> object:
    history = History(path.parent, lambda architecture: {"macs": 1})
    state = history.check({"a": 1})
    rng = np.random.default_rng(0)
    history.restore(rng, state["rng"])
    return rng.random()


def read_model_json(path: Path) -> object:
    return read_info(path.parent)


def read_normalisation(data: bytes) -> object:
    found = Normalisation.of(parse_json(data, "normalisation"))
    return found.check_channels(3).apply(np.zeros((1, 3)))


@functools.cache
def _experiment() -> Any:
    from neas_tf.config.parse import load_config

    return load_config("neas_quickstart")


def _apply(settings: dict[str, Any]) -> object:
    from neas_tf.config.parse import apply_override, check_known, with_stage_shapes
    from neas_tf.config.settings import search_space

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
    from neas_tf.common.yaml_text import load_yaml

    return _apply(load_yaml(_utf8(data), "config_file 'a.yaml'"))


def read_overrides(data: bytes) -> object:
    from neas_tf.config.parse import parse_override

    return _apply(parse_override(_text(data)))


def read_records(path: Path) -> object:
    from neas_tf.data.reading.sources import count_records

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

    from neas_tf.data.reading.decoding import Decoder

    function = tf.function(Decoder(8, 8, 3).fixed, [tf.TensorSpec([], tf.string)])
    function.get_concrete_function()  # tracing writes a file of its own
    return function


def _test_pictures() -> dict[str, Any]:
    pictures = Pictures(3)
    pictures.add(np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, int), np.eye(3)[None, 1:])
    return pictures.to_dict()


def _uncertainty() -> dict[str, Any]:
    found = Uncertainty(2, 1.5)
    found.add(np.array([0, 1]), np.array([np.eye(3), 2 * np.eye(3)]))
    return found.to_dict()


def pure_targets() -> list[Target]:
    """The parsers that need no TensorFlow."""
    state = OnFile("search/state.json", read_state)
    (_folder() / "model").mkdir(exist_ok=True)
    (_folder() / "model" / ARCHITECTURE_FILE).write_bytes(dumps(ARCHITECTURE.to_dict()))
    zoo = [project_bytes("configs", "architectures", f"neas_{size}.json") for size in "sml"]
    official = [OFFICIAL.encode(), b"20,2,0," + b"1," * 20 + b"0,0", b"[0,1,0,5,0]"]
    spaces = [
        dumps(TOY.to_dict()),
        dumps({"stages": [[8, 2, 1]], "min_split": 0, "max_split": 1}),
    ]
    found = [
        Target("architecture text", read_architecture_text,
               [KEY.encode(), *official, b"neas_s", b"a.json", b"s0:.|k3e4|k5e4"],
               [b"s1:", b"|", b".", b"k3e4", b",", b"0", b"-1", b"skip", b"neas_l", b"[", b"]"]),
        Target("architecture JSON", read_architecture_json,
               [dumps(ARCHITECTURE.to_dict()), *zoo], NAMES),
        Target("official list", read_official_list,
               [b"[" + OFFICIAL.encode() + b"]", dumps(ARCHITECTURE_OFFICIAL)], [b",", b"0", b"-1"]),
        Target("space", read_space, spaces, [*NAMES, b"stages", b"operators", b"channels"], 0.6),
        Target("shrunk space", read_shrunk, [dumps(some_shrunk().to_dict())], NAMES, 0.6),
        Target("latency table", read_table, [dumps(made_up_table(TOY).to_dict())],
               [b"entries", b"scale", b"constant", b"quantize", b"fingerprint"], 0.6),
        Target("search history", read_history_file, [history_lines(), history_lines()[:-20]],
               [b"\n", b"macs", b"accuracy", b"images", b"random"], 0.6),
        Target("search state", state, [state_json()], [b"rng", b"search", b"PCG64"], 0.6),
        Target("latency manifest", OnFile("manifest.json", read_manifest), [manifest_json()],
               [b"file", b"kind", b"../../x.tflite", b"/etc/x"], 0.4),
        Target("model folder", OnFile(f"model/{MODEL_FILE}", read_model_json), [model_json()],
               [b"class_names", b"mean", b"std"], 0.4),
        Target("normalisation", read_normalisation,
               [dumps({"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]})], [b"mean", b"std"]),
        Target("YAML text", read_yaml, [SMALL_SPACE, b"{a: &x [1, 2], b: *x, c: {<<: {d: 1}}}"],
               YAML, 0.4),
        Target("YAML file", OnFile("a.yaml", read_yaml_file), [SMALL_CONFIG], YAML, 0.2),
        Target("report: history", OnFile("run/search/history.jsonl", read_report_folder),
               [history_lines()], [b"\n", b"macs", b"accuracy", b"NaN"], 0.2),
        Target("report: metrics", OnFile("run/supernet/metrics.jsonl", read_report_folder),
               [b'{"step": 10, "loss": 1.5, "accuracy": 0.5}\n{"step": 20, "loss": NaN}\n'],
               [b"\n", b"step", b"loss", b"NaN"], 0.2),
        Target("confusion", OnFile("confusion.json", read_confusion),
               [dumps({**Confusion(3, 2).to_dict(["a", "b", "c"]), "counts": [[0, 1, 5]]})],
               [b"counts", b"differ", b"both_wrong", b"class_names"], 0.2),
        Target("test pictures", OnFile("pictures.json", read_pictures), [dumps(_test_pictures())],
               [b"errors", b"named", b"sure", b"picture", b"class_names"], 0.2),
        Target("uncertainty", OnFile("uncertainty.json", read_uncertainty), [dumps(_uncertainty())],
               [b"ensemble", b"paths", b"risk_coverage", b"auroc"], 0.2),
    ]  # fmt: skip
    return [_warm(target) for target in found]


# Name and share of those below, for whom does not import TensorFlow.
TENSORFLOW_TARGETS = {
    "TFRecord lengths": 0.4,
    "image": 0.4,
    "overrides": 0.1,
    "config YAML": 0.05,
}


def tensorflow_targets() -> list[Target]:
    """The parsers that import TensorFlow."""
    configs = [project_bytes("configs", path) for path in _CONFIGS]
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
        Target("TFRecord lengths", OnFile("a.tfrecord", read_records), [records()],
               [b"\xff" * 8, bytes(8), struct.pack("<Q", 1 << 63)]),
        Target("image", read_image, image_files_of_all_kinds(),
               [b"\xff\xd8\xff", b"\xff\xc0", b"\xff\xda", b"IHDR", b"IDAT", b"\x89PNG", b"GIF8",
                b"BM", b"RIFF", b"WEBP", b"acTL", b"\xff\xff"]),
        Target("overrides", read_overrides, overrides, [*YAML, b"=", b",", b"."]),
        Target("config YAML", read_config, [SMALL_CONFIG, *configs], YAML),
    ]  # fmt: skip
    return [dataclasses.replace(_warm(t), share=TENSORFLOW_TARGETS[t.name]) for t in found]


def _warm(target: Target) -> Target:
    """The target, with its late imports done: the bytecode that they write is no side effect."""
    for seed in target.seeds:
        if isinstance(target.read, OnFile):
            target.read.prepare(seed)
        with contextlib.suppress(NeasError):
            target.read(seed)
    return target
