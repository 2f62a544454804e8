"""`local_python` as a module extension, for MODULE.bazel (Bazel 4 knows no `module_extension`, hence a file of its own)."""

load(":python_configure.bzl", "local_python")

def _local_python_extension_impl(_module_ctx):
    local_python(
        name = "local_python",
        toolchain_type = "@rules_python//python:toolchain_type",
    )

local_python_extension = module_extension(implementation = _local_python_extension_impl)
