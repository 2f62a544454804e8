"""Which package imports which, read from the source: docs/architecture.md is the rule.

Imports inside functions are not import-time imports; `if TYPE_CHECKING:` is none at all.
"""

import ast
import functools
import os
import pathlib
import re
import subprocess
import sys

import pytest

from neas_tf.common.paths import project_file

PACKAGES = ("neas_tf", "export", "detection")
# In the order of docs/architecture.md: a package imports itself and those before it.
ORDER = (
    *(
        "common",
        "operators",
        "data",
        "space",
        "cost",
        "ensemble",
        "uncertainty",
        "applications",
        "supernet",
        "shrinking",
    ),
    *("search", "report", "config", "training", "export", "latency", "run", "study", "detection"),
    *("api", "commands"),
)
# Packages that load TensorFlow when they are imported.
TENSORFLOW = {"tensorflow", "tf_keras", "official", "orbit", "tensorflow_datasets"}
COMMANDS = {
    *(f"neas_tf.{name}" for name in ("__main__", "train")),
    *(
        f"neas_tf.commands.{name}"
        for name in (
            "describe",
            "doctor",
            "evaluate",
            "convert_torch",
            "measure_latency",
            "search",
            "robustness",
        )
    ),
    *("neas_tf.report.__main__", "neas_tf.study.__main__"),
    *(
        f"neas_tf.detection.commands.{n}"
        for n in ["train", "export", "predict", "compare", "evaluate"]
    ),
    *(f"neas_tf.export.commands.{name}" for name in ("to_keras", "to_saved_model", "to_tflite")),
    *(f"detection.{name}" for name in ("train", "export", "predict", "compare", "evaluate")),
    *(f"export.{name}" for name in ("to_keras", "to_saved_model", "to_tflite")),
}
LINES, FILES_A_PACKAGE, ENTRIES = 400, 12, 26


def source_files() -> dict[str, pathlib.Path]:
    root = pathlib.Path(project_file())
    files = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = source_files()


def import_statements(body, late: bool):
    """Import statements that run with the module; with `late` those inside functions too."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from import_statements(node.orelse, late)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from import_statements(ast.iter_child_nodes(node), late)


@functools.cache
def imports(module: str, late: bool = False) -> frozenset[str]:
    """Names of the modules that a module imports: full for ours, the first part for others."""
    result = set()
    for node in import_statements(ast.parse(FILES[module].read_text("utf-8")).body, late):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{module}: relative import in line {node.lineno}"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else node.module for name in whole]
        for name in names:
            ours = name.split(".")[0] in PACKAGES
            assert not ours or name in FILES, f"{module} imports {name}, which is no module"
            result.add(name if ours else name.split(".")[0])
    return frozenset(result)


def packages_of(module: str) -> set[str]:
    """The packages that are imported before a module: neas_tf.data.splits loads neas_tf.data."""
    parts = module.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts))}


def loaded_by(module: str) -> set[str]:
    """Everything that importing a module loads."""
    seen, queue = set(), [module, *packages_of(module)]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            if name in FILES:
                for other in imports(name):
                    queue += [other, *(packages_of(other) if other in FILES else ())]
    return seen


def package_of(module: str) -> str:
    """Which entry of ORDER a module belongs to; "" for the package itself and its commands."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "neas_tf" and parts[1] in ORDER else ""


def documented() -> dict[str, bool]:
    """The modules of the page's tables, and whether it says that they load no TensorFlow.

    A table's heading names its package; a module in a package of that one has a dot in its name.
    """
    text = pathlib.Path(project_file("docs", "architecture.md")).read_text("utf-8")
    result = {}
    for package, table in re.findall(r"^### `(\w+)`[^\n]*\n(.*?)(?=^#|\Z)", text, re.M | re.S):
        for names, loads in re.findall(r"^\| (`[^|]+`) \| (yes|no) \|", table, re.MULTILINE):
            for name in re.findall(r"`([^`]+)`", names):
                module = f"neas_tf.{package}.{name}"
                assert module in FILES and module not in result, module
                result[module] = loads == "no"
    return result


