"""benchmarks.backends: what it says of curves, and one step under TensorFlow."""

import json

import pytest

from benchmarks import backends
from neas_tf.common.errors import NeasError


def test_distances_of_curves_and_of_steps():
    """Means so far: 2, 1.5, 2 are the losses 2, 1, 3."""
    assert backends.steps_of([2.0, 1.5, 2.0]) == [2.0, 1.0, 3.0]
    runs = [{"curve": [2.0, 1.5, 2.0]}, {"curve": [2.0, 1.75, 2.0]}]
    assert backends.distances(runs) == {"curve": 0.25, "step": 0.5}
    with pytest.raises(NeasError, match="several lengths"):
        backends.distances([{"curve": [1.0]}, {"curve": [1.0, 2.0]}])


def test_what_is_done_is_not_done_again(tmp_path, capsys):
    for name, loss in (("tensorflow", 0.5), ("jax", 0.75)):
        run = {"backend": name, "curve": [loss]}
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    assert backends.main([f"--work={tmp_path}", "--steps=1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["largest_distance"] == {"curve": 0.25, "step": 0.25}
    assert report["settings"]["size"] == 224 and "benchmarks.backends" in report["command"]


@pytest.mark.parametrize("flag", ["--steps=0", "--rate=2", "--backends=numpy", "--size=4"])
def test_bad_input_is_one_sentence(flag, capsys):
    assert backends.main([flag]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1 and "received" in printed.err
