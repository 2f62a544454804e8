"""A Python toolchain made of the interpreter that is already on this machine.

The interpreter is the first that can be executed of

1. `$NEAS_PYTHON`,
2. `.venv/bin/python3` of the project (what `make demo` and `make test` set up),
3. `$VIRTUAL_ENV/bin/python3`,
4. `python3` of the PATH.

Third-party packages come from that interpreter's environment; BUILD files list none.
"""

_WRAPPER = """#!/bin/sh
# A wrapper rather than a path: an interpreter that Bazel links into a folder of its own would lose its packages.
for python in {candidates}; do
  if [ -x "$python" ]; then
    exec "$python" "$@"
  fi
done
echo "No Python interpreter found: run 'make setup', or set NEAS_PYTHON to a Python 3.11 or 3.12 with the packages of requirements.lock." >&2
exit 127
"""

_BUILD = """load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

package(default_visibility = ["//visibility:public"])

py_runtime(
    name = "runtime",
    interpreter = ":python3",
    python_version = "PY3",
    stub_shebang = "#!/usr/bin/env python3",
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":runtime_pair",
    toolchain_type = "{toolchain_type}",
)
"""

def _quote(text):
    return "'" + str(text).replace("'", "'\\''") + "'"

def _local_python_impl(repository_ctx):
    environ = repository_ctx.os.environ
    candidates = []
    chosen = environ.get("NEAS_PYTHON", "")
    if chosen:
        if not repository_ctx.path(chosen).exists:
            fail("NEAS_PYTHON is %r, which does not exist; give the path of a Python 3.11 or 3.12." % chosen)
        candidates.append(chosen)
    workspace = repository_ctx.path(Label("//:BUILD")).dirname
    candidates.append("%s/.venv/bin/python3" % workspace)
    active = environ.get("VIRTUAL_ENV", "")
    if active:
        candidates.append(active + "/bin/python3")
    on_path = repository_ctx.which("python3")
    if on_path:
        candidates.append(on_path)
    repository_ctx.file(
        "python3",
        _WRAPPER.format(candidates = " ".join([_quote(path) for path in candidates])),
        executable = True,
    )
    repository_ctx.file("BUILD", _BUILD.format(toolchain_type = repository_ctx.attr.toolchain_type))

local_python = repository_rule(
    implementation = _local_python_impl,
    attrs = {
        "toolchain_type": attr.string(
            default = "@bazel_tools//tools/python:toolchain_type",
            doc = "The toolchain type registered; the same one under two names, each known to some versions.",
        ),
    },
    configure = True,
    doc = "A repository with a Python toolchain `:toolchain` around the interpreter found on this machine.",
    environ = ["NEAS_PYTHON", "VIRTUAL_ENV", "PATH"],
    local = True,
)