DOCUMENTED = documented()
PURE = sorted(module for module, pure in DOCUMENTED.items() if pure)


def test_the_page_names_every_module_once():
    packages = {package for module in FILES for package in packages_of(module)}
    ours = {m for m in FILES if package_of(m) and m not in packages and m not in COMMANDS}
    assert set(DOCUMENTED) == ours


def test_the_page_has_the_packages_in_their_order():
    text = pathlib.Path(project_file("docs", "architecture.md")).read_text("utf-8")
    assert tuple(re.findall(r"^### `(\w+)`", text, re.MULTILINE)) == ORDER


@pytest.mark.parametrize("package", ORDER)
def test_arrows_go_one_way(package):
    """A package imports itself and packages before it."""
    allowed = {"", *ORDER[: ORDER.index(package) + 1]}
    for module in FILES:
        if package_of(module) == package and module not in COMMANDS:
            names = {name for name in imports(module) if name in FILES}
            wrong = {n for n in names if package_of(n) not in allowed or n in COMMANDS}
            assert not wrong, f"{module} imports {sorted(wrong)}, of a later package"


def test_the_house_is_small_enough_to_look_at():
    root = pathlib.Path(project_file())
    entries = {path.name for path in (root / "neas_tf").iterdir()} - {"__pycache__"}
    assert len(entries) <= ENTRIES, sorted(entries)
    for path in [*FILES.values(), *(root / "benchmarks").rglob("*.py")]:
        assert len(path.read_text("utf-8").splitlines()) <= LINES, path
        assert len(list(path.parent.glob("*.py"))) <= FILES_A_PACKAGE, path.parent


def test_no_cycles():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(imports(module)):
            # A module of a package may import its siblings while the package is being imported.
            if other in FILES and other not in packages_of(module):
                visit(other)
        path.pop()
        done.add(module)

    for module in FILES:
        visit(module)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_load_no_tensorflow(module):
    loaded = loaded_by(module)
    assert not loaded & TENSORFLOW, sorted(loaded & TENSORFLOW)


@pytest.mark.parametrize("module", sorted(set(DOCUMENTED) - set(PURE)))
def test_the_page_is_right_about_the_others(module):
    assert loaded_by(module) & TENSORFLOW


@pytest.mark.parametrize("module", sorted(set(FILES) - COMMANDS))
def test_libraries_import_no_command(module):
    names = imports(module, late=True)
    assert not names & COMMANDS, sorted(names & COMMANDS)
    assert not [name for name in names if name.split(".")[0] in ("export", "detection")]


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": project_file()}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=project_file(),
        check=False,
    )


def test_pure_modules_really_load_no_tensorflow():
    names = [module for module in PURE if not module.endswith("__main__")]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        f"print(sorted({TENSORFLOW!r} & set(sys.modules)))"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("neas_tf.train", "--help"),
        ("neas_tf.describe", "--help"),
        ("neas_tf.describe", "--arch=neas_s", "--format=json"),
        ("neas_tf.report", "--help"),
        ("neas_tf.measure_latency", "--help"),
        ("neas_tf.study", "--help"),
        ("export.to_tflite", "--help"),
        ("export.to_saved_model", "--help"),
        ("detection.train", "--help"),
        ("detection.export", "--help"),
        ("detection.predict", "--help"),
        ("detection.compare", "--help"),
        ("detection.evaluate", "--help"),
    ],
    ids=" ".join,
)
def test_help_comes_without_tensorflow(command):
    """-X importtime writes a line for every module that is loaded."""
    done = python("-X", "importtime", "-m", *command)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "neas_tf.common.errors" in loaded, done.stderr[-500:]
    assert "--" in done.stdout or '"macs"' in done.stdout
    found = {name.split(".")[0] for name in loaded} & TENSORFLOW
    # Model Garden's definitions of its flags need no TensorFlow.
    assert found <= ({"official"} if command[0] == "detection.train" else set())
