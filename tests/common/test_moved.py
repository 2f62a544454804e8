"""Lazy faces, and the names that modules had before they moved."""

import importlib
import importlib.util
import subprocess
import sys
import types

import pytest

import neas_tf
from neas_tf import data
from neas_tf.common.moved import MOVED
from neas_tf.common.paths import project_file


@pytest.mark.parametrize("name", sorted(set(neas_tf.__all__)))
def test_every_name_of_the_face_is_there(name):
    found = getattr(neas_tf, name)
    home = found.__name__ if isinstance(found, types.ModuleType) else found.__module__
    assert home.startswith("neas_tf.")


def test_names_of_the_data_package():
    assert all(hasattr(data, name) for name in data.__all__)
    with pytest.raises(AttributeError, match=r"'neas_tf\.data' has no attribute 'nothing'"):
        _ = data.nothing
    with pytest.raises(AttributeError, match="'neas_tf' has no attribute 'nothing'"):
        _ = neas_tf.nothing


def test_every_old_name_leads_to_a_module():
    for old, new in MOVED.items():
        assert importlib.util.find_spec(new) is not None, f"{old} -> {new}"


@pytest.mark.parametrize(
    "old, new",
    [
        ("neas_tf.errors", "neas_tf.common.errors"),
        ("neas_tf.stopping", "neas_tf.common.command_line"),
        ("neas_tf.families.mbconv", "neas_tf.operators.mbconv"),
        ("neas_tf.stages.search_stage", "neas_tf.run.search_stage"),
        ("neas_tf.data.sources", "neas_tf.data.reading.sources"),
        ("detection.labels", "neas_tf.detection.pictures.labels"),
        ("export.common", "neas_tf.export.commands.common"),
    ],
)
def test_an_old_name_is_the_module_itself(old, new, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    module = importlib.import_module(new)
    spec = module.__spec__
    with pytest.warns(DeprecationWarning, match=rf"{old} is {new} now"):
        assert importlib.import_module(old) is module
    assert module.__spec__ is spec and module.__name__ == new


def test_a_substitute_under_the_old_name_serves_for_the_new_one(monkeypatch):
    old, new = "neas_tf.tflite_files", "neas_tf.export.tflite.inspection"
    monkeypatch.delitem(sys.modules, new, raising=False)
    stub = types.ModuleType(old)
    monkeypatch.setitem(sys.modules, old, stub)
    assert importlib.import_module(new) is stub
    monkeypatch.delitem(sys.modules, old)
    monkeypatch.delitem(sys.modules, new)
    assert importlib.import_module(new) is not stub


@pytest.mark.parametrize(
    "package, module, name",
    [
        ("space", "search_space", "SearchSpace"),
        ("cost", "cost_table", "CostTable"),
        ("ensemble", "model", "build_ensemble"),
        ("supernet", "model", "Supernet"),
        ("shrinking", "drops", "ShrinkSettings"),
        ("config", "settings", "NeasConfig"),
    ],
)
def test_a_package_has_the_names_of_the_module_it_was(package, module, name):
    found = importlib.import_module(f"neas_tf.{package}.{module}")
    assert getattr(importlib.import_module(f"neas_tf.{package}"), name) is getattr(found, name)
    with pytest.raises(ImportError):
        exec(f"from neas_tf.{package} import nothing", {})


def test_the_face_loads_nothing_heavy():
    code = (
        "import sys, neas_tf; from neas_tf.space import zoo; neas_tf.SearchSpace, neas_tf.Budget\n"
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'altair'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_file(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_command_s_file_is_its_module_when_imported():
    from detection import evaluate as old
    from neas_tf.detection.commands import evaluate

    assert old is evaluate
