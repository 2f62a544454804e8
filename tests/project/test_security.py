"""What the project must never do with the files of others: read from the source, and tried."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import re

import fuzz_seeds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common import files
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import project_file
from neas_tf.latency.measurement import WorkFolder, read_manifest
from neas_tf.space.architecture import Architecture

ROOT = pathlib.Path(project_file())
SOURCES = sorted(
    path
    for folder in ("neas_tf", "export", "detection", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.py")
)
# Whole names of what runs or unpacks data, however it is imported.
FORBIDDEN = {
    "eval", "exec", "compile", "__import__",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load", "shelve.open",
    "marshal.load", "marshal.loads", "numpy.fromregex", "yaml.load_all", "yaml.full_load",
    "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "tensorflow.py_function", "tensorflow.numpy_function", "tensorflow.compat.v1.py_func",
    "tempfile.mktemp", "tarfile.open", "shutil.unpack_archive",
}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def whole_name(node: ast.expr, imported: dict[str, str]) -> str:
    """`np.load` → 'numpy.load'; '' for what is no name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([imported.get(node.id, node.id), *reversed(parts)])


def faults(source: str) -> list[str]:
    """What in a source must not be there, with its line."""
    tree, imported, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {a.asname or a.name.split(".")[0]: a.name if a.asname else
                         a.name.split(".")[0] for a in node.names}  # fmt: skip
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            names = [(node.module or "").split(".")[0]]
        else:
            continue
        found += [f"{node.lineno}: import {n}" for n in names if n in FORBIDDEN_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = whole_name(node, imported)
            if name in FORBIDDEN and not isinstance(node.ctx, ast.Store):
                found.append(f"{node.lineno}: {name}")
        if isinstance(node, ast.Call):
            name = whole_name(node.func, imported)
            given = {k.arg: k.value for k in node.keywords}
            true = {k for k, v in given.items() if isinstance(v, ast.Constant) and v.value is True}
            if "shell" in true or "allow_pickle" in true or "enable_unsafe_deserialization" in true:
                found.append(f"{node.lineno}: {name} with {sorted(true)}")
            if name.endswith("torch.load") and "weights_only" not in true:
                found.append(f"{node.lineno}: {name} without weights_only=True")
            if name == "yaml.load" and "Loader" not in given:
                found.append(f"{node.lineno}: {name} without a Loader")
            unsafe = given.get("safe_mode")
            if isinstance(unsafe, ast.Constant) and unsafe.value is False:
                found.append(f"{node.lineno}: {name} with safe_mode=False")
    return found


def test_the_source_runs_no_data():
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): faults(path.read_text("utf-8")) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)", "exec(x)", "import pickle", "from pickle import loads", "import dill as d",
        "import numpy as np\nnp.load(x, allow_pickle=True)", "import yaml\nyaml.load(x)",
        "import yaml\nyaml.load(x, Loader=yaml.Loader)", "from yaml import unsafe_load as f\nf(x)",
        "import os\nos.system(x)", "from os import system\nsystem(x)",
        "import subprocess\nsubprocess.run(x, shell=True)", "import torch\ntorch.load(x)",
        "import torch\ntorch.load(x, weights_only=False)",
        "import tensorflow as tf\ntf.py_function(f, [x], tf.int32)",
        "import keras\nkeras.models.load_model(x, safe_mode=False)",
    ],
)  # fmt: skip
def test_the_scan_finds_it(line):
    assert faults(line)


def test_yaml_is_read_by_one_loader():
    """Only `yaml_text` builds values from YAML; it is a SafeLoader, without Python's tags."""
    import yaml

    from neas_tf.common import yaml_text

    using = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "yaml"
        and node.attr in ("load", "safe_load", "SafeLoader", "compose", "parse")
    }
    assert using == {"neas_tf/common/yaml_text.py"}
    assert issubclass(yaml_text._Loader, yaml.SafeLoader)
    assert not [tag for tag in yaml_text._Loader.yaml_constructors if "python" in str(tag)]


def manifest(tmp_path, file: str) -> pathlib.Path:
    value = json.loads(fuzz_seeds.manifest_json())
    value["models"][0]["file"] = file
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(value))
    return path


