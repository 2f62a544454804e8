"""Valid inputs of the readers of outside data, from which the fuzzers set out, and their tokens."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from spaces_for_tests import TOY

from neas_tf.common.paths import project_file
from neas_tf.space.architecture import Architecture

KEY = "s2:k3e2.k5e3|k3e4.skip|k5e3.k3e2"
ARCHITECTURE = Architecture.from_key(KEY, "example")
OFFICIAL = "2,2,0,0,1,2,-1,0,3,4,0"
NAMES = [
    b"format",
    b"name",
    b"split_point",
    b"paths",
    b"skip",
    b"k3e4",
    b"fused_k3e4_se",
    b"uib_s3e2",
]


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def image_files_of_all_kinds() -> list[bytes]:
    import bad_images

    return [*bad_images.decodable().values(), bad_images.rotated()]


YAML = (
    b"space:", b"data:", b"search:", b"{", b"}", b"[", b"]", b": ", b"- ", b"\n  ", b"stages", b"max_macs",
    b"num_paths", b"input_size", b"supernet", b"trainer", b"optimizer_config", b"type", b"runtime", b"&x ",
    b"*x", b"<<: *x", b"null", b"learning_rate", b"operators", b"train_steps", b"mean", b"crop_area",
)  # fmt: skip


def history_lines() -> bytes:
    keys = (KEY, "s1:k3e2|k5e3.k3e4.skip|k3e4.k3e4.k3e2", "s4:k3e2.k3e2.k3e4.k5e3|.|.")
    lines = []
    for number, key in enumerate(keys):
        architecture = Architecture.from_key(key)
        line = {"candidate": number, "generation": number // 2, "origin": "random",
                "architecture": architecture.to_dict(), "key": key, "accuracy": 0.5,
                "path_accuracies": [0.4, 0.45], "macs": 1000 + number, "params": 12}  # fmt: skip
        lines.append(dumps(line | ({"images": 50} if number == 2 else {})))
    return b"\n".join([*lines, b""])


def state_json() -> bytes:
    rng = np.random.default_rng(1).bit_generator.state
    return dumps({"format": "neas-search-state/1", "search": {"a": 1}, "generation": 1,
                   "candidates": 0, "population": [0], "parents": [], "best": 0, "rng": rng,
                   "finished": False, "reason": ""})  # fmt: skip


def model_json() -> bytes:
    classes = [str(i) for i in range(10)]
    return dumps({"format": "neas-model/1", "space": TOY.to_dict(), "class_names": classes,
                   "normalisation": {"mean": [0.5], "std": [0.2]}, "versions": {}})  # fmt: skip


def manifest_json() -> bytes:
    models = [{"file": "probe_000.tflite", "kind": "probe", "name": "stem"}]
    return dumps({"format": "neas-latency-models/1", "space": TOY.to_dict(), "num_paths": 2,
                   "quantize": "none", "seed": 0, "models": models})  # fmt: skip


def records() -> bytes:
    def record(content: bytes) -> bytes:
        return struct.pack("<Q", len(content)) + bytes(4) + content + bytes(4)

    return record(b"abc") + record(b"") + record(b"x" * 40)


def project_bytes(*parts: str) -> bytes:
    return Path(project_file(*parts)).read_bytes()


SMALL_SPACE = (
    b"stages: [[8, 2, 1], {channels: 8, layers: 1, stride: 2}]\nmin_split: 0\nmax_split: 3\n"
)
SMALL_CONFIG = b"num_paths: 2\nspace: {stages: [[8, 2, 2]], operators: [k3e2, skip], min_split: 0, max_split: 2}\n"
ARCHITECTURE_OFFICIAL = [1, 3, 0, 2, 1, -1, 0, 5, 4, 0, 0, 0, 0]
