"""Several replicas train as one device does (logical CPU devices, MirroredStrategy).

Batch normalisation takes the moments of what a replica sees, as is usual, so that two replicas
with different images do not compute what one device with all of them computes. To compare the
rest (sum of the gradients, draws, mask, momentum), the global batch is [x; x; x; x]: each of 1, 2
or 4 replicas sees whole copies of x, whose moments are those of the whole batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm


def run(folder: Path, replicas: int) -> dict:
    """What device_runs.py found, in a process of its own."""
    script = Path(__file__).parents[1] / "support" / "device_runs.py"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    finished = subprocess.run(
        [warm.python(), str(script), str(folder), str(replicas)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run(tmp_path_factory.mktemp("two"), 2)


def test_one_and_two_devices_have_the_same_loss_curve(two):
    one, both = two["one_device"]["losses"], two["curve"]["losses"]
    assert len(one) == 5
    np.testing.assert_allclose(both, one, atol=1e-4)
    assert max(one) - min(one) > 0.01


def test_four_devices_too(two, tmp_path):
    four = run(tmp_path, 4)["curve"]
    np.testing.assert_allclose(four["losses"], two["one_device"]["losses"], atol=1e-4)
    assert four["rows_that_rested"] == two["one_device"]["rows_that_rested"]


def test_only_what_was_drawn_moves_on_two_devices(two):
    """device_runs.py compares every row after every step, bit by bit, and the replicas' copies."""
    assert two["curve"]["rows_that_rested"] == two["one_device"]["rows_that_rested"]
    assert min(two["curve"]["rows_that_rested"]) > 10


def test_steps_of_several_draws_on_two_devices(two):
    one, both = two["several_draws"]
    assert len(one) == 3 and max(one) - min(one) > 0.001
    np.testing.assert_allclose(both, one, atol=1e-4)


def test_checkpoint_of_two_devices_goes_on_on_one(two):
    restored = two["restored"]
    assert restored["step"] == 5
    assert restored["largest_difference"] == 0.0
    # Two devices have gone on without a stop.
    assert restored["next_loss"] == pytest.approx(two["curve"]["next_loss"], abs=1e-4)


def test_float16_on_two_devices(two):
    assert len(two["float16"]["losses"]) == 2
    assert np.all(np.isfinite(two["float16"]["losses"]))


def test_retraining_on_two_devices_resumes_exactly(two):
    resumed = two["ensemble_resume"]
    assert resumed["curves"][0] == resumed["curves"][1]
    assert resumed["different"] == 0
