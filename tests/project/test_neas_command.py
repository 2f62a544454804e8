"""The command `neas`: what it lists, runs, refuses and completes."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import neas_tf
from neas_tf import __main__ as neas
from neas_tf.common.paths import project_file

COMMANDS = [
    (words, module)
    for name, entry in neas._COMMANDS.items()
    for words, (module, _) in (
        [((name,), entry)]
        if isinstance(entry, tuple)
        else [((name, inner), value) for inner, value in entry.items()]
    )
]


def call(*arguments: str, folder=None, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": project_file(), **variables}
    return subprocess.run(
        [sys.executable, "-m", "neas_tf", *arguments],
        cwd=folder or project_file(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",), ("export",), ("detect", "-h")])
def test_lists_what_there_is(arguments):
    done = call(*arguments)
    group = arguments[0] if arguments and arguments[0] in neas._COMMANDS else ""
    names = neas._COMMANDS[group] if group else neas._COMMANDS
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {' '.join(['neas', group]).strip()} COMMAND ")
    assert all(f"\n  {name} " in done.stdout for name in names)


def test_version():
    done = call("--version")
    assert (done.returncode, done.stdout) == (0, f"neas-tf {neas_tf.__version__}\n")


def test_without_its_libraries():
    command = [sys.executable, "-S", "-m", "neas_tf", "doctor"]  # -S: no site-packages
    done = subprocess.run(
        command, cwd=project_file(), env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("neas: absl is not installed; ")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("trian",), "neas: command: unknown name 'trian'; known are convert, "),
        (("export", "tflit"), "neas export: command: unknown name 'tflit'; known are keras, "),
        (("--verion",), "neas: command: unknown name '--verion'; known are "),
        (("train", "--frob=1"), "neas_tf.train: Unknown command line flag 'frob' (see --help)"),
    ],
)
def test_what_is_unknown(arguments, said):
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    if arguments[-1][:3] in ("tri", "tfl"):
        near = {"tri": "train", "tfl": "tflite"}[arguments[-1][:3]]
        assert done.stderr.endswith(f" Did you mean {near!r}?\n")


def test_every_command_of_the_project_is_in_it():
    """A command is a module that runs something where it is the main program."""
    found = set()
    for path in pathlib.Path(project_file("neas_tf")).rglob("*.py"):
        last = ast.parse(path.read_text("utf-8")).body[-1:]
        if last and isinstance(last[0], ast.If) and "__main__" in ast.unparse(last[0].test):
            found.add(".".join(path.relative_to(project_file()).with_suffix("").parts))
    ours = {module.removesuffix(".__main__") for module in found} - {"neas_tf"}
    assert ours == {module for _, module in COMMANDS}


def test_arguments_reach_the_command():
    done = call("describe", "--arch=neas_s", "--format=json")
    assert done.returncode == 0 and '"macs": 301500768' in done.stdout


def complete(line: str, folder=None) -> list[str]:
    """What a shell with argcomplete would offer at the end of a line."""
    file = os.path.join(folder, "completions")
    open(file, "w").close()
    done = call(
        folder=folder,
        COMP_LINE=line,
        COMP_POINT=str(len(line.encode())),
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_IFS="\n",
        _ARGCOMPLETE_STDOUT_FILENAME=file,
    )
    assert done.returncode == 0, done.stderr
    with open(file) as stream:
        return stream.read().split("\n")


@pytest.mark.parametrize(
    "line, offered",
    [
        ("neas de", ["describe", "detect"]),
        ("neas export ", ["--help", "keras", "saved-model", "tflite"]),
        ("neas train --mo", ["--model_dir "]),
        ("neas describe --format ", ["json", "text"]),
        ("neas report --w", ["--watch "]),
        ("neas detect compare --un", ["--unfinished "]),
        ("neas train --config_file ti", ["tiny.yaml "]),
    ],
)
def test_completion(line, offered, tmp_path):
    (tmp_path / "tiny.yaml").touch()
    assert sorted(complete(line, tmp_path)) == offered
