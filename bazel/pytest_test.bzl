"""`pytest_test`: a `py_test` that runs its sources with pytest."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, srcs, deps = [], data = [], size = "medium", timeout = "long", **kwargs):
    """Runs test modules with pytest, as one Bazel test.

    Args:
      name: name of the target.
      srcs: test modules of this package, each handed to pytest.
      deps: Python libraries the tests import.
      data: files the tests read.
      size: how much of the machine a test takes; `medium` fits a test that imports TensorFlow.
      timeout: `long` (15 minutes), for machines where several TensorFlow tests share two cores.
      **kwargs: passed on to `py_test`.
    """
    py_test(
        name = name,
        srcs = srcs + ["//bazel:pytest_main.py"],
        main = "//bazel:pytest_main.py",
        args = [native.package_name() + "/" + src for src in srcs],
        data = data,
        size = size,
        timeout = timeout,
        # No __init__.py that is not in the source tree: pytest would take tests/ for a package.
        legacy_create_init = 0,
        deps = deps,
        **kwargs
    )
