"""Which module imports which, read from the source: docs/architecture.md is the rule.

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
# Packages that load TensorFlow when they are imported.
TENSORFLOW = {"tensorflow", "tf_keras", "official", "orbit", "tensorflow_datasets"}
# Packages whose modules the page names one by one; they hold nothing themselves.
PLAIN = {"neas_tf", "neas_tf.study", "detection"}
COMMANDS = {
    "neas_tf.train",
    "neas_tf.describe",
    "neas_tf.measure_latency",
    "neas_tf.report.__main__",
    "neas_tf.study.__main__",
    "detection.train",
    "detection.export",
    "detection.predict",
    "detection.compare",
    "detection.evaluate",
}


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


def documented() -> list[tuple[set[str], bool]]:
    """Rows of the module tables: (modules, whether importing them loads no TensorFlow)."""
    text = pathlib.Path(project_file("docs", "architecture.md")).read_text("utf-8")
    rows = []
    for names, loads in re.findall(r"^\| (`[^|]+`) \| (yes|no) \|", text, re.MULTILINE):
        modules = set()
        for name in re.findall(r"`([^`]+)`", names):
            whole = name.rstrip("/")
            if whole.split(".")[0] not in PACKAGES:
                whole = f"neas_tf.{whole}"
            found = {m for m in FILES if m == whole or m.startswith(f"{whole}.")}
            assert found, f"docs/architecture.md names {name!r}, which is not there"
            modules |= found
        rows.append((modules, loads == "no"))
    return rows


ROWS = documented()
PURE = sorted(set().union(*(modules for modules, pure in ROWS if pure)))


def test_the_page_names_every_module_once():
    named = [module for modules, _ in ROWS for module in modules]
    assert sorted(named) == sorted(set(FILES) - PLAIN)


def test_arrows_go_one_way():
    """Every row of the page imports itself and rows above only."""
    allowed = set(PLAIN)
    for modules, _ in ROWS:
        allowed |= modules
        for module in sorted(modules):
            wrong = {name for name in imports(module) if name in FILES} - allowed
            assert not wrong, (
                f"{module} imports {sorted(wrong)}, which docs/architecture.md has below"
            )


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


def test_the_page_is_right_about_the_others():
    for modules, pure in ROWS:
        if not pure:
            assert any(loaded_by(module) & TENSORFLOW for module in modules), sorted(modules)


@pytest.mark.parametrize("module", sorted(set(FILES) - COMMANDS))
def test_libraries_import_no_command(module):
    names = imports(module, late=True)
    assert not names & COMMANDS, sorted(names & COMMANDS)
    for package in ("export", "detection"):
        if not module.startswith(package):
            assert not [name for name in names if name.split(".")[0] == package]


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