@given(
    file=st.text(max_size=20) | st.sampled_from(["..", "../a.tflite", "/a.tflite", "a/b.tflite"])
)
def test_a_manifest_names_files_of_its_folder_only(file, tmp_path_factory):
    """They are written and deleted: `../x` would be somebody else's file."""
    path = manifest(tmp_path_factory.getbasetemp(), file)
    try:
        request, models = read_manifest(path)
    except NeasError:
        return
    (model,) = models
    folder = path.parent / "work"
    target = WorkFolder(folder, request, models).files[model.file]
    assert pathlib.Path(os.path.normpath(target)).parent == folder


def test_a_manifest_of_another_folder_deletes_nothing(tmp_path):
    precious = tmp_path / "precious.tflite"
    precious.write_text("mine")
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(NeasError, match=r"manifest: file: received '../precious\.tflite'"):
        read_manifest(manifest(folder, "../precious.tflite"))
    assert precious.read_text() == "mine"


def test_writing_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    """A link that somebody left in a model_dir does not lead the writers out of it."""
    outside, inside = tmp_path / "outside.json", tmp_path / "run" / "params.yaml"
    outside.write_text("precious")
    inside.parent.mkdir()
    inside.symlink_to(outside)
    files.write_text_atomic(inside, "new")
    assert outside.read_text() == "precious"
    assert inside.read_text() == "new" and not inside.is_symlink()
    files.write_json_atomic(inside, {"a": 1})
    assert outside.read_text() == "precious"


def test_messages_carry_no_control_characters():
    """A file's text could otherwise move the cursor, or hide the line before."""
    text = str(NeasError("a \x1b[2J b \x00 c \x9b d \ud800 e\tf"))
    assert text == r"a \x1b[2J b \x00 c \x9b d \ud800 e\tf"
    assert str(NeasError("two\nlines, ü, 😀")) == "two\nlines, ü, 😀"
    assert len(str(NeasError("x" * 10**6))) < 4000


def test_the_locks_are_exact_and_hashed():
    """What pip-audit looks up, and pip installs, is one version with its hashes."""
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-cuda.lock"):
        text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.match(r"[A-Za-z0-9._\[\]-]+==[^\s]+ .*--hash=sha256:[0-9a-f]{64}", line), line


# What may be in a graph of ours; a Python or custom operation would be none of these.
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile"}


def graph_operations(folder: pathlib.Path) -> set[str]:
    """Names of all operations of a SavedModel, those of its functions included."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    found = set()
    for part in model.meta_graphs:
        found |= {node.op for node in part.graph_def.node}
        for function in part.graph_def.library.function:
            found |= {node.op for node in function.node_def}
        found -= {function.signature.name for function in part.graph_def.library.function}
    return found


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A small ensemble as SavedModel and TFLite."""
    from small_ensembles import SPACE, randomise

    from neas_tf.ensemble.model import build_ensemble
    from neas_tf.ensemble.store import LoadedInfo
    from neas_tf.export.formats import export_saved_model, export_tflite

    folder = tmp_path_factory.mktemp("exports")
    rows = (("k3e4", "skip", "k3e4", "skip"), ("k3e4", "skip", "k5e4", "skip"))
    architecture = Architecture(2, rows)
    model = build_ensemble(architecture, SPACE)
    randomise(model)
    info = LoadedInfo(architecture, SPACE, tuple("abcde"), Normalisation())
    found = {"saved_model": folder / "saved_model", "tflite": folder / "model.tflite"}
    export_saved_model(model, info, found["saved_model"])
    export_tflite(model, info, found["tflite"])
    return found


def test_a_saved_model_holds_tensorflow_s_own_operations_only(exports):
    import tensorflow as tf

    names = graph_operations(exports["saved_model"])
    known = set(tf.raw_ops.__dict__)
    assert len(names) > 10 and not names & PYTHON_OPS
    assert names <= known


def test_a_tflite_file_holds_builtin_operations_only(exports):
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(exports["tflite"].read_bytes(), 0)
    assert model.operatorCodes
    custom = schema.BuiltinOperator.CUSTOM
    for code in model.operatorCodes:  # TensorFlow's own "flex" operations would be custom too
        assert custom not in (code.builtinCode, code.deprecatedBuiltinCode) and not code.customCode
