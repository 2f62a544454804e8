"""Detection under MirroredStrategy, on two logical CPU devices with synchronised BN."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm


def test_two_replicas_with_the_same_pictures_have_the_same_loss(tmp_path):
    script = Path(__file__).parents[1] / "support" / "detection_devices.py"
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [warm.python(), str(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["step"] == 2 and len(found["losses"]) == 2
    for first, second in found["losses"]:
        assert math.isfinite(first) and first > 0
        assert second == pytest.approx(first, rel=1e-5)
    assert found["losses"][0] != found["losses"][1]
    assert not found["different"], "the copies of a variable differ"
