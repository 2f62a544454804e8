"""The main program of every `pytest_test` target: runs pytest on the files named as arguments."""

import os
import sys


def pytest_arguments(sources: list[str], root: str, environ: dict[str, str]) -> list[str]:
    """Translates Bazel's test environment into arguments of pytest.

    Args:
      sources: test files, relative to the project's root.
      root: the project's root inside the runfiles.
      environ: `XML_OUTPUT_FILE`, `TESTBRIDGE_TEST_ONLY` and `TEST_TMPDIR` are read, where set.

    Returns:
      Arguments for `pytest.main`.
    """
    # The sources may be read-only, so no cache beside them.
    arguments = ["-p", "no:cacheprovider", f"--rootdir={root}"]
    if xml := environ.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junitxml={xml}")
    if only := environ.get("TESTBRIDGE_TEST_ONLY"):
        arguments += ["-k", only]
    if folder := environ.get("TEST_TMPDIR"):
        arguments.append(f"--basetemp={os.path.join(folder, 'pytest')}")
    return arguments + [os.path.join(root, source) for source in sources]


def main() -> int:
    """Runs pytest; returns its exit status, 0 where `--test_filter` left this target no test."""
    import pytest

    # Not realpath: links must stay, or pytest would leave the runfiles for the source tree.
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.environ.get("TEST_TMPDIR")
    if folder:  # inside the sandbox only temporary folders can be written
        os.environ.setdefault("HOME", folder)
        os.environ.setdefault("MPLCONFIGDIR", os.path.join(folder, "matplotlib"))
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(folder, "hypothesis"))
    status = pytest.main(pytest_arguments(sys.argv[1:], root, dict(os.environ)))
    filtered_out = status == pytest.ExitCode.NO_TESTS_COLLECTED and os.environ.get(
        "TESTBRIDGE_TEST_ONLY"
    )
    return 0 if filtered_out else int(status)


if __name__ == "__main__":
    sys.exit(main())
