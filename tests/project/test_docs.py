"""Runs what README and docs/*.md show: commands and Python at tiny size, YAML blocks as settings."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
import warm
import yaml
from doc_pages import BLOCK, TINY, environment

from neas_tf.common.paths import project_file

SMALLER = {
    "bash": (
        "--experiment=neas_quickstart",
        "--experiment=neas_quickstart --config_file=tiny.yaml",
    ),
    "python": ('load_config("neas_quickstart"', 'load_config("neas_quickstart", ["tiny.yaml"]'),
}


def page(name: str) -> str:
    return pathlib.Path(project_file("docs", name)).read_text("utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page(name)) if kind == language]


PAGES = sorted(path.name for path in pathlib.Path(project_file("docs")).glob("*.md"))


def run(command: list[str], folder: pathlib.Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> pathlib.Path:
    """A folder in which the page's commands and then its Python have been run."""
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "tiny.yaml").write_text(TINY)
    commands = "".join(blocks("quickstart.md", "bash"))
    assert commands.count(SMALLER["bash"][0]) == 1
    output = run(["bash", "-euo", "pipefail", "-c", commands.replace(*SMALLER["bash"])], folder)
    assert "301,500,768" in output and "Test accuracy" in output
    code = "".join(blocks("quickstart.md", "python"))
    assert code.count(SMALLER["python"][0]) == 1
    (folder / "page.py").write_text(code.replace(*SMALLER["python"]))
    assert "Score(accuracy=" in run([warm.python(), "page.py"], folder)
    return folder


def test_quickstart(quickstart):
    for name in ("digits.tflite", "own.tflite", "best.svg"):
        assert (quickstart / name).stat().st_size > 1000
    assert (quickstart / "pictures" / "search_scatter.png").exists()


def test_the_readme(tmp_path, quickstart):
    """Its commands, but that on own pictures (test_tutorials) and pip's (test_wheel); its Python.

    The training is the quickstart's, but for its folder, and goes on in a copy of that.
    """
    text = pathlib.Path(project_file("README.md")).read_text("utf-8")
    assert len(text.split()) <= 1000
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert pathlib.Path(project_file(target)).exists(), target
    made, commands, completion, own = (c for kind, c in BLOCK.findall(text) if kind == "sh")
    assert re.findall(r"^make (\w+) ", made, re.MULTILINE) == ["demo", "test"]
    dry = run(["make", "--dry-run", "demo", "test"], pathlib.Path(project_file()))
    assert "-m neas_tf.train --experiment=neas_quickstart --model_dir=runs/demo\n" in dry
    assert "-m pytest " in dry and own.startswith("neas search ")
    (tmp_path / "tiny.yaml").write_text(TINY)
    shutil.copytree(quickstart / "runs" / "digits", tmp_path / "runs" / "demo")
    trained = "neas train --experiment=neas_quickstart --model_dir=runs/"
    assert trained + "demo " in commands
    assert trained + "digits\n" in "".join(blocks("quickstart.md", "bash"))
    pip, commands = commands.split("\n", 1)
    assert pip == "pip install ." and commands.count(SMALLER["bash"][0]) == 1
    script = commands.replace(*SMALLER["bash"]) + completion + "complete -p neas\n"
    output = run(["bash", "-euo", "pipefail", "-c", script], tmp_path)
    assert "301,500,768" in output and "Test accuracy" in output and "_argcomplete neas" in output
    assert (tmp_path / "digits_int8.tflite").stat().st_size > 1000
    _, code = (code for kind, code in BLOCK.findall(text) if kind == "python")
    assert code.count(SMALLER["python"][0]) == 1
    printed = run([warm.python(), "-c", code.replace(*SMALLER["python"])], tmp_path)
    assert printed.startswith("301500768\n")


