"""A run with everything that a report shows."""

import shutil

import pytest
import synthetic_run


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("runs") / "toy")


@pytest.fixture
def copy(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "toy")
