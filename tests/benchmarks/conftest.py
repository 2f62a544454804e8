"""What the tests of benchmarks share."""

import sys
from collections.abc import Iterator

import pytest
import warm


@pytest.fixture(scope="module")
def warm_children() -> Iterator[None]:
    """The programs that a benchmark starts begin with the libraries loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", warm.python())
        yield