def test_architecture_names_every_file_of_a_run(quickstart):
    """And every pattern of the page's table matches a file."""
    table = page("architecture.md").split("## What model_dir holds")[1].split("\n## ")[0]
    names = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    patterns = [pattern for row in names for pattern in re.findall(r"`([^`]+)`", row)]
    model_dir = quickstart / "runs" / "digits"
    files = {
        path.relative_to(model_dir)
        for path in model_dir.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    # Other runs leave these: of `neas.search` (tests/api), with a time limit (tests/run).
    others = {"data/*", "store.json", "plan.json", "time_plan.json", "retrain/initial.weights.h5"}
    assert others <= {*patterns, "store.json"}
    for pattern in set(patterns) - others:
        assert any(_matches(file, pattern) for file in files), pattern
    unnamed = [file for file in files if not any(_matches(file, p) for p in patterns)]
    assert not unnamed


def _matches(file: pathlib.Path, pattern: str) -> bool:
    """Whether a pattern names the file or a folder that it is in."""
    depth = pattern.count("/") + 1
    return len(file.parts) >= depth and pathlib.PurePath(*file.parts[:depth]).match(pattern)


def test_uncertainty(tmp_path, quickstart):
    """The page's commands; the supernet and the search of its training are the quickstart's."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    made, left = (
        quickstart / "runs" / "digits",
        shutil.ignore_patterns("retrain", "export", "report"),
    )
    shutil.copytree(made, tmp_path / "runs" / "digits")
    shutil.copytree(made, tmp_path / "runs" / "sure", ignore=left)
    commands = "".join(blocks("uncertainty.md", "sh"))
    assert commands.count(SMALLER["bash"][0]) == 1
    output = run(["bash", "-euo", "pipefail", "-c", commands.replace(*SMALLER["bash"])], tmp_path)
    assert "finds errors with an AUROC of" in output
    stored = json.loads((tmp_path / "runs/sure/retrain/model/model.json").read_text())
    assert stored["temperature"] > 0
    for name in ("test.json", "sure.tflite", "sure_int8.tflite"):
        assert (tmp_path / name).stat().st_size > 1000


def test_an_operator_of_ones_own(tmp_path):
    """The page's file, named in NEAS_OPERATORS, goes through all stages."""
    (code,), (commands,) = blocks("operators.md", "python"), blocks("operators.md", "bash")
    (tmp_path / "own_operators.py").write_text(code)
    (tmp_path / "tiny.yaml").write_text(TINY)
    output = run(["bash", "-euo", "pipefail", "-c", commands.replace(*SMALLER["bash"])], tmp_path)
    assert "Test accuracy" in output
    history = (tmp_path / "runs/own/search/history.jsonl").read_text()
    assert "separable_k" in history
    assert (tmp_path / "runs/own/export/model.tflite").stat().st_size > 1000


def yaml_blocks():
    return [
        pytest.param(code, id=f"{name}-{i}")
        for name in PAGES
        for i, code in enumerate(blocks(name, "yaml"), 1)
    ]


@pytest.mark.parametrize("code", yaml_blocks())
def test_yaml_blocks_are_settings(code, tmp_path):
    """Settings over neas_quickstart, or over the experiment that the block's first line names."""
    from neas_tf.config.parse import load_config

    experiment = re.match(r"# over (\w+)\n", code)
    (tmp_path / "block.yaml").write_text(code)
    name = experiment[1] if experiment else "neas_quickstart"
    config = load_config(name, [str(tmp_path / "block.yaml")])
    config.data.check()
    assert yaml.safe_load(code)


@pytest.mark.parametrize("source", ["digits", "image_folder", "tfrecord"])
def test_sources_of_the_data_page_open(source, tmp_path, monkeypatch):
    import image_files

    from neas_tf import data
    from neas_tf.config.parse import load_config

    monkeypatch.chdir(tmp_path)
    image_files.folder(tmp_path / "photos")
    (tmp_path / "records").mkdir()
    image_files.records(tmp_path / "records", "train", 2, 12, first_label=1)
    image_files.records(tmp_path / "records", "validation", 1, 6, first_label=1)
    code = next(code for code in blocks("data.md", "yaml") if f"source: {source}" in code)
    config = load_config("neas_quickstart", params_override=code)
    info = data.load(config.data)
    images, _ = data.make_arrays(info, "search", 2, seed=0)
    assert images.shape[1:] == info.input_shape
    assert info.sizes["test"] == {"digits": 360, "image_folder": 9, "tfrecord": 6}[source]


def test_the_counterexample_of_the_method_page():
    for code in blocks("method.md", "python"):
        exec(code, {})


def test_configuration_is_up_to_date():
    code = textwrap.dedent(
        """
        import runpy
        module = runpy.run_path("make_configuration.py")
        old = module["PAGE"].read_text("utf-8")
        raise SystemExit(0 if module["updated"](old) == old else "run docs/make_configuration.py")
        """
    )
    run([sys.executable, "-c", code], pathlib.Path(project_file("docs")))


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files(name):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page(name)):
        assert pathlib.Path(project_file("docs", target)).exists(), target
