"""What surrounds the code: the image, the workflow and templates of the forge, the site's navigation."""

import fnmatch
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tomllib

import dockerfile_parse
import pytest
import yaml

import neas_tf
from neas_tf import __main__ as neas
from neas_tf.common.paths import project_file

ROOT = pathlib.Path(project_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
PYTHONS = {text.split()[-1] for text in PROJECT["classifiers"] if "Python :: 3." in text}


def run(*command: str, folder: pathlib.Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "schema, pattern",
    [
        ("github-workflows", "workflows/*.yml"),
        ("github-issue-forms", "ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", "ISSUE_TEMPLATE/config.yml"),
        ("dependabot", "dependabot.yml"),
    ],
)
def test_files_of_the_forge_are_what_it_reads(schema, pattern):
    files = [str(path) for path in (ROOT / ".github").glob(pattern)]
    assert files
    options = ("--builtin-schema", f"vendor.{schema}")
    run(sys.executable, "-m", "check_jsonschema", *options, *files)


def test_the_workflow_runs_what_there_is():
    """Targets of make and commands of neas, on every Python of the package."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    jobs = workflow["jobs"]
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == PYTHONS
    lines = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    made = set(re.findall(r"\bmake ([a-z-]+)", lines))
    assert {"lint", "test", "docs", "wheel"} <= made <= TARGETS
    assert set(re.findall(r"bin/neas (\w+)", lines)) <= set(neas._COMMANDS)


def instructions() -> list[dict[str, str]]:
    return dockerfile_parse.DockerfileParser(str(ROOT), cache_content=True).structure


def copied() -> list[str]:
    """What the image takes from the project."""
    values = [i["value"].split() for i in instructions() if i["instruction"] == "COPY"]
    return [name for words in values if not words[0].startswith("--from") for name in words[:-1]]


def test_the_dockerfile_lints():
    run(os.path.join(os.path.dirname(sys.executable), "hadolint"), "Dockerfile")


def test_the_image_has_what_its_commands_need(tmp_path):
    """Only the copied files, that .dockerignore lets in, are there: its targets of make have them."""
    patterns = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    patterns = [text for text in patterns if text and not text.startswith("#")]
    for name in copied():
        matching = [p for p in patterns if fnmatch.fnmatch(name, p.lstrip("!"))]
        assert matching[-1].startswith("!"), f"{name} is ignored"
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    commands = " ".join(i["value"] for i in instructions() if i["instruction"] == "RUN")
    targets = re.findall(r"\bmake ([\w./-]+)", commands)
    assert targets == [".venv/.stamp", "setup", "setup-cuda"]
    listed = run("make", "--dry-run", *targets, folder=tmp_path)
    for name in re.findall(r"-r (requirements[\w-]*\.lock)", listed):
        assert (tmp_path / name).is_file(), name
    for name in (PROJECT["readme"], *PROJECT["license-files"], "setup.py", "configs", "neas_tf"):
        assert (tmp_path / name).exists(), name


def test_the_stages_of_the_image_are_there():
    stages, default = set(), ""
    for instruction in instructions():
        words = instruction["value"].split()
        if instruction["instruction"] == "FROM":
            assert words[0] in stages or words[0].startswith("python:${PYTHON}-"), words
            stages.add(words[-1])
            default = words[-1]
        elif words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages, words
    (arg,) = (i["value"] for i in instructions() if i["instruction"] == "ARG")
    assert default == "cpu" and "cuda" in stages and arg.removeprefix("PYTHON=") in PYTHONS


def pages(entry) -> list[str]:
    """The files of a navigation of mkdocs, in their order."""
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    return [page for inner in entries for page in pages(inner)]


def test_the_site_has_the_pages_of_the_readme_in_its_order():
    """`make docs` itself refuses pages that the navigation lacks, and links that lead nowhere."""
    navigation = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    text = (ROOT / "README.md").read_text("utf-8")
    linked = re.findall(r"\]\(((?:docs/)?[\w/]+\.md)(?:#[^)]*)?\)", text)
    assert linked and set(linked) <= set(navigation)
    tutorials = re.search(r"^Tutorials:(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert tutorials is not None
    listed = re.findall(r"\((docs/tutorials/[^)]+)\)", tutorials[1])
    assert [page for page in navigation if page in listed] == listed


def test_the_reference_has_the_public_face_and_every_package():
    names = runpy.run_path(project_file("docs", "site_hooks.py"))["_reference"]()
    assert set(re.findall(r"^::: neas_tf\.(\w+)$", names["neas_tf"], re.M)) == set(neas_tf.__all__)
    for name in names:
        assert (ROOT / "neas_tf" / name).is_dir() or name == "neas_tf"
        assert names[name].count("\n::: neas_tf.") >= 1, name
