"""The wheel, built and installed: its command works where there is no checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
import warm
import yaml
from doc_pages import TINY

import neas_tf
from neas_tf.common.paths import project_file
from neas_tf.study.tables.names import NAMES

SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "neas_tf", "configs")


def call(*command: str, cwd: pathlib.Path, **variables: str) -> str:
    """Runs a command; what it printed. Nothing of the tests' own Python path reaches it."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """Built from a copy, as setuptools takes along what an earlier build left beside its sources."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = project_file(name)
        if os.path.isdir(source):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist"]
    output = call(*command, cwd=folder)
    assert "Deprecat" not in output, output
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def prefix(wheel, tmp_path_factory) -> pathlib.Path:
    """A virtual environment with the wheel in it, that borrows its requirements from the tests'.

    Their site-packages are on its path without their `.pth` files, one of which leads to a checkout that
    is installed in editable form.
    """
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    (own,) = folder.glob("lib/python*/site-packages")
    borrowed = pathlib.Path(yaml.__file__).parents[1]
    (own / "borrowed.pth").write_text(f"{borrowed}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    call(*pip, "--no-deps", "--no-index", "--quiet", str(wheel), cwd=folder)
    return folder


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert {name.split("/")[0] for name in names} == {"neas_tf", metadata.split("/")[0]}
    assert "License-Expression: Apache-2.0" in text
    assert f"\nVersion: {neas_tf.__version__}\n" in text
    for folder, inside in (("configs", "neas_tf/configs"), ("neas_tf", "neas_tf")):
        for path in pathlib.Path(project_file(folder)).rglob("*"):
            name = f"{inside}/{path.relative_to(project_file(folder))}"
            if path.is_file() and path.name != "BUILD" and "__pycache__" not in name:
                assert name in names


def test_commands_that_need_no_tensorflow(prefix, tmp_path):
    neas = str(prefix / "bin" / "neas")
    where = "import neas_tf; print(neas_tf.__file__)"
    found = call(str(prefix / "bin" / "python"), "-c", where, cwd=tmp_path)
    assert found.startswith(str(prefix)), found
    assert call(neas, "--version", cwd=tmp_path) == f"neas-tf {neas_tf.__version__}\n"
    assert "301,500,768" in call(neas, "describe", "--arch=neas_s", cwd=tmp_path)
    assert call(neas, "study", "--list", cwd=tmp_path).split() == list(NAMES)
    assert call(neas, "train", "--help", cwd=tmp_path).startswith("usage: neas train [")


def test_a_run_outside_the_checkout(prefix, tmp_path):
    """Search, retraining, export and report, and the list of a study, by the installed command."""
    (tmp_path / "tiny.yaml").write_text(TINY + "export: {formats: [tflite]}\n")
    (own,) = prefix.glob("lib/python*/site-packages")

    def neas(*arguments: str) -> str:
        command = (warm.python(), str(prefix / "bin" / "neas"), *arguments)
        return call(*command, cwd=tmp_path, PYTHONPATH=str(own))

    experiment = ("--experiment=neas_quickstart", "--config_file=tiny.yaml")
    assert "Test accuracy" in neas("train", *experiment, "--model_dir=run")
    assert (tmp_path / "run" / "export" / "model.tflite").stat().st_size > 1000
    assert "report.html" in neas("report", "--model_dir=run", "--output_dir=pictures")
    assert (tmp_path / "pictures" / "report.html").stat().st_size > 10_000
    listed = neas(
        *("study", "--study=ranking", "--list", "--model_dir=studies"),
        "--params_override=study.experiment=neas_quickstart,data.source=digits",
    )
    assert "left  " in listed
