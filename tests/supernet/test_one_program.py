"""Under XLA one compiled program serves all draws, and computes what TensorFlow does without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xla_worker


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    # What is compiled counts, not how fast it is.
    flags = f"--xla_dump_to={folder} --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "2"}
    made = subprocess.run(
        [sys.executable, xla_worker.__file__, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(xla_worker.__file__).parents[2],
        env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return json.loads(made.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "case", ["one path", "mixed families", "three paths", "bfloat16", "several draws"]
)
def test_training_compiles_once_for_all_draws(found, case):
    own = found[case]
    assert own["programs"] == 1
    plain, compiled = (np.array(own[kind]["losses"]) for kind in ("plain", "compiled"))
    assert len(set(plain.round(4))) > xla_worker.DRAWS // 2  # the draws differ
    tolerance = 3e-2 if case == "bfloat16" else 1e-5
    steps = xla_worker.STEPS
    np.testing.assert_allclose(compiled[:steps], plain[:steps], atol=tolerance)
    np.testing.assert_allclose(
        own["compiled"]["moving"], own["plain"]["moving"], rtol=max(tolerance, 1e-4)
    )


def test_the_measurements_of_a_shrink_compile_once(found):
    own = found["measure"]
    assert own["programs"] == 1
    for compiled, plain in zip(own["compiled"], own["plain"], strict=True):
        np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-4, atol=1e-5)
        assert compiled[2] == plain[2]


def test_a_generation_compiles_nothing_that_the_one_before_did(found):
    compiled, plain = found["search"]["compiled"], found["search"]["plain"]
    assert plain["programs"] == [0, 0]
    first, second = compiled["programs"]
    assert first > 0 and second == 0
    np.testing.assert_allclose(compiled["scores"], plain["scores"], atol=1e-6)
