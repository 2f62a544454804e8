"""`neas doctor`, where all is well and where TensorFlow or an installed version is not."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest
import warm

from neas_tf.commands import doctor
from neas_tf.common.paths import project_file

PROJECT = tomllib.loads(pathlib.Path(project_file("pyproject.toml")).read_text("utf-8"))["project"]


def distribution(folder: pathlib.Path, name: str, version: str, *lines: str) -> None:
    """The record that pip leaves of an installed package."""
    record = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir()
    head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}")
    (record / "METADATA").write_text("\n".join([*head, *lines, ""]))


@pytest.fixture
def site(tmp_path) -> pathlib.Path:
    """A folder for the front of Python's path, where the project is installed as it is now."""
    lines = [f"Requires-Python: {PROJECT['requires-python']}"]
    lines += [f"Requires-Dist: {text}" for text in PROJECT["dependencies"]]
    for extra, texts in PROJECT["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {text}; extra == "{extra}"' for text in texts]
    distribution(tmp_path, "neas-tf", "0.1.0", *lines)
    return tmp_path


def call(site: pathlib.Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(site), project_file()])
    return subprocess.run(
        [sys.executable, "-m", "neas_tf", "doctor", *arguments],
        cwd=site,
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def tensorflow(site: pathlib.Path, code: str) -> None:
    (site / "tensorflow").mkdir()
    (site / "tensorflow" / "__init__.py").write_text(code)


def test_where_a_search_can_run(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "executable", warm.python())
    found = doctor.examine()
    assert (found["can_search"], found["problems"]) == (True, [])
    assert found["versions"]["tensorflow"] == importlib.metadata.version("tensorflow")
    assert found["devices"]["tensorflow"][0]["name"] == "CPU:0"
    assert 1 <= found["devices"]["cores"] <= found["devices"]["cores_of_machine"]
    assert 0 < found["devices"]["memory_free"] < found["devices"]["memory"]
    assert set(found["extras"]) == set(PROJECT["optional-dependencies"]) - {"dev", "docs"}
    text = doctor.format_text(json.loads(json.dumps(found)))
    assert text.endswith("A search can run.")
    for extra, entry in found["extras"].items():
        said = f"{entry['install']}\n" if entry["missing"] else "installed\n"
        assert f"  {extra:6} " in text and said in text, extra


def test_what_an_extra_of_an_extra_lacks(site, monkeypatch):
    """cuda asks for TensorFlow's own extra, which asks for CUDA's libraries."""
    distribution(
        site,
        "tensorflow",
        importlib.metadata.version("tensorflow"),
        "Provides-Extra: and-cuda",
        'Requires-Dist: no-such-library<13,>=12.5; extra == "and-cuda"',
        'Requires-Dist: numpy; extra == "and-cuda"',
    )
    monkeypatch.syspath_prepend(str(site))
    entry = doctor._extras()["cuda"]
    assert entry["install"] == "pip install 'neas-tf[cuda]'"
    (lack,) = entry["missing"]
    assert lack.startswith("no-such-library is not installed, expected ")


def test_a_tensorflow_that_raises(site):
    """With the user's settings of Keras, and a library of CUDA that TensorFlow does not find."""
    tensorflow(
        site,
        "import sys\n"
        "print(\"Could not load dynamic library 'libcudnn.so.9'; dlerror: …\", file=sys.stderr)\n"
        "raise ImportError('libfirst.so.1: cannot open\\nshared object file')\n",
    )
    (site / "keras.json").write_text('{"floatx": "float16", "epsilon": 1e-07}')
    done = call(site, KERAS_BACKEND="jax", KERAS_HOME=str(site))
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert done.stdout.endswith(
        "A search cannot run:\n  importing tensorflow failed (ImportError: libfirst.so.1: cannot open "
        "shared object file): pip install --force-reinstall 'numpy<2.4,>=2.0' 'tensorflow~=2.20.0'\n"
    )
    assert "  not found by TensorFlow: libcudnn.so.9\n" in done.stdout
    assert "  KERAS_BACKEND is 'jax', set to 'tensorflow'\n" in done.stdout
    assert f"  {site / 'keras.json'}: floatx is 'float16', set to 'float32'\n" in done.stdout


@pytest.mark.parametrize(
    "code, fault",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended the process with SIGILL"),
        ("import os; os.write(2, b'no room'); os._exit(3)", "failed (no room)"),
    ],
    ids=["signal", "exit"],
)
def test_a_tensorflow_that_ends_the_process(code, fault, site, monkeypatch):
    tensorflow(site, code)
    monkeypatch.syspath_prepend(str(site))
    assert doctor._load()["fault"] == f"loading TensorFlow {fault}"


def test_versions_out_of_bounds(site):
    tensorflow(site, "raise ImportError('of another version')\n")
    distribution(site, "tensorflow", "2.21.0")
    record = next(site.glob("neas_tf-*")) / "METADATA"
    record.write_text(record.read_text() + "Requires-Dist: no-such-library>=3\n")
    done = call(site, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert not found["can_search"]
    assert [tuple(problem.values()) for problem in found["problems"][:2]] == [
        (
            "tensorflow 2.21.0 is installed, expected ~=2.20.0",
            "pip install 'tensorflow~=2.20.0'",
        ),
        ("no-such-library is not installed, expected >=3", "pip install 'no-such-library>=3'"),
    ]
    assert found["versions"]["tensorflow"] == "2.21.0"
    assert found["versions"]["no-such-library"] is None


def test_another_python(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("platform.python_version", lambda: "3.13.1")
    causes = [problem["cause"] for problem in doctor._unmet()]
    assert causes == ["Python 3.13.1 is running, expected <3.13,>=3.11"]


def test_a_distribution_that_stands_in_for_another(site, monkeypatch):
    """As tensorflow-cpu does for tensorflow: the module is what counts."""
    distribution(site, "yaml-of-another-name", "9.1")
    (next(site.glob("yaml_of*")) / "top_level.txt").write_text("stands_in\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(doctor._MODULES, "no-such-library", "stands_in")
    assert doctor._version("no-such-library") == "9.1"


def test_arguments_are_refused(site):
    done = call(site, "now")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "neas_tf.doctor: arguments: received 'now', expected flags only (see --help).\n"
    )
