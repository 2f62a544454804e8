"""Paths of users and of the project."""

import os
import pathlib
import sys

import pytest

from neas_tf.common import paths
from neas_tf.common.errors import NeasError


@pytest.fixture
def caller(monkeypatch, tmp_path):
    """A run by `bazel run` from `tmp_path`."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", ["runs/demo", "./a", "../b", "", "/abs/x", "gs://bucket/run"])
def test_paths_stay_without_bazel(monkeypatch, path):
    monkeypatch.delenv("BUILD_WORKING_DIRECTORY", raising=False)
    assert paths.resolve_user_path(path) == path


@pytest.mark.parametrize("path", ["", "/abs/x", "gs://bucket/run", "s3://b/x", "file:///tmp/x"])
def test_absolute_and_remote_paths_stay_under_bazel(caller, path):
    assert paths.resolve_user_path(path) == path


def test_relative_paths_mean_the_callers_folder_under_bazel(caller):
    assert paths.resolve_user_path("runs/demo") == str(caller / "runs" / "demo")
    assert paths.resolve_user_path(pathlib.Path("a.json")) == str(caller / "a.json")
    assert paths.resolve_user_path("../b") == str(caller.parent / "b")
    assert paths.resolve_user_path(".") == str(caller)


def test_home(monkeypatch, caller):
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.resolve_user_path("~/runs") == "/home/someone/runs"


def test_settings_that_come_with_the_package_are_found_in_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "configs/spaces/mobile.yaml"
    own = str(paths.config_file("spaces", "mobile.yaml"))
    assert paths.resolve_config_path(name) == own and os.path.isfile(own)
    for other in ("configs/none.yaml", "configs", "configs/../pyproject.toml", "mobile.yaml", ""):
        assert paths.resolve_config_path(other) == other
    (tmp_path / "configs" / "spaces").mkdir(parents=True)
    (tmp_path / name).touch()
    assert paths.resolve_config_path(name) == name


def test_project_file_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert os.path.isfile(paths.project_file("pyproject.toml"))
    assert os.path.isfile(paths.project_file("neas_tf", "common", "paths.py"))
    assert os.path.isabs(paths.project_file())


def test_project_file_keeps_links(monkeypatch, tmp_path):
    """Under Bazel the modules are links; the files of the project lie beside the link."""
    (tmp_path / "neas_tf" / "common").mkdir(parents=True)
    link = tmp_path / "neas_tf" / "common" / "paths.py"
    link.symlink_to(paths.__file__)
    monkeypatch.setattr(paths, "__file__", str(link))
    assert paths.project_file("docs", "a.md") == str(tmp_path / "docs" / "a.md")


@pytest.mark.parametrize("folder", ["neas_tf", "export"])
def test_no_module_is_named_like_a_standard_one(folder):
    """Bazel 4 puts a program's own folder first on `sys.path`, so it would be shadowed."""
    names = {path.stem for path in pathlib.Path(paths.project_file(folder)).glob("*.py")}
    assert not names & sys.stdlib_module_names


@pytest.mark.parametrize(
    "name",
    [
        "rate[0.1]",
        "a*b",
        "what?",
        "back\\slash",
        "[",
        b"caf\xe9".decode("utf-8", "surrogateescape"),
    ],
)
def test_a_folder_that_looks_like_a_pattern_has_another_name(tmp_path, name):
    folder = tmp_path / name / "supernet"
    folder.mkdir(parents=True)
    (folder / "ckpt-3.index").write_text("x")
    found = paths.literal_path(folder)
    assert not set("*?[\\") & set(found) and found.isascii() and os.path.samefile(found, folder)
    assert paths.literal_path(folder) == found
    prefix = paths.literal_path(folder / "ckpt-3")
    assert prefix == f"{found}/ckpt-3" and os.path.samefile(
        f"{prefix}.index", folder / "ckpt-3.index"
    )
    # Another folder under the same path is another one.
    (folder / "ckpt-3.index").unlink()
    folder.rmdir()
    folder.mkdir()
    assert os.path.samefile(paths.literal_path(folder), folder)


@pytest.mark.parametrize(
    "path", ["runs/{demo}", "a]b", "späße", "gs://bucket/[x]/run", "no/such[1]"]
)
def test_other_folders_keep_their_name(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    if "://" not in path and "no/" not in path:
        (tmp_path / path).mkdir(parents=True)
    assert paths.literal_path(path) == path
    assert paths.literal_path(f"{path}/ckpt-1") == f"{path}/ckpt-1"


def test_what_has_no_other_name_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model[1].index").write_text("x")
    with pytest.raises(NeasError, match=r"checkpoint: received .*model\[1\]'.* none of \*"):
        paths.literal_path(tmp_path / "model[1]")
    monkeypatch.setattr(paths, "_HANDLES", str(tmp_path / "missing"))
    paths.check_literal("model_dir", tmp_path / "plain")
    with pytest.raises(NeasError, match=r"model_dir: received .*x\[1\]', expected a folder"):
        paths.check_literal("model_dir", tmp_path / "x[1]")


@pytest.mark.parametrize(
    "name",
    [
        "gs://bucket/x.tflite",
        "GS://bucket/x",
        " s3://b/x",
        "hdfs://host:9000/x",
        "https://example.org/x",
        "file:///tmp/x",
        pathlib.Path("gs://bucket/x"),
    ],
)
def test_an_address_is_no_place_to_write_to(name):
    with pytest.raises(NeasError, match=r"^--output: received .*expected a path of this machine"):
        paths.check_local_path("--output", name)


@pytest.mark.parametrize("name", ["x", "/a/b.tflite", "C:/x", "./gs:/x", "a:b/c", "", "~/x"])
def test_a_local_path_is_one(name):
    paths.check_local_path("--output", name)
